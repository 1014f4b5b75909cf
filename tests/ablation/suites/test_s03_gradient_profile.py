import math
from typing import Any

import pytest
import torch

from segmentation.ablation.suites.bench import make_network, make_pictures
from segmentation.ablation.suites.s03_gradient_profile import SUITE, update_map

BLOCKS = ("E0", "E1", "E2", "B", "D2", "D1", "D0")


def made_up(starved: float, spread: float = 0.05, seeds: int = 5) -> tuple[list[Any], dict[str, Any]]:
    """Cells in which long skips alone have a C that is ``starved`` below that of the same with short ones."""
    grid = dict(SUITE.grid["cpu"]) | {"seeds": seeds}
    found: list[Any] = []
    for cell in SUITE.cells(grid):
        network = cell["network"]
        alone = network["long_skip"] != "none" and network["short_skip"] == "none"
        c = -2.0 - starved * alone * (1 + spread * (cell["seed"] - 2))
        blocks = {block: 10.0 ** (c if block == "B" else 0) for block in BLOCKS}
        moved = {"layers": ["a", "b"], "map": [[1e-3, 0.0]] * 2, "C": c, "loss": 1.0}
        found.append((cell, moved if "epochs" in cell else {"V": -1.0, "C": c, "blocks": blocks}))
    return found, grid


@pytest.mark.parametrize(
    ("starved", "spread", "verdict"), [(3.0, 0.05, "pass"), (1.0, 0.05, "inconclusive"), (0.5, 0.05, "fail")]
)
def test_verdict_follows_how_much_more_the_centre_starves(starved: float, spread: float, verdict: str):
    findings = SUITE.judge(*made_up(starved, spread))
    assert findings.verdict == verdict
    assert findings.readouts[0].value == pytest.approx(-starved)


def test_a_single_replicate_leaves_it_open():
    assert SUITE.judge(*made_up(3.0, seeds=1)).verdict == "inconclusive"


def test_v_and_c_stand_side_by_side_for_every_arm():
    findings = SUITE.judge(*made_up(3.0))
    assert len(findings.tables[0].rows) == 36
    assert list(findings.tables[0].columns)[-2:] == ["V", "C"]
    assert "long concat V = -1.0, C = -5.0, log10 G of the bottleneck -5.0; " in " ".join(findings.reading)


def test_cell_at_the_start_finds_the_v_of_long_skips_alone():
    cells = [cell for cell in SUITE.cells({"seeds": 1, "epochs": 1, "epoch_steps": 1}) if "epochs" not in cell]
    arms = {("concat", "none"), ("none", "none")}
    sigmoid = [
        cell for cell in cells if (cell["network"]["activation"], cell["network"]["norm"]) == ("sigmoid", "none")
    ]
    found = {
        pair: SUITE.run(cell)
        for cell in sigmoid
        if (pair := (cell["network"]["long_skip"], cell["network"]["short_skip"])) in arms
    }
    assert found["concat", "none"]["C"] < -5  # a decade a layer, down and up again
    assert found["none", "none"]["V"] < -10
    assert list(found["none", "none"]["blocks"]) == list(BLOCKS)


def test_update_map_is_the_mean_size_of_what_a_step_moves():
    data = make_pictures("blob", seed=0, train=8, test=1, size=16)
    network = make_network(0, depth=1, width=4, convs=1)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    found = update_map(network, data.images, data.labels, {"seed": 0, "epochs": 1, "epoch_steps": 1})
    after = dict(network.named_parameters())
    for layer, row in zip(found["layers"], found["map"], strict=True):
        moved = (after[f"{layer}.weight"].detach() - before[f"{layer}.weight"]).abs().mean().item()
        assert row == [pytest.approx(moved, rel=1e-5)]
    blocks = [
        math.log10((after[name] - before[name]).abs().mean().item())
        for name in (f"{block}.units.0.0.weight" for block in ("bottleneck", "encoder.0", "decoder.0"))
    ]
    assert found["C"] == pytest.approx(blocks[0] - (blocks[1] + blocks[2]) / 2, abs=1e-4)
    assert torch.isfinite(torch.tensor(found["loss"]))

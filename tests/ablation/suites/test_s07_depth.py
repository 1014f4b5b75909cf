from typing import Any

import pytest

from segmentation.ablation.suites.s07_depth import SUITE


def made_up(fall: float, spread: float = 0.02) -> tuple[list[Any], dict[str, Any]]:
    """Cells of the cpu grid, in which a plain U-Net with batch norm loses ``fall`` of Dice from 2 to 6 a block."""
    grid = dict(SUITE.grid["cpu"])
    found: list[Any] = []
    for cell in SUITE.cells(grid):
        network = cell["network"]
        suffers = network["short_skip"] == "none" and network["norm"] == "batch"
        dice = (
            0.9 - suffers * fall * (network["convs"] - 2) / 4 + spread * (cell["seed"] % 3 - 1) * network["convs"] / 6
        )
        found.append((cell, {"dice": dice, "loss": 1 - dice, "parameters": 1000 * network["convs"]}))
    return found, grid


@pytest.mark.parametrize(("fall", "verdict"), [(0.2, "pass"), (0.0, "inconclusive"), (-0.2, "fail")])
def test_verdict_follows_the_interaction(fall: float, verdict: str):
    found, grid = made_up(fall)
    for cell, result in found:
        if cell["network"]["short_skip"] == "none":  # else equal arms would have no spread at all
            result["dice"] += 0.01 * (cell["seed"] % 2 - 0.5) * cell["network"]["convs"]
    findings = SUITE.judge(found, grid)
    assert findings.verdict == verdict
    assert findings.readouts[0].value == pytest.approx(-fall, abs=0.01)


def test_only_the_interaction_with_batch_norm_decides():
    readouts = SUITE.judge(*made_up(0.2)).readouts
    assert [each.decides for each in readouts] == [True, *[False] * (len(readouts) - 1)]
    met = {each.name.partition(":")[0]: each.met for each in readouts}
    assert met["batch norm, plain"] is True
    assert met["batch norm, add"] is True


def test_cell_scores_a_deeper_network():
    grid = {"seeds": 1, "convs": [1, 2], "steps": 1}
    cells = [cell for cell in SUITE.cells(grid) if cell["of"] == ["batch norm, 2 a block", "add"]]
    assert len(SUITE.cells(grid)) == 12
    found = SUITE.run(cells[0])
    assert 0 <= found["dice"] <= 1
    assert found["parameters"] > 10_000

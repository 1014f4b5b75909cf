from typing import Any

import pytest
import torch

from segmentation.ablation.suites.s13_shift import ARMS, CLEAN, PRIMARY, SHIFTS, SUITE


def made_up(no_top: float, concat: float, spread: float = 0.005) -> tuple[list[Any], dict[str, Any]]:
    """Cells of the cpu grid: Dice 0.8 on clean images, and what is left of it under the primary shift."""
    grid = dict(SUITE.grid["cpu"])
    left = {"none": 0.5, "concat": concat, "no top": no_top, "add": 0.5}
    found: list[Any] = []
    for cell in SUITE.cells(grid):
        jitter = spread * (cell["seed"] - 3.5) * (cell["arm"] == "no top")
        dice = dict.fromkeys(SHIFTS, 0.8) | {PRIMARY: 0.8 * (left[cell["arm"]] + jitter)}
        blocks = {shift: {"E0": 0.5, "D0": 0.25} for shift in (CLEAN, PRIMARY)}
        found.append((cell, {"dice": dice, "susceptibility": blocks}))
    return found, grid


@pytest.mark.parametrize(("no_top", "verdict"), [(0.7, "pass"), (0.5, "inconclusive"), (0.3, "fail")])
def test_verdict_follows_the_share_that_is_kept(no_top: float, verdict: str):
    findings = SUITE.judge(*made_up(no_top, concat=0.5))
    assert findings.verdict == verdict
    assert findings.readouts[0].value == pytest.approx(no_top - 0.5)


def test_share_is_of_the_network_s_own_clean_dice():
    found, grid = made_up(0.5, concat=0.5, spread=0.0)
    for cell, result in found:
        if cell["arm"] == "no top":
            result["dice"][CLEAN] = 0.4
    assert SUITE.judge(found, grid).readouts[0].value == pytest.approx(0.5)  # 0.4 / 0.4 - 0.4 / 0.8


def test_drops_of_other_arms_and_shifts_are_context():
    findings = SUITE.judge(*made_up(0.7, concat=0.2))
    assert [each.decides for each in findings.readouts] == [True] + [False] * (len(findings.readouts) - 1)
    dropped = next(each for each in findings.readouts if "dropped" in each.name)
    assert dropped.value == pytest.approx(0.8 * 0.3)


def test_a_network_that_finds_nothing_keeps_nothing():
    found, grid = made_up(0.7, concat=0.5)
    for cell, result in found:
        if cell["arm"] == "none":
            result["dice"] = dict.fromkeys(SHIFTS, 0.0)
    assert SUITE.judge(found, grid).verdict == "pass"


def test_shifts_are_standardised_but_for_the_gain():
    images = torch.randn(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    images = (images - images.mean((2, 3), keepdim=True)) / images.std((2, 3), keepdim=True, unbiased=False)
    for name, shift in SHIFTS.items():
        deviation = float(name.split()[1]) if name.startswith("gain") else 1.0
        assert shift(images).std(dim=(1, 2, 3), unbiased=False).tolist() == pytest.approx([deviation] * 3, rel=1e-4)
        assert (name == CLEAN) == torch.equal(shift(images), images)


def test_cell_scores_every_shift(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        "segmentation.ablation.suites.s13_shift.BLOB", {"task": "blob", "train": 8, "test": 4, "size": 16}
    )
    cells = SUITE.cells({"seeds": 1, "steps": 1})
    assert [cell["arm"] for cell in cells] == list(ARMS)
    found = SUITE.run(cells[2])
    assert list(found["dice"]) == list(SHIFTS)
    assert list(found["susceptibility"][PRIMARY]) == ["E0", "E1", "E2", "B", "D2", "D1", "D0"]
    assert found["susceptibility"][PRIMARY]["E0"] > found["susceptibility"][CLEAN]["E0"]

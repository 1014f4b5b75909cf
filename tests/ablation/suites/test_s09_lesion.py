from typing import Any

import pytest

from segmentation.ablation.suites.s09_lesion import SUITE


def made_up(advantage: float, spread: float = 0.02) -> tuple[list[Any], dict[str, Any]]:
    """Cells of the cpu grid, in which a lesion leaves ``advantage`` more Dice with add."""
    grid = dict(SUITE.grid["cpu"])
    found: list[Any] = []
    for cell in SUITE.cells(grid):
        add = cell["short"] == "add"
        dice = 0.2 + add * (advantage + spread * (cell["seed"] - 2))
        paths = [8.0, 4.0, 2.0, 1.0, *[0.0] * (cell["length"] - 3)] if add else None
        result = {"intact": 0.9, "deleted": dice, "swapped": dice, "paths": paths}
        found.append((cell, result | {"each deleted": [dice] * cell["length"]}))
    return found, grid


@pytest.mark.parametrize(("advantage", "verdict"), [(0.6, "pass"), (0.3, "inconclusive"), (0.1, "fail")])
def test_verdict_follows_the_dice_after_deletion(advantage: float, verdict: str):
    findings = SUITE.judge(*made_up(advantage))
    assert findings.verdict == verdict
    assert findings.readouts[0].value == pytest.approx(advantage)


def test_every_length_must_meet_the_rule():
    found, grid = made_up(0.6)
    for cell, result in found:
        if cell["length"] == 16:
            result["deleted"] = 0.2 + 0.01 * cell["seed"]
    assert SUITE.judge(found, grid).verdict == "fail"


def test_length_of_paths_is_weighted_by_their_gradient():
    readout = SUITE.judge(*made_up(0.6)).readouts[-1]
    assert readout.value == pytest.approx((4 * 1 + 2 * 2 + 1 * 3) / 15 / 16)


def test_cell_deletes_every_unit_and_swaps_every_pair():
    cells = SUITE.cells({"seeds": 1, "lengths": [3], "steps": 1})
    plain, add = (SUITE.run(cell) for cell in cells)
    assert plain["paths"] is None
    assert len(add["paths"]) == 4
    assert len(plain["each deleted"]) == len(add["each deleted"]) == 3
    assert add["deleted"] == pytest.approx(sum(add["each deleted"]) / 3)

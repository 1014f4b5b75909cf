from typing import Any

import numpy as np
import pytest

from segmentation.ablation.suites.s14_erf import SIZE, SUITE, WHEN


def made_up(ratio: float, spread: float = 0.02) -> tuple[list[Any], dict[str, Any]]:
    """Cells of the cpu grid, in which concat has ``ratio`` times the centre mass of none."""
    grid = dict(SUITE.grid["cpu"])
    found: list[Any] = []
    for cell in SUITE.cells(grid):
        mass = 0.1 * (ratio * (1 + spread * (cell["seed"] - 2)) if cell["of"][1] == "concat" else 1.0)
        field = np.full((SIZE, SIZE), 0.5)
        field[SIZE // 2, SIZE // 2] = 1.0
        result: dict[str, Any] = {"field": field.tolist()}
        result |= {f"centre mass {when}": mass for when in WHEN} | {f"radius {when}": 1 / mass for when in WHEN}
        found.append((cell, result))
    return found, grid


@pytest.mark.parametrize(("ratio", "verdict"), [(1.5, "pass"), (1.0, "inconclusive"), (0.8, "fail")])
def test_verdict_follows_the_ratio(ratio: float, verdict: str):
    findings = SUITE.judge(*made_up(ratio))
    assert findings.verdict == verdict
    assert findings.readouts[0].value == pytest.approx(ratio, rel=1e-2)


def test_the_ratio_is_a_geometric_mean():
    found, grid = made_up(1.0, spread=0.0)
    for cell, result in found:
        if cell["of"][1] == "concat":
            result["centre mass after training"] = 0.1 * 2.0 ** (cell["seed"] - 1)  # a half to 8 times
    assert SUITE.judge(found, grid).readouts[0].value == pytest.approx(2.0)


def test_only_trained_networks_decide_and_a_smaller_radius_meets_its_expectation():
    findings = SUITE.judge(*made_up(1.5))
    assert [each.name.split(", concat")[0] for each in findings.readouts if each.decides] == [
        "short none, after training: centre mass",
        "short add, after training: centre mass",
    ]
    assert all(each.met for each in findings.readouts)


def test_long_skips_leave_the_theoretical_field():
    table = SUITE.judge(*made_up(1.5)).tables[-1]
    assert table.columns == ["", "none", "concat"]
    assert table.rows[0][1] == table.rows[0][2]


def test_cell_finds_a_field_within_the_picture():
    cells = SUITE.cells({"seeds": 1, "steps": 1, "inputs": 2})
    found = SUITE.run(cells[1])
    assert np.shape(found["field"]) == (SIZE, SIZE)
    assert np.max(found["field"]) == 1.0
    for when in WHEN:
        assert 0 < found[f"centre mass {when}"] < 1
        assert 0 < found[f"radius {when}"] < SIZE

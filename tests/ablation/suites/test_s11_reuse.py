from typing import Any

import pytest

from segmentation.ablation.suites.s11_reuse import LEVELS, SUITE

PARTS = ("share", "cka")
GRID = SUITE.grid["cpu"]
CELLS = SUITE.cells(GRID)


def made_up(dense_gain: float, spread: float = 0.003) -> tuple[list[Any], Any]:
    """Cells of the cpu grid with what they might have found."""
    found: list[Any] = []
    for cell in CELLS:
        jitter = spread * (cell["seed"] - 2)
        result: dict[str, Any] = {"dice": 0.8 + (dense_gain + jitter if cell["of"][1] == "dense" else 0.0)}
        if cell["look"]:
            dense = cell["of"][1] == "dense"
            result |= {part: {f"L{level}": 0.5 for level in LEVELS} for part in PARTS}
            result["lost"] = {f"{how} L{level}": 0.3 - 0.1 * level for how in ("zero", "shuffle") for level in LEVELS}
            result["reuse"] = [[1.0, None], [0.25 * (1 + cell["seed"] % 2), 1.0]] if dense else None
        found.append((cell, result))
    return found, GRID


@pytest.mark.parametrize(("dense_gain", "verdict"), [(0.01, "pass"), (-0.02, "inconclusive"), (-0.08, "fail")])
def test_verdict_follows_the_loss_of_dense(dense_gain: float, verdict: str):
    assert SUITE.judge(*made_up(dense_gain)).verdict == verdict


def test_one_budget_where_dense_is_worse_fails_the_suite():
    found, grid = made_up(0.05)
    for cell, result in found:
        if cell["of"] == ["width 4", "dense"]:
            result["dice"] -= 0.2
    findings = SUITE.judge(found, grid)
    assert findings.verdict == "fail"
    assert [each.met for each in findings.readouts if each.decides] == [False, True, True]


def test_add_and_the_use_of_long_skips_are_context():
    decides = [each.name for each in SUITE.judge(*made_up(0.0)).readouts if each.decides]
    assert len(decides) == 3
    assert all("dense minus plain" in name for name in decides)


def test_budgets_differ_by_at_most_1_percent():
    tables = SUITE.judge(*made_up(0.0)).tables
    rows = next(table.rows for table in tables if table.title == "Budgets")
    for budget in {row[0] for row in rows}:
        counts = {row[1]: float(row[2] or 0) for row in rows if row[0] == budget}
        assert counts["add"] == pytest.approx(counts["none"], rel=0.01)
        assert counts["dense"] == pytest.approx(counts["none"], rel=0.01)


def test_reuse_map_is_the_mean_over_replicates():
    figure = SUITE.judge(*made_up(0.0)).figures[-1]
    assert figure.values[1] == pytest.approx([0.35, 1.0])  # seeds 0, 2, 4 have 0.25, seeds 1 and 3 have 0.5


def test_cell_measures_the_use_of_skips_where_it_shall_look():
    cells = SUITE.cells({"widths": [4], "look_at": 4, "seeds": 1, "steps": 2})
    small = {"task": "thin", "noise": 0.3, "train": 8, "test": 16, "size": 16}
    looked = SUITE.run(next(cell for cell in cells if cell["of"][1] == "dense") | {"task": small})
    assert 0 <= looked["dice"] <= 1
    assert list(looked["lost"]) == [f"{how} L{level}" for how in ("zero", "shuffle") for level in LEVELS]
    assert all(0 < value < 1 for value in looked["share"].values())
    assert all(value < 1.01 for value in looked["cka"].values())
    assert len(looked["reuse"]) == 5  # four convolutions and the 1x1 unit
    assert set(SUITE.run(cells[0] | {"task": small, "look": False})) == {"dice"}

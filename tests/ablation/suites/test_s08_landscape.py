import math
from typing import Any

import pytest

from segmentation.ablation.suites.s08_landscape import SUITE
from segmentation.figures import Figure

DRAWN = [Figure("lines", "line"), Figure("surface", "plane"), Figure("surface", "path")]


def made_up(ratio: float, swing: float = 1.3, seeds: int = 5) -> tuple[list[Any], dict[str, Any]]:
    """Cells in which lambda_max of the plain network is ``ratio`` times that of the others, give or take a factor."""
    grid = dict(SUITE.grid["cpu"]) | {"seeds": seeds}
    found: list[Any] = []
    for cell in SUITE.cells(grid):
        plain = cell["of"][1] == "plain"
        result: dict[str, Any] = dict.fromkeys(("trace", "ratio", "rise", "loss", "centre", "dice"), 0.1 + 0.1 * plain)
        result["lambda_max"] = 10.0 * (ratio * swing ** (cell["seed"] - 2) if plain else 1)
        result["figures"] = [figure.to_plain() for figure in DRAWN] if cell["closeup"] else []
        found.append((cell, result))
    return found, grid


@pytest.mark.parametrize(
    ("ratio", "swing", "verdict"),
    [(10.0, 1.3, "pass"), (2.0, 1.3, "fail"), (4.0, 10.0, "inconclusive"), (0.2, 1.3, "fail")],
)
def test_verdict_follows_the_median_ratio_and_its_interval(ratio: float, swing: float, verdict: str):
    findings = SUITE.judge(*made_up(ratio, swing))
    assert findings.verdict == verdict
    median, interval = findings.readouts[:2]
    assert median.value == pytest.approx(ratio)
    assert interval.value == pytest.approx(math.log10(ratio))


def test_a_single_replicate_leaves_it_open():
    assert SUITE.judge(*made_up(10.0, seeds=1)).verdict == "inconclusive"


def test_secondary_readouts_never_decide():
    found, grid = made_up(10.0)
    for _, result in found:
        result["rise"] = result["ratio"] = result["loss"] = 0.0
    assert SUITE.judge(found, grid).verdict == "pass"


def test_pictures_of_the_first_replicate_are_named_after_their_network():
    titles = [figure.title for figure in SUITE.judge(*made_up(10.0)).figures]
    assert titles[2:5] == ["plain: line", "add: line", "dense: line"]
    assert titles[-1] == "dense: path"


def test_cell_measures_curvature_landscape_and_path():
    grid = {"seeds": 1, "steps": 2, "pairs": 1, "points": 3, "closeup": 3, "samples": 2}
    cell = SUITE.cells(grid)[0]
    found = SUITE.run(cell | {"network": cell["network"] | {"convs": 1, "width": 2, "depth": 1}})
    assert found["lambda_max"] > 0
    assert [figure["kind"] for figure in found["figures"]] == ["lines", "surface", "surface"]
    path = found["figures"][2]["path"]
    assert len(path) == 4  # the start, both steps, and the end once more
    assert tuple(path[-1]) == (0.0, 0.0)

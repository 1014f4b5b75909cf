"""s09: a residual network is like an ensemble of paths: delete or swap its units at test time, and it still works."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from segmentation.ablation.suites.bench import dice_of, fit, loss_of, make_pictures, mean
from segmentation.ablation.suites.suite import Cell, Findings, Found, Suite, above, below, gain, replicates, within
from segmentation.ablation.suites.views import bars_of, table_of
from segmentation.figures import Figure, Series
from segmentation.model.chain import Chain
from segmentation.probes.block_lesion import bypassed, path_profile, removable_branches, swapped

SHORTS = {"none": "plain", "add": "add"}
Lesion = Callable[[], AbstractContextManager[None]]


def _cells(grid: Any) -> list[dict[str, Any]]:
    return [
        {"length": length, "short": short, "steps": grid["steps"], "seed": seed, "of": [_row(length), SHORTS[short]]}
        for seed in range(grid["seeds"])
        for length in grid["lengths"]
        for short in SHORTS
    ]


def _row(length: int) -> str:
    """Name of a length."""
    return f"{length} units"


def _run(cell: Cell) -> dict[str, Any]:
    length = cell["length"]
    data = make_pictures("blob", cell["seed"], size=24)
    chain = Chain(length, 8, 1, 2, cell["short"], "relu", "batch", "he", cell["seed"])
    fit(chain, data.images, data.labels, cell["steps"], cell["seed"])
    joins = list(removable_branches(chain, data.images[:1]).values())

    def dice_under(lesion: Lesion) -> float:
        with lesion():
            return mean(dice_of(chain, data.test_images, data.test_labels))

    deleted = [dice_under(lambda join=join: bypassed(join)) for join in joins]
    exchanged = [dice_under(lambda i=i: swapped(chain.units, i, i + 1)) for i in range(length - 1)]
    batches = [(data.images[:8], data.labels[:8])]
    paths = path_profile(chain, loss_of, batches, joins, seed=cell["seed"]) if cell["short"] == "add" else None
    return {
        "intact": mean(dice_of(chain, data.test_images, data.test_labels)),
        "each deleted": deleted,
        "deleted": mean(deleted),
        "swapped": mean(exchanged),
        "paths": list(paths.all_paths) if paths else None,
    }


def _judge(found: Found, grid: Any) -> Findings:
    intact, deleted, exchanged = (replicates(found, key) for key in ("intact", "deleted", "swapped"))
    lengths = grid["lengths"]

    def advantage(values: Any, length: int) -> list[float]:
        """Value with add less value of the plain chain; one a replicate."""
        return gain(values[_row(length)]["add"], values[_row(length)]["plain"])

    paths = {length: [r["paths"] for cell, r in found if cell["of"] == [_row(length), "add"]] for length in lengths}
    shares = [_mean_length(row) / max(lengths) for row in paths[max(lengths)]]
    return Findings(
        readouts=[
            *(
                above(f"{length} units, one deleted: Dice with add minus plain",
                      "above 0.3 (.77-.87 minus .2-.3 in a pilot)", advantage(deleted, length), 0.3)
                for length in lengths
            ),
            *(
                above(f"{length} units, two neighbours swapped: Dice with add minus plain", "above 0",
                      advantage(exchanged, length), 0.0, decides=False)
                for length in lengths
            ),
            *(
                within(f"{length} units, intact: Dice with add minus plain", "within 0.1 of 0: both have learnt",
                       advantage(intact, length), -0.1, 0.1, decides=False)
                for length in lengths
            ),
            below(f"{max(lengths)} units, add: mean length of the paths that carry the gradient, share of the units",
                  "below 0.5, the mean over all paths", shares, 0.5, decides=False),
        ],
        reading=[
            "After training, one unit at a time is deleted (with add F = 0, so that x passes on; in the plain chain "
            "the unit becomes the identity), or exchanged with its neighbour; the Dice is the mean over all units or "
            "all neighbours. Both chains have batch norm, the same units and the same initial weights, and nothing "
            "is trained again.",
            "Little loss means that units do not depend strictly on each other, as in an ensemble of paths of many "
            "lengths (Veit et al. 2016, arXiv:1605.06431). It is a property of what was learnt, not yet a gain: "
            "compare the intact networks. The gradient of paths of k units is the mean norm of the gradient at the "
            "image through k random units, times the number of such paths.",
        ],
        figures=[
            bars_of(_conditions(intact, deleted, exchanged), "Dice, intact and with lesions",
                    "mean Dice over test cases"),
            *(_deletion_figure(found, length) for length in lengths),
            _path_figure(paths),
        ],
        tables=[table_of(_conditions(intact, deleted, exchanged), "Mean Dice with 95 % interval over replicates")],
    )  # fmt: skip


def _mean_length(all_paths: list[float]) -> float:
    """Mean number of units on a path, each length weighted by the gradient of all its paths.

    Examples:
        >>> _mean_length([1.0, 2.0, 1.0])
        1.0
    """
    return float(np.average(range(len(all_paths)), weights=all_paths))


def _conditions(intact: Any, deleted: Any, exchanged: Any) -> dict[str, dict[str, list[float]]]:
    """All conditions at all lengths, one group each."""
    named = {"intact": intact, "one deleted": deleted, "neighbours swapped": exchanged}
    return {f"{row}, {name}": values[row] for row in intact for name, values in named.items()}


def _deletion_figure(found: Found, length: int) -> Figure:
    """Dice by the unit that was deleted: mean and range over seeds."""
    series: list[Series] = []
    for short, name in SHORTS.items():
        cells = [r for cell, r in found if (cell["length"], cell["short"]) == (length, short)]
        rows = np.array([each["each deleted"] for each in cells])
        ends = {"low": rows.min(0).tolist(), "high": rows.max(0).tolist()}
        series.append(Series(name, rows.mean(0).tolist(), list(range(1, length + 1)), **ends))
    title = f"{length} units: Dice by the unit that is deleted, mean and range over seeds"
    return Figure("lines", title, "deleted unit, from the input", "mean Dice over test cases", series=series)


def _path_figure(paths: dict[int, list[list[float]]]) -> Figure:
    """Share of the gradient at the image by length of path, mean over seeds."""
    shares = {n: np.mean([np.divide(row, sum(row)) for row in rows], axis=0) for n, rows in paths.items()}
    series = [Series(_row(length), share.tolist()) for length, share in shares.items()]
    title = "Add: gradient at the image by length of path"
    return Figure("lines", title, "units on the path", "share of the sum over all lengths", series=series)


SUITE = Suite(
    name="s09-lesion",
    title="A residual network as an ensemble",
    claim=(
        'Less reliance just on multiplication. They only need to learn the residual (the "delta") f(x)-x not the whole '
        "f(x) from scratch."
    ),
    pass_rule=(
        "In chains with batch norm, after one unit is deleted without any further training, the mean Dice with "
        "additive skips exceeds that of the plain chain by more than 0.3, at every length, with its whole 95 % "
        "interval over replicates."
    ),
    grid={
        "smoke": {"lengths": [8], "seeds": 1, "steps": 50},
        "cpu": {"lengths": [8, 16], "seeds": 5, "steps": 200},
        "gpu": {"lengths": [8, 16, 32], "seeds": 10, "steps": 1000},
    },
    cells=_cells,
    run=_run,
    judge=_judge,
)

"""s08: skips make the loss landscape smoother: curvature, lines, planes and the path of the training."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from segmentation.ablation.suites.bench import dice_of, fit, loss_of, make_network, make_pictures, mean
from segmentation.ablation.suites.suite import Cell, Findings, Found, Readout, Suite, above, gain, replicates
from segmentation.ablation.suites.views import bars_of, table_of
from segmentation.figures import Figure, Series
from segmentation.probes.context import Batch, on_batches
from segmentation.probes.curvature import measure_curvature
from segmentation.probes.landscape import draw, survey
from segmentation.probes.modes import settle
from segmentation.probes.path import draw_path, path_plane, principal_path
from segmentation.probes.terrain import ring_rise
from segmentation.probes.weights import flat_weights

SHORTS = {"none": "plain", "add": "add", "dense": "dense"}
NETWORK: dict[str, Any] = {"width": 6, "depth": 3, "convs": 6}
"""42 convolutions in its blocks."""
SNAPSHOTS = 10
LEAST_RATIO = 3.0
HIGHEST_RISE = 1e6
"""A loss that overflows counts as this."""
HESSIAN_IMAGES, SURVEY_IMAGES = 8, 16
GROUP = "42 convolutions"


def _cells(grid: Any) -> list[dict[str, Any]]:
    return [
        {
            "network": NETWORK | {"short_skip": short},
            "seed": seed,
            "steps": grid["steps"],
            "pairs": grid["pairs"],
            "points": grid["points"],
            "closeup": grid["closeup"] if seed == 0 else None,
            "samples": grid["samples"],
            "of": [GROUP, name],
        }
        for seed in range(grid["seeds"])
        for short, name in SHORTS.items()
    ]


def _run(cell: Cell) -> dict[str, Any]:
    data = make_pictures("blob", cell["seed"], size=32)
    network = make_network(cell["seed"], **cell["network"])
    seen = [(data.images[:SURVEY_IMAGES], data.labels[:SURVEY_IMAGES])]
    initial = on_batches(settle(make_network(cell["seed"], **cell["network"]), seen), loss_of, seen)
    snapshots = [flat_weights(network)]
    every = max(1, cell["steps"] // SNAPSHOTS)

    def keep(step: int) -> None:
        if (step + 1) % every == 0:
            snapshots.append(flat_weights(network))

    losses = fit(network, data.images, data.labels, cell["steps"], cell["seed"], after_step=keep)
    network.eval()
    batch = [(data.images[:HESSIAN_IMAGES], data.labels[:HESSIAN_IMAGES])]
    curvature = measure_curvature(network, loss_of, batch, cell["seed"], samples=cell["samples"])
    seed, points = cell["seed"], cell["points"]
    found = survey(network, loss_of, seen, initial, cell["pairs"], points, points, seed)
    result = {
        "lambda_max": curvature.largest,
        "trace": curvature.trace,
        "ratio": curvature.ratio,
        "rise": min(found.spread()["rise_half"]["median"], HIGHEST_RISE),
        "loss": mean(losses[-10:]),
        "centre": found.centre,
        "dice": mean(dice_of(network, data.test_images, data.test_labels)),
    }
    figures = _closeup(network, seen, initial, snapshots, cell) if cell["closeup"] else []
    return result | {"figures": [figure.to_plain() for figure in figures]}


def _closeup(
    network: Any, batches: Sequence[Batch], initial: float, snapshots: Sequence[Tensor], cell: Cell
) -> list[Figure]:
    """A fine line and plane of one pair of directions, and the path of the training with snapshots of shape (P,)."""
    points = cell["closeup"]
    found = survey(network, loss_of, batches, initial, 1, points, 2 * points - 1, cell["seed"])
    line, plane, _ = draw(found, np.stack([ring_rise(each, found.axis)[1] for each in found.planes]))
    path = principal_path([*snapshots, flat_weights(network)])
    return [line, plane, draw_path(path, *path_plane(network, loss_of, batches, path, points // 2 + 1))]


def _judge(found: Found, grid: Any) -> Findings:
    values = {key: replicates(found, key) for key in ("lambda_max", "trace", "ratio", "rise", "loss", "dice", "centre")}
    sharpness, (plain, add, dense) = values["lambda_max"][GROUP], SHORTS.values()
    add_decades = _decades(sharpness, plain, add)
    loss = {name: np.mean(each) for name, each in values["loss"][GROUP].items()}
    return Findings(
        readouts=[
            _typical_ratio(add_decades),
            above("lambda_max: log10 of plain over add", "above 0 (about 1.1 in a pilot)", add_decades, 0.0),
            above("lambda_max: log10 of plain over dense", "above 0 (about 1.1 in a pilot)",
                  _decades(sharpness, plain, dense), 0.0, decides=False),
            above("Rise of the loss at distance 0.5, plain minus add", "above 0, if it tells them apart",
                  gain(values["rise"][GROUP][plain], values["rise"][GROUP][add]), 0.0, decides=False),
            above("|lambda_min / lambda_max|, plain minus add", "above 0, if it tells them apart (not in a pilot)",
                  gain(values["ratio"][GROUP][plain], values["ratio"][GROUP][add]), 0.0, decides=False),
            above("Training loss after equal steps, plain minus add", "above 0: they stand at different heights",
                  gain(values["loss"][GROUP][plain], values["loss"][GROUP][add]), 0.0, decides=False),
        ],
        reading=[
            "lambda_max is the largest eigenvalue of the Hessian at the trained weights, by Lanczos' method; lines "
            "and planes follow Li et al. 2018 (arXiv:1712.09913), with filter-normalised directions, in evaluation "
            "mode, "
            f"on {SURVEY_IMAGES} training images. Rises are medians over {grid['pairs']} pairs of directions.",
            f"All are compared after equal steps, and stand at different losses then: plain {loss[plain]:.3f}, add "
            f"{loss[add]:.3f}, dense {loss[dense]:.3f} on average. A network that fits better stands elsewhere, so "
            "that part of the difference in curvature can be a difference in fit. Batch norm is there in all three; "
            "it smooths the loss by itself (Santurkar et al. 2018, arXiv:1805.11604). A plane shows two of very many "
            "dimensions; mind the axis before believing a picture. The path of a training lies in its own plane, "
            "where any path looks straight.",
        ],
        figures=[
            bars_of({GROUP: {name: np.log10(each).tolist() for name, each in sharpness.items()}},
                    "Largest eigenvalue of the Hessian after training", "log10 lambda_max"),
            _scatter(sharpness, values["loss"][GROUP]),
            *_closeups(found),
        ],
        tables=[table_of(_by_measure(values), "Mean with 95 % interval over replicates")],
    )  # fmt: skip


def _decades(values: Mapping[str, Sequence[float]], a: str, b: str) -> list[float]:
    """log10 of a over b; one a replicate.

    Examples:
        >>> _decades({"plain": [100.0], "add": [10.0]}, "plain", "add")
        [1.0]
    """
    return [math.log10(x / y) for x, y in zip(values[a], values[b], strict=True)]


def _typical_ratio(decades: Sequence[float]) -> Readout:
    """Median ratio over replicates; a single replicate leaves it open."""
    median = 10 ** float(np.median(decades))
    met = None if len(decades) < 2 else median >= LEAST_RATIO
    name = "lambda_max: plain over add, median over replicates"
    return Readout(name, f"at least {LEAST_RATIO:g} (10 to 20 in a pilot)", median, met=met)


def _by_measure(values: Mapping[str, Any]) -> dict[str, Any]:
    """Every measure as a row of the table."""
    names = {
        "lambda_max": "lambda_max",
        "trace": "trace of the Hessian",
        "ratio": "|lambda_min / lambda_max|",
        "rise": "rise of the loss at distance 0.5",
        "loss": "training loss, last 10 steps",
        "centre": "loss at the weights, evaluation mode",
        "dice": "Dice on test cases",
    }
    return {name: values[key][GROUP] for key, name in names.items()}


def _scatter(sharpness: Mapping[str, Sequence[float]], loss: Mapping[str, Sequence[float]]) -> Figure:
    """lambda_max against the training loss, replicates in the order of their loss."""
    series: list[Series] = []
    for name in SHORTS.values():
        pairs = sorted(zip(loss[name], sharpness[name], strict=True))
        series.append(Series(name, [y for _, y in pairs], [x for x, _ in pairs]))
    title = "Curvature against fit: one point a replicate"
    return Figure("lines", title, "training loss, last 10 steps", "lambda_max", series=series, log_y=True)


def _closeups(found: Found) -> list[Figure]:
    """Lines, planes and paths of the first replicate, each kind side by side."""
    drawn = [(cell["of"][1], [Figure.from_plain(each) for each in r["figures"]]) for cell, r in found if r["figures"]]
    return [replace(each[kind], title=f"{name}: {each[kind].title}") for kind in range(3) for name, each in drawn]


SUITE = Suite(
    name="s08-landscape",
    title="A smoother loss landscape",
    claim="Adding skip connections makes the loss landscape smoother.",
    pass_rule=(
        "In a U-Net of 42 convolutions with batch norm, after equal steps, lambda_max of the plain network is at "
        f"least {LEAST_RATIO:g} times that with additive short skips in the median replicate, and is above it with the "
        "whole 95 % interval of the log ratio over replicates."
    ),
    grid={
        "smoke": {"seeds": 1, "steps": 38, "pairs": 1, "points": 5, "closeup": 5, "samples": 2},
        "cpu": {"seeds": 5, "steps": 150, "pairs": 5, "points": 11, "closeup": 21, "samples": 10},
        "gpu": {"seeds": 10, "steps": 1000, "pairs": 10, "points": 21, "closeup": 51, "samples": 30},
    },
    cells=_cells,
    run=_run,
    judge=_judge,
)

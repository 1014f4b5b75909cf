"""s01: gradients vanish along a chain of layers, above all with sigmoid and tanh; short skips keep them."""

import math
from collections import defaultdict
from typing import Any

import numpy as np

from segmentation.ablation.suites.bench import loss_of, make_pictures
from segmentation.ablation.suites.suite import Cell, Findings, Found, Suite, Table, above, below, within
from segmentation.figures import Figure, Series
from segmentation.model.chain import Chain
from segmentation.probes.gradients import layer_gradients, vanishing_index

ACTIVATIONS = ("sigmoid", "tanh", "relu")
INITS = ("torch", "xavier", "he")
NORMS = ("none", "batch")
SHORTS = ("none", "add", "dense")
Arm = tuple[str, str, str, str]
"""Activation, initialisation, normalisation, short skip."""


def _cells(grid: Any) -> list[dict[str, Any]]:
    return [
        {"activation": activation, "init": init, "norm": norm, "short": short, "lengths": grid["lengths"], "seed": seed}
        for seed in range(grid["seeds"])
        for activation in ACTIVATIONS
        for init in INITS
        for norm in NORMS
        for short in SHORTS
    ]


def _run(cell: Cell) -> dict[str, Any]:
    data = make_pictures("blob", cell["seed"], train=16, test=1, size=16)
    decades: list[float] = []
    first: list[float] = []
    for length in cell["lengths"]:
        chain = Chain(length, 16, 1, 2, cell["short"], cell["activation"], cell["norm"], cell["init"], cell["seed"])
        layers = layer_gradients(chain, loss_of, [(data.images, data.labels)])
        units = [layer.gradient for layer in layers if layer.name.startswith("block.units.")]
        decades.append(vanishing_index(units))
        first.append(math.log10(max(units[0], 1e-45)))
    return {"decades": decades, "first": first}


def _judge(found: Found, grid: Any) -> Findings:
    lengths = grid["lengths"]
    decades: defaultdict[Arm, list[list[float]]] = defaultdict(list)
    first: defaultdict[Arm, list[list[float]]] = defaultdict(list)
    for cell, result in found:
        arm = (cell["activation"], cell["init"], cell["norm"], cell["short"])
        decades[arm].append(result["decades"])
        first[arm].append(result["first"])

    def slopes(activation: str, init: str, short: str) -> list[float]:
        """Decades a layer between input and output, by least squares over the lengths; one value a replicate."""
        return [float(np.polyfit(lengths, row, 1)[0]) for row in decades[activation, init, "none", short]]

    exploding = [row[-1] for row in first["relu", "he", "none", "add"]]
    return Findings(
        readouts=[
            below(
                "sigmoid, plain: decades a layer",
                "below -0.5 (-0.87 in a pilot)",
                slopes("sigmoid", "torch", "none"),
                -0.5,
            ),
            within("sigmoid, add: decades a layer", "within 0.1 of 0", slopes("sigmoid", "torch", "add"), -0.1, 0.1),
            within(
                "sigmoid, dense: decades a layer", "within 0.1 of 0", slopes("sigmoid", "torch", "dense"), -0.1, 0.1
            ),
            above(
                "tanh with Xavier, plain: decades a layer",
                "above -0.1: it does not vanish",
                slopes("tanh", "xavier", "none"),
                -0.1,
            ),
            below(
                "ReLU with PyTorch's default, plain: decades a layer",
                "below -0.1: it vanishes too",
                slopes("relu", "torch", "none"),
                -0.1,
                decides=False,
            ),
            above(
                f"ReLU with He, add, {lengths[-1]} layers: log10 of the first gradient",
                "above 0: it explodes",
                exploding,
                0.0,
                decides=False,
            ),
        ],
        reading=[
            "Decades are log10 of the RMS gradient of the first layer over that of the last, at the start, for "
            "chains of "
            f"{', '.join(map(str, lengths))} convolutions. Negative: the gradient is smaller at the input.",
            "The claim names sigmoid and tanh together. What decides is the product of derivative and weights: the "
            "derivative of the sigmoid is at most 0.25, that of tanh is 1 at 0, so with Xavier's weights tanh need "
            "not vanish, and ReLU can where the weights are too small. Preserved does not mean bounded either: a sum "
            "of many branches that are not normalised can grow with depth. A batch norm hides the effect altogether, "
            "and can turn it round.",
        ],
        figures=[
            _figure(decades, lengths, activation, init)
            for activation, init in (("sigmoid", "torch"), ("tanh", "xavier"), ("relu", "torch"), ("relu", "he"))
        ],
        tables=[
            _table(decades, lengths, "Decades from the first layer to the last"),
            _table(first, lengths, "log10 of the first RMS gradient"),
        ],
    )


def _figure(decades: dict[Arm, list[list[float]]], lengths: list[int], activation: str, init: str) -> Figure:
    """Decades against length: one line for each short skip, without normalisation."""
    series: list[Series] = []
    for short in SHORTS:
        rows = np.array(decades[activation, init, "none", short])
        ends = {"low": rows.min(0).tolist(), "high": rows.max(0).tolist()}
        series.append(Series({"none": "plain"}.get(short, short), rows.mean(0).tolist(), lengths, **ends))
    title = f"{activation}, {init} weights, no norm: mean and range over seeds"
    return Figure("lines", title, "layers", "log10 gradient, first / last layer", series=series, reference=0.0)


def _table(values: dict[Arm, list[list[float]]], lengths: list[int], title: str) -> Table:
    """Mean over seeds for every arm."""
    rows = [[*arm, *np.mean(replicates, axis=0).round(2).tolist()] for arm, replicates in values.items()]
    return Table(title, ["activation", "init", "norm", "short skip", *(f"{n} layers" for n in lengths)], rows)


SUITE = Suite(
    name="s01-vanish",
    title="Vanishing gradients",
    claim=(
        "Activation functions like sigmoid or tanh compress their input values into a small range ... leading to "
        "derivatives that are less than 1. When gradients are multiplied across many layers, they get smaller and "
        "smaller, potentially approaching zero. ... This creates a shortcut path that allows the gradient to flow "
        "directly through the skipped layers."
    ),
    pass_rule=(
        "Without normalisation: the plain sigmoid chain loses more than 0.5 decades a layer; with add and with dense "
        "it stays within 0.1 a layer; tanh with Xavier's weights loses less than 0.1. Each with its whole 95 % "
        "interval over seeds."
    ),
    grid={
        "smoke": {"lengths": [4, 8, 16, 32], "seeds": 1},
        "cpu": {"lengths": [4, 8, 16, 32], "seeds": 5},
        "gpu": {"lengths": [4, 8, 16, 32, 64], "seeds": 20},
    },
    cells=_cells,
    run=_run,
    judge=_judge,
)

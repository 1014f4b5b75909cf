"""s03: the gradient over the levels of a U-Net: long skips alone starve its centre, short ones feed it."""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from segmentation.ablation.suites.bench import fit, loss_of, make_network, make_pictures, mean
from segmentation.ablation.suites.suite import Cell, Findings, Found, Suite, Table, below, gain, within
from segmentation.ablation.suites.views import interval_text
from segmentation.figures import Figure, Series
from segmentation.model.order import hidden_layers, weight_of
from segmentation.probes.gradients import SMALLEST, centre_starvation, profile
from segmentation.statistics import mean_ci
from segmentation.training.updates import measure_update

LONGS = ("none", "concat", "add")
SHORTS = ("none", "add", "dense")
ACTIVATIONS = ("sigmoid", "relu")
NORMS = ("none", "batch")
CORNERS = [(long, short) for long in ("none", "concat") for short in ("none", "add")]
"""The four corners of Drozdzal's figure: neither skip, short only, long only, both."""
BASE: dict[str, Any] = {"depth": 3, "convs": 2, "init": "torch"}
ENDS = {"E0": "encoder.0.units.", "B": "bottleneck.units.", "D0": "decoder.0.units."}
RATE = 1e-2
Arm = tuple[str, str, str, str]
"""Activation, normalisation, long skip, short skip."""


def _cells(grid: Any) -> list[dict[str, Any]]:
    maps = [
        {
            "network": BASE | {"activation": "sigmoid", "norm": "none", "long_skip": long, "short_skip": short},
            "seed": seed,
            "epochs": grid["epochs"],
            "epoch_steps": grid["epoch_steps"],
        }
        for seed in range(grid["seeds"])
        for long, short in CORNERS
    ]
    starts = [
        {
            "network": BASE | {"activation": activation, "norm": norm, "long_skip": long, "short_skip": short},
            "seed": seed,
        }
        for seed in range(grid["seeds"])
        for activation in ACTIVATIONS
        for norm in NORMS
        for long in LONGS
        for short in SHORTS
    ]
    return maps + starts


def _arm(cell: Cell) -> Arm:
    """What a cell is of."""
    network = cell["network"]
    return network["activation"], network["norm"], network["long_skip"], network["short_skip"]


def _run(cell: Cell) -> dict[str, Any]:
    data = make_pictures("blob", cell["seed"], train=32, test=1, size=32)
    network = make_network(cell["seed"], **cell["network"])
    if "epochs" in cell:
        return update_map(network, data.images, data.labels, cell)
    return profile(network, loss_of, [(data.images[:8], data.labels[:8])], cell["network"]["depth"])


def update_map(network: Any, images: Tensor, labels: Tensor, cell: Cell) -> dict[str, Any]:
    """Train with SGD and record M, the mean |dW| of each hidden layer over the steps of each epoch.

    Args:
        network: Changed in place.
        images: Images, shape ``(N, 1, S, S)``.
        labels: Label maps, shape ``(N, S, S)``.
        cell: ``seed``, ``epochs`` and ``epoch_steps``, the steps of each.

    Returns:
        ``layers``, from input to output; ``map``, one row a layer and one column an epoch; ``C``, the centre
        starvation of M over the whole training, in decades; ``loss``, the mean of the last epoch.
    """
    weights = {name: weight_of(layer) for name, layer in hidden_layers(network, images[:1]).items()}
    before: list[Tensor] = []
    moved: list[list[float]] = []

    def remember(step: int) -> None:
        before[:] = [weight.detach().clone() for weight in weights.values()]

    def measure(step: int) -> None:
        pairs = zip(weights.values(), before, strict=True)
        moved.append([measure_update(weight.detach(), old)[0].item() for weight, old in pairs])

    steps = cell["epochs"] * cell["epoch_steps"]
    losses = fit(network, images, labels, steps, cell["seed"], RATE, "sgd", after_backward=remember, after_step=measure)
    table = np.array(moved).reshape(cell["epochs"], cell["epoch_steps"], -1).mean(axis=1).T
    blocks = {
        block: float(np.mean([row.mean() for name, row in zip(weights, table, strict=True) if name.startswith(prefix)]))
        for block, prefix in ENDS.items()
    }
    end = mean(losses[-cell["epoch_steps"] :])
    return {"layers": list(weights), "map": table.tolist(), "C": centre_starvation(blocks), "loss": end}


def _judge(found: Found, grid: Any) -> Findings:
    starts = _by_arm([(cell, result) for cell, result in found if "epochs" not in cell])
    maps = _by_arm([(cell, result) for cell, result in found if "epochs" in cell])
    c = {arm: [each["C"] for each in results] for arm, results in starts.items()}
    v = {arm: [each["V"] for each in results] for arm, results in starts.items()}

    def starved(activation: str, norm: str, long: str, short: str) -> list[float]:
        """C of long skips alone less C of the same with short skips; one value a replicate."""
        return gain(c[activation, norm, long, "none"], c[activation, norm, long, short])

    expected = "below -1: short skips feed the centre"
    trained = {arm: [each["C"] for each in results] for arm, results in maps.items()}
    updates = gain(trained["sigmoid", "none", "concat", "none"], trained["sigmoid", "none", "concat", "add"])
    only, both = ("sigmoid", "none", "concat", "none"), ("sigmoid", "none", "concat", "add")
    return Findings(
        readouts=[
            below("sigmoid, concat: C(long only) - C(long and add)", expected, starved(*only[:3], "add"), -1.0),
            below("sigmoid, long add: C(long only) - C(long and add)", expected,
                  starved("sigmoid", "none", "add", "add"), -1.0),
            below("ReLU, concat: C(long only) - C(long and add)", expected,
                  starved("relu", "none", "concat", "add"), -1.0, decides=False),
            below("sigmoid, concat: C(long only) - C(long and dense)", expected,
                  starved(*only[:3], "dense"), -1.0, decides=False),
            below("sigmoid, concat: C(long only)", "about -7.4 in a pilot", c[only], -1.0, decides=False),
            below("sigmoid, concat: C(long and add)", "about -3.6 in a pilot", c[both], 0.0, decides=False),
            below("sigmoid, no skips: V", "about -13 in a pilot", v["sigmoid", "none", "none", "none"], -5, False),
            within("sigmoid, concat, batch norm: C(long only) - C(long and add)", "within 1 of 0: the norm hides it",
                   starved("sigmoid", "batch", "concat", "add"), -1.0, 1.0, decides=False),
            below("sigmoid, concat: C of mean |dW| in training, long only minus long and add", expected,
                  updates, -1.0, decides=False),
        ],
        reading=[
            "G is the RMS gradient of a block's convolutions at the start, V = log10 of the first layer's over the "
            "last layer's, C = log10 of the bottleneck's over the geometric mean of the finest encoder and decoder "
            "blocks'. C alone can mislead: where the gradient falls all the way to the input, C looks harmless while "
            "the first layers are starved. Read V and C together.",
            _pairs_in_words(starts),
            "The maps show what Drozdzal et al. drew (2016, arXiv:1608.04117), the mean |dW| of each layer in each "
            f"epoch, here of SGD with momentum at a learning rate of {RATE:g}: RMSprop, which they used, and Adam "
            "divide by the size of the gradient and level such a map. A layer at 0 did not move: rounding took every "
            "step. Pooling and transposed convolutions lie outside the blocks, so that short skips cannot span them. "
            "All weights start as PyTorch's default; other weights or a normalisation change the profile.",
        ],
        figures=[
            *(_profile_figure(starts, activation, norm) for activation in ACTIVATIONS for norm in NORMS),
            *(_map_figure(results, arm) for arm, results in maps.items()),
        ],
        tables=[_table(starts)],
    )  # fmt: skip


def _by_arm(found: Found) -> dict[Arm, list[Any]]:
    """What was found for each arm, in the order of the seeds."""
    collected: defaultdict[Arm, list[Any]] = defaultdict(list)
    for cell, result in sorted(found, key=lambda pair: pair[0]["seed"]):
        collected[_arm(cell)].append(result)
    return dict(collected)


def _name(long: str, short: str) -> str:
    """Name of a combination of skips.

    Examples:
        >>> _name("concat", "none"), _name("none", "none"), _name("add", "dense")
        ('long concat', 'no skips', 'long add, short dense')
    """
    parts = [f"{where} {kind}" for where, kind in (("long", long), ("short", short)) if kind != "none"]
    return ", ".join(parts) or "no skips"


def _pairs_in_words(starts: dict[Arm, list[Any]]) -> str:
    """V, C and the gradient of the bottleneck of the four corners, with sigmoid and without normalisation."""
    each: list[str] = []
    for long, short in CORNERS:
        results = starts["sigmoid", "none", long, short]
        v, c, b = (
            np.mean(row) for row in zip(*((r["V"], r["C"], _log10(r["blocks"]["B"])) for r in results), strict=True)
        )
        each.append(f"{_name(long, short)} V = {v:.1f}, C = {c:.1f}, log10 G of the bottleneck {b:.1f}")
    return f"With sigmoid and without normalisation, mean over seeds, in decades: {'; '.join(each)}."


def _log10(gradient: float) -> float:
    """Decimal logarithm of a gradient, which may be rounded to zero."""
    return math.log10(max(gradient, SMALLEST))


def _profile_figure(starts: dict[Arm, list[Any]], activation: str, norm: str) -> Figure:
    """log10 of the RMS gradient over the blocks, one line for each corner."""
    series: list[Series] = []
    ticks: Sequence[str] = ()
    for long, short in CORNERS:
        results = starts[activation, norm, long, short]
        ticks = list(results[0]["blocks"])
        rows = np.array([[_log10(each["blocks"][b]) for b in ticks] for each in results])
        ends = {"low": rows.min(0).tolist(), "high": rows.max(0).tolist()}
        series.append(Series(_name(long, short), rows.mean(0).tolist(), **ends))
    title = f"{activation}, {'batch norm' if norm == 'batch' else 'no norm'}: mean and range over seeds, at the start"
    return Figure("lines", title, "block, from input to output", "log10 RMS gradient", series=series, ticks=ticks)


def _map_figure(results: Sequence[Any], arm: Arm) -> Figure:
    """Mean |dW| of each layer in each epoch, mean over seeds."""
    values = np.mean([each["map"] for each in results], axis=0)
    return Figure(
        "heatmap",
        f"{_name(*arm[2:])}: mean |dW|, sigmoid, no norm",
        "epoch",
        "layer, from input to output",
        rows=results[0]["layers"],
        ticks=[str(epoch + 1) for epoch in range(values.shape[1])],
        values=values.tolist(),
        value_label="mean |dW|",
        log_y=True,
    )


def _table(starts: dict[Arm, list[Any]]) -> Table:
    """V and C of every arm."""
    rows = [[*arm, *(interval_text(mean_ci([r[k] for r in results])) for k in "VC")] for arm, results in starts.items()]
    title = "V and C at the start, in decades, with 95 % intervals over replicates"
    return Table(title, ["activation", "norm", "long skip", "short skip", "V", "C"], rows)


SUITE = Suite(
    name="s03-gradient-profile",
    title="Gradients over the levels of a U-Net",
    claim=(
        "By providing alternative paths for gradients during backpropagation, skip connections help maintain a "
        "robust gradient flow throughout the network."
    ),
    pass_rule=(
        "With sigmoid and without normalisation, for long skips by concat and by add: C(long only) is more than 1 "
        "below C(long and short add), each with its whole 95 % interval over replicates. Long skips alone then do "
        "not maintain the flow throughout."
    ),
    grid={
        "smoke": {"seeds": 1, "epochs": 10, "epoch_steps": 3},
        "cpu": {"seeds": 5, "epochs": 12, "epoch_steps": 10},
        "gpu": {"seeds": 20, "epochs": 20, "epoch_steps": 50},
    },
    cells=_cells,
    run=_run,
    judge=_judge,
)

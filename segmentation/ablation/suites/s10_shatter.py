"""s10: in a deep plain network the gradient with respect to the input is white noise; skips keep it coherent."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from segmentation.ablation.suites.suite import Cell, Findings, Found, Suite, above, gain, replicates
from segmentation.ablation.suites.views import series_of, table_of
from segmentation.figures import Figure, Series
from segmentation.probes.shattering import autocorrelation, input_gradients, line

WIDTH = 200
POINTS = 256
LAGS = 64
LAG = 15
ENDS = (-2.0, 2.0)
SHORTS: dict[str, tuple[float, float]] = {"plain": (0.0, 1.0), "add": (1.0, 1.0), "add, branch x 0.1": (1.0, 0.1)}
"""Factors of x and of F(x)."""
Curves = Mapping[str, Mapping[str, Sequence[float]]]


class Perceptron(nn.Module):
    """A chain h <- a h + b W relu(h) on one number, with He's weights (He et al. 2015, arXiv:1502.01852).

    Args:
        length: Layers W between the first and the last.
        shortcut: a; 0 in a plain network.
        branch: b.
        seed: Seed of the weights, the same for every a and b.
        width: Units of each layer.
    """

    def __init__(self, length: int, shortcut: float, branch: float, seed: int, width: int = WIDTH) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.shortcut, self.branch = shortcut, branch
        self.first, self.offset = (torch.randn(width, generator=generator) for _ in range(2))
        scale = math.sqrt(2 / width)
        self.layers = [torch.randn(width, width, generator=generator) * scale for _ in range(length)]
        self.last = torch.randn(width, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """Map numbers of shape ``(B, 1)`` to numbers of shape ``(B, 1)``."""
        h = x * self.first + self.offset
        for weight in self.layers:
            h = self.shortcut * h + self.branch * (h.relu() @ weight)
        return (h.relu() @ self.last)[:, None]


def _cells(grid: Any) -> list[dict[str, Any]]:
    return [
        {"length": length, "seed": seed, "of": [_row(length), short]}
        for seed in range(grid["seeds"])
        for length in grid["lengths"]
        for short in SHORTS
    ]


def _row(length: int) -> str:
    """Name of a length."""
    return f"{length} layers"


def _run(cell: Cell) -> dict[str, Any]:
    shortcut, branch = SHORTS[cell["of"][1]]
    network = Perceptron(cell["length"], shortcut, branch, cell["seed"])
    start, end = (torch.tensor([value]) for value in ENDS)
    gradients = input_gradients(network, line(start, end, POINTS))[:, 0]
    correlation = autocorrelation(gradients, LAGS)
    result: dict[str, Any] = {"lag": correlation[LAG], "autocorrelation": correlation}
    if cell["seed"] == 0:
        result["gradient"] = ((gradients - gradients.mean()) / gradients.std()).tolist()
    return result


def _judge(found: Found, grid: Any) -> Findings:
    lag = replicates(found, "lag")
    lengths = grid["lengths"]
    deep = [length for length in lengths if length >= 24]
    add, scaled = list(SHORTS)[1:]
    pilot = {24: " (.16, .38 and .63 in a pilot)", 50: " (.27, .34 and .71 in a pilot)"}

    def more(short: str, length: int) -> list[float]:
        """R at the lag with a short skip less R of the plain network; one value a replicate."""
        return gain(lag[_row(length)][short], lag[_row(length)]["plain"])

    return Findings(
        readouts=[
            *(above(f"{n} layers: R_{LAG}, add minus plain", f"above 0{pilot.get(n, '')}", more(add, n), 0.0)
              for n in deep),
            *(above(f"{n} layers: R_{LAG}, add with a branch x 0.1 minus plain", "above 0", more(scaled, n), 0.0, False)
              for n in deep),
            *(above(f"{n} layers: R_{LAG} of the plain network", "above 0", lag[_row(n)]["plain"], 0.0, False)
              for n in (lengths[0], lengths[-1])),
        ],
        reading=[
            f"R_{LAG} is the autocorrelation, {LAG} points apart, of dF/dx at {POINTS} even points on [-2, 2], in "
            f"networks of {WIDTH} units a layer at the start, without normalisation: 1 where the gradient changes "
            "slowly along the line, 0 where neighbours ask for unrelated changes (Balduzzi et al. 2017, "
            "arXiv:1702.08591). All networks of a replicate have the same weights.",
            "A gradient can be of good size and still be noise, which s01 does not see. The size of the steps "
            "between points sets the scale, so that values compare within this line only. A finite line bends the "
            "estimate: its mean is taken off, which alone pushes long lags below 0.",
            _spread(deep[0], more(add, deep[0])),
        ],
        figures=[
            _depth_figure(lag, lengths),
            *(_lag_figure(replicates(found, "autocorrelation"), length) for length in deep),
            _gradient_figure(found, deep[0]),
        ],
        tables=[table_of(lag, f"R_{LAG} with 95 % interval over replicates")],
    )  # fmt: skip


def _spread(length: int, gains: Sequence[float]) -> str:
    """How much a single network tells."""
    if len(gains) < 2:
        return f"There is one network of {length} layers, whose gain says nothing about others."
    deviation = float(np.std(gains, ddof=1))
    return (
        f"Networks differ: with {_row(length)} the gain of add over plain is {np.mean(gains):.2f} on average over "
        f"{len(gains)} replicates, with a standard deviation of {deviation:.2f} from one to the next. A mean of that "
        f"many has a standard error of {deviation / math.sqrt(len(gains)):.2f}: a gain of that size stays open."
    )


def _depth_figure(lag: Curves, lengths: Sequence[int]) -> Figure:
    """Autocorrelation at the lag against depth."""
    series: list[Series] = []
    for short in SHORTS:
        series.append(series_of(short, [lag[_row(length)][short] for length in lengths], lengths))
    title = "Coherence of the gradient by depth"
    return Figure("lines", title, "layers", f"autocorrelation, {LAG} points apart", series=series, reference=0.0)


def _lag_figure(curves: Mapping[str, Mapping[str, Any]], length: int) -> Figure:
    """Autocorrelation against the lag, mean over seeds."""
    means = {short: np.mean(curves[_row(length)][short], axis=0).tolist() for short in SHORTS}
    title = f"Autocorrelation of the gradient, {_row(length)}, mean over seeds"
    series = [Series(short, curve) for short, curve in means.items()]
    return Figure("lines", title, "lag, in points", "autocorrelation", series=series, reference=0.0)


def _gradient_figure(found: Found, length: int) -> Figure:
    """The gradient itself along the line, of the first replicate."""
    at = torch.linspace(*ENDS, POINTS).tolist()
    first = {cell["of"][1]: result for cell, result in found if cell["seed"] == 0 and cell["length"] == length}
    series = [Series(short, first[short]["gradient"], at) for short in SHORTS]
    title = f"The gradient along the line, {_row(length)}, first replicate"
    return Figure("lines", title, "x", "dF/dx, standardised", series=series, reference=0.0)


SUITE = Suite(
    name="s10-shatter",
    title="Gradients as white noise",
    claim=(
        "This allows gradients to flow through the identity function, effectively preserving their magnitude. This "
        "formulation ensures that gradients are preserved, facilitating effective training of deep networks."
    ),
    pass_rule=(
        f"In networks of 24 and more layers at the start, the autocorrelation of the input gradient {LAG} of {POINTS} "
        "points apart is higher with add than without, with its whole 95 % interval over replicates."
    ),
    grid={
        "smoke": {"lengths": [1, 6, 24], "seeds": 1},
        "cpu": {"lengths": [1, 2, 6, 12, 24, 50], "seeds": 20},
        "gpu": {"lengths": [1, 2, 6, 12, 24, 50, 100], "seeds": 100},
    },
    cells=_cells,
    run=_run,
    judge=_judge,
)

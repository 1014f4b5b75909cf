"""Shattered gradients: how far along a line in input space the gradient with respect to the input stays correlated.

Let x(t) be equally spaced points on a straight line between two inputs, F a scalar of the output, g(t) = dF/dx at x(t),
and d(t) = g(t) less its mean over t.

    autocorrelation          R_k = sum_t <d(t), d(t + k)> / sum_t <d(t), d(t)>
    effective decay length   first lag, in points and linearly interpolated, at which R falls below 1/e

In a deep plain network the gradient decays towards white noise: neighbouring inputs ask for unrelated changes. Balduzzi
et al. 2017 (arXiv:1702.08591) show that its correlation falls exponentially with depth, and far more slowly with skip
connections. A decay length near 1 is white noise; it can be no finer than the spacing of the points.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from segmentation.figures import Figure, Series
from segmentation.probes.context import NotMeasurableError, ProbeContext, ProbeResult
from segmentation.probes.modes import settle

POINTS = 64
"""Points on each line between two patches."""
CHUNK = 8
"""Points that are computed at a time."""

Scalar = Callable[[Tensor], Tensor]
"""Turns an output, shape ``(B, ...)``, into one number an input, shape ``(B,)``."""


def total(output: Tensor) -> Tensor:
    """Sum of each output, shape ``(B, ...)``: shape ``(B,)``."""
    return output.flatten(1).sum(dim=1)


def foreground_margin(logits: Tensor) -> Tensor:
    """Foreground logits less background logit, mean over voxels, of logits of shape ``(B, K, *S)``: shape ``(B,)``."""
    return (logits[:, 1:].mean(dim=1) - logits[:, 0]).flatten(1).mean(dim=1)


def input_gradients(network: nn.Module, points: Tensor, scalar: Scalar = total) -> Tensor:
    """Gradient of ``scalar`` of the output with respect to each input, points of shape ``(T, ...)``: same shape.

    The network is used in its present mode; batch normalisation in training mode would mix the points.
    """
    gradients: list[Tensor] = []
    with torch.enable_grad():
        for chunk in points.split(CHUNK):
            leaf = chunk.detach().clone().requires_grad_(True)
            gradients.extend(torch.autograd.grad(scalar(network(leaf)).sum(), leaf))
    return torch.cat(gradients)


def autocorrelation(gradients: Tensor, lags: int | None = None) -> list[float]:
    """R_k for k = 0 to ``lags`` of gradients along a line.

    Args:
        gradients: One for each point, shape ``(T, ...)``.
        lags: Largest lag; half the points if not given.

    Returns:
        R_0 = 1 and so on; nan throughout if the gradient is the same everywhere.

    Examples:
        >>> [round(r, 3) for r in autocorrelation(torch.tensor([1.0, 2.0, 3.0, 4.0]), lags=3)]
        [1.0, 0.25, -0.3, -0.45]
    """
    rows = gradients.double().flatten(1) if gradients.ndim > 1 else gradients.double()[:, None]
    rows = rows - rows.mean(dim=0)
    power = rows.square().sum().item()
    lags = len(rows) // 2 if lags is None else lags
    products = [(rows[: len(rows) - k] * rows[k:]).sum().item() for k in range(lags + 1)]
    return [product / power if power else math.nan for product in products]


def decay_length(correlation: Sequence[float]) -> float:
    """First lag at which R_0, R_1, ... falls below 1/e, linearly interpolated; nan if it never does.

    Examples:
        >>> round(decay_length([1.0, 0.5, 0.2]), 3)
        1.44
    """
    threshold = math.exp(-1)
    for k in range(1, len(correlation)):
        high, low = correlation[k - 1], correlation[k]
        if low < threshold:
            return k - 1 + (high - threshold) / (high - low)
    return math.nan


def line(start: Tensor, end: Tensor, points: int) -> Tensor:
    """Equally spaced points from ``start`` to ``end``, both included, each of shape ``(...)``: shape ``(points, ...)``.

    Examples:
        >>> line(torch.tensor([0.0]), torch.tensor([1.0]), 3).flatten().tolist()
        [0.0, 0.5, 1.0]
    """
    share = torch.linspace(0, 1, points, device=start.device).view(-1, *(1,) * start.ndim)
    return start + share * (end - start)


def shattering(network: nn.Module, lines: Sequence[Tensor], scalar: Scalar = total) -> dict[str, Any]:
    """Autocorrelation of input gradients, mean over lines, and its decay length.

    Args:
        network: In evaluation mode.
        lines: Points of each line, shape ``(T, ...)``.
        scalar: Turns an output into one number.

    Returns:
        ``autocorrelation`` (R_0 to R_{T/2}) and ``decay_length`` in points.
    """
    each = [autocorrelation(input_gradients(network, points, scalar)) for points in lines]
    mean = [sum(lag) / len(lag) for lag in zip(*each, strict=True)]
    return {"autocorrelation": mean, "decay_length": decay_length(mean)}


def probe(context: ProbeContext) -> ProbeResult:
    """Walk from one training patch to the next, at the start of the run and after it."""
    images = torch.cat([images for images, _ in context.batches])
    if len(images) < 2:
        raise NotMeasurableError("a line in input space needs two patches; ask for --batches 2 or more")
    count = min(len(images) // 2, context.options.batches)
    lines = [line(images[2 * n], images[2 * n + 1], POINTS) for n in range(count)]
    networks = {"at the start": settle(context.initial(), context.batches), "after training": context.network}
    found = {when: shattering(network, lines, foreground_margin) for when, network in networks.items()}
    distance = torch.stack([(points[1] - points[0]).norm() / math.sqrt(points[0].numel()) for points in lines])
    figure = Figure(
        "lines",
        "Autocorrelation of the input gradient along a line",
        x_label=f"lag, in {POINTS - 1}ths of the way from one patch to another",
        y_label="R",
        series=[Series(when, each["autocorrelation"]) for when, each in found.items()],
        reference=0.0,
    )
    note = (
        f"Mean over {count} lines between training patches, {POINTS} points each; F is the mean over voxels of the "
        "foreground logits less the background logit. A decay length near 1 is white noise, null means that R never "
        "falls below 1/e within half a line. Lengths compare between networks on the same lines only."
    )
    return ProbeResult({**found, "lines": count, "rms_step": distance.mean().item()}, [figure], note)

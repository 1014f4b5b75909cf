"""Domain susceptibility: how far the activations of each block move when the images change (Wilm et al. 2024).

For each channel, p and q are the histograms of its activations on source and target images, over 64 equal bins that
span both; their Hellinger distance is

    H = sqrt(1 - sum sqrt(p q)), in [0, 1],

and the susceptibility of a block is the mean over its channels (arXiv:2402.08276). Targets here are the training
patches with noise, blurred, or of less contrast; the control compares two draws from the unchanged patches, and is
what chance alone gives.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from segmentation.data.shifts import add_noise, blur, gain
from segmentation.figures import Figure, Series
from segmentation.model.order import evaluating
from segmentation.probes.context import ProbeContext, ProbeResult
from segmentation.probes.stages import pooled, sample_stages, stages

BINS = 64
SAMPLES = 4096
"""Voxels drawn from each batch."""
NOTE = (
    "0: the block does not notice the change; 1: its activations have nothing in common. What lies above the control "
    "is due to the change. Long skips of the finest level pass the image's noise straight to the decoder."
)


def hellinger(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Hellinger distance of histograms.

    Args:
        first: Counts or shares, shape ``(..., K)``.
        second: The same shape.

    Returns:
        In [0, 1], shape ``(...)``.

    Examples:
        >>> hellinger(np.array([[1.0, 0.0], [1.0, 1.0]]), np.array([[0.0, 1.0], [2.0, 2.0]]))
        array([1., 0.])
    """
    p, q = (h / h.sum(axis=-1, keepdims=True) for h in (first, second))
    return np.sqrt(np.clip(1 - np.sqrt(p * q).sum(axis=-1), 0, 1))


def channel_distances(source: Tensor, target: Tensor, bins: int = BINS) -> NDArray[np.float64]:
    """Hellinger distance of each channel's histograms.

    Args:
        source: Activations, shape ``(n, C)``.
        target: Activations, shape ``(m, C)``.
        bins: Equal bins from the smallest to the largest value of both.

    Returns:
        Shape ``(C,)``; 0 for a channel that is constant and the same in both.
    """
    a, b = (side.double().cpu().numpy() for side in (source, target))
    distances = np.zeros(a.shape[1])
    for channel, (x, y) in enumerate(zip(a.T, b.T, strict=True)):
        ends = (min(x.min(), y.min()), max(x.max(), y.max()))
        if ends[0] < ends[1]:
            p, q = (np.histogram(values, bins, ends)[0].astype(np.float64) for values in (x, y))
            distances[channel] = hellinger(p, q)
    return distances


def susceptibility(
    network: nn.Module,
    modules: Mapping[str, nn.Module],
    source: Sequence[Tensor],
    target: Sequence[Tensor],
    samples: int = SAMPLES,
    seed: int = 0,
) -> dict[str, float]:
    """Mean distance over the channels of each module, between two sets of images.

    Args:
        network: Measured in evaluation mode.
        modules: Parts of it by name.
        source: Batches of images, shapes ``(B, C, *S)``.
        target: Batches of changed or other images.
        samples: Voxels drawn from each batch; the places differ between the two sets.
        seed: Source of the places.
    """
    generator = torch.Generator().manual_seed(seed)
    with evaluating(network):
        a, b = (
            pooled([sample_stages(network, modules, images, samples, generator) for images in side])
            for side in (source, target)
        )
    return {name: float(channel_distances(a[name], b[name]).mean()) for name in modules}


SHIFTS: dict[str, Callable[[Tensor], Tensor]] = {
    "control": lambda images: images,
    "noise": lambda images: add_noise(images, level=0.5),
    "blur": lambda images: blur(images, sigma=1.0),
    "contrast": lambda images: gain(images, factor=0.5),
}


def probe(context: ProbeContext) -> ProbeResult:
    """Measure how each block of a run's network answers to noise, blur and less contrast."""
    network, source = context.network, [images for images, _ in context.batches]
    blocks = stages(network)
    found = {
        name: susceptibility(network, blocks, source, [shift(images) for images in source], seed=context.options.seed)
        for name, shift in SHIFTS.items()
    }
    figure = Figure(
        "lines", "Domain susceptibility of each block", "block, from input to output", "Hellinger distance",
        [Series(name, list(each.values())) for name, each in found.items()], ticks=list(blocks),
    )  # fmt: skip
    return ProbeResult(found, [figure], NOTE)

"""Sliding window: a network over an image of any size, its overlapping outputs blended by a Gaussian."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Network = Callable[[Tensor], Tensor]
"""Maps images of shape ``(B, C, *S)`` to probabilities of shape ``(B, K, *S)``."""


def window_starts(size: int, window: int, overlap: float) -> list[int]:
    """First voxels of windows that cover an axis, evenly spread, neighbours sharing at least ``overlap``.

    Args:
        size: Voxels of the axis.
        window: Voxels of a window, at most ``size``.
        overlap: Share of a window that it has in common with the next, in [0, 1).

    Examples:
        >>> window_starts(10, 4, 0.5), window_starts(4, 4, 0.5)
        ([0, 2, 4, 6], [0])
    """
    step = max(1, int(window * (1 - overlap)))
    count = math.ceil((size - window) / step) + 1
    return [round(index * (size - window) / max(1, count - 1)) for index in range(count)]


def gaussian_window(shape: Sequence[int]) -> NDArray[np.float32]:
    """Weights of a window's voxels: a Gaussian of an eighth of the window's size about its centre, at most 1.

    Far corners would round to zero, so weights are kept at or above a thousandth.

    Args:
        shape: Spatial shape of the window.

    Returns:
        Weights in [0.001, 1], shape ``shape``.
    """
    weights = np.ones((), np.float64)
    for size in shape:
        distance = (np.arange(size) - (size - 1) / 2) / (size / 8)
        weights = np.multiply.outer(weights, np.exp(-0.5 * distance**2))
    return np.maximum(weights / weights.max(), 1e-3).astype(np.float32)


def sliding_window(
    network: Network,
    image: NDArray[np.floating],
    window: Sequence[int],
    overlap: float,
    batch_size: int = 1,
    device: torch.device | str = "cpu",
) -> NDArray[np.float32]:
    """Compute class probabilities of a whole image, window by window.

    A window larger than the image shrinks to it: nothing is padded, because the network takes any size.

    Args:
        network: Gives probabilities.
        image: Shape ``(C, *S)``.
        window: Spatial shape of the windows.
        overlap: Share by which neighbours overlap, in [0, 1).
        batch_size: Windows computed at a time.
        device: Where the network is.

    Returns:
        Probabilities, shape ``(K, *S)``, summing to 1 over K.

    Raises:
        ValueError: If the image has no voxels.

    Examples:
        A network that looks at single voxels gives the same by windows as in one piece:

        >>> image = np.linspace(0, 1, 35, dtype=np.float32).reshape(1, 5, 7)
        >>> both = sliding_window(lambda x: torch.cat((x, 1 - x), 1), image, (4, 4), overlap=0.5)
        >>> np.allclose(both[0], image[0], atol=1e-6)
        True
    """
    shape = image.shape[1:]
    if 0 in shape:
        raise ValueError(f"an image without voxels has no windows, got shape {image.shape}")
    size = tuple(min(w, s) for w, s in zip(window, shape, strict=True))
    weights = gaussian_window(size)
    total = np.zeros((0, *shape), np.float32)
    norm = np.zeros(shape, np.float32)
    for places in _batches(window_places(shape, size, overlap), batch_size):
        stack = np.stack([image[(slice(None), *place)] for place in places]).astype(np.float32)
        with torch.inference_mode():
            probabilities = network(torch.from_numpy(stack).to(device)).float().cpu().numpy()
        if not len(total):
            total = np.zeros((probabilities.shape[1], *shape), np.float32)
        for place, values in zip(places, probabilities, strict=True):
            total[(slice(None), *place)] += values * weights
            norm[place] += weights
    total /= norm
    return total


def window_places(shape: Sequence[int], size: Sequence[int], overlap: float) -> Iterator[tuple[slice, ...]]:
    """Yield the windows of ``size`` that cover ``shape`` as index expressions, in scan order."""
    axes = [window_starts(whole, part, overlap) for whole, part in zip(shape, size, strict=True)]
    for starts in itertools.product(*axes):
        yield tuple(slice(start, start + part) for start, part in zip(starts, size, strict=True))


def _batches(items: Iterator[tuple[slice, ...]], size: int) -> Iterator[list[tuple[slice, ...]]]:
    """Group ``items`` into lists of at most ``size``."""
    while batch := list(itertools.islice(items, size)):
        yield batch

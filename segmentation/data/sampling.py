"""Where patches are cut: drawn from the number of the sample alone.

Sample ``index`` of a run is a pure function of ``(seed, index)``. A resumed run therefore continues with
exactly the patches that it would have seen, two conditions with one seed see identical patches, and the
number of worker processes changes nothing.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def sample_rng(seed: int, index: int) -> np.random.Generator:
    """Random numbers of one sample."""
    return np.random.default_rng([seed, index])


def draw_center(
    rng: np.random.Generator,
    shape: Sequence[int],
    foreground: Sequence[NDArray[np.integer[Any]]],
    foreground_share: float,
) -> tuple[int, ...]:
    """Draw the centre of a patch.

    Args:
        rng: Source of randomness; consumed.
        shape: Spatial shape of the case.
        foreground: For each class present in the case, voxel coordinates, shape ``(n, len(shape))``.
        foreground_share: Chance of a centre on a foreground voxel; each class is as likely as another.

    Returns:
        Voxel coordinates inside the case.
    """
    if foreground and rng.random() < foreground_share:
        voxels = foreground[int(rng.integers(len(foreground)))]
        return tuple(int(x) for x in voxels[int(rng.integers(len(voxels)))])
    return tuple(int(rng.integers(size)) for size in shape)


def place_patch(center: Sequence[int], size: Sequence[int], shape: Sequence[int]) -> tuple[int, ...]:
    """First voxel of a patch around ``center``, moved inside the case where it fits; centred where it does not.

    Examples:
        >>> place_patch((1, 50), (8, 8), (20, 52)), place_patch((1,), (8,), (4,))
        ((0, 44), (-2,))
    """
    return tuple(
        min(max(c - p // 2, 0), s - p) if p <= s else -((p - s) // 2)
        for c, p, s in zip(center, size, shape, strict=True)
    )


def cut_patch(array: NDArray[Any], start: Sequence[int], size: Sequence[int]) -> NDArray[Any]:
    """Cut a patch from the last axes of ``array``; outside of it, the nearest voxel is repeated.

    Args:
        array: Shape ``(..., *S)``.
        start: First voxel, may be negative; the patch must reach into the array.
        size: Spatial shape of the patch.

    Returns:
        Patch, shape ``(..., *size)``.

    Examples:
        >>> cut_patch(np.arange(3), (-1,), (5,))
        array([0, 0, 1, 2, 2])
    """
    shape = array.shape[-len(size) :]
    low = [max(0, s) for s in start]
    high = [min(n, s + p) for s, p, n in zip(start, size, shape, strict=True)]
    inside = array[(..., *(slice(a, b) for a, b in zip(low, high, strict=True)))]
    pads = [(a - s, s + p - b) for a, b, s, p in zip(low, high, start, size, strict=True)]
    if not any(before or after for before, after in pads):
        return inside
    widths = [(0, 0)] * (array.ndim - len(size)) + pads
    return np.pad(inside, widths, mode="edge")

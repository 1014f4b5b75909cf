"""How large a patch is, and how a network steps down through it."""

import math
from collections.abc import Sequence

THICK = 2.0
"""An axis whose spacing exceeds the finest by this factor is not pooled or convolved along until it no longer does."""


def choose_patch(shape: Sequence[int], voxels: int) -> list[int]:
    """Shrink the longest axes of ``shape`` until the patch has at most ``voxels`` voxels.

    Examples:
        >>> choose_patch([300, 200], 128**2), choose_patch([36, 50, 35], 64**3)
        ([128, 128], [36, 50, 35])
    """
    patch = list(shape)
    while math.prod(patch) > voxels:
        longest = max(patch)
        rest = [size for size in patch if size < longest]
        even = (voxels / math.prod(rest)) ** (1 / (len(patch) - len(rest)))
        target = max(int(even + 1e-9), max(rest, default=1))
        patch = [target if size == longest else size for size in patch]
        if target == longest:
            break
    return patch


def choose_strides(patch: Sequence[int], spacing_mm: Sequence[float]) -> tuple[list[list[int]], list[list[int]]]:
    """Halve each axis while its half keeps 4 voxels and its spacing is not much coarser than the finest.

    Args:
        patch: Voxels of the patch.
        spacing_mm: Spacing of its axes.

    Returns:
        Strides of each step down (at least one, at most 5), and kernel sizes of each level, of which there is
        one more. A kernel is 1 along an axis that is still too thick to look along.

    Examples:
        >>> choose_strides([32, 32, 8], [1.0, 1.0, 3.0])
        ([[2, 2, 1], [2, 2, 2], [2, 2, 1]], [[3, 3, 1], [3, 3, 3], [3, 3, 3], [3, 3, 3]])
    """
    size, spacing = list(patch), list(spacing_mm)
    strides: list[list[int]] = []
    kernels: list[list[int]] = []
    while True:
        finest = min(spacing)
        kernels.append([1 if s > THICK * finest else 3 for s in spacing])
        steps = [2 if n >= 8 and s <= THICK * finest else 1 for n, s in zip(size, spacing, strict=True)]
        if max(steps) == 1 or len(strides) == 5:
            break
        strides.append(steps)
        size = [math.ceil(n / step) for n, step in zip(size, steps, strict=True)]
        spacing = [s * step for s, step in zip(spacing, steps, strict=True)]
    if not strides:
        return [[2] * len(size)], [[3] * len(size)] * 2
    return strides, kernels

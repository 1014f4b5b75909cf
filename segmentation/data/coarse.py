"""What labels keep in coarser voxels: how much of their volume, and how many of their parts."""

from collections.abc import Sequence
from functools import reduce

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from segmentation.metrics.masks import common_box

COARSENINGS: tuple[int, ...] = (2, 3, 4, 6, 8)
"""How many times as wide as the finest axis the voxels are for which :func:`coarse_kept` is measured."""


def coarse_steps(spacing_mm: Sequence[float], factor: float) -> list[int]:
    """How many voxels become one along each axis, so that all are about ``factor`` times as wide as the finest.

    Examples:
        >>> coarse_steps((0.5, 0.5, 2.0), 3), coarse_steps((0.5, 0.5, 2.0), 6)
        ([3, 3, 1], [6, 6, 2])
    """
    return [max(1, round(factor * min(spacing_mm) / size)) for size in spacing_mm]


def components_of(mask: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Number of the component of each voxel of a mask of shape ``(*S)``, from 1 on."""
    components = np.zeros(mask.shape, np.int32)
    ndimage.label(mask, structure=np.ones((3,) * mask.ndim), output=components)
    return components


def coarse_kept(mask: NDArray[np.bool_], spacing_mm: Sequence[float]) -> tuple[float, ...]:
    """What a mask keeps in coarser voxels, each of which is inside if half of it is.

    Args:
        mask: Of one class, shape ``(*S)``, not empty.
        spacing_mm: Of its axes.

    Returns:
        For each of :data:`COARSENINGS` the smaller of the Dice and of the share of components of which half is kept, in
        [0, 1]. Components of fewer than 2^d voxels do not count, if there are others.

    Examples:
        >>> mask = np.zeros((96, 96), bool)
        >>> mask[24:72, 24:72] = True
        >>> coarse_kept(mask, (1.0, 1.0)), coarse_kept(mask[:, 48:49], (1.0, 1.0))[0]
        ((1.0, 1.0, 1.0, 1.0, 1.0), 1.0)
    """
    box = common_box(mask, mask)
    inside, components = mask[box], components_of(mask[box])
    sizes = np.bincount(components.ravel("K"))[1:]
    large = sizes >= 2**mask.ndim if (sizes >= 2**mask.ndim).any() else sizes > 0
    found: list[float] = []
    for factor in COARSENINGS:
        sums, places, widths = inside.astype(np.uint16), list[NDArray[np.intp]](), list[NDArray[np.intp]]()
        for axis, (span, step) in enumerate(zip(box, coarse_steps(spacing_mm, factor), strict=True)):
            blocks = np.arange(mask.shape[axis]) // step
            covered, starts, place = np.unique(blocks[span], return_index=True, return_inverse=True)
            sums = np.add.reduceat(sums, starts, axis=axis, dtype=np.uint16)
            places.append(place)
            widths.append(np.bincount(blocks)[covered])  # those at the far end may be cut
        voxels = reduce(np.multiply.outer, widths)
        kept = 2 * sums >= voxels
        dice = 2 * int(sums[kept].sum()) / int(voxels[kept].sum() + sums.sum())
        again = np.bincount(components[kept[np.ix_(*places)]], minlength=len(sizes) + 1)[1:]
        found.append(round(min(dice, float((2 * again >= sizes)[large].mean())), 4))
    return tuple(found)

"""Connected regions of a mask of any size: labelled slab by slab and joined where slabs meet.

Only one slab is ever labelled at a time, so that memory does not grow with the mask. The regions are exactly those
of the whole mask: which of their pieces touch is remembered, and what is asked of a region is counted piece by piece.
"""

import itertools
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

SLAB_VOXELS = 2**21
"""Voxels that are labelled at a time, about; at least one plane."""

Mask = NDArray[np.bool_]
MaskAt = Callable[[slice], Mask]
"""Gives the part of a mask between two planes of axis 0."""


class Regions:
    """Connected regions of a mask.

    Args:
        shape: Of the whole mask, ``(*S)``.
        mask_at: Gives the mask slab by slab; it is asked again by :meth:`where`.
        counted_at: Gives M masks of a slab, whose voxels are counted in each region.
        corners: Whether voxels that touch at an edge or a corner belong together (26 neighbours in 3-D, 8 in 2-D),
            or only those that share a face (6 in 3-D, 4 in 2-D).

    Attributes:
        counts: Voxels of each of the M masks in each of the R regions, shape ``(M, R)``.

    Examples:
        >>> mask = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0], [1, 1, 1]], bool)
        >>> whole = Regions(mask.shape, mask.__getitem__, lambda part: [mask[part]], corners=True)
        >>> whole.counts
        array([[2, 3]])
        >>> Regions(mask.shape, mask.__getitem__, lambda part: [mask[part]], corners=False).counts
        array([[1, 1, 3]])
    """

    def __init__(
        self, shape: Sequence[int], mask_at: MaskAt, counted_at: Callable[[slice], Sequence[Mask]], *, corners: bool
    ) -> None:
        self._mask_at = mask_at
        self._structure = ndimage.generate_binary_structure(len(shape), len(shape) if corners else 1)
        self._slabs = list(slabs(shape))
        self._starts = [0]
        counts = [np.zeros((len(counted_at(slice(0, 0))), 0), np.int64)]
        touching: list[NDArray[np.int64]] = []
        above: NDArray[np.int32] | None = None
        for part in self._slabs:
            pieces, number = self._label(part)
            counts.append(_counts(pieces, number, counted_at(part)))
            if above is not None:
                touching.append(np.add(_touching(above, pieces[0], corners), self._starts[-2:]))
            self._starts.append(self._starts[-1] + number)
            above = pieces[-1].copy()
        self._region = _join(self._starts[-1], touching)
        self.counts = _sum_by(self._region, np.concatenate(counts, axis=1))

    def where(self, chosen: Mask) -> Iterator[tuple[slice, Mask]]:
        """Find the voxels of some regions; slabs that hold none are passed over.

        The mask may be changed in the slab that was given last.

        Args:
            chosen: Whether each region is wanted, shape ``(R,)``.

        Yields:
            A slab, and which of its voxels belong to a wanted region.
        """
        for part, first, last in zip(self._slabs, self._starts[:-1], self._starts[1:], strict=True):
            wanted = np.concatenate([[False], chosen[self._region[first:last]]])
            if wanted.any():
                yield part, wanted[self._label(part)[0]]

    def _label(self, part: slice) -> tuple[NDArray[np.int32], int]:
        """Pieces of the mask in one slab, numbered from 1, and how many there are."""
        mask = self._mask_at(part)
        pieces: NDArray[np.int32] = np.empty(mask.shape, np.int32)
        ndimage.label(mask, self._structure, output=pieces)
        return pieces, int(pieces.max(initial=0))


def slabs(shape: Sequence[int]) -> Iterator[slice]:
    """Cut an array of ``shape`` along axis 0 into slabs of about :data:`SLAB_VOXELS`.

    Examples:
        >>> list(slabs((5, 1024, 1024)))
        [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    planes = max(1, SLAB_VOXELS // max(1, math.prod(shape[1:])))
    for start in range(0, shape[0], planes):
        yield slice(start, min(start + planes, shape[0]))


def memory_order(array: NDArray[np.generic]) -> tuple[int, ...]:
    """Axes of an array of any shape, largest step in memory first: the order in which to walk through it.

    Examples:
        >>> memory_order(np.zeros((2, 3, 4)).transpose(2, 0, 1)[::-1])
        (1, 2, 0)
    """
    return tuple(sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis])))


def class_boxes(
    label_map: NDArray[np.integer[Any]], labels: Collection[int], release: Callable[[], object] = lambda: None
) -> dict[int, tuple[slice, ...]]:
    """Find the box around each class in one walk through a map.

    Args:
        label_map: Class of every voxel, shape ``(*S)``, largest step in memory first.
        labels: Values of the classes that are wanted.
        release: Called after each slab.

    Returns:
        Value to box, without the classes that do not occur.

    Examples:
        >>> class_boxes(np.array([[0, 2, 0], [0, 2, 2], [1, 0, 0]]), {2, 3})
        {2: (slice(0, 2, None), slice(1, 3, None))}
    """
    boxes: dict[int, tuple[slice, ...]] = {}
    for part in slabs(label_map.shape) if labels else ():
        for value, found in enumerate(ndimage.find_objects(label_map[part]), start=1):
            if value in labels and found is not None:
                box = (slice(found[0].start + part.start, found[0].stop + part.start), *found[1:])
                boxes[value] = _hull(boxes.get(value, box), box)
        release()
    return boxes


def _hull(one: tuple[slice, ...], other: tuple[slice, ...]) -> tuple[slice, ...]:
    """Smallest box around two."""
    return tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(one, other, strict=True))


def _counts(pieces: NDArray[np.int32], number: int, masks: Sequence[Mask]) -> NDArray[np.int64]:
    """Voxels of each of M masks in each of the pieces of a slab, shape ``(M, number)``."""
    return np.stack([np.bincount(pieces[mask], minlength=number + 1)[1:] for mask in masks])


def _touching(above: NDArray[np.int32], below: NDArray[np.int32], corners: bool) -> NDArray[np.int64]:
    """Pairs of pieces of two neighbouring planes that touch, counted from 0, shape ``(E, 2)``."""
    base = int(below.max(initial=0)) + 1
    keys: list[NDArray[np.int64]] = []
    for shift in itertools.product((-1, 0, 1) if corners else (0,), repeat=above.ndim):
        upper = above[tuple(slice(max(0, s), n + min(0, s)) for s, n in zip(shift, above.shape, strict=True))]
        lower = below[tuple(slice(max(0, -s), n + min(0, -s)) for s, n in zip(shift, below.shape, strict=True))]
        both = (upper > 0) & (lower > 0)
        key = upper[both].astype(np.int64) * base + lower[both]
        keys.append(key[np.flatnonzero(np.diff(key, prepend=-1))])  # neighbours mostly repeat the pair before them
    pairs = np.unique(np.concatenate(keys))
    return np.stack([pairs // base, pairs % base], axis=1) - 1


def _join(number: int, touching: Sequence[NDArray[np.int64]]) -> NDArray[np.int32]:
    """Region of each of ``number`` pieces of which pairs, shape ``(E, 2)``, touch; shape ``(number,)``."""
    pairs = np.concatenate([np.zeros((0, 2), np.int64), *touching])
    if not len(pairs):
        return np.arange(number, dtype=np.int32)
    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(number, number))
    return connected_components(graph, directed=False)[1]


def _sum_by(region: NDArray[np.int32], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Add up counts of pieces, shape ``(M, P)``, region by region: shape ``(M, R)``."""
    total = np.zeros((len(counts), int(region.max(initial=-1)) + 1), np.int64)
    for row, of_pieces in zip(total, counts, strict=True):
        np.add.at(row, region, of_pieces)
    return total

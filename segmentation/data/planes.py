"""Resampling of volumes that arrive plane by plane, so that no whole volume of any intermediate ever exists.

Linear interpolation at voxel centres is separable, and so is the smoothing before an axis shrinks: each is a sparse
matrix along one axis. The first axis is mixed from the planes at hand, the others within each plane.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse


@lru_cache(maxsize=64)
def axis_weights(old: int, new: int) -> sparse.csr_array:
    """Matrix that resamples an axis from ``old`` to ``new`` voxels over the same extent.

    Linear interpolation between voxel centres; beyond the outer centres the outer value is repeated. Where the
    axis shrinks, it is first smoothed by a Gaussian of ``(old / new - 1) / 2`` voxels, so that fine detail does
    not alias.

    Returns:
        Sparse matrix of shape ``(new, old)``, float32; each row sums to 1.

    Examples:
        >>> axis_weights(2, 4).toarray().round(2).tolist()
        [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]
    """
    place = ((np.arange(new) + 0.5) * (old / new) - 0.5).clip(0, old - 1)
    below = np.floor(place).astype(np.int64)
    above = np.minimum(below + 1, old - 1)
    share = place - below
    rows = np.arange(new)
    entries = (np.r_[1 - share, share], (np.r_[rows, rows], np.r_[below, above]))
    weights = sparse.csr_array(entries, shape=(new, old))
    if old > new:
        weights = weights @ _gaussian(old, (old / new - 1) / 2)
    weights = sparse.csr_array(weights, dtype=np.float32)
    weights.sum_duplicates()
    weights.eliminate_zeros()
    return weights


def _gaussian(voxels: int, sigma: float) -> sparse.csr_array:
    """Matrix that smooths an axis, shape ``(voxels, voxels)``; beyond 4 ``sigma``, in voxels, nothing is weighed."""
    reach = int(4 * sigma + 0.5)
    offsets = np.arange(-reach, reach + 1)
    shares = np.exp(-0.5 * (offsets / sigma) ** 2)
    rows, steps = np.meshgrid(np.arange(voxels), offsets, indexing="ij")
    columns = (rows + steps).clip(0, voxels - 1)
    entries = (np.tile(shares / shares.sum(), voxels), (rows.ravel(), columns.ravel()))
    return sparse.csr_array(entries, shape=(voxels, voxels))


class PlaneResampler:
    """Takes the planes of a volume in order, and gives the planes of the resampled volume in order.

    Only the planes that the next one needs are held.

    Args:
        old: Shape of the volume, its first axis across the planes.
        new: Shape wanted, axis by axis.

    Examples:
        >>> resampler = PlaneResampler((2, 1), (4, 1))
        >>> [plane.tolist() for value in (0.0, 1.0) for plane in resampler.push(np.array([value], np.float32))]
        [[0.0], [0.25], [0.75], [1.0]]
    """

    def __init__(self, old: Sequence[int], new: Sequence[int]) -> None:
        self._along: Any = axis_weights(old[0], new[0])  # scipy's stubs do not know its parts
        self._inside = [None if o == n else axis_weights(o, n) for o, n in zip(old[1:], new[1:], strict=True)]
        self._held: deque[NDArray[np.float32]] = deque()
        self._first = 0  # index of the first plane held
        self._next = 0  # index of the next plane to give

    def push(self, plane: NDArray[np.floating[Any]]) -> Iterator[NDArray[np.float32]]:
        """Take the next plane, shape ``(..., *inside)``; yield what it completes, shape ``(..., *new inside)``.

        A yielded plane may be the very array that was pushed.
        """
        values = plane.astype(np.float32, copy=False)
        for axis, weights in enumerate(self._inside, start=values.ndim - len(self._inside)):
            values = values if weights is None else _along_axis(weights, values, axis)
        self._held.append(values)
        pointers = self._along.indptr
        while self._next < self._along.shape[0]:
            row = slice(pointers[self._next], pointers[self._next + 1])
            places, shares = self._along.indices[row], self._along.data[row]
            if places.max() >= self._first + len(self._held):
                return
            for _ in range(places.min() - self._first):
                self._held.popleft()
            self._first = int(places.min())
            self._next += 1
            planes = [self._held[place - self._first] for place in places]
            yield planes[0] if len(planes) == 1 else _weighted(planes, shares)


def resample(channel: NDArray[np.floating[Any]], shape: Sequence[int]) -> NDArray[np.float32]:
    """Resample one map to another number of voxels over the same extent; see :func:`axis_weights`.

    Args:
        channel: Values, shape ``(*S)``.
        shape: New spatial shape.

    Returns:
        Values on the new grid, shape ``shape``; a copy if nothing changes.

    Examples:
        >>> resample(np.array([[0.0, 1.0]], np.float32), (1, 4)).round(2)
        array([[0.  , 0.25, 0.75, 1.  ]], dtype=float32)
    """
    return np.stack(list(resampled(channel, channel.shape, shape)))


def resampled(
    planes: Iterable[NDArray[np.floating[Any]]], old: Sequence[int], new: Sequence[int]
) -> Iterator[NDArray[np.float32]]:
    """Resample a volume given as its planes, each of shape ``(..., *inside)``, and yield it plane by plane."""
    resampler = PlaneResampler(old, new)
    for plane in planes:
        yield from resampler.push(plane)


def _along_axis(weights: sparse.csr_array, values: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Resample one axis of an array of any shape."""
    front = np.ascontiguousarray(values.swapaxes(0, axis))
    mixed = weights @ front.reshape(len(front), -1)
    return mixed.reshape(-1, *front.shape[1:]).swapaxes(0, axis)


def _weighted(planes: Sequence[NDArray[np.float32]], shares: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sum of planes of one shape, each times its share."""
    total = planes[0] * shares[0]
    for plane, share in zip(planes[1:], shares[1:], strict=True):
        total += plane * share
    return total

"""How far voxels lie from the nearest of a set, all on one grid.

Surfaces that are compared mostly lie close together. So the nearest places around each voxel are looked at first, in
the order of their distances, and only voxels that find nothing there ask a tree of the whole set.

A place is the index of a voxel in the flat array.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

BOX = 256
"""Places in the box around a voxel that is looked at; about half of them lie in the ball inside it."""

ROUNDING = 1e-9
"""Relative slack of a limit: three steps of 0.1 mm lie within 0.3 mm although 3 * 0.1 > 0.3 in binary."""

Places = NDArray[np.intp]
"""Voxels by their index in the flat array, shape ``(N,)``."""


def padded(mask: NDArray[np.bool_], spacing_mm: Sequence[float]) -> NDArray[np.bool_]:
    """Surround a mask by as many empty voxels as the search steps over, and one more at each side.

    Args:
        mask: Boolean mask, shape ``(*S)``.
        spacing_mm: Distance between voxel centres along each axis, in mm.

    Returns:
        The mask in a larger array, in C order.

    Examples:
        >>> padded(np.ones((1, 1), bool), (1.0, 100.0)).shape
        (215, 5)
    """
    steps, _ = _ball(spacing_mm)
    return np.pad(np.ascontiguousarray(mask), [(reach + 1, reach + 1) for reach in steps.max(axis=0).tolist()])


def flat_steps(shape: Sequence[int]) -> list[int]:
    """How far apart neighbours along each axis lie in the flat array.

    Examples:
        >>> flat_steps((4, 3, 2))
        [6, 2, 1]
    """
    return [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]


def nearest_mm(places: Places, targets: NDArray[np.bool_], spacing_mm: Sequence[float]) -> NDArray[np.float64]:
    """Measure from each of N voxels to the nearest of a set.

    Args:
        places: Voxels to measure from, shape ``(N,)``.
        targets: The set, at least one voxel, shape ``(*S)``, boolean. Voxels and set keep the margin of
            :func:`padded` but for its last voxel.
        spacing_mm: Distance between voxel centres along each axis, in mm.

    Returns:
        Distances in mm, shape ``(N,)``, in no order.

    Examples:
        >>> points, targets = (padded(np.array([row], bool), (1.0, 2.0)) for row in ([1, 1, 0, 0], [0, 1, 0, 0]))
        >>> nearest_mm(np.flatnonzero(points), targets, (1.0, 2.0))
        array([0., 2.])
    """
    near, left = _look_around(places, targets, spacing_mm)
    return np.concatenate((near, _ask_tree(left, targets, spacing_mm)))


def beyond(places: Places, targets: NDArray[np.bool_], spacing_mm: Sequence[float], limit_mm: float) -> Places:
    """Choose of N voxels those that lie farther than a limit from every voxel of a set.

    Args:
        places: Voxels to choose from, shape ``(N,)``.
        targets: The set, as for :func:`nearest_mm`, shape ``(*S)``.
        spacing_mm: Distance between voxel centres along each axis, in mm.
        limit_mm: The limit in mm.

    Returns:
        The voxels beyond it, shape ``(M,)``.

    Examples:
        >>> points, targets = (padded(np.array([row], bool), (1.0, 2.0)) for row in ([1, 1, 0, 0], [0, 0, 1, 0]))
        >>> [len(beyond(np.flatnonzero(points), targets, (1.0, 2.0), limit)) for limit in (1.0, 2.0, 4.0)]
        [2, 1, 0]
    """
    within = limit_mm * (1 + ROUNDING)
    _, left = _look_around(places, targets, spacing_mm, within)
    if within < _ball(spacing_mm)[1][-1]:
        return left
    return left[_ask_tree(left, targets, spacing_mm) > within]


def _look_around(
    places: Places, targets: NDArray[np.bool_], spacing_mm: Sequence[float], within: float = math.inf
) -> tuple[NDArray[np.float64], Places]:
    """Distances in mm, shape ``(M,)``, of the voxels with a target in the ball around them, and the other voxels."""
    steps, lengths = _ball(spacing_mm)
    lengths = lengths[lengths <= within]
    found, empty = np.zeros(len(lengths), np.intp), ~targets.ravel()
    for index, jump in enumerate((steps[: len(lengths)] @ flat_steps(targets.shape)).tolist()):
        left = places[empty.take(places + jump)]
        found[index] = len(places) - len(left)
        places = left
        if not len(places):
            break
    return np.repeat(lengths, found), places


def _ask_tree(places: Places, targets: NDArray[np.bool_], spacing_mm: Sequence[float]) -> NDArray[np.float64]:
    """Distances in mm from N voxels to the nearest target, shape ``(N,)``."""
    if not len(places):
        return np.zeros(0)
    asked, known = (
        np.stack(np.unravel_index(each, targets.shape), axis=-1) * np.asarray(spacing_mm, np.float64)
        for each in (places, np.flatnonzero(targets))
    )
    # Points of a grid share coordinates, for which scipy advises against balancing by medians.
    return KDTree(known, leafsize=32, balanced_tree=False, compact_nodes=False).query(asked)[0]


def _ball(spacing_mm: Sequence[float]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """All steps up to some length, nearest first, shape ``(N, D)`` in voxels, and their lengths in mm, ``(N,)``."""
    return _ball_of(tuple(map(float, spacing_mm)))


@lru_cache(maxsize=64)
def _ball_of(spacing_mm: tuple[float, ...]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """As :func:`_ball`, computed once."""
    spacing = np.asarray(spacing_mm)
    radius = spacing.min()
    while np.prod(2 * (radius // spacing) + 1) < BOX:
        radius *= 1.1
    axes = [np.arange(-reach, reach + 1) for reach in (radius // spacing).astype(np.int64)]
    steps = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(spacing))
    lengths = np.linalg.norm(steps * spacing, axis=1)
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] <= radius]
    return steps[order], lengths[order]

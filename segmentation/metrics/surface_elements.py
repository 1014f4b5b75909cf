"""The surface of a mask as small pieces between voxels: where each lies, and how large it is.

Between the centres of 2x2x2 neighbouring voxels (2x2 pixels) lies one element. Its form depends only on which of
the eight corners are inside the mask: the marching-cubes surface of Lorensen and Cline (1987) through the middle
of every edge that crosses the boundary. Here that surface is traced corner pattern by corner pattern instead of
being read from a printed table. The elements are those of the surface Dice of Nikolov et al. (2021),
https://doi.org/10.2196/26151.
"""

from collections.abc import Sequence
from functools import cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from segmentation.metrics.nearest import flat_steps

Point = tuple[int, ...]
"""A place in a unit cube in half-edge units: corners have coordinates 0 and 2, middles of edges one 1."""

SQUARE = ((0, 0), (0, 1), (1, 1), (1, 0))
"""Corners of a square in cyclic order."""


def surface_elements(
    mask: NDArray[np.bool_], spacing_mm: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Find the surface elements of a 3-D mask, or the contour elements of a 2-D one.

    Voxels outside the array count as background, so a mask that touches the border is closed there.

    Args:
        mask: Boolean mask, shape ``(*S)``, 2-D or 3-D.
        spacing_mm: Distance between voxel centres along each axis, in mm.

    Returns:
        The centre of each of N elements in mm, shape ``(N, D)``, with the lower corner of the first voxel at
        the origin, and the size of each, shape ``(N,)``: mm squared in 3-D, mm in 2-D.

    Examples:
        The contour of one pixel cuts its four corners; it is a diamond:

        >>> positions, sizes = surface_elements(np.ones((1, 1), bool), (3.0, 4.0))
        >>> positions.tolist(), sizes.tolist()
        ([[0.0, 0.0], [0.0, 4.0], [3.0, 0.0], [3.0, 4.0]], [2.5, 2.5, 2.5, 2.5])
    """
    pattern = element_patterns(np.pad(mask, 1))[(slice(-1),) * mask.ndim]
    sizes = element_sizes(tuple(map(float, spacing_mm)))[pattern]
    positions = np.argwhere(sizes)
    return positions * np.asarray(spacing_mm, np.float64), sizes[tuple(positions.T)]


def element_patterns(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Tell for each place between voxels which of its corners are inside.

    Args:
        mask: Boolean mask, shape ``(*S)``, 2-D or 3-D, whose outermost voxels are empty.

    Returns:
        The pattern of each 2x2x2 neighbourhood, shape ``(*S)``, at the place of its first voxel: bit b is set when the
        b-th corner is inside, the last axis counting fastest.

    Examples:
        >>> element_patterns(np.pad(np.ones((1, 1), bool), 1)).tolist()
        [[8, 4, 0], [2, 1, 0], [0, 0, 0]]
    """
    flat = mask.ravel().view(np.uint8).copy()
    for axis, jump in enumerate(reversed(flat_steps(mask.shape))):  # past the end of a line lies an empty margin
        flat[:-jump] |= flat[jump:] << 2**axis
    return flat.reshape(mask.shape)


@cache
def element_sizes(spacing_mm: tuple[float, ...]) -> NDArray[np.float64]:
    """Tabulate the size of the element of every pattern of inside corners.

    Args:
        spacing_mm: Distance between voxel centres along each of two or three axes, in mm.

    Returns:
        Size by pattern, shape ``(16,)`` in mm or ``(256,)`` in mm squared. Bit b of the pattern is set when the
        b-th corner is inside, the last axis counting fastest.

    Examples:
        >>> element_sizes((1.0, 2.0))[0b0011]  # the first row is inside: a straight piece along the second axis
        np.float64(2.0)
    """
    spacing = np.asarray(spacing_mm)
    if len(spacing) == 2:
        return np.linalg.norm(_contour_segments() * spacing, axis=-1).sum(axis=-1)
    return np.linalg.norm(_triangle_normals() * (spacing.prod() / spacing), axis=-1).sum(axis=-1)


@cache
def _contour_segments() -> NDArray[np.float64]:
    """Vectors of the up to two contour segments of each 2x2 pattern in a unit square, shape ``(16, 2, 2)``."""
    table = np.zeros((16, 2, 2))
    for code in range(16):
        for row, (start, end) in enumerate(_square_segments(SQUARE, _inside_corners(code, 2))):
            table[code, row] = np.subtract(end, start) / 2
    return table


@cache
def _triangle_normals() -> NDArray[np.float64]:
    """Normals, as long as the area, of the up to four triangles of each 2x2x2 pattern, shape ``(256, 4, 3)``."""
    table = np.zeros((256, 4, 3))
    for code in range(256):
        normals = [normal for polygon in _polygons(_inside_corners(code, 3)) for normal in _triangulate(polygon)]
        table[code, : len(normals)] = np.reshape(normals, (-1, 3))
    return table


def _inside_corners(code: int, dims: int) -> set[Point]:
    """The corners in a pattern, or those outside it if they are fewer: both sides share one surface."""
    corners: list[Point] = list(product((0, 1), repeat=dims))
    inside = {corner for bit, corner in enumerate(corners) if code >> bit & 1}
    return inside if len(inside) <= len(corners) // 2 else set(corners) - inside


def _square_segments(square: Sequence[Point], inside: set[Point]) -> list[tuple[Point, Point]]:
    """Cut every run of inside corners off a square, from the edge where the run ends to where it starts.

    Two inside corners on a diagonal are two runs: they stay apart.
    """
    edges = [(square[i], square[(i + 1) % 4]) for i in range(4)]
    middles = [tuple(np.add(*edge).tolist()) for edge in edges]
    entering = [i for i, (a, b) in enumerate(edges) if a not in inside and b in inside]
    leaving = [i for i, (a, b) in enumerate(edges) if a in inside and b not in inside]
    return [(middles[min(leaving, key=lambda end: (end - start) % 4)], middles[start]) for start in entering]


def _polygons(inside: set[Point]) -> list[NDArray[np.float64]]:
    """Join the segments on the six faces of the unit cube into closed polygons, each of shape ``(V, 3)``."""
    successor: dict[Point, Point] = {}
    for axis, side in product(range(3), (0, 1)):
        face = [tuple(np.insert(corner, axis, side).tolist()) for corner in SQUARE]
        turns_left = (axis == 1) == (side == 1)  # so that all six faces are walked in the same sense from outside
        successor.update(_square_segments(face if turns_left else face[::-1], inside))
    polygons = []
    while successor:
        first, point = successor.popitem()
        polygon = [first]
        while point != first:
            polygon.append(point)
            point = successor.pop(point)
        polygons.append(np.asarray(polygon) / 2)
    return polygons


def _triangulate(polygon: NDArray[np.float64]) -> NDArray[np.float64]:
    """Split a polygon, shape ``(V, 3)``, into a fan; return its triangles' normals, shape ``(V - 2, 3)``.

    Polygons of five and six corners need not be flat. Of the fans from each corner the largest is taken: it is
    the one that keeps the flat parts flat, and the choice of Nikolov et al.
    """

    def fan(apex: int) -> NDArray[np.float64]:
        spokes = np.roll(polygon, -apex, axis=0)[1:] - polygon[apex]
        return np.cross(spokes[:-1], spokes[1:]) / 2

    return max(map(fan, range(len(polygon))), key=lambda normals: np.linalg.norm(normals, axis=1).sum())

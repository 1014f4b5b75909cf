"""Canonical orientation with its exact inverse, and the comparison of two grids in words.

A volume is canonical when its axes run closest to right, anterior, superior. Getting there and back is a
permutation and flips of whole axes: no voxel is interpolated, so the round trip is exact for any affine.
"""

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation, ornt_transform
from numpy.typing import NDArray

from segmentation import SkipSegError
from segmentation.scans.scan import Grid, Scan

TOLERANCE_VOXELS = 0.01
"""Two grids are the same while no corner lies further apart than this fraction of the smallest spacing."""

SHEAR_TOLERANCE_DEGREES = 0.1
"""Axes count as perpendicular within this angle: above the rounding of real headers, below any real tilt."""

_SMALLEST_MM, _LARGEST_MM = 1e-7, 1e5
"""Sizes of a voxel that no scan has."""

_RAS = np.array([[0, 1], [1, 1], [2, 1]])


def check_affine(affine: NDArray[np.float64], source: str) -> None:
    """Refuse an affine that does not place voxels in space.

    Args:
        affine: Voxel to world, shape ``(4, 4)``, in mm.
        source: File name for the message.

    Raises:
        SkipSegError: If an entry is not finite, a voxel is smaller than an atom or larger than a building, or two
            axes fall together.
    """
    axes = affine[:3, :3]
    with np.errstate(all="ignore"):  # of damaged headers
        lengths = np.linalg.norm(axes, axis=0)
        spans = np.isfinite(affine).all() and abs(np.linalg.det(axes / lengths)) >= 1e-6
    if not spans or lengths.min() < _SMALLEST_MM or lengths.max() > _LARGEST_MM:
        raise SkipSegError(
            f"{source}: its affine {np.round(affine[:3], 4).tolist()} does not span a volume; "
            "repair the header or convert the scan again from its source"
        )


def shear_degrees(affine: NDArray[np.float64]) -> float:
    """Largest departure of two voxel axes from a right angle, in degrees.

    Args:
        affine: Voxel to world, shape ``(4, 4)``.

    Examples:
        >>> affine = np.eye(4)
        >>> affine[1, 2] = np.tan(np.radians(15))  # a gantry tilt of 15 degrees
        >>> round(shear_degrees(affine), 6)
        15.0
    """
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    cosines = (axes.T @ axes)[np.triu_indices(3, 1)]
    return float(np.degrees(np.arcsin(np.abs(cosines).clip(0, 1).max())))


def grid_difference(a: Scan | Grid, b: Scan | Grid) -> str | None:
    """Say in words how two grids differ.

    Two grids are the same when their shapes agree and each corner voxel lies within
    :data:`TOLERANCE_VOXELS` of the smallest spacing: rounding of a header passes, a shift does not.

    Args:
        a: First scan or grid.
        b: Second scan or grid.

    Returns:
        The difference for a message, or ``None`` when the grids are the same.

    Examples:
        >>> a = Grid((57, 49, 3), np.diag([1.0, 1.0, 5.0, 1.0]))
        >>> grid_difference(a, Grid((57, 49, 3), np.diag([1.0, 1.0, 5.0, 1.0]))) is None
        True
        >>> grid_difference(a, Grid((57, 49, 3), np.diag([1.0, 1.0, 4.0, 1.0])))
        'spacing (1, 1, 5) mm against (1, 1, 4) mm'
    """
    a, b = (scan.grid if isinstance(scan, Scan) else scan for scan in (a, b))
    if a.shape != b.shape:
        return f"shape {a.shape} against {b.shape}"
    apart_mm = corner_distance_mm(a.shape, a.affine, b.affine)
    if apart_mm <= TOLERANCE_VOXELS * min(*a.spacing_mm, *b.spacing_mm):
        return None
    if a.orientation != b.orientation:
        return f"orientation {a.orientation} against {b.orientation}"
    if not np.allclose(a.spacing_mm, b.spacing_mm, rtol=1e-3):
        return f"spacing {_rounded(a.spacing_mm)} mm against {_rounded(b.spacing_mm)} mm"
    return f"position: a corner lies {apart_mm:.3g} mm apart"


def corner_distance_mm(shape: tuple[int, ...], a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Largest distance in mm between the places that two affines give to one corner voxel.

    Args:
        shape: Size of each spatial axis, two or three.
        a: First affine, shape ``(4, 4)``.
        b: Second affine, shape ``(4, 4)``.
    """
    corners = np.array(list(product(*((0, size - 1) for size in (*shape, 1)[:3]))))
    difference = a - b
    return float(np.linalg.norm(corners @ difference[:3, :3].T + difference[:3, 3], axis=1).max())


def to_canonical(scan: Scan) -> Scan:
    """Permute and flip the axes of a volume to run closest to right, anterior, superior.

    Args:
        scan: Any scan; a picture passes through.

    Returns:
        The same voxels at the same places, axes reordered (a view, not a copy). It has no header: its label
        map goes through :func:`from_canonical` and is written in the frame of the original scan.

    Examples:
        >>> left_handed = Scan(np.arange(6).reshape(1, 3, 2, 1), np.diag([-1.0, 1.0, 1.0, 1.0]))
        >>> canonical = to_canonical(left_handed)
        >>> canonical.orientation, canonical.array[0, :, 0, 0].tolist()
        ('RAS', [4, 2, 0])
        >>> np.array_equal(from_canonical(canonical.array, left_handed), left_handed.array)
        True
    """
    if scan.spatial_dims == 2:
        return scan
    axes = io_orientation(scan.affine)
    affine = scan.affine @ inv_ornt_aff(axes, scan.spatial_shape)
    return replace(scan, array=_reorient(scan.array, axes), affine=affine, header=None)


def from_canonical(array: NDArray[Any], like: Scan) -> NDArray[Any]:
    """Bring an array on the canonical grid back to the axis order of a scan, exactly.

    Args:
        array: Values on the grid of ``to_canonical(like)``, shape ``(*S)`` or ``(C, *S)``.
        like: The scan as it was read; only its affine and its number of axes are used.

    Returns:
        The same values in the scan's own axis order, a view of the same number of axes.

    Raises:
        SkipSegError: If the array has neither the spatial axes alone nor one more.
    """
    if array.ndim not in (like.spatial_dims, like.spatial_dims + 1):
        raise SkipSegError(f"expected {like.spatial_dims} spatial axes, with or without channels, got {array.shape}")
    if like.spatial_dims == 2:
        return array
    axes = ornt_transform(_RAS, io_orientation(like.affine))
    return _reorient(array, axes) if array.ndim == 4 else _reorient(array[None], axes)[0]


def _reorient(array: NDArray[Any], axes: NDArray[Any]) -> NDArray[Any]:
    """Apply a nibabel orientation to the spatial axes of an array of shape ``(C, I, J, K)``."""
    channels_last = apply_orientation(np.moveaxis(array, 0, -1), axes)
    return np.moveaxis(channels_last, -1, 0)


def _rounded(spacing_mm: tuple[float, ...]) -> str:
    """Spacing in four digits for a message."""
    return f"({', '.join(f'{size:.4g}' for size in spacing_mm)})"

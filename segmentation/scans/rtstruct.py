"""Radiotherapy structure sets (DICOM RTSTRUCT): contours become a mask on the grid of a scan."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from segmentation import SkipSegError
from segmentation.scans.scan import Scan
from segmentation.scans.series import one_line_errors

PLANE_TOLERANCE = 0.25
"""A contour may lie this fraction of the slice distance off the slice that it is drawn on."""

_CLOSED = frozenset({"CLOSED_PLANAR", "CLOSEDPLANAR_XOR"})


def roi_names(path: Path) -> list[str]:
    """Names of the regions of interest in a structure set, in its order.

    Raises:
        SkipSegError: If the file cannot be read or is no structure set.
    """
    return [name for name, _ in _regions(path)]


def read_rtstruct(path: Path, like: Scan, roi: str) -> NDArray[np.uint8]:
    """Fill the contours of one region on the grid of a scan.

    A voxel is inside when its centre is, by the even-odd rule over all contours of its slice: a contour within
    another cuts a hole. A centre exactly on an edge belongs to the side of larger index, so that regions which
    share an edge share no voxel. No contour is interpolated between slices.

    Args:
        path: RTSTRUCT file.
        like: Volume on which the contours were drawn, in any orientation.
        roi: Name of the region, one of :func:`roi_names`.

    Returns:
        Mask of 0 and 1, shape ``(*S)`` of ``like``.

    Raises:
        SkipSegError: If the file cannot be read, the region is unknown, ambiguous or without closed contours,
            or a contour lies on a plane that is not in the scan.
    """
    if like.spatial_dims != 3:
        raise SkipSegError(f"{like.source} is a picture; contours need the volume they were drawn on")
    chosen = [contours for name, contours in _regions(path) if name == roi]
    if len(chosen) != 1:
        names = ", ".join(repr(name) for name in roi_names(path))
        raise SkipSegError(f"{path.name} holds {len(chosen)} regions named {roi!r}; it holds {names}")
    contours = [_voxel_points(contour, like, path) for contour in chosen[0]]
    if not contours:
        raise SkipSegError(f"{path.name}: region {roi!r} holds no contours; choose another one")
    # Contours are drawn on slices: along one axis all points of each contour share their coordinate.
    axis = int(np.argmin(np.max([np.ptp(points, axis=0) for points in contours], axis=0)))
    slices: dict[int, list[NDArray[np.float64]]] = {}
    for points in contours:
        slices.setdefault(_plane(points[:, axis], like, axis, path), []).append(np.delete(points, axis, axis=1))
    mask = np.zeros(like.spatial_shape, np.uint8)
    across = np.moveaxis(mask, axis, 0)
    for index, polygons in slices.items():
        across[index] = fill_even_odd(polygons, across.shape[1:])
    return mask


def fill_even_odd(polygons: Sequence[NDArray[np.float64]], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Mark the pixels whose centres lie inside an odd number of polygons.

    Each edge toggles, on every line of pixels that it crosses, all pixels from the crossing on; a pixel
    toggled an odd number of times is inside.

    Args:
        polygons: Corners in pixel coordinates, centres at whole numbers, each of shape ``(N, 2)``; the last
            corner joins the first.
        shape: Size ``(I, J)`` of the mask; what lies outside is cut off.

    Returns:
        Mask of shape ``(I, J)``.

    Examples:
        >>> square = np.array([[0.5, 0.5], [3.5, 0.5], [3.5, 3.5], [0.5, 3.5]])
        >>> hole = np.array([[1.5, 1.5], [2.5, 1.5], [2.5, 2.5], [1.5, 2.5]])
        >>> fill_even_odd([square, hole], (5, 5)).astype(int)
        array([[0, 0, 0, 0, 0],
               [0, 1, 1, 1, 0],
               [0, 1, 0, 1, 0],
               [0, 1, 1, 1, 0],
               [0, 0, 0, 0, 0]])
    """
    toggles = np.zeros((shape[0] + 1, shape[1]), np.int64)
    for polygon in polygons:
        for (i0, j0), (i1, j1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
            lines = np.arange(max(np.ceil(min(j0, j1)), 0), min(np.ceil(max(j0, j1)), shape[1]), dtype=np.int64)
            if lines.size:  # never for an edge along the lines, whose ends are equal
                crossings = i0 + (lines - j0) / (j1 - j0) * (i1 - i0)
                toggles[np.ceil(crossings).clip(0, shape[0]).astype(np.int64), lines] += 1
    return toggles[:-1].cumsum(axis=0) % 2 == 1


def _regions(path: Path) -> list[tuple[str, list[Dataset]]]:
    """Name and contours of each region."""
    with one_line_errors(path):
        dataset = pydicom.dcmread(path)
        if dataset.get("Modality") != "RTSTRUCT":
            raise SkipSegError(f"{path.name} is no RTSTRUCT but {dataset.get('Modality', 'something else')}")
        contours = {
            int(entry.ReferencedROINumber): list(entry.get("ContourSequence") or [])
            for entry in dataset.get("ROIContourSequence") or []
        }
        entries = dataset.get("StructureSetROISequence") or []
        return [(str(entry.ROIName), contours.get(int(entry.ROINumber), [])) for entry in entries]


def _voxel_points(contour: Dataset, like: Scan, path: Path) -> NDArray[np.float64]:
    """Corners of a contour in voxel coordinates of a scan, shape ``(N, 3)``."""
    with one_line_errors(path):
        if (kind := contour.ContourGeometricType) not in _CLOSED:
            raise SkipSegError(f"{path.name} holds a {kind} contour, which has no inside; choose another region")
        lps = np.array(contour.ContourData, dtype=np.float64).reshape(-1, 3)
    world = np.column_stack([lps * (-1, -1, 1), np.ones(len(lps))])
    # Rounded far below any voxel, so that a corner meant to lie on a centre does.
    return np.round(world @ np.linalg.inv(like.affine).T, 6)[:, :3]


def _plane(coordinates: NDArray[np.float64], like: Scan, axis: int, path: Path) -> int:
    """Index of the slice that a contour is drawn on; coordinates across the slices, shape ``(N,)``."""
    index = round(float(coordinates.mean()))
    off = float(np.abs(coordinates - index).max())
    if off > PLANE_TOLERANCE or not 0 <= index < like.spatial_shape[axis]:
        raise SkipSegError(
            f"{path.name} has a contour at slice {coordinates.mean():.2f} of {like.source}, which has slices 0 to "
            f"{like.spatial_shape[axis] - 1}; give the series that it was drawn on"
        )
    return index

"""Read and write scans, label maps and maps of real numbers by file ending."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmentation import SkipSegError
from segmentation.scans import metaimage, nifti, nrrd, picture
from segmentation.scans.blocks import BLOCK_BYTES, Layout, empty_volume, release, spans, stack
from segmentation.scans.dicom import read_series, series_grid
from segmentation.scans.dicom_seg_read import read_dicom_seg
from segmentation.scans.find import file_ending
from segmentation.scans.geometry import grid_difference
from segmentation.scans.scan import Grid, Scan
from segmentation.scans.segments import is_dicom_seg
from segmentation.scans.workspace import Workspace

_FLOAT_PICTURES = (".tif", ".tiff")
_NO_REMAP: Mapping[int, int] = MappingProxyType({})
_NO_LABELS: Mapping[str, int] = MappingProxyType({})


def read_scan(paths: Path | Sequence[Path], channels: int | None = None, *, workspace: Workspace | None = None) -> Scan:
    """Read a scan from one file, from one file a channel, or from the folder of a DICOM series.

    NaN and infinite intensities are passed on: ``skipseg check`` reports them.

    Args:
        paths: A file of a known ending, a DICOM folder, or several of them on one grid, whose channels are stacked
            in the order given.
        channels: Number of channels that one multi-channel volume holds; ``None`` expects one.
        workspace: Where the voxels lie; ``None`` keeps them in memory. They are decoded block by block, so that
            reading takes no more memory than the workspace allows.

    Returns:
        Scan of shape ``(C, *S)`` in the frame of the first file.

    Raises:
        SkipSegError: If a file cannot be read, its ending is unknown, or the grids differ.
    """
    sources = [paths] if isinstance(paths, Path) else list(paths)
    if not sources:
        raise SkipSegError("a scan needs at least one file, got none")
    if len(sources) == 1:
        return _read(sources[0], channels, workspace)
    layouts = [_layout(source, channels) for source in sources]
    if any(layout is None or len(layout.grid.shape) == 2 for layout in layouts):
        scans = [_read(source, channels, workspace) for source in sources]
        _check_grids([(scan.source, scan.grid) for scan in scans])
        array = stack([scan.array for scan in scans], workspace)
    else:
        known = [layout for layout in layouts if layout is not None]
        array, scans = _read_into_one(sources, known, channels, workspace)
    notes = tuple(dict.fromkeys(note for scan in scans for note in scan.notes))
    return replace(scans[0], array=array, notes=notes)


def scan_geometry(path: Path, channels: int | None = None) -> Grid:
    """Read where the voxels of a scan lie, without decoding them.

    Args:
        path: File of a known ending, or the folder of a DICOM series.
        channels: As for :func:`read_scan`.

    Raises:
        SkipSegError: If the header cannot be read or the ending is unknown.
    """
    if path.is_dir():
        return series_grid(path)
    layout = _layout(path, channels)
    return picture.picture_grid(path) if layout is None else layout.grid


def read_label_map(path: Path, like: Scan | None = None, remap: Mapping[int, int] = _NO_REMAP) -> Scan:
    """Read a label map: whole numbers from 0, on the grid of its scan.

    Args:
        path: File of a known ending, not JPEG, or a DICOM segmentation, whose segment numbers are the values. A
            colour picture is accepted when its channels are equal.
        like: Scan that the label map belongs to; its shape and affine must agree.
        remap: Stored value to meant value, such as ``{255: 1}``; values not named stay.

    Returns:
        Scan of shape ``(1, *S)``, in the smallest unsigned dtype that holds its labels.

    Raises:
        SkipSegError: If the file cannot be read, holds NaN, fractions or negative values, or lies on
            another grid than ``like``.
    """
    if is_dicom_seg(path):
        scan, _ = read_dicom_seg(path, like)
        return replace(scan, array=_remapped(scan.array, remap))
    if file_ending(path) in picture.LOSSY_ENDINGS:
        raise SkipSegError(f"{path.name}: JPEG changes label values; draw the mask again as .png or .tif")
    scan = _read(path, None, None)
    if (scan.array[1:] != scan.array[:1]).any():
        raise SkipSegError(f"{path.name} is a colour picture; store one gray value a label instead")
    if like is not None and (difference := grid_difference(like, scan)):
        raise SkipSegError(
            f"{path.name} does not lie on the grid of {like.source}: {difference} (scan against label map); "
            "resample the label map onto the scan"
        )
    labels = _remapped(_whole_numbers(scan.array[:1], path.name), remap)
    return Scan(labels, scan.affine, scan.source, scan.header, scan.notes)


def write_label_map(
    path: Path,
    label_map: NDArray[Any],
    like: Scan,
    labels: Mapping[str, int] = _NO_LABELS,
    *,
    workspace: Workspace | None = None,
) -> None:
    """Write a label map in the frame of its scan, block by block, whole or not at all.

    Args:
        path: Target; its ending chooses the format: NIfTI or NRRD for a volume (a DICOM series included),
            PNG, TIFF or BMP for a picture, MetaImage for both.
        label_map: Whole numbers in ``[0, 65535]``, shape ``(*S)``, the scan's spatial shape; a view of any strides.
        like: The scan as it was read; of its voxels only the shape is used.
        labels: Class name to value; NRRD keeps the names as segments, other formats hold none.
        workspace: Where ``label_map`` lies, if not in memory.

    Raises:
        SkipSegError: If shape, values or ending do not fit.
        OSError: If the disk is full; nothing is left behind.
    """
    if label_map.shape != like.spatial_shape:
        raise SkipSegError(
            f"{path.name}: the label map has shape {label_map.shape}, {like.source} has {like.spatial_shape}; "
            "bring the map back to the grid of its scan first"
        )
    highest = _highest_label(label_map, path.name, workspace)
    if highest > np.iinfo(np.uint16).max:
        raise SkipSegError(f"{path.name}: labels up to 65535 can be written, got {highest}")
    ending = label_map_ending(path, like)
    dtype = np.min_scalar_type(highest)
    if ending in picture.ENDINGS:
        picture.write_picture(path, label_map.astype(dtype, copy=False))
    elif ending in nifti.ENDINGS:
        nifti.write_nifti(path, label_map, like, dtype, workspace=workspace)
    elif ending in metaimage.ENDINGS:
        metaimage.write_metaimage(path, label_map, like, dtype, workspace=workspace)
    else:
        fields = nrrd.segment_fields(labels, like.spatial_shape)
        nrrd.write_nrrd(path, label_map, like, dtype, fields, workspace=workspace)


def write_map(
    path: Path, values: NDArray[Any], like: Scan, names: Sequence[str] = (), *, workspace: Workspace | None = None
) -> None:
    """Write a map of real numbers, or one a class, in the frame of a scan, block by block, whole or not at all.

    Several maps become the last axis of the file: NIfTI of axes (I, J, K, class), NRRD with a list axis. They are
    read again as channels. A picture's file holds one map.

    Args:
        path: Target; its ending chooses the format: NIfTI or NRRD for a volume, TIFF of 32-bit floating point for a
            picture, MetaImage for both.
        values: Such as probabilities, shape ``(K, *S)`` or ``(*S)`` with the scan's spatial shape; a view of any
            strides. They are written as float32.
        like: The scan as it was read; of its voxels only the shape is used.
        names: What each of the K maps is of; NRRD keeps them in its header, other formats hold none.
        workspace: Where ``values`` lies, if not in memory.

    Raises:
        SkipSegError: If shape, names or ending do not fit.
        OSError: If the disk is full; nothing is left behind.
    """
    several = values.ndim == like.spatial_dims + 1
    if values.shape[several:] != like.spatial_shape or (names and len(names) != (len(values) if several else 1)):
        raise SkipSegError(
            f"{path.name}: the map has shape {values.shape} and {len(names)} names, {like.source} has "
            f"{like.spatial_shape}; bring the map back to the grid of its scan first, and name each class or none"
        )
    ending = _writable(path, like, _FLOAT_PICTURES)
    if ending in _FLOAT_PICTURES:
        if several:
            raise SkipSegError(f"{path.name}: a picture's file holds one map, got {len(values)}; write one a class")
        picture.write_float_picture(path, values)
    elif ending in nifti.ENDINGS:
        nifti.write_nifti(path, values, like, np.float32, workspace=workspace)
    elif ending in metaimage.ENDINGS:
        metaimage.write_metaimage(path, values, like, np.float32, workspace=workspace)
    else:
        fields = {f"Class{index}_Name": name for index, name in enumerate(names)}
        nrrd.write_nrrd(path, values, like, np.float32, fields, workspace=workspace)


def _layout(path: Path, channels: int | None) -> Layout | None:
    """What the header of a volume's file says of its voxels; ``None`` for DICOM and pictures."""
    if path.is_dir():
        return None
    if (ending := file_ending(path)) in nifti.ENDINGS:
        return nifti.nifti_layout(path, channels)
    if ending in metaimage.ENDINGS:
        return metaimage.metaimage_layout(path, channels)
    return nrrd.nrrd_layout(path, channels) if ending in nrrd.ENDINGS else None


def _read(path: Path, channels: int | None, workspace: Workspace | None, into: NDArray[Any] | None = None) -> Scan:
    """Read one file by its ending, or a DICOM folder; only volumes in one file can be read into a given array."""
    if path.is_dir():
        return read_series(path, workspace=workspace)
    if (ending := file_ending(path)) in nifti.ENDINGS:
        return nifti.read_nifti(path, channels, workspace=workspace, into=into)
    if ending in metaimage.ENDINGS:
        return metaimage.read_metaimage(path, channels, workspace=workspace, into=into)
    if ending in nrrd.ENDINGS:
        return nrrd.read_nrrd(path, channels, workspace=workspace, into=into)
    return picture.read_picture(path, workspace=workspace)


def _read_into_one(
    sources: Sequence[Path], layouts: Sequence[Layout], channels: int | None, workspace: Workspace | None
) -> tuple[NDArray[Any], list[Scan]]:
    """Read files each into its part of one array of shape ``(C, I, J, K)``; the array, and the scans in it."""
    _check_grids([(source.name, layout.grid) for source, layout in zip(sources, layouts, strict=True)])
    dtype = np.result_type(*(layout.dtype for layout in layouts))
    total = sum(layout.channels for layout in layouts)
    array = empty_volume(total, layouts[0].grid.shape, dtype, workspace)
    ends = np.cumsum([layout.channels for layout in layouts]).tolist()
    scans = [
        _read(source, channels, workspace, array[end - layout.channels : end])
        for source, layout, end in zip(sources, layouts, ends, strict=True)
    ]
    return array, scans


def _check_grids(named: Sequence[tuple[str, Grid]]) -> None:
    """Refuse channels of one scan that do not lie on one grid."""
    (first, grid), *others = named
    for other, its_grid in others:
        if difference := grid_difference(grid, its_grid):
            raise SkipSegError(
                f"{first} and {other} are channels of one scan but differ in {difference}; "
                "resample one onto the other first"
            )


def label_map_ending(path: Path, like: Scan) -> str:
    """Ending of the file of a label map, when that format can hold one in the frame of ``like``.

    Raises:
        SkipSegError: If it cannot.
    """
    return _writable(path, like, picture.ENDINGS)


def _writable(path: Path, like: Scan, pictures: Sequence[str]) -> str:
    """Ending of a target, when it suits the scan."""
    endings = (*(pictures if like.spatial_dims == 2 else (*nifti.ENDINGS, *nrrd.ENDINGS)), *metaimage.ENDINGS)
    if (ending := file_ending(path)) not in endings:
        raise SkipSegError(
            f"{path.name}: {like.source} has {like.spatial_dims} axes; write one of {', '.join(endings)}"
        )
    return ending


def _highest_label(values: NDArray[Any], source: str, workspace: Workspace | None = None) -> int:
    """Highest value that a label map of any shape may hold by its dtype or its values, when all are whole numbers."""
    if values.dtype == bool or values.dtype == np.uint8:
        return int(np.iinfo(np.uint8).max)
    highest = 0
    for place in spans(values, BLOCK_BYTES):
        part = values[place]
        if part.dtype.kind == "f":
            _check_whole(part, source)
        if part.min() < 0:
            raise SkipSegError(f"{source}: labels start at 0, got {part.min():g}")
        highest = max(highest, int(part.max()))
        release(workspace)
    return highest


def _check_whole(values: NDArray[np.floating], source: str) -> None:
    """Refuse fractions and what is no number; any shape."""
    if not np.isfinite(values).all():
        raise SkipSegError(f"{source}: a label map holds whole numbers, got NaN or infinity")
    if (fractions := values != np.rint(values)).any():
        raise SkipSegError(
            f"{source}: a label map holds whole numbers, got {values[fractions][0]:g}; "
            "was it resampled with interpolation? resample it again with nearest neighbour"
        )


def _whole_numbers(values: NDArray[Any], source: str) -> NDArray[np.unsignedinteger]:
    """Values of any shape in the smallest unsigned dtype, when nothing is lost by it."""
    return values.astype(np.min_scalar_type(_highest_label(values, source)), copy=False)


def _remapped(values: NDArray[np.unsignedinteger], remap: Mapping[int, int]) -> NDArray[np.unsignedinteger]:
    """Replace stored label values by meant ones, all at once; any shape."""
    if not remap:
        return values
    stored, index = np.unique(values, return_inverse=True)
    meant = np.array([remap.get(int(value), int(value)) for value in stored])
    return meant[index].reshape(values.shape).astype(np.min_scalar_type(int(meant.max())))

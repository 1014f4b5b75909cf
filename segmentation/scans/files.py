"""Read and write scans and label maps by file ending, and find the scans of a folder."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmentation import SkipSegError
from segmentation.scans import nifti, nrrd, picture
from segmentation.scans.dicom import read_series, series_grid
from segmentation.scans.geometry import grid_difference
from segmentation.scans.scan import Grid, Scan
from segmentation.scans.series import is_dicom_file, is_series_folder

ENDINGS = (*nifti.ENDINGS, *nrrd.ENDINGS, *picture.ENDINGS)
"""File endings that are read, without the DICOM series, which is a folder."""

_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")
_NO_REMAP: Mapping[int, int] = MappingProxyType({})
_NO_LABELS: Mapping[str, int] = MappingProxyType({})


def read_scan(paths: Path | Sequence[Path], channels: int | None = None) -> Scan:
    """Read a scan from one file, from one file a channel, or from the folder of a DICOM series.

    NaN and infinite intensities are passed on: ``skipseg check`` reports them.

    Args:
        paths: A file that ends in one of :data:`ENDINGS`, a DICOM folder, or several of them on one grid,
            whose channels are stacked in the order given.
        channels: Number of channels that one multi-channel volume holds; ``None`` expects one.

    Returns:
        Scan of shape ``(C, *S)`` in the frame of the first file.

    Raises:
        SkipSegError: If a file cannot be read, its ending is unknown, or the grids differ.
    """
    sources = [paths] if isinstance(paths, Path) else list(paths)
    if not sources:
        raise SkipSegError("a scan needs at least one file, got none")
    scans = [_read(source, channels) for source in sources]
    first = scans[0]
    for other in scans[1:]:
        if difference := grid_difference(first, other):
            raise SkipSegError(
                f"{first.source} and {other.source} are channels of one scan but differ in {difference}; "
                "resample one onto the other first"
            )
    array = first.array if len(scans) == 1 else np.concatenate([scan.array for scan in scans])
    notes = tuple(dict.fromkeys(note for scan in scans for note in scan.notes))
    return Scan(array, first.affine, first.source, first.header, notes)


def scan_geometry(path: Path, channels: int | None = None) -> Grid:
    """Read where the voxels of a scan lie, without decoding them.

    Args:
        path: File that ends in one of :data:`ENDINGS`, or the folder of a DICOM series.
        channels: As for :func:`read_scan`.

    Raises:
        SkipSegError: If the header cannot be read or the ending is unknown.
    """
    if path.is_dir():
        return series_grid(path)
    if (ending := file_ending(path)) in nifti.ENDINGS:
        return nifti.nifti_grid(path, channels)
    if ending in nrrd.ENDINGS:
        return nrrd.nrrd_grid(path, channels)
    return picture.picture_grid(path)


def read_label_map(path: Path, like: Scan | None = None, remap: Mapping[int, int] = _NO_REMAP) -> Scan:
    """Read a label map: whole numbers from 0, on the grid of its scan.

    Args:
        path: File that ends in one of :data:`ENDINGS`, not JPEG. A colour picture is accepted when its
            channels are equal.
        like: Scan that the label map belongs to; its shape and affine must agree.
        remap: Stored value to meant value, such as ``{255: 1}``; values not named stay.

    Returns:
        Scan of shape ``(1, *S)``, in the smallest unsigned dtype that holds its labels.

    Raises:
        SkipSegError: If the file cannot be read, holds NaN, fractions or negative values, or lies on
            another grid than ``like``.
    """
    if file_ending(path) in picture.LOSSY_ENDINGS:
        raise SkipSegError(f"{path.name}: JPEG changes label values; draw the mask again as .png or .tif")
    scan = _read(path, None)
    if (scan.array[1:] != scan.array[:1]).any():
        raise SkipSegError(f"{path.name} is a colour picture; store one gray value a label instead")
    if like is not None and (difference := grid_difference(like, scan)):
        raise SkipSegError(
            f"{path.name} does not lie on the grid of {like.source}: {difference} (scan against label map); "
            "resample the label map onto the scan"
        )
    labels = _remapped(_whole_numbers(scan.array[:1], path.name), remap)
    return Scan(labels, scan.affine, scan.source, scan.header, scan.notes)


def write_label_map(path: Path, label_map: NDArray[Any], like: Scan, labels: Mapping[str, int] = _NO_LABELS) -> None:
    """Write a label map in the frame of its scan, whole or not at all.

    Args:
        path: Target; its ending chooses the format: NIfTI or NRRD for a volume (a DICOM series included),
            PNG, TIFF or BMP for a picture.
        label_map: Whole numbers in ``[0, 65535]``, shape ``(*S)``, the scan's spatial shape.
        like: The scan as it was read.
        labels: Class name to value; NRRD keeps the names as segments, other formats hold none.

    Raises:
        SkipSegError: If shape, values or ending do not fit.
        OSError: If the disk is full; nothing is left behind.
    """
    if label_map.shape != like.spatial_shape:
        raise SkipSegError(
            f"{path.name}: the label map has shape {label_map.shape}, {like.source} has {like.spatial_shape}; "
            "bring the map back to the grid of its scan first"
        )
    values = _whole_numbers(label_map, path.name)
    if values.dtype.itemsize > 2:
        raise SkipSegError(f"{path.name}: labels up to 65535 can be written, got {values.max()}")
    endings = picture.ENDINGS if like.spatial_dims == 2 else (*nifti.ENDINGS, *nrrd.ENDINGS)
    if (ending := file_ending(path)) not in endings:
        raise SkipSegError(
            f"{path.name}: {like.source} has {like.spatial_dims} axes; write one of {', '.join(endings)}"
        )
    if ending in picture.ENDINGS:
        picture.write_picture(path, values)
    elif ending in nifti.ENDINGS:
        nifti.write_nifti(path, values, like)
    else:
        nrrd.write_nrrd(path, values, like, labels)


def find_scans(folder: Path) -> dict[str, tuple[Path, ...]]:
    """Find the scans in a folder: case name to its channel files.

    Files named ``CASE_0000.nii.gz``, ``CASE_0001.nii.gz`` are channels of one case. A folder of DICOM files is
    one case, and so is each of its folders that holds some. Hidden files are skipped.

    Args:
        folder: Folder of scans, or of one DICOM series.

    Returns:
        Case names in order, each with its channel files in order.

    Raises:
        SkipSegError: If the folder is missing, unreadable or without scans, or a case is not clear.
    """
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
        files = [entry for entry in entries if entry.is_file()]
        cases = _grouped([file for file in files if _ending_of(file) is not None])
        if any(is_dicom_file(file) for file in files if _ending_of(file) is None):
            cases[folder.resolve().name] = (folder,)
        else:
            cases |= {entry.name: (entry,) for entry in entries if is_series_folder(entry)}
    except OSError as error:
        raise SkipSegError(f"{folder} cannot be read ({error.strerror}); give a folder of scans") from None
    if not cases:
        raise SkipSegError(f"{folder} holds no scans; known are {', '.join(ENDINGS)} and DICOM folders")
    return dict(sorted(cases.items()))


def file_ending(path: Path) -> str:
    """Ending by which the format is chosen, in lower case.

    Raises:
        SkipSegError: If no known format has it.

    Examples:
        >>> file_ending(Path("case.v2_0000.nii.gz"))
        '.nii.gz'
    """
    if (ending := _ending_of(path)) is None:
        raise SkipSegError(f"{path.name}: unknown format; known are {', '.join(ENDINGS)} and DICOM folders")
    return ending


def _ending_of(path: Path) -> str | None:
    """Known ending of a file name, or ``None``."""
    return next((ending for ending in sorted(ENDINGS, key=len)[::-1] if path.name.lower().endswith(ending)), None)


def _read(path: Path, channels: int | None) -> Scan:
    """Read one file by its ending, or a DICOM folder."""
    if path.is_dir():
        return read_series(path)
    if (ending := file_ending(path)) in nifti.ENDINGS:
        return nifti.read_nifti(path, channels)
    if ending in nrrd.ENDINGS:
        return nrrd.read_nrrd(path, channels)
    return picture.read_picture(path)


def _whole_numbers(values: NDArray[Any], source: str) -> NDArray[np.unsignedinteger]:
    """Values of any shape in the smallest unsigned dtype, when nothing is lost by it."""
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise SkipSegError(f"{source}: a label map holds whole numbers, got NaN or infinity")
        if (fractions := values != np.rint(values)).any():
            raise SkipSegError(
                f"{source}: a label map holds whole numbers, got {values[fractions][0]:g}; "
                "was it resampled with interpolation? resample it again with nearest neighbour"
            )
    if values.min() < 0:
        raise SkipSegError(f"{source}: labels start at 0, got {values.min():g}")
    return values.astype(np.min_scalar_type(int(values.max())), copy=False)


def _remapped(values: NDArray[np.unsignedinteger], remap: Mapping[int, int]) -> NDArray[np.unsignedinteger]:
    """Replace stored label values by meant ones, all at once; any shape."""
    if not remap:
        return values
    stored, index = np.unique(values, return_inverse=True)
    meant = np.array([remap.get(int(value), int(value)) for value in stored])
    return meant[index].reshape(values.shape).astype(np.min_scalar_type(int(meant.max())))


def _grouped(files: Sequence[Path]) -> dict[str, tuple[Path, ...]]:
    """Group sorted files into cases; a suffix counts as a channel only where its case has a channel 0000."""
    stems = {file: file.name[: -len(file_ending(file))] for file in files}
    firsts = {stem.removesuffix("_0000") for stem in stems.values() if stem.endswith("_0000")}
    cases: dict[str, list[Path]] = defaultdict(list)
    channels: dict[str, list[int]] = defaultdict(list)
    for file, stem in stems.items():
        match = _CHANNEL.fullmatch(stem)
        is_channel = match is not None and match["case"] in firsts
        name = match["case"] if match and is_channel else stem
        cases[name].append(file)
        channels[name].append(int(match["channel"]) if match and is_channel else 0)
    for name, numbers in channels.items():
        if numbers != list(range(len(numbers))):
            raise SkipSegError(
                f"case {name} has {', '.join(file.name for file in cases[name])}: expected one file, or channels "
                "0000, 0001, ... without gaps or doubles; rename or remove files"
            )
    return {name: tuple(paths) for name, paths in cases.items()}

"""Read an upload for the first time, in a worker process: what it is, how large, and whether it is whole."""

import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from segmentation import SkipSegError
from segmentation.scans import Grid, Scan, read_scan, scan_geometry
from segmentation.scans.archive import extract_zip
from segmentation.scans.series import gather_series, is_dicom_file
from segmentation.scans.workspace import Workspace
from segmentation.serve.records import RAW
from segmentation.serve.sniff import UnknownTypeError, check_preamble, ending_of

MOST_SLICES = 20_000
"""Files that an archive may hold."""

MOST_CHANNELS = 8
"""Of one file."""

_ROOM_BYTES = 256 << 20
_LARGEST_VOXEL = 8
_KINDS = {".nii": "nifti", ".nii.gz": "nifti", ".nrrd": "nrrd", "series": "dicom"}


def take_in(task: Mapping[str, Any], tell: Callable[..., None]) -> dict[str, Any]:
    """Read an upload as a whole, under names of ours.

    Args:
        task: ``folder`` of the upload, which holds :data:`RAW`, and ``unpacked``, the bytes that it may hold.
        tell: Unused; a worker's task has it.

    Returns:
        ``kind`` (``"nifti"``, ``"nrrd"``, ``"dicom"`` or ``"picture"``), ``name`` of the file or folder,
        ``dims``, ``shape`` and ``spacing_mm`` of the grid, ``channels``, and ``channels_in_file``: what a reader must
        be told of one volume of several channels, else None.

    Raises:
        UnknownTypeError: If it is of no type that is read.
        SkipSegError: If it is damaged, or larger than is allowed.
    """
    folder, most = Path(task["folder"]), int(task["unpacked"])
    ending = ending_of(folder / RAW)
    path = _series_of(folder, most) if ending == ".zip" else (folder / RAW).rename(folder / f"scan{ending}")
    channels, grid = _grid_of(path)
    if math.prod(grid.shape) * (channels or 1) * _LARGEST_VOXEL > most:
        raise SkipSegError(f"the upload has {' x '.join(map(str, grid.shape))} voxels, more than this server takes")
    scan = read_scan(path, channels, workspace=Workspace(_ROOM_BYTES, folder))
    return _facts(path, scan, channels)


def _facts(path: Path, scan: Scan, channels: int | None) -> dict[str, Any]:
    """What is known of a scan."""
    return {
        "kind": _KINDS.get("".join(path.suffixes) or path.name, "picture"),
        "name": path.name,
        "dims": scan.spatial_dims,
        "shape": list(scan.spatial_shape),
        "spacing_mm": [round(size, 6) for size in scan.spacing_mm],
        "channels": len(scan.array),
        "channels_in_file": channels,
    }


def _grid_of(path: Path) -> tuple[int | None, Grid]:
    """Where the voxels lie, and of how many channels one volume is; None for one, and for pictures."""
    try:
        return None, scan_geometry(path)
    except SkipSegError:
        if path.is_file():
            for channels in range(2, MOST_CHANNELS + 1):
                try:
                    return channels, scan_geometry(path, channels)
                except SkipSegError:
                    continue
        raise


def _series_of(folder: Path, most: int) -> Path:
    """Unpack an archive and keep the slices of its one series, numbered."""
    unpacked, series = folder / "unpacked", folder / "series"
    extract_zip(folder / RAW, unpacked, most, MOST_SLICES)
    files = sorted(file for file in unpacked.rglob("*") if file.is_file() and is_dicom_file(file))
    if not files:
        raise UnknownTypeError("the archive holds no DICOM files; send any other scan as it is")
    series.mkdir()
    renamed = [file.rename(series / f"{index:06d}.dcm") for index, file in enumerate(files)]
    for file in renamed:
        check_preamble(file)
    found = [each for each, _ in gather_series(renamed)]
    if len(found) != 1:
        raise SkipSegError(f"the archive holds {len(found)} series of images; put the slices of one into it")
    for file in set(renamed) - set(found[0].files):
        file.unlink()
    shutil.rmtree(unpacked)
    (folder / RAW).unlink()
    return series

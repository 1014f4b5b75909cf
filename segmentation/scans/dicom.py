"""A strict reader of DICOM image series: slices become a volume only when their headers prove that they are one.

Common readers sort by instance number, stretch the spacing over missing slices, interleave two series and
drop the shear of a tilted gantry without a word. Here each of these is an error, with a repair on request.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from segmentation import SkipSegError
from segmentation.scans.blocks import check_room, copy, release, slowest_first, zeros
from segmentation.scans.decoder import decode
from segmentation.scans.geometry import check_affine
from segmentation.scans.scan import Grid, Scan
from segmentation.scans.series import Series, SourceSlices, gather_series, one_line_errors
from segmentation.scans.slices import REPAIRS, Repair, Stack, find_faults, mend, same_position, stack_affine
from segmentation.scans.workspace import Workspace

_SLOPE_PER_SLICE = frozenset({"PT"})
"""Modalities whose slices are each scaled to their own range; their values agree after rescaling."""

_MOST_RUN = 64
"""Bytes that one byte of DICOM's run-length encoding can stand for, at most: 128 for two."""


def read_series(
    source: Path | Sequence[Path],
    *,
    series_uid: str | None = None,
    repair: Collection[Repair] = (),
    workspace: Workspace | None = None,
) -> Scan:
    """Read one series of single-frame images into a volume, slice by slice.

    Slices are sorted by position along their common normal, never by name or instance number. Values are
    rescaled by RescaleSlope and RescaleIntercept: Hounsfield units for CT.

    Args:
        source: Folder, searched with everything below it, or DICOM files.
        series_uid: The series to read; ``None`` expects only one.
        repair: Faults to mend instead of refusing them, each told in the scan's notes: ``"gaps"`` interpolates
            missing slices, ``"duplicates"`` drops copies with equal pixels, ``"spacing"`` resamples to the
            median spacing, ``"tilt"`` resamples to an orthogonal grid.
        workspace: Where the voxels lie; ``None`` keeps them in memory.

    Returns:
        Scan of shape ``(1, columns, rows, slices)`` with its affine in RAS+; integers where the rescaling keeps
        them, else float32.

    Raises:
        SkipSegError: If there is no series or more than one; if slices differ in size, direction, pixel size
            or rescaling, share a position, are missing, unevenly spaced or tilted; or if a file is damaged or
            compressed without a decoder.

    Examples:
        >>> read_series([])
        Traceback (most recent call last):
        ...
        segmentation.SkipSegError: no DICOM images found; give the folder of one series
    """
    if unknown := set(repair) - set(REPAIRS):
        raise SkipSegError(f"repair knows {', '.join(REPAIRS)}, got {', '.join(sorted(unknown))}")
    name = _name(source)
    stack, slices, faults, notes = _checked(source, series_uid, repair)
    volume = _volume(slices.files, workspace)
    if faults:
        stack, volume = mend(stack, volume, tuple(faults), workspace)
    return Scan(volume[None], stack_affine(stack), name, slices, notes)


def series_grid(source: Path | Sequence[Path]) -> Grid:
    """Read where the voxels of a sound series lie, without decoding them.

    Raises:
        SkipSegError: As :func:`read_series` without repairs, as far as headers tell.
    """
    stack, slices, _, _ = _checked(source, None, ())
    return Grid((*stack.shape, len(slices.files)), stack_affine(stack))


def _name(source: Path | Sequence[Path]) -> str:
    """Folder name for messages."""
    if isinstance(source, Path):
        return source.name
    return source[0].parent.name if source else ""


def _selected(gathered: Sequence[tuple[Series, list[Dataset]]], series_uid: str | None) -> tuple[Series, list[Dataset]]:
    """The one series that is meant."""
    if not gathered:
        raise SkipSegError("no DICOM images found; give the folder of one series")
    chosen = [entry for entry in gathered if series_uid in (None, entry[0].uid)]
    if len(chosen) != 1:
        listing = "; ".join(f"[{index}] {series}" for index, (series, _) in enumerate(gathered))
        raise SkipSegError(
            f"{len(gathered)} series found where one is expected; choose one by its UID, the last entry "
            f"(series_uid, --series): {listing}"
            if series_uid is None
            else f"no series {series_uid}; found are {listing}"
        )
    return chosen[0]


def _checked(
    source: Path | Sequence[Path], series_uid: str | None, repair: Collection[str]
) -> tuple[Stack, SourceSlices, dict[str, str], tuple[str, ...]]:
    """Stack and sorted files of a series, the faults left to mend, and notes about them."""
    series, headers = _selected(gather_series(source), series_uid)
    if len(series.frames_of_reference) > 1:
        raise SkipSegError(
            f"{_name(source)}: slices of one series have {len(series.frames_of_reference)} frames of reference, so "
            "their positions do not compare; give the files of one of them"
        )
    stack, files = _sorted_stack(series, headers)
    stack, files, notes = _without_copies(stack, files, "duplicates" in repair)
    faults = find_faults(stack)
    for kind, fault in faults.items():
        if kind not in repair:
            raise SkipSegError(f"{_name(source)}: {fault}; complete the series, or repair it with {kind!r}")
        notes.append(f"{fault}: repaired by resampling")
    if len(files) == 1:
        notes.append(f"one slice: its third axis is SliceThickness, {stack.thickness_mm:g} mm")
    check_affine(stack_affine(stack), _name(source))
    return stack, SourceSlices(tuple(files), "".join(series.frames_of_reference)), faults, tuple(notes)


def _sorted_stack(series: Series, headers: Sequence[Dataset]) -> tuple[Stack, list[Path]]:
    """Check that slices belong to one volume, and sort them along their normal."""
    for file, header in zip(series.files, headers, strict=True):
        if int(header.get("NumberOfFrames") or 1) > 1 or int(header.get("SamplesPerPixel") or 1) > 1:
            raise SkipSegError(f"{file.name} is a multi-frame or colour image; convert it to NIfTI first")
    size = np.array([[int(header.Columns), int(header.Rows)] for header in headers])
    table = {
        keyword: np.array(
            [_numbers(header, keyword, count, file) for header, file in zip(headers, series.files, strict=True)]
        )
        for keyword, count in (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6), ("PixelSpacing", 2))
    }
    rescale = np.array([_rescale(header) for header in headers])
    _same("size in pixels", size, 0, series)
    _same("ImageOrientationPatient", table["ImageOrientationPatient"], 1e-3, series)
    _same("PixelSpacing", table["PixelSpacing"], 1e-3 * table["PixelSpacing"].min(), series)
    if series.modality not in _SLOPE_PER_SLICE:
        _same("RescaleSlope and RescaleIntercept", rescale, 0, series)
    row, column = (table["ImageOrientationPatient"][0, part] for part in (slice(3), slice(3, 6)))
    if not np.allclose([row @ row, column @ column, row @ column], [1, 1, 0], atol=1e-3):
        raise SkipSegError(f"{series.files[0].name}: ImageOrientationPatient holds no right angle; restore the file")
    row, column = row / np.linalg.norm(row), column / np.linalg.norm(column)
    order = np.argsort(table["ImagePositionPatient"] @ np.cross(row, column), kind="stable")
    between_rows, between_columns = table["PixelSpacing"][0]
    stack = Stack(
        positions=table["ImagePositionPatient"][order],
        row=row,
        column=column,
        shape=(series.columns, series.rows),
        pixel_mm=(float(between_columns), float(between_rows)),
        thickness_mm=_number(headers[0], "SliceThickness"),
    )
    return stack, [series.files[index] for index in order]


def _rescale(header: Dataset) -> tuple[float, float]:
    """Slope and intercept that turn stored values into Hounsfield or other units; an empty field is no rescaling."""
    if "ModalityLUTSequence" in header:
        raise SkipSegError(
            "the intensities hang on a table, ModalityLUTSequence, which is not read; convert the series"
        )
    slope, intercept = _number(header, "RescaleSlope"), _number(header, "RescaleIntercept")
    return 1.0 if slope is None else slope, 0.0 if intercept is None else intercept


def _number(header: Dataset, keyword: str) -> float | None:
    """A header field of one number, or ``None`` where it is missing or empty."""
    value = header.get(keyword)
    return None if value is None or np.size(value) == 0 or value == "" else float(value)


def _same(what: str, values: NDArray[Any], tolerance: float, series: Series) -> None:
    """Refuse a series whose slices differ in a property; values of shape ``(K, n)``."""
    off = np.abs(values - values[0]).max(axis=1) > tolerance
    if off.any():
        other = int(np.flatnonzero(off)[0])
        raise SkipSegError(
            f"slices of one series differ in {what}: {values[0].tolist()} in {series.files[0].name}, "
            f"{values[other].tolist()} in {series.files[other].name}; leave the odd ones (a localiser?) out"
        )


def _numbers(header: Dataset, keyword: str, count: int, file: Path) -> list[float]:
    """A header field of a fixed number of numbers."""
    values = header.get(keyword)
    if values is None or np.size(values) != count:
        raise SkipSegError(f"{file.name} has no usable {keyword}: it is no slice of a volume; leave it out")
    return [float(value) for value in values]


def _without_copies(stack: Stack, files: list[Path], repair: bool) -> tuple[Stack, list[Path], list[str]]:
    """Drop slices that repeat the position and the pixels of the one before, when that is asked for."""
    dropped: set[int] = set()
    for index in same_position(stack):
        first, second = files[index], files[index + 1]
        if not repair:
            raise SkipSegError(
                f"{first.name} and {second.name} lie at one position: copies, or several echoes or times in one "
                "series; leave one out, or drop equal copies with repair 'duplicates'"
            )
        if not np.array_equal(_pixels(first), _pixels(second)):
            raise SkipSegError(
                f"{first.name} and {second.name} lie at one position with different pixels: several echoes or times "
                "in one series, which no repair can part; give the files of one of them"
            )
        dropped.add(index + 1)
    kept = [index for index in range(len(files)) if index not in dropped]
    notes = [f"{len(dropped)} copies of slices were dropped"] if dropped else []
    return replace(stack, positions=stack.positions[kept]), [files[index] for index in kept], notes


def _pixels(file: Path) -> NDArray[Any]:
    """Rescaled values of one slice, shape ``(columns, rows)``: integers where nothing is lost, else float32."""
    with one_line_errors(file):
        dataset = pydicom.dcmread(file)
        _check_pixels(dataset)
        stored = (decode(file) if _needs_library(dataset) else dataset.pixel_array).T
        slope, intercept = _rescale(dataset)
    if (slope, intercept) == (1, 0):
        return stored
    if not (slope.is_integer() and intercept.is_integer()):
        return (stored * slope + intercept).astype(np.float32)
    return stored.astype(np.int32) * int(slope) + int(intercept)


def _needs_library(dataset: Dataset) -> bool:
    """Tell whether pydicom itself cannot decode the pixels."""
    syntax = dataset.file_meta.get("TransferSyntaxUID", ExplicitVRLittleEndian)
    return syntax.is_compressed and syntax != RLELossless


def _check_pixels(dataset: Dataset) -> None:
    """Refuse a header that claims more pixels than follow it; other encodings do not tell before they are decoded."""
    if "PixelData" in dataset and not _needs_library(dataset):
        syntax = dataset.file_meta.get("TransferSyntaxUID", ExplicitVRLittleEndian)
        pixels = int(dataset.Rows) * int(dataset.Columns)
        packed = _MOST_RUN if syntax.is_compressed else 1
        check_room((pixels * int(dataset.BitsAllocated) + 7) // 8, len(dataset.PixelData), packed)


def _volume(files: Sequence[Path], workspace: Workspace | None) -> NDArray[Any]:
    """Voxels of sorted slices, shape ``(columns, rows, slices)``, the slowest in memory last.

    Rescaled integers lie in int16 where they all fit, at half the memory. Only a slice that does not fit behind
    others that did makes the volume be copied.
    """
    limits = np.iinfo(np.int16)
    volume, kind, low, high = np.empty((0, 0, 0)), np.dtype(bool), 0, 0
    for index, file in enumerate(files):
        pixels = _pixels(file)
        kind = np.result_type(kind, pixels)
        kind = np.dtype(np.float32) if kind == np.float64 else kind  # int32 beside float32
        low, high = min(low, pixels.min()), max(high, pixels.max())
        narrow = kind == np.int32 and limits.min <= low and high <= limits.max
        dtype = np.dtype(np.int16) if narrow else kind
        if not index or dtype != volume.dtype:
            wider = slowest_first(zeros((len(files), *pixels.shape[::-1]), dtype, workspace))
            copy(wider[..., :index], volume[..., :index], workspace)
            volume = wider
        volume[..., index] = pixels
        release(workspace)
    return volume

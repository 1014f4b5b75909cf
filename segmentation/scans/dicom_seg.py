"""Write a label map as a DICOM segmentation (SEG) of the series that was segmented.

highdicom, which knows the modules of the standard, makes the object; it is decoded again before it gets its name.
"""

import warnings
from collections.abc import Mapping, Sequence
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.pixels.encoders import RLELosslessEncoder
from pydicom.uid import ExplicitVRLittleEndian, RLELossless, generate_uid

from segmentation import SkipSegError, __version__
from segmentation.runs import atomic_path
from segmentation.scans.dicom import series_grid
from segmentation.scans.dicom_seg_read import placed_frames, read_dicom_seg
from segmentation.scans.scan import Grid
from segmentation.scans.segments import is_dicom_seg, read_segments
from segmentation.scans.series import one_line_errors
from segmentation.scans.terms import NO_CODES, cielab, colour, term

if TYPE_CHECKING:
    from highdicom.seg import SegmentDescription

__all__ = ["Kind", "is_dicom_seg", "read_dicom_seg", "write_dicom_seg"]

Kind = Literal["binary", "labelmap"]

_KEPT = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
    "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
"""What the standard wants of the patient and the study in every object; it is copied, and shown nowhere."""

_NEEDED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
_USED = (
    *_NEEDED, "Modality", "Rows", "Columns", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing",
    "SliceThickness", "SeriesNumber", "LossyImageCompression", "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
)  # fmt: skip

_SLAB = 4
"""Columns of the label map that are translated at a time."""

_INSTEAD = "write NIfTI or NRRD, which need no source slices"


def write_dicom_seg(
    path: Path,
    label_map: NDArray[np.integer],
    files: Sequence[Path],
    labels: Mapping[str, int],
    *,
    model_name: str,
    model_version: str,
    kind: Kind = "binary",
    codes: Mapping[str, Mapping[str, str]] = NO_CODES,
) -> None:
    """Write a label map as a segmentation that refers to the slices which were segmented, whole or not at all.

    The file is decoded and compared with the label map before it gets its name. Empty frames are left out. An empty
    label map becomes one empty frame for each class, on the first slice: a DICOM image has a frame at least. Of the
    patient and the study the file holds what the standard wants in every object, and nothing else.

    Args:
        path: Target, ending in .dcm.
        label_map: Label values, shape ``(columns, rows, slices)``, as of :func:`segmentation.scans.dicom.read_series`.
        files: Files of the slices, in the order of the slices.
        labels: Class name to value; 0 is the background. In a BINARY segmentation segments are numbered from 1 in the
            order of their values, in a LABELMAP their numbers are the values.
        model_name: Name of the model, which DICOM calls the algorithm.
        model_version: Version or hash of the model.
        kind: ``"binary"``, which every viewer reads, or ``"labelmap"``, which is new, and smaller with many classes.
        codes: Codes that the dataset gives for its classes, as for :func:`segmentation.scans.terms.term`.

    Raises:
        SkipSegError: If highdicom is missing; if the label map has another shape than the slices, or values without a
            name; if the slices are no even, upright series (it was repaired when it was read) or lack identifiers.
        OSError: If the disk is full; nothing is left behind.
    """
    segments = sorted((value, name) for name, value in labels.items() if value != 0)
    numbers = {value: value if kind == "labelmap" else index for index, (value, _) in enumerate(segments, start=1)}
    grid = check_dicom_seg(path, label_map.shape, files)
    headers = _headers(path, files)
    numbered = _numbered(path, label_map, labels, numbers)
    descriptions = [
        _description(numbers[value], value, name, codes, model_name, model_version) for value, name in segments
    ]
    with atomic_path(path) as draft:
        _save(draft, path.name, numbered, grid, headers, descriptions, kind)
        _check_written(draft, path.name, numbered, grid)


def check_dicom_seg(path: Path, shape: tuple[int, ...], files: Sequence[Path]) -> Grid:
    """Say where the slices of a series lie, if they can carry a label map of this shape as they are.

    Args:
        path: File that is to be written.
        shape: Of the label map.
        files: Slices of the series.

    Raises:
        SkipSegError: If they cannot, or highdicom is missing.
    """
    if util.find_spec("highdicom") is None:
        raise SkipSegError("DICOM SEG is written by highdicom, which is missing; pip install 'skipseg[dicom]'")
    try:
        grid = series_grid(files)
    except SkipSegError as error:
        raise SkipSegError(
            f"{path.name}: a DICOM SEG lies on its source slices as they are, but: {error}; or {_INSTEAD}"
        ) from None
    if grid.shape != shape:
        raise SkipSegError(
            f"{path.name}: the label map has shape {shape}, its source slices {grid.shape}: they were repaired by "
            f"resampling, or are others; {_INSTEAD}"
        )
    return grid


def _headers(path: Path, files: Sequence[Path]) -> list[Dataset]:
    """What a segmentation takes over from each of its source slices."""
    headers: list[Dataset] = []
    for file in files:
        with one_line_errors(file):
            header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=[*_USED, *_KEPT])
            header.decode()
        if missing := [keyword for keyword in _NEEDED if not header.get(keyword)]:
            raise SkipSegError(f"{path.name}: {file.name} has no {missing[0]}, to which a DICOM SEG refers; {_INSTEAD}")
        headers.append(header)
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID"):
        if len({str(header[keyword].value) for header in headers}) > 1:
            raise SkipSegError(f"{path.name}: its source slices differ in {keyword}, so they are no volume; {_INSTEAD}")
    row, column = np.reshape(headers[0].ImageOrientationPatient, (2, 3)).astype(np.float64)
    heights = np.array([header.ImagePositionPatient for header in headers], np.float64) @ np.cross(row, column)
    if (np.diff(heights) <= 0).any():
        raise SkipSegError(f"{path.name}: its source slices must be given in the order of their positions")
    return headers


def _numbered(
    path: Path, label_map: NDArray[np.integer], labels: Mapping[str, int], numbers: Mapping[int, int]
) -> NDArray[np.integer]:
    """Label map of shape ``(I, J, K)`` with segment numbers as values, each slice in one piece of memory."""
    if len(numbers) != sum(value != 0 for value in labels.values()) or not numbers:
        raise SkipSegError(f"{path.name}: a segmentation needs classes, each with its value, got {dict(labels)}")
    if not 0 < min(numbers) <= max(numbers) <= 0xFFFF:
        raise SkipSegError(f"{path.name}: label values lie in 1 to 65535, got {dict(labels)}")
    if label_map.dtype.kind not in "biu":
        raise SkipSegError(f"{path.name}: a label map holds whole numbers, got {label_map.dtype}")
    label_map = label_map.view(np.uint8) if label_map.dtype.kind == "b" else label_map
    known = np.zeros(max(numbers) + 1, np.bool_)
    known[[0, *numbers]] = True
    lookup = np.zeros(known.size, np.min_scalar_type(max(numbers.values())))
    lookup[list(numbers)] = list(numbers.values())
    # Slices one after another, as readers give them: no copy is needed where the values are the numbers already.
    is_ready = (
        label_map.flags.f_contiguous and label_map.dtype == lookup.dtype and all(v == n for v, n in numbers.items())
    )
    numbered: NDArray[np.integer] = label_map if is_ready else np.empty(label_map.shape, lookup.dtype, order="F")
    for index in range(label_map.shape[2]) if is_ready else range(0, len(label_map), _SLAB):
        slab = label_map[..., index] if is_ready else label_map[index : index + _SLAB]
        if slab.min() < 0 or slab.max() >= known.size or not known[slab].all():
            strange = sorted({int(value) for value in np.unique(slab)} - {0, *numbers})
            raise SkipSegError(f"{path.name}: the label map has the value {strange[0]}, which is not in {dict(labels)}")
        if not is_ready:
            numbered[index : index + _SLAB] = lookup[slab]
    return numbered


def _description(
    number: int, value: int, name: str, codes: Mapping[str, Mapping[str, str]], model_name: str, model_version: str
) -> "SegmentDescription":
    """Describe a class: its codes, colour, identity, and the model that found it."""
    # Inside functions: highdicom is optional, and takes a second to import.
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.color import CIELabColor
    from highdicom.seg import SegmentDescription
    from pydicom.sr.codedict import codes as dictionary

    meant = term(name, codes)
    algorithm = AlgorithmIdentificationSequence(
        name=_line(model_name), family=dictionary.DCM.ArtificialIntelligence, version=_line(model_version)
    )
    described = SegmentDescription(
        number, _line(name), meant.category, meant.kind, "AUTOMATIC", algorithm,
        tracking_uid=generate_uid(prefix=None), tracking_id=_line(name),
        display_color=CIELabColor.from_dicom_value(cielab(colour(name, value))),
    )  # fmt: skip
    if meant.side is not None:
        side = Dataset()
        side.CodeValue, side.CodingSchemeDesignator, side.CodeMeaning = meant.side[:3]
        described.SegmentedPropertyTypeModifierCodeSequence = [side]
    return described


def _save(
    draft: Path,
    name: str,
    numbered: NDArray[np.integer],
    grid: Grid,
    headers: Sequence[Dataset],
    descriptions: Sequence["SegmentDescription"],
    kind: Kind,
) -> None:
    """Let highdicom make the object of a label map of shape ``(I, J, K)``, and save it."""
    # As above.
    from highdicom import PixelMeasuresSequence, PlanePositionSequence
    from highdicom.seg import Segmentation

    if "gdcm" in RLELosslessEncoder.available_plugins:
        RLELosslessEncoder.remove_plugin("gdcm")  # it ends the process at a frame of an odd number of bytes (3.2.6)
    first = headers[0]
    is_empty = not numbered.any()
    shown = headers[:1] if is_empty else headers
    version = str(descriptions[0].SegmentationAlgorithmIdentificationSequence[0].AlgorithmVersion)
    model = str(descriptions[0].SegmentAlgorithmName)
    try:
        with warnings.catch_warnings(), disable_value_validation():
            # highdicom and pydicom warn of every value in the source that breaks the standard's letter, and log it.
            warnings.simplefilter("ignore")
            made = Segmentation(
                source_images=[_source(header, first) for header in headers],
                pixel_array=numbered.T[: len(shown)],
                segmentation_type=kind.upper(),
                segment_descriptions=descriptions,
                series_instance_uid=generate_uid(prefix=None),
                series_number=1000 + max(0, int(first.get("SeriesNumber") or 0)) % 1_000_000,
                sop_instance_uid=generate_uid(prefix=None),
                instance_number=1,
                manufacturer="SkipSeg",
                manufacturer_model_name=model,
                software_versions=__version__,
                device_serial_number=version,
                content_label="SEGMENTATION",
                content_description=model,
                series_description=_line(f"SkipSeg {model}"),
                transfer_syntax_uid=RLELossless if kind == "labelmap" else ExplicitVRLittleEndian,
                pixel_measures=PixelMeasuresSequence(
                    [float(size) for size in first.PixelSpacing], float(grid.spacing_mm[2]), float(grid.spacing_mm[2])
                ),
                plane_positions=[PlanePositionSequence("PATIENT", header.ImagePositionPatient) for header in shown],
                omit_empty_frames=not is_empty,
                specific_character_set="ISO_IR 192",
            )
            for keyword in _KEPT:
                if keyword in first:
                    made[keyword] = first[keyword]
            made.save_as(draft)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise SkipSegError(f"{name}: the source slices cannot carry a DICOM SEG ({reason}); {_INSTEAD}") from None


def _source(header: Dataset, first: Dataset) -> Dataset:
    """What highdicom may see of a source slice: not the patient, whom it would name in its log."""
    source = Dataset()
    for keyword in _USED:
        if keyword in header:
            source[keyword] = header[keyword]
    for keyword in _KEPT:
        setattr(source, keyword, None)
    source.ImageOrientationPatient, source.PixelSpacing = first.ImageOrientationPatient, first.PixelSpacing
    return source


def _check_written(draft: Path, name: str, numbered: NDArray[np.integer], grid: Grid) -> None:
    """Compare what a reader finds in the file with the label map, shape ``(I, J, K)``, voxel by voxel."""
    found = read_segments(draft)
    marked = 0
    for number, mask, region in placed_frames(found, numbered, grid, found.names):
        marked += int(np.count_nonzero(mask))
        if not np.array_equal(region == number, mask):
            raise SkipSegError(f"{name}: the file does not hold the label map; it was not kept. Please report this")
    if marked != np.count_nonzero(numbered):
        raise SkipSegError(f"{name}: the file lacks parts of the label map; it was not kept. Please report this")


def _line(text: str) -> str:
    """Text as DICOM keeps it in a short field: one line of at most 64 characters, without backslashes."""
    return "".join(sign if sign.isprintable() and sign != "\\" else " " for sign in text).strip()[:64] or "unnamed"

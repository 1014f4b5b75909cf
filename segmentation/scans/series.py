"""Which image series a folder of DICOM files holds. Only headers are read, and of those only what is needed."""

import logging
import re
import struct
import sys
import warnings
from collections import defaultdict
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pydicom
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.misc import is_dicom
from pydicom.uid import UID

from segmentation import SkipSegError

# pydicom logs each odd value, a patient's name too, beside raising what matters; only the one line is for the user.
logging.getLogger("pydicom").setLevel(logging.CRITICAL)

_TEXTS = [
    "SOPClassUID", "SeriesInstanceUID", "Modality", "SeriesDescription", "PatientName", "PatientID",
    "FrameOfReferenceUID",
]  # fmt: skip
_NUMBERS = [
    "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "ImagePositionPatient", "ImageOrientationPatient",
    "PixelSpacing", "SliceThickness", "RescaleSlope", "RescaleIntercept",
]  # fmt: skip


_VECTORS = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")


@dataclass(frozen=True)
class Series:
    """One image series of a folder.

    Attributes:
        uid: SeriesInstanceUID, which selects the series.
        modality: Such as ``"CT"`` or ``"MR"``.
        description: Short text of the scanner, empty when it repeats the patient's name or id.
        files: Its image files.
        rows: Pixels down a slice.
        columns: Pixels across a slice.
        frames_of_reference: UIDs of the spaces that its positions are meant in: one, or none where none is given.
    """

    uid: str
    modality: str
    description: str
    files: tuple[Path, ...]
    rows: int
    columns: int
    frames_of_reference: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = f" {self.description!r}" if self.description else ""
        return f"{self.modality}{text}, {len(self.files)} slices of {self.columns} x {self.rows}, {self.uid}"


@dataclass(frozen=True)
class SourceSlices:
    """The files behind a volume, slice by slice: what a DICOM segmentation of it refers to.

    Attributes:
        files: Files in the order of the slices.
        frame_of_reference: UID of the space that their positions are meant in; empty where none is given.
    """

    files: tuple[Path, ...]
    frame_of_reference: str


def list_series(source: Path | Sequence[Path]) -> list[Series]:
    """List the image series of a folder, without their pixels.

    Segmentations, structure sets and files that are not DICOM are passed over.

    Args:
        source: Folder, searched with everything below it, or DICOM files.

    Returns:
        Series in the order of their first file; empty when there is none.

    Raises:
        SkipSegError: If the folder or a DICOM file cannot be read.
    """
    return [series for series, _ in gather_series(source)]


def choose_series(listing: Sequence[Series], rule: str | None = None) -> list[Series]:
    """Choose by a rule among the series of a folder; without one, only a lone series is beyond doubt.

    Args:
        listing: What :func:`list_series` found.
        rule: A SeriesInstanceUID, ``"all"``, ``"largest"`` (most voxels), or ``None``.

    Raises:
        SkipSegError: If there is none, if none has the UID, or if it stays open which one is meant.

    Examples:
        >>> head = Series("1.2.3", "MR", "T1", (Path("a"), Path("b")), 256, 256)
        >>> scout = Series("1.2.4", "MR", "localiser", (Path("c"),), 256, 256)
        >>> [series.description for series in choose_series([scout, head], "largest")]
        ['T1']
    """
    if rule in ("all", "largest", None) and not listing:
        raise SkipSegError("no DICOM images found; give the folder of one series")
    if rule == "all":
        return list(listing)
    most = max((_voxels(series) for series in listing), default=0)
    chosen = [
        series
        for series in listing
        if rule is None or (_voxels(series) == most if rule == "largest" else series.uid == rule)
    ]
    if len(chosen) != 1:
        raise SkipSegError(
            f"{len(chosen)} of {len(listing)} series match {rule or 'where one is expected'}; name one by its UID, the "
            f"last entry, or say all or largest (--series): {_in_lines(listing, '; ')}"
        )
    return chosen


def ask_series(listing: Sequence[Series]) -> list[Series]:
    """Ask the person at the terminal which series is meant; where nobody sits, as :func:`choose_series` alone.

    Raises:
        SkipSegError: If nobody can be asked and several are there, or the answer is none of them.
    """
    if len(listing) < 2 or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return choose_series(listing)
    print(f"{len(listing)} series:\n{_in_lines(listing, chr(10))}", file=sys.stderr)
    print("Number of the series, or all: ", end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline().strip()
    if answer.isdecimal() and int(answer) < len(listing):
        return [listing[int(answer)]]
    return choose_series(listing, answer)


def is_series_folder(folder: Path) -> bool:
    """Tell whether a folder, or one below it, holds a DICOM file."""
    return folder.is_dir() and any(is_dicom_file(file) for file in sorted(folder.rglob("*")) if file.is_file())


def is_dicom_file(file: Path) -> bool:
    """Tell a file that is DICOM, or should be, by its ending or its marker; anything else may lie in a folder."""
    return file.suffix.lower() in (".dcm", ".ima") or is_dicom(file)


@contextmanager
def one_line_errors(file: Path) -> Generator[None, None, None]:
    """Turn whatever pydicom meets in a damaged file into one line that names the file, and mute its warnings."""
    try:
        with warnings.catch_warnings(), disable_value_validation():
            # pydicom warns about each value that breaks the standard's letter; real scanners write many. It also
            # logs them, and with them what stands in the patient's fields.
            warnings.simplefilter("ignore")
            yield
    except SkipSegError:
        raise
    except InvalidDicomError:
        raise SkipSegError(f"{file.name} is not DICOM; restore it or leave it out") from None
    except RuntimeError as error:  # pydicom's for a missing decoder; its text lists plugins over several lines
        reason = str(error).splitlines()[0]
        advice = "is it complete? restore it" if find_spec("gdcm") else "pip install python-gdcm"
        raise SkipSegError(f"{file.name} cannot be decompressed ({reason}); {advice}") from None
    except (
        AttributeError,
        BytesLengthException,
        EOFError,
        LookupError,
        NotImplementedError,  # pydicom's for a value representation that it does not know
        OSError,
        TypeError,
        ValueError,
        struct.error,
    ) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise SkipSegError(f"{file.name} cannot be read as DICOM ({reason}); is it complete? restore it") from None


def gather_series(source: Path | Sequence[Path]) -> list[tuple[Series, list[Dataset]]]:
    """Like :func:`list_series`, each series beside the headers of its files."""
    try:
        files = sorted(file for file in source.rglob("*") if file.is_file()) if isinstance(source, Path) else source
        if isinstance(source, Path) and not source.is_dir():
            raise SkipSegError(f"{source} is not a folder; give the folder of one DICOM series")
        headers = [(file, _header(file)) for file in files if is_dicom_file(file)]
    except OSError as error:
        raise SkipSegError(f"{error.filename or source} cannot be read ({error.strerror})") from None
    found: dict[str, list[tuple[Path, Dataset]]] = defaultdict(list)
    for file, header in headers:
        if _is_image(file, header):
            found[str(header.SeriesInstanceUID)].append((file, header))
    return [(_series(uid, slices), [header for _, header in slices]) for uid, slices in found.items()]


def _voxels(series: Series) -> int:
    """Size of a series in voxels."""
    return len(series.files) * series.rows * series.columns


def _in_lines(listing: Sequence[Series], between: str) -> str:
    """Series with their numbers, for a message or a question."""
    return between.join(f"[{index}] {series}" for index, series in enumerate(listing))


def _header(file: Path) -> Dataset:
    """Read the header fields that place and describe a slice; the others, patient data too, stay on disk."""
    with one_line_errors(file):
        header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=[*_TEXTS, *_NUMBERS])
        for element in header:  # decoded here, so that a damaged value is found beside its file name
            value = element.value
            numbers = np.asarray(value, np.float64) if element.keyword in _NUMBERS and value not in (None, "") else 0
            if np.size(numbers) > 1 and element.keyword not in _VECTORS:
                raise ValueError(f"{element.keyword} holds several numbers")
    return header


def _is_image(file: Path, header: Dataset) -> bool:
    """Tell images from what accompanies them (segmentations, structure sets, reports) by their SOP class."""
    with one_line_errors(file):  # a damaged UID warns
        kind = header.file_meta.get("MediaStorageSOPClassUID") or header.get("SOPClassUID")
        is_image = kind is not None and UID(kind).name.endswith("Image Storage")
    if kind is None or (is_image and not all(header.get(key) for key in ("SeriesInstanceUID", "Rows", "Columns"))):
        raise SkipSegError(f"{file.name} is cut off within its DICOM header; restore it or leave it out")
    return is_image


def _series(uid: str, slices: Sequence[tuple[Path, Dataset]]) -> Series:
    """Describe a series by its first header."""
    header = slices[0][1]
    description = " ".join(str(header.get("SeriesDescription", "")).split())[:40]
    private = re.findall(r"\w{3,}", f"{header.get('PatientName', '')} {header.get('PatientID', '')}".lower())
    if any(word in description.lower() for word in private):
        description = ""
    files = tuple(file for file, _ in slices)
    spaces = sorted({str(each.get("FrameOfReferenceUID") or "") for _, each in slices} - {""})
    modality, rows, columns = str(header.get("Modality", "?")), int(header.Rows), int(header.Columns)
    return Series(uid, modality, description, files, rows, columns, tuple(spaces))

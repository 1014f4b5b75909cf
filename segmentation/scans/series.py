"""Which image series a folder of DICOM files holds. Only headers are read, and of those only what is needed."""

import re
import struct
import warnings
from collections import defaultdict
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.misc import is_dicom
from pydicom.uid import UID

from segmentation import SkipSegError

_HEADER_TAGS = [
    "SOPClassUID",
    "SeriesInstanceUID", "Modality", "SeriesDescription", "PatientName", "PatientID", "Rows", "Columns",
    "NumberOfFrames", "SamplesPerPixel", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing",
    "SliceThickness", "RescaleSlope", "RescaleIntercept",
]  # fmt: skip


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
    """

    uid: str
    modality: str
    description: str
    files: tuple[Path, ...]
    rows: int
    columns: int

    def __str__(self) -> str:
        text = f" {self.description!r}" if self.description else ""
        return f"{self.modality}{text}, {len(self.files)} slices of {self.columns} x {self.rows}, {self.uid}"


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
        with warnings.catch_warnings():
            # pydicom warns about each value that breaks the standard's letter; real scanners write many.
            warnings.simplefilter("ignore")
            yield
    except SkipSegError:
        raise
    except InvalidDicomError:
        raise SkipSegError(f"{file.name} is not DICOM; restore it or leave it out") from None
    except RuntimeError as error:  # pydicom's for a missing decoder; its text lists plugins over several lines
        reason = str(error).splitlines()[0]
        raise SkipSegError(f"{file.name} cannot be decompressed ({reason}); pip install python-gdcm") from None
    except (
        AttributeError,
        EOFError,
        LookupError,
        NotImplementedError,
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


def _header(file: Path) -> Dataset:
    """Read the header fields that place and describe a slice; the others, patient data too, stay on disk."""
    with one_line_errors(file):
        header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=_HEADER_TAGS)
        for element in header:  # decoded here, so that a damaged value is found beside its file name
            _ = element.value
    return header


def _is_image(file: Path, header: Dataset) -> bool:
    """Tell images from what accompanies them (segmentations, structure sets, reports) by their SOP class."""
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
    return Series(uid, str(header.get("Modality", "?")), description, files, int(header.Rows), int(header.Columns))

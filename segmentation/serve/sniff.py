"""What an upload is, told by its content alone: its name counts for nothing; what could be two things is refused."""

import re
import zipfile
import zlib
from pathlib import Path

from segmentation import SkipSegError

ACCEPTED = "NIfTI (.nii, .nii.gz), NRRD, PNG, TIFF, JPEG, or a zip archive of one DICOM series"
"""For messages."""

_HEAD_BYTES = 1024
_PICTURES = {
    b"\x89PNG\r\n\x1a\n": ".png",
    b"\xff\xd8\xff": ".jpg",
    b"II*\x00": ".tif",
    b"MM\x00*": ".tif",
    b"II+\x00": ".tif",
    b"MM\x00+": ".tif",
}
_OTHER = re.compile(rb"%PDF-|<!doctype|<html|<script|<svg|<\?php", re.IGNORECASE)
_PREAMBLE_BYTES = 128
_PROGRAMS = (b"MZ", b"\x7fELF", b"#!", b"PK", b"%PDF", b"<", b"II", b"MM", b"\xca\xfe", b"\xcf\xfa")


class UnknownTypeError(SkipSegError):
    """The upload is of no type that is read."""


def ending_of(file: Path) -> str:
    """Tell the type of an upload.

    Returns:
        ``".nii"``, ``".nii.gz"``, ``".nrrd"``, ``".png"``, ``".jpg"``, ``".tif"``, or ``".zip"``.

    Raises:
        UnknownTypeError: If it is none of these, or also something else.
    """
    with file.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
    ending = _by_head(head)
    if ending is None:
        raise UnknownTypeError(f"the upload is none of these: {ACCEPTED}")
    if ending != ".zip" and zipfile.is_zipfile(file):
        raise UnknownTypeError("the upload is a zip archive as well, behind its other content; export the scan again")
    if _OTHER.search(head):
        raise UnknownTypeError("the upload is a page or a document as well; export the scan again")
    if not _ends_where_it_should(file, ending):
        raise UnknownTypeError("the upload goes on behind the end of its picture; export the picture again")
    return ending


def check_preamble(file: Path) -> None:
    """Refuse a DICOM file whose first 128 bytes, which mean nothing, begin as a program or another format.

    Raises:
        UnknownTypeError: If they do.
    """
    with file.open("rb") as stream:
        preamble = stream.read(_PREAMBLE_BYTES)
    if preamble.startswith(_PROGRAMS):
        raise UnknownTypeError("a DICOM file begins as a program or as another format; export the series again")


def _by_head(head: bytes) -> str | None:
    """Ending that the first bytes stand for."""
    if _is_nifti(head):
        return ".nii"
    if head.startswith(b"\x1f\x8b"):
        return ".nii.gz" if _is_nifti(_unpacked(head)) else None
    if head.startswith(b"NRRD000"):
        return ".nrrd"
    if head.startswith(b"PK\x03\x04"):
        return ".zip"
    return next((ending for start, ending in _PICTURES.items() if head.startswith(start)), None)


def _is_nifti(head: bytes) -> bool:
    """Whether bytes begin as a NIfTI-1 or NIfTI-2 file whose voxels follow its header."""
    size = head[:4]
    first = size in (b"\x5c\x01\0\0", b"\0\0\x01\x5c") and head[344:348] == b"n+1\0"
    return first or (size in (b"\x1c\x02\0\0", b"\0\0\x02\x1c") and head[4:8] == b"n+2\0")


def _unpacked(head: bytes) -> bytes:
    """First bytes of what a gzip stream holds."""
    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head, _HEAD_BYTES)
    except zlib.error:
        return b""


def _ends_where_it_should(file: Path, ending: str) -> bool:
    """Whether nothing hides behind a PNG or JPEG picture."""
    if ending == ".jpg":
        with file.open("rb") as stream:
            stream.seek(max(0, file.stat().st_size - _HEAD_BYTES))
            return stream.read().rstrip(b"\0").endswith(b"\xff\xd9")
    return ending != ".png" or _png_end(file) in (None, file.stat().st_size)


def _png_end(file: Path) -> int | None:
    """Where the last chunk of a PNG ends; None if it is cut off before, which the reader refuses."""
    size, place = file.stat().st_size, 8
    with file.open("rb") as stream:
        while place + 12 <= size:
            stream.seek(place)
            length, kind = int.from_bytes(stream.read(4), "big"), stream.read(4)
            place += 12 + length
            if kind == b"IEND":
                return place
    return None

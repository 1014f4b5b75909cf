"""Reading uploads for the first time: what is right is described, what is hostile is refused by a harmless sentence."""

import gzip
import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest

from segmentation import SkipSegError
from segmentation.serve.intake import take_in
from segmentation.serve.records import RAW
from segmentation.serve.sniff import UnknownTypeError
from segmentation.serve.words import cleaned
from tests.inference.test_predictor import write_series
from tests.serve.conftest import zipped


def taken(folder: Path, content: bytes | Path, unpacked: int = 1 << 30) -> dict[str, Any]:
    (folder / RAW).write_bytes(content.read_bytes() if isinstance(content, Path) else content)
    return take_in({"folder": str(folder), "unpacked": unpacked}, lambda **said: None)


def packed(*members: tuple[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return stream.getvalue()


def claiming(shape: tuple[int, ...]) -> bytes:
    """A NIfTI header that claims a shape, with a few voxels behind it."""
    header = nib.Nifti1Header()
    header.set_data_shape(shape)
    header.set_data_dtype(np.int16)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    return header.binaryblock + b"\0" * 4 + b"\0" * 1000


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nifti", {"kind": "nifti", "name": "scan.nii.gz", "dims": 3, "shape": [19, 15, 9], "channels": 1}),
        ("picture", {"kind": "picture", "name": "scan.png", "dims": 2, "shape": [40, 50], "channels": 1}),
        ("colour", {"kind": "picture", "name": "scan.png", "dims": 2, "shape": [40, 50], "channels": 3}),
        ("dicom", {"kind": "dicom", "name": "series", "dims": 3, "shape": [13, 17, 5], "channels": 1}),
    ],
)
def test_a_scan_is_read_and_described(scans: dict[str, Path], tmp_path: Path, name: str, expected: dict[str, Any]):
    facts = taken(tmp_path, scans[name])
    assert {key: facts[key] for key in expected} == expected
    assert [file.name for file in tmp_path.iterdir()] == [expected["name"]], "nothing else is kept"


def test_nrrd_and_volumes_of_several_channels_are_read(tmp_path: Path):
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    several = nib.Nifti1Image(np.zeros((5, 6, 7, 3), np.int16), affine).to_bytes()
    facts = taken(tmp_path, several)
    assert (facts["channels"], facts["channels_in_file"], facts["spacing_mm"]) == (3, 3, [1.0, 2.0, 3.0])
    text = b"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 2 3 4\nencoding: raw\nspace: RAS\n"
    fields = b"space directions: (1,0,0) (0,1,0) (0,0,2)\nspace origin: (0,0,0)\n\n"
    facts = taken(tmp_path, text + fields + bytes(24))
    assert (facts["kind"], facts["name"], facts["shape"]) == ("nrrd", "scan.nrrd", [2, 3, 4])


def test_slices_lose_their_names_and_what_is_no_slice_is_dropped(tmp_path: Path):
    files = [(f"Doe^Jane/{file.name}", file.read_bytes()) for file in write_series(tmp_path / "series").iterdir()]
    (tmp_path / "upload").mkdir()
    taken(tmp_path / "upload", packed(*files, ("Doe^Jane/notes.txt", b"Doe"), ("Doe^Jane/preview.png", b"x")))
    kept = sorted(file.relative_to(tmp_path / "upload").as_posix() for file in (tmp_path / "upload").rglob("*"))
    assert kept == ["series", *(f"series/{index:06d}.dcm" for index in range(5))]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (packed(("bomb.dcm", bytes(60_000_000))), "unpacks to more than the bytes that are allowed"),
        (packed(("../../escaped.dcm", b"x")), "leads out of its folder"),
        (packed(("/etc/escaped.dcm", b"x")), "has an absolute path"),
        (packed(("a.dcm", b"x" * 200)), "cannot be read as DICOM|is not DICOM|cut off"),
        (packed(("inner.zip", packed(("a.dcm", bytes(9))))), "holds no DICOM files"),
        (packed(("scan.nii.gz", gzip.compress(claiming((2, 2, 2))))), "holds no DICOM files"),
        (packed(*[(f"{n}.txt", b"") for n in range(20_001)]), "has 20001 members"),
        (packed(("a.dcm", b"x"))[:-9], "cannot be unpacked"),
    ],
    ids=["bomb", "escape", "absolute", "no dicom", "nested", "no series", "many", "cut"],
)
def test_hostile_archives_are_refused(tmp_path: Path, content: bytes, reason: str):
    with pytest.raises(SkipSegError, match=reason):
        taken(tmp_path, content, unpacked=10_000_000)
    assert not list(tmp_path.parent.glob("escaped*"))
    assert sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file()) < 11_000_000 + len(content)


@pytest.mark.parametrize(
    "content",
    [
        claiming((2000, 2000, 1300)),
        gzip.compress(claiming((2000, 2000, 1300))),
        b"NRRD0004\ntype: short\ndimension: 3\nsizes: 2000 2000 1300\nencoding: raw\nspace: RAS\n"
        b"space directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\n\n" + bytes(99),
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBBI", 13, b"IHDR", 100_000, 100_000, 8, 0, 0, 0, 0, 0) + bytes(64),
    ],
    ids=["nifti", "gzip", "nrrd", "png"],
)
def test_a_header_that_claims_ten_gigabytes_is_refused_before_memory_is_taken(tmp_path: Path, content: bytes):
    with pytest.raises(SkipSegError) as caught:
        taken(tmp_path, content, unpacked=8 << 30)
    assert "the upload" in cleaned(str(caught.value))


def test_a_claim_that_the_file_cannot_hold_is_refused(tmp_path: Path):
    with pytest.raises(SkipSegError, match="cannot be read as NIfTI"):
        taken(tmp_path, claiming((200, 200, 200)))


def test_an_archive_of_two_series_is_refused_without_their_descriptions(tmp_path: Path):
    members = []
    for name in ("one", "two"):
        for file in write_series(tmp_path / name).iterdir():
            slice = pydicom.dcmread(file)
            slice.SeriesDescription, slice.PatientName = "Jane's knee", "<b>Doe^Jane</b>"
            slice.save_as(file)
            members.append((f"{name}/{file.name}", file.read_bytes()))
    (tmp_path / "upload").mkdir()
    with pytest.raises(SkipSegError) as caught:
        taken(tmp_path / "upload", packed(*members))
    assert cleaned(str(caught.value)) == "the archive holds 2 series of images; put the slices of one into it"


def test_a_series_that_begins_as_a_program_is_refused(tmp_path: Path):
    folder = write_series(tmp_path / "series")
    file = folder / "2.dcm"
    file.write_bytes(b"MZ" + file.read_bytes()[2:])
    (tmp_path / "upload").mkdir()
    with pytest.raises(UnknownTypeError, match="begins as a program"):
        taken(tmp_path / "upload", zipped(folder))

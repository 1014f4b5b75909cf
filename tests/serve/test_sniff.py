"""What an upload is, by its content; what could be two things is refused."""

import gzip
import io
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from segmentation.serve.sniff import UnknownTypeError, check_preamble, ending_of


def encoded(form: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(stream, form)
    return stream.getvalue()


def nifti(kind: type = nib.Nifti1Image) -> bytes:
    return kind(np.zeros((3, 4, 5), np.int16), np.eye(4)).to_bytes()


def archive() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as opened:
        opened.writestr("a.dcm", b"x" * 300)
    return stream.getvalue()


KNOWN = {
    ".nii": nifti(),
    ".nii (2)": nifti(nib.Nifti2Image),
    ".nii.gz": gzip.compress(nifti()),
    ".nrrd": b"NRRD0004\ntype: short\n",
    ".png": encoded("PNG"),
    ".jpg": encoded("JPEG"),
    ".tif": encoded("TIFF"),
    ".zip": archive(),
}


@pytest.mark.parametrize("name", KNOWN)
def test_each_type_is_known_by_its_content(tmp_path: Path, name: str):
    file = tmp_path / "Doe^Jane.exe"
    file.write_bytes(KNOWN[name])
    assert ending_of(file) == name.partition(" ")[0]


@pytest.mark.parametrize(
    "content",
    [
        b"", b"MZ\x90\0" * 200, b"<!doctype html><script>alert(1)</script>", b"%PDF-1.7\n", b"GIF89a" + b"\0" * 99,
        gzip.compress(b"#!/bin/sh\n" * 99), b"\x1f\x8b" + b"\xff" * 400, b"\0" * 128 + b"DICM" + b"\0" * 300,
        nifti()[:344] + b"ni1\0", nifti()[:100],
    ],
    ids=["empty", "program", "page", "pdf", "gif", "script", "broken gzip", "dicom", "pair", "cut"],
)  # fmt: skip
def test_anything_else_is_refused(tmp_path: Path, content: bytes):
    file = tmp_path / "scan.nii.gz"
    file.write_bytes(content)
    with pytest.raises(UnknownTypeError, match="none of these: NIfTI"):
        ending_of(file)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (encoded("PNG") + archive(), "a zip archive as well"),
        (nifti() + archive(), "a zip archive as well"),
        (encoded("JPEG") + archive(), "a zip archive as well"),
        (encoded("PNG") + b"\0" * 1000 + b"<script>alert(1)</script>", "behind the end of its picture"),
        (encoded("JPEG") + b"MZ\x90\0" * 20, "behind the end of its picture"),
        (nifti()[:148] + b"<script>x</script>" + nifti()[166:], "a page or a document"),
        (b"NRRD0004\n# <HTML>\ntype: short\n", "a page or a document"),
        (encoded("TIFF")[:200] + b"%PDF-1.4" + encoded("TIFF")[200:], "a page or a document"),
    ],
    ids=["png-zip", "nifti-zip", "jpeg-zip", "png-page", "jpeg-program", "nifti-page", "nrrd-page", "tiff-pdf"],
)
def test_what_is_two_things_is_refused(tmp_path: Path, content: bytes, reason: str):
    file = tmp_path / "upload"
    file.write_bytes(content)
    with pytest.raises(UnknownTypeError, match=reason):
        ending_of(file)


def test_a_picture_that_is_cut_off_is_left_to_its_reader(tmp_path: Path):
    file = tmp_path / "upload"
    file.write_bytes(encoded("PNG")[:-9])
    assert ending_of(file) == ".png"


@pytest.mark.parametrize("start", [b"MZ\x90\0", b"\x7fELF", b"#!/bin/sh", b"<html>", b"PK\x03\x04"])
def test_a_dicom_file_that_begins_as_something_else_is_refused(tmp_path: Path, start: bytes):
    file = tmp_path / "a.dcm"
    file.write_bytes(start.ljust(128, b"\0") + b"DICM")
    with pytest.raises(UnknownTypeError, match="begins as a program"):
        check_preamble(file)
    file.write_bytes(b"\0" * 128 + b"DICM")
    check_preamble(file)

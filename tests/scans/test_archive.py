import io
import lzma
import os
import random
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from segmentation import SkipSegError
from segmentation.scans.archive import extract_zip

LIMITS = (10_000_000, 100)


@pytest.fixture
def make_zip(tmp_path: Path) -> Callable[..., Path]:
    """Write an archive of named contents, some with changed entries, and return its path."""

    def make(
        members: dict[str, bytes], change: Callable[[zipfile.ZipInfo], None] = lambda info: None, kind: int = 8
    ) -> Path:
        path = tmp_path / "scans.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                info = zipfile.ZipInfo("name")
                info.filename = info.orig_filename = name  # as it is, where the constructor would mend it
                info.compress_type = kind
                change(info)
                archive.writestr(info, content)
        return path

    return make


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_files_come_out_as_they_went_in(make_zip, tmp_path: Path, kind: int):
    members = {"a.nii.gz": b"one" * 1000, "patient 1/b.dcm": b"", "patient 1/deep/ü.png": os.urandom(3000)}
    extract_zip(make_zip(members, kind=kind), tmp_path / "out", *LIMITS)
    assert tree(tmp_path / "out") == members


def test_folders_and_archives_within_are_no_files(make_zip, tmp_path: Path):
    inner = make_zip({"c.nii": b"x"}).read_bytes()
    extract_zip(make_zip({"empty/": b"", "inner.zip": inner}), tmp_path / "out", *LIMITS)
    assert tree(tmp_path / "out") == {"inner.zip": inner}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("/etc/passwd", "'passwd' has an absolute path"),
        ("C:/scan.nii", r"'scan\.nii' has an absolute path"),
        ("c:scan.nii", "absolute path"),
        ("../scan.nii", r"'scan\.nii' leads out of its folder"),
        ("a/../../scan.nii", "leads out"),
        ("a/..", "leads out"),
        ("..\\scan.nii", r"'scan\.nii' has a backslash"),
        ("a//scan.nii", "no proper name"),
        ("./scan.nii", "no proper name"),
        ("a\0/scan.nii", "no proper name"),
        ("a\x1b[31m", r"'a\?\[31m' has no proper name"),
        ("/".join("a" * 40), "too long a path"),
        ("ü" * 200, "too long a path"),
    ],
)
def test_a_name_that_is_no_plain_path_is_refused(make_zip, tmp_path: Path, name: str, words: str):
    archive = make_zip({"good.nii": b"1", name: b"2"})
    with pytest.raises(SkipSegError, match=rf"scans\.zip: .*{words}") as error:
        extract_zip(archive, tmp_path / "in" / "out", *LIMITS)
    assert "etc" not in str(error.value)
    assert "\n" not in str(error.value)
    assert tree(tmp_path) == {"scans.zip": archive.read_bytes()}


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_are_refused(make_zip, tmp_path: Path, kind: int):
    def change(info: zipfile.ZipInfo) -> None:
        info.create_system, info.external_attr = 3, (kind | 0o777) << 16

    with pytest.raises(SkipSegError, match="'link' is a link or a device"):
        extract_zip(make_zip({"link": b"/etc/passwd"}, change), tmp_path / "out", *LIMITS)


def test_encrypted_members_are_refused(make_zip, tmp_path: Path):
    archive = make_zip({"a.nii": b"secret"})
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1  # the directory's flags
    archive.write_bytes(content)
    with pytest.raises(SkipSegError, match=r"'a\.nii' is encrypted"):
        extract_zip(archive, tmp_path / "out", *LIMITS)


@pytest.mark.parametrize(
    "names", [("a/Scan.nii", "A/scan.NII"), ("e\u0301.nii", "\u00e9.nii"), ("a", "a/b"), ("a/b", "A"), ("x/", "x")]
)
def test_names_that_meet_on_some_disk_are_refused(make_zip, tmp_path: Path, names: tuple[str, str]):
    with pytest.raises(SkipSegError, match="is there twice"):
        extract_zip(make_zip(dict.fromkeys(names, b"1")), tmp_path / "out", *LIMITS)


def test_one_name_twice_is_refused(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "twice.zip", "w") as archive:
        archive.writestr("a.nii", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.nii", b"2")
    with pytest.raises(SkipSegError, match=r"'a\.nii' is there twice"):
        extract_zip(tmp_path / "twice.zip", tmp_path / "out", *LIMITS)


def test_too_many_members_are_refused(make_zip, tmp_path: Path):
    archive = make_zip({f"{index}.nii": b"" for index in range(4)})
    extract_zip(archive, tmp_path / "out", 0, 4)
    with pytest.raises(SkipSegError, match=r"scans\.zip has 4 members, more than 3"):
        extract_zip(archive, tmp_path / "none", 0, 3)
    assert tree(tmp_path / "none") == {}


def test_bytes_are_counted_as_they_come_out(make_zip, tmp_path: Path):
    archive = make_zip({"a.nii": bytes(600_000), "b.nii": bytes(400_000)})
    extract_zip(archive, tmp_path / "out", 1_000_000, 2)
    for name, limit in (("c", 999_999), ("d", 10)):
        with pytest.raises(SkipSegError, match="more than the bytes that are allowed"):
            extract_zip(archive, tmp_path / name, limit, 2)
        assert sum(map(len, tree(tmp_path / name).values())) <= limit


def test_a_declared_size_that_lies_is_not_believed(make_zip, tmp_path: Path):
    archive = make_zip({"a.nii": bytes(5_000_000)})
    content = bytearray(archive.read_bytes())
    directory = content.index(b"PK\1\2")
    content[directory + 24 : directory + 28] = (100).to_bytes(4, "little")
    archive.write_bytes(content)
    with pytest.raises(SkipSegError, match="cannot be unpacked"):
        extract_zip(archive, tmp_path / "out", 1_000_000, 2)
    assert sum(map(len, tree(tmp_path / "out").values())) <= 1_000_000


@pytest.mark.parametrize("kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("seed", range(15))
def test_a_damaged_archive_is_whole_or_one_line(make_zip, tmp_path: Path, kind: int, seed: int):
    members = {"a.nii": b"voxels" * 200, "b/c.png": bytes(range(256))}
    content, chance = bytearray(make_zip(members, kind=kind).read_bytes()), random.Random(seed)
    if seed % 3:
        for _ in range(seed % 3):
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    else:
        del content[chance.randrange(len(content)) :]
    (tmp_path / "damaged.zip").write_bytes(content)
    (tmp_path / "safe").mkdir()
    message = None
    try:
        extract_zip(tmp_path / "damaged.zip", tmp_path / "safe" / "out", *LIMITS)
    except SkipSegError as error:
        message = str(error)
    outside = [path.name for path in tmp_path.iterdir() if path.name not in ("safe", "scans.zip", "damaged.zip")]
    assert outside == []
    assert [path.name for path in (tmp_path / "safe").iterdir()] == ["out"]
    if message is None:  # a flipped bit can lie in a time, or in a name
        assert sorted(tree(tmp_path / "safe" / "out").values()) == sorted(members.values())
    else:
        assert message.startswith("damaged.zip")
        assert "\n" not in message


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\3\4"])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "scans.zip").write_bytes(content)
    with pytest.raises(SkipSegError, match=r"scans\.zip cannot be unpacked"):
        extract_zip(tmp_path / "scans.zip", tmp_path / "out", *LIMITS)


def test_a_missing_archive_is_named(tmp_path: Path):
    with pytest.raises(SkipSegError, match=r"none\.zip does not exist"):
        extract_zip(tmp_path / "none.zip", tmp_path / "out", *LIMITS)


def test_a_folder_that_holds_something_is_left_alone(make_zip, tmp_path: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.nii").write_bytes(b"old")
    with pytest.raises(SkipSegError, match="out is not empty"):
        extract_zip(make_zip({"b.nii": b"new"}), tmp_path / "out", *LIMITS)
    assert tree(tmp_path / "out") == {"a.nii": b"old"}


def test_a_full_disk_is_no_fault_of_the_archive(make_zip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    archive = make_zip({"a.nii": b"1"})

    def full(self: Path, *mode: str) -> io.BytesIO:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OSError, match="No space left"):
        extract_zip(archive, tmp_path / "out", *LIMITS)


def test_a_method_that_python_does_not_know_is_refused(make_zip, tmp_path: Path):
    archive = make_zip({"a.nii": lzma.compress(b"1")}, kind=zipfile.ZIP_STORED)
    content = archive.read_bytes().replace(b"\x14\0\0\0\0\0", b"\x14\0\0\0\x62\0")  # 98: PPMd
    archive.write_bytes(content)
    with pytest.raises(SkipSegError, match="cannot be unpacked"):
        extract_zip(archive, tmp_path / "out", *LIMITS)

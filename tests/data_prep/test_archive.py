import gzip
import io
import shutil
import stat
import tarfile
import tracemalloc
import zipfile
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from data_prep.archive import locate, opened, unpack
from segmentation import SkipSegError

ESCAPES = ["../evil.txt", "/evil.txt", "a/../../evil.txt", "..\\evil.txt", "C:\\evil.txt"]


def write_zip(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as bundle:
        for name in names:
            bundle.writestr(name, f"content of {name}")
    return path


def write_tar(path: Path, *names: str) -> Path:
    with tarfile.open(path, "w:gz") as bundle:
        for name in names:
            content = f"content of {name}".encode()
            member = tarfile.TarInfo(name)
            member.size = len(content)
            bundle.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_unpacks_plain_files_whatever_the_ending(tmp_path, tree, write):
    archive = write(tmp_path / "archive.dat", "top.txt", "deep/er/file.txt")
    unpack(archive, tmp_path / "out")
    assert tree(tmp_path / "out") == {n: f"content of {n}".encode() for n in ("deep/er/file.txt", "top.txt")}


@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_unpacks_only_the_folder_asked_for(tmp_path, tree, write):
    archive = write(tmp_path / "archive.dat", "code/run.py", "data/one.txt", "database.txt")
    unpack(archive, tmp_path / "out", only="data")
    assert list(tree(tmp_path / "out")) == ["data/one.txt"]


@pytest.mark.parametrize("write", [write_zip, write_tar])
@pytest.mark.parametrize("name", ESCAPES)
def test_refuses_a_member_that_leaves_the_folder(tmp_path, write, name):
    archive = write(tmp_path / "archive.dat", "fine.txt", name)
    with pytest.raises(SkipSegError, match="outside its folder"), opened(archive, tmp_path / "inner" / "out"):
        pass
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["archive.dat"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_refuses_links_and_devices_in_a_tar(tmp_path, kind):
    with tarfile.open(tmp_path / "a.tar", "w") as bundle:
        member = tarfile.TarInfo("link")
        member.type, member.linkname = kind, "/etc/passwd"
        bundle.addfile(member)
    with pytest.raises(SkipSegError, match="a link or device"):
        unpack(tmp_path / "a.tar", tmp_path / "out")


def test_refuses_a_link_in_a_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as bundle:
        member = zipfile.ZipInfo("link")
        member.external_attr = (stat.S_IFLNK | 0o777) << 16
        bundle.writestr(member, "/etc/passwd")
    with pytest.raises(SkipSegError, match="a link or device"):
        unpack(tmp_path / "a.zip", tmp_path / "out")


def test_refuses_what_is_no_archive(tmp_path):
    (tmp_path / "a.zip").write_text("<html>404</html>")
    with pytest.raises(SkipSegError, match="neither a folder nor a zip or tar archive"):
        unpack(tmp_path / "a.zip", tmp_path / "out")


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "changed":
        content = content[:45] + bytes([content[45] ^ 255]) + content[46:]
    elif how == "cut":
        content = content[: len(content) * 2 // 3]
    elif how == "cut at the end":
        content = content[:-20]
    elif how == "cut between members":  # of a plain tar: a header and a block of content each
        with tarfile.open(path) as bundle:
            members = bundle.getmembers()
        content = gzip.decompress(content)[: members[1].offset]
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("write", "how"),
    [
        (write_zip, "changed"),
        (write_tar, "changed"),
        (write_tar, "cut"),
        (write_tar, "cut at the end"),
        (write_tar, "cut between members"),
    ],
)
def test_refuses_a_damaged_archive_and_leaves_nothing(tmp_path, write, how):
    damage(write(tmp_path / "a.dat", "one.txt", "two.txt"), how)
    with pytest.raises(SkipSegError, match="damaged"), opened(tmp_path / "a.dat", tmp_path / "out"):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["a.dat"]


@pytest.mark.parametrize(("mode", "options"), [("w:gz", {}), ("w:xz", {}), ("w:bz2", {"compresslevel": 1})])
def test_a_flipped_bit_in_any_archive_is_damage(tmp_path, mode, options):
    (tmp_path / "noise").write_bytes(np.random.default_rng(0).bytes(300_000))
    with tarfile.open(tmp_path / "a.tar", mode, **options) as bundle:
        bundle.add(tmp_path / "noise", "noise")
    content = bytearray((tmp_path / "a.tar").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(SkipSegError, match=r"a\.tar is damaged"), opened(tmp_path / "a.tar", tmp_path / "out"):
        pass


def test_a_zip_that_points_to_before_its_start_is_damage(tmp_path):
    content = bytearray(write_zip(tmp_path / "a.zip", "one.txt").read_bytes())
    content[content.index(b"PK\x05\x06") + 19] = 0xFF  # where its list of members starts
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(SkipSegError, match=r"a\.zip is damaged"):
        unpack(tmp_path / "a.zip", tmp_path / "out")


def test_refuses_an_encrypted_zip(tmp_path):
    content = bytearray(write_zip(tmp_path / "a.zip", "one.txt").read_bytes())
    for header, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(header) + flags] |= 1
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(SkipSegError, match=r"a\.zip is encrypted; unpack it"):
        unpack(tmp_path / "a.zip", tmp_path / "out")


@pytest.mark.parametrize("write", [write_zip, write_tar])
@pytest.mark.parametrize("names", [("a", "a/b"), ("a/b", "a"), ("a", "a/b/c")])
def test_refuses_a_file_that_is_a_folder_too(tmp_path, write, names):
    archive = write(tmp_path / "a.dat", *names)
    with pytest.raises(SkipSegError, match=rf"holds '{names[1]}' and a file or folder in its way"):
        unpack(archive, tmp_path / "out")


@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_refuses_more_than_fits_on_the_disk(tmp_path, write, monkeypatch):
    archive = write(tmp_path / "a.dat", "other/x", "data/1", "data/2")
    for free, fits in ((40, True), (35, False)):  # 17 bytes each, and one in ten is left free
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=free))
        with nullcontext() if fits else pytest.raises(SkipSegError, match=r"a\.dat unpacks to more than fits"):
            unpack(archive, tmp_path / f"out{free}", only="data")


def test_what_follows_a_tar_is_not_kept_in_memory(tmp_path):
    write_tar(tmp_path / "a.tar.gz", "one.txt")
    content = gzip.decompress((tmp_path / "a.tar.gz").read_bytes()) + bytes(50_000_000)
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(content, 1))
    del content
    tracemalloc.start()
    try:
        unpack(tmp_path / "a.tar.gz", tmp_path / "out")
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_a_folder_is_read_in_place_and_a_copy_is_removed(tmp_path):
    with opened(tmp_path, tmp_path / "out") as folder:
        assert folder == tmp_path
    archive = write_zip(tmp_path / "a.zip", "one.txt")
    with opened(archive, tmp_path / "out") as folder:
        assert (folder / "one.txt").is_file()
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]


def test_refuses_a_source_that_does_not_exist(tmp_path):
    with pytest.raises(SkipSegError, match="does not exist"), opened(tmp_path / "no", tmp_path / "out"):
        pass


@pytest.mark.parametrize("depth", ["", "one", "one/two"])
def test_locates_a_marker_two_folders_deep(tmp_path, depth):
    (tmp_path / depth / "images").mkdir(parents=True)
    assert locate(tmp_path, ["manifest.csv", "images"], "") == (tmp_path / depth, "images")


def test_names_the_layout_when_no_marker_is_found(tmp_path):
    with pytest.raises(SkipSegError, match=r"none of images; expected pictures in images"):
        locate(tmp_path, ["images"], "pictures in images")

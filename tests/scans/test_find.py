import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from segmentation import SkipSegError
from segmentation.scans import file_ending, find_scans, read_scan


@pytest.mark.parametrize(
    ("name", "ending"), [("a.b.nii.gz", ".nii.gz"), ("A.NII", ".nii"), ("a.seg.nrrd", ".nrrd"), ("a.JPG", ".jpg")]
)
def test_file_ending(name: str, ending: str):
    assert file_ending(Path(name)) == ending


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_scans_are_found_with_their_channels_in_order(tmp_path: Path):
    touch(tmp_path, "b_0001.nii.gz", "b_0000.nii.gz", "a.nrrd", "c_12.nii", "._a.nii.gz", "notes.txt", "d_0003.png")
    found = {name: [path.name for path in paths] for name, paths in find_scans(tmp_path).items()}
    assert found == {
        "a": ["a.nrrd"],
        "b": ["b_0000.nii.gz", "b_0001.nii.gz"],
        "c_12": ["c_12.nii"],
        "d_0003": ["d_0003.png"],  # a number of its own: there is no d_0000
    }
    assert list(find_scans(tmp_path)) == sorted(found)


@pytest.mark.parametrize(
    "names",
    [("a_0000.nii", "a_0002.nii"), ("a.nii", "a.nii.gz"), ("a.nii", "a_0000.nii"), ("a_0000.png", "a_0000.tif")],
)
def test_an_unclear_case_is_refused(tmp_path: Path, names: tuple[str, ...]):
    touch(tmp_path, *names)
    with pytest.raises(SkipSegError, match=rf"case a has {names[0]}, {names[1]}: expected one file"):
        find_scans(tmp_path)


def test_dicom_folders_are_scans(make_series: Callable[..., Path], tmp_path: Path):
    first, second = make_series("first"), make_series("second")
    touch(tmp_path, "empty/notes.txt")
    assert find_scans(tmp_path) == {"first": (first,), "second": (second,)}
    assert find_scans(first) == {"first": (first,)}
    assert read_scan(find_scans(tmp_path)["second"]).spatial_dims == 3


@pytest.mark.parametrize("names", [(), ("notes.txt",), ("folder/readme.md",)])
def test_a_folder_without_scans_is_refused(tmp_path: Path, names: tuple[str, ...]):
    touch(tmp_path, *names)
    with pytest.raises(SkipSegError, match=r"holds no scans; known are \.nii, .* and DICOM folders"):
        find_scans(tmp_path)


def test_a_missing_folder_and_a_file_are_refused(tmp_path: Path):
    touch(tmp_path, "scan.nii")
    for path in (tmp_path / "none", tmp_path / "scan.nii"):
        with pytest.raises(SkipSegError, match="cannot be read"):
            find_scans(path)


def test_an_unreadable_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(self: Path) -> None:  # permissions do not bind root, under which containers run tests
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(SkipSegError, match="Permission denied"):
        find_scans(tmp_path)

import os
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, SegmentationStorage

from segmentation import SkipSegError
from segmentation.inference.cases import Work, find_work, read_work
from segmentation.inference.endings import mask_ending

A, B = "1.2.826.0.1.111111", "1.2.826.0.1.22.2222"


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def write_series(folder: Path, uid: str, heights: Sequence[float] = (0, 1, 2), sop_class: str = CTImageStorage) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for index, height in enumerate(heights):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, f"{uid}.{index}"
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        slice_ = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        slice_.SOPClassUID, slice_.SOPInstanceUID = sop_class, f"{uid}.{index}"
        slice_.SeriesInstanceUID, slice_.Modality = uid, "CT"
        slice_.Rows, slice_.Columns, slice_.SamplesPerPixel = 2, 3, 1
        slice_.PhotometricInterpretation = "MONOCHROME2"
        slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit, slice_.PixelRepresentation = 16, 16, 15, 0
        slice_.ImagePositionPatient, slice_.ImageOrientationPatient = [0, 0, height], [1, 0, 0, 0, 1, 0]
        slice_.PixelSpacing, slice_.PixelData = [1, 1], bytes([index] * 12)
        slice_.save_as(folder / f"{uid[-6:]}_{index}", enforce_file_format=True)
    return folder


def found(source: Path, *arguments: object) -> list[Work]:
    with find_work(source, *arguments) as works:
        return works


def problems(source: Path, *arguments: object) -> dict[str, str | None]:
    return {work.name: work.problem for work in found(source, *arguments)}


def masks(source: Path, output: Path | None = None, series: str | None = None) -> dict[str, str]:
    """Scan name to its mask, below the folder of the test."""
    works = found(source, output, series)
    assert [work.problem for work in works] == [None] * len(works)
    base = source.parent
    return {work.name: os.path.relpath(work.target(mask_ending(work.paths, "same")), base) for work in works}


def test_the_masks_of_nested_folders_are_laid_out_like_the_scans(tmp_path: Path):
    touch(tmp_path / "in", "b_0000.nii.gz", "b_0001.nii.gz", "x/a.nrrd", "x/y/c.png", "x/y/c2.tiff", "x/notes.txt")
    assert masks(tmp_path / "in", tmp_path / "out") == {
        "b": "out/b.nii.gz",
        "x/a": "out/x/a.nrrd",
        "x/y/c": "out/x/y/c.png",
        "x/y/c2": "out/x/y/c2.tif",
    }
    channels = found(tmp_path / "in", tmp_path / "out")[0]
    assert [path.name for path in channels.paths] == ["b_0000.nii.gz", "b_0001.nii.gz"]
    assert (channels.series, channels.root) == (None, tmp_path / "out")


def test_masks_without_an_output_lie_beside_the_scans(tmp_path: Path):
    touch(tmp_path / "in", "b.nii", "x/a.jpg")
    write_series(tmp_path / "in" / "x" / "ct", A)
    expected = {"b": "in/b_mask.nii.gz", "x/a": "in/x/a_mask.png", "x/ct": "in/x/ct/ct_mask.nii.gz"}
    assert masks(tmp_path / "in") == expected
    work = found(tmp_path / "in")[0]
    assert work.target(".nii.gz", "probabilities").name == "b_probabilities.nii.gz"
    assert work.root == tmp_path / "in"


def test_results_beside_the_scans_are_no_scans(tmp_path: Path):
    touch(tmp_path / "in", "a.png", "a_mask.png", "a_entropy.tif", "a_variance.tif", "a_probabilities.nii.gz")
    touch(tmp_path / "in", "a_probabilities_left-lung.tif", "manifest.json", "mask.png", "unmasked_masks.png")
    assert list(masks(tmp_path / "in")) == ["a", "mask", "unmasked_masks"]
    assert len(masks(tmp_path / "in", tmp_path / "out")) == 8, "with an output they may be scans"


def test_a_file_is_a_scan(tmp_path: Path):
    touch(tmp_path, "in/case_0000.nii.gz")
    file = tmp_path / "in" / "case_0000.nii.gz"
    assert masks(file, tmp_path / "out") == {"case": "../out/case.nii.gz"}
    assert masks(file) == {"case": "case_mask.nii.gz"}
    with pytest.raises(SkipSegError, match="in holds the scan itself; choose another folder"):
        found(file, tmp_path / "in")


@pytest.mark.parametrize("name", ["notes.txt", "scan.mhd"])
def test_a_file_of_an_unknown_format_is_refused(tmp_path: Path, name: str):
    touch(tmp_path, name)
    with pytest.raises(SkipSegError, match="unknown format"):
        found(tmp_path / name)


def test_one_slice_is_not_taken_for_its_series(tmp_path: Path):
    write_series(tmp_path, A)
    with pytest.raises(SkipSegError, match="111111_0 is one DICOM file; give the folder of its series"):
        found(tmp_path / "111111_0")


def test_a_missing_input_is_named(tmp_path: Path):
    with pytest.raises(SkipSegError, match="none does not exist"):
        found(tmp_path / "none")


@pytest.mark.parametrize("names", [(), ("notes.txt", "x/.hidden.nii", ".y/a.nii", "manifest.json")])
def test_a_folder_without_scans_is_refused(tmp_path: Path, names: tuple[str, ...]):
    touch(tmp_path, *names)
    with pytest.raises(SkipSegError, match=r"holds no scans; known are \.nii"):
        found(tmp_path)


def test_unclear_cases_leave_the_others_alone(tmp_path: Path):
    touch(tmp_path, "a.nii.gz", "a.nrrd", "b.nii", "c_0000.png", "c_0002.png", "x/a.nii")
    told = problems(tmp_path)
    assert "a.nii.gz, a.nrrd" in (told["a"] or "")
    assert "c_0000.png, c_0002.png" in (told["c"] or "")
    assert (told["b"], told["x/a"]) == (None, None)


def test_a_file_and_a_dicom_folder_of_one_name_would_share_a_mask(tmp_path: Path):
    touch(tmp_path / "in", "p/ct.nii.gz", "p/mr.nii.gz")
    write_series(tmp_path / "in" / "p" / "ct", A)
    told = {(work.name, work.series): work.problem for work in found(tmp_path / "in", tmp_path / "out")}
    clash = "ct.nii.gz and ct would have one mask; rename one of them"
    assert told == {("p/ct", None): clash, ("p/ct", A): clash, ("p/mr", None): None}
    assert [work.problem for work in found(tmp_path / "in")] == [None] * 3, "beside the scans they lie apart"


def test_a_mask_never_replaces_a_scan(tmp_path: Path):
    touch(tmp_path, "in/in/a.nii.gz", "in/a.nrrd", "in/b.nii.gz")
    replaced = "its mask would replace a scan of the input; choose another output"
    told = problems(tmp_path / "in", tmp_path)
    assert (told["b"], told["in/a"]) == (None, replaced)
    (tmp_path / "link").symlink_to(tmp_path / "in")
    with pytest.raises(SkipSegError, match="link holds the scans themselves"):
        found(tmp_path / "in", tmp_path / "link")


def test_an_output_within_the_input_is_not_searched(tmp_path: Path):
    touch(tmp_path, "in/a.nii", "in/out/a.nii.gz", "in/out/manifest.json")
    assert list(masks(tmp_path / "in", tmp_path / "in" / "out")) == ["a"]
    assert list(masks(tmp_path / "in", tmp_path / "in" / "new")) == ["a", "out/a"]
    (tmp_path / "in" / "out" / "manifest.json").unlink()
    with pytest.raises(SkipSegError, match="out holds the scans themselves"):
        found(tmp_path / "in", tmp_path / "in" / "out")


def test_an_output_that_holds_dicom_is_no_place_for_masks(tmp_path: Path):
    write_series(tmp_path / "in" / "p1", A)
    write_series(tmp_path / "in" / "p2", B)
    with pytest.raises(SkipSegError, match="p1 holds the scans themselves"):
        found(tmp_path / "in", tmp_path / "in" / "p1")


def test_links_are_followed_but_not_in_circles(tmp_path: Path):
    touch(tmp_path, "in/x/a.nii", "elsewhere/b.nii")
    (tmp_path / "in" / "x" / "up").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "x" / "self").symlink_to("self")
    (tmp_path / "in" / "gone.nii").symlink_to("nowhere.nii")
    (tmp_path / "in" / "far").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "again").symlink_to(tmp_path / "in" / "x")
    assert list(masks(tmp_path / "in", tmp_path / "out")) == ["far/b", "x/a"]


def test_a_dicom_folder_is_named_like_itself(tmp_path: Path):
    write_series(tmp_path / "ct", A)
    assert masks(tmp_path / "ct", tmp_path / "out") == {"ct": "out/ct.nii.gz"}
    assert masks(tmp_path / "ct") == {"ct": "ct/ct_mask.nii.gz"}
    work = found(tmp_path / "ct", tmp_path / "out")[0]
    assert (work.series, len(work.paths)) == (A, 3)
    write_series(tmp_path / "ct" / "later", B)
    assert masks(tmp_path / "ct", tmp_path / "out") == {"ct": "out/ct.nii.gz", "later": "out/later.nii.gz"}


def test_several_series_of_a_folder_are_chosen_by_rule_or_listed(tmp_path: Path):
    write_series(tmp_path / "study" / "ct", A)
    write_series(tmp_path / "study" / "ct", B, (0, 1))
    touch(tmp_path / "study", "a.nii")
    told = problems(tmp_path / "study", tmp_path / "out")
    assert told["a"] is None
    assert A in (told["ct"] or "")
    assert B in (told["ct"] or "")
    assert "\n" not in (told["ct"] or "")
    every = masks(tmp_path / "study", tmp_path / "out", "all")
    assert every == {
        "a": "out/a.nii.gz",
        "ct_111111": "out/ct_111111.nii.gz",
        "ct_222222": "out/ct_222222.nii.gz",
    }
    largest = found(tmp_path / "study", tmp_path / "out", "largest")
    assert [(work.name, work.series) for work in largest] == [("a", None), ("ct", A)]
    by_uid = found(tmp_path / "study", tmp_path / "out", B)
    assert [(work.name, work.series, len(work.paths)) for work in by_uid] == [("a", None, 1), ("ct", B, 2)]


def test_two_largest_series_stay_a_question(tmp_path: Path):
    write_series(tmp_path, A)
    write_series(tmp_path, B)
    (told,) = problems(tmp_path, None, "largest").values()
    assert "2 of 2 series match largest" in (told or "")


def test_a_series_is_taken_from_the_folder_that_has_it(tmp_path: Path):
    write_series(tmp_path / "in" / "one", A)
    write_series(tmp_path / "in" / "two", B)
    assert list(masks(tmp_path / "in", tmp_path / "out", B)) == ["two"]
    with pytest.raises(SkipSegError, match=rf"in holds no series 1\.9; found are .*{A}; .*{B}"):
        found(tmp_path / "in", None, "1.9")


def test_series_with_one_end_of_their_uid_are_told_apart_or_refused(tmp_path: Path):
    write_series(tmp_path / "ct", A)
    write_series(tmp_path / "ct", "1.3.111111", (5, 6))
    told = [work.problem for work in found(tmp_path / "ct", tmp_path / "out", "all")]
    assert told == ["ct and ct would have one mask; rename one of them"] * 2


def test_a_series_in_parts_is_refused_and_copies_are_not(tmp_path: Path):
    write_series(tmp_path / "in" / "first", A, (0, 1, 2))
    write_series(tmp_path / "in" / "second", A, (3, 4, 5))
    write_series(tmp_path / "in" / "other", B)
    write_series(tmp_path / "in" / "other copy", B)
    parts = "its series lies in several folders (first, second); put its slices into one"
    assert problems(tmp_path / "in") == {"first": parts, "second": parts, "other": None, "other copy": None}


def test_segmentations_and_rubbish_are_no_scans(tmp_path: Path):
    write_series(tmp_path / "in" / "seg", B, sop_class=SegmentationStorage)
    write_series(tmp_path / "in" / "ct", A)
    touch(tmp_path / "in", "ct/notes.txt", "seg/Thumbs.db")
    assert list(masks(tmp_path / "in", tmp_path / "out")) == ["ct"]


def test_a_damaged_slice_is_a_problem_of_its_folder_only(tmp_path: Path):
    write_series(tmp_path / "ct", A)
    whole = (tmp_path / "ct" / "111111_1").read_bytes()
    (tmp_path / "ct" / "111111_1").write_bytes(whole[:300])
    touch(tmp_path, "a.nii")
    told = problems(tmp_path)
    assert told["a"] is None
    assert "111111_1" in (told["ct"] or "")


def test_a_folder_that_cannot_be_read_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    touch(tmp_path, "a.nii", "closed/b.nii")
    iterdir = Path.iterdir

    def refuse(self: Path):  # permissions do not bind root, under which containers run tests
        if self.name == "closed":
            raise PermissionError(13, "Permission denied", str(self))
        return iterdir(self)

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert problems(tmp_path) == {"a": None, "closed": "closed cannot be read (Permission denied)"}


@pytest.fixture
def make_archive(tmp_path: Path) -> Callable[[dict[str, bytes]], Path]:
    """Write a zip archive of named contents and return its path."""

    def make(members: dict[str, bytes]) -> Path:
        (tmp_path / "in").mkdir(exist_ok=True)
        with zipfile.ZipFile(tmp_path / "in" / "study.zip", "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return tmp_path / "in" / "study.zip"

    return make


@pytest.mark.parametrize("fails", [False, True])
def test_an_archive_is_unpacked_for_the_while(make_archive, tmp_path: Path, fails: bool):
    nib.save(nib.Nifti1Image(np.ones((2, 3, 4), np.int16), np.eye(4)), tmp_path / "scan.nii")
    archive = make_archive({"p/scan.nii": (tmp_path / "scan.nii").read_bytes(), "__MACOSX/._scan.nii": b""})
    try:
        with find_work(archive, tmp_path / "out") as works:
            (work,) = works
            assert (work.name, work.target(".nii.gz")) == ("p/scan", tmp_path / "out" / "p" / "scan.nii.gz")
            assert read_work(work).spatial_shape == (2, 3, 4)
            unpacked = work.paths[0]
            assert unpacked.is_relative_to(tmp_path / "out")
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fails
    assert not unpacked.exists()
    assert list((tmp_path / "out").iterdir()) == []
    assert [path.name for path in archive.parent.iterdir()] == ["study.zip"]


def test_masks_of_an_archive_without_an_output_lie_in_a_folder_of_its_name(make_archive, tmp_path: Path):
    Image.new("L", (3, 3)).save(tmp_path / "a.png")
    archive = make_archive({"x/a.png": (tmp_path / "a.png").read_bytes()})
    assert masks(archive) == {"x/a": "study/x/a_mask.png"}


def test_dicom_in_an_archive_is_named_like_it(make_archive, tmp_path: Path):
    write_series(tmp_path / "ct", A)
    archive = make_archive({file.name: file.read_bytes() for file in (tmp_path / "ct").iterdir()})
    assert masks(archive, tmp_path / "out") == {"study": "../out/study.nii.gz"}


@pytest.mark.parametrize("members", [{"../a.nii": b""}, {"notes.txt": b""}])
def test_an_archive_that_is_refused_leaves_nothing(make_archive, tmp_path: Path, members: dict[str, bytes]):
    with pytest.raises(SkipSegError, match=r"study\.zip"):
        found(make_archive(members), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_the_work_is_read_as_it_was_found(tmp_path: Path):
    write_series(tmp_path / "ct", A)
    write_series(tmp_path / "ct", B, (0, 1))
    touch(tmp_path, "notes.txt")
    nib.save(nib.Nifti1Image(np.zeros((2, 3, 4, 2), np.int16), np.eye(4)), tmp_path / "two.nii")
    *series, volume = found(tmp_path, None, "all")
    assert [read_work(work).spatial_shape for work in series] == [(3, 2, 3), (3, 2, 2)]
    assert read_work(volume, channels=2).array.shape == (2, 2, 3, 4)
    gap = write_series(tmp_path / "gap", "1.5", (0, 1, 3))
    (work,) = found(gap)
    with pytest.raises(SkipSegError, match="missing"):
        read_work(work)
    assert read_work(work, repair=["gaps"]).spatial_shape == (3, 2, 4)


@pytest.mark.parametrize("wanted", ["nii.gz", "nrrd", "seg.nrrd", "png", "tif", "dcm", "labelmap.dcm"])
def test_a_wanted_format_is_the_ending(wanted: str):
    assert mask_ending([Path("a.png")], wanted) == f".{wanted}"


def test_the_same_format_follows_the_scan(tmp_path: Path):
    assert mask_ending([tmp_path], "same") == ".nii.gz", "a DICOM folder"
    endings = {".nii": ".nii.gz", ".NII.GZ": ".nii.gz", ".nrrd": ".nrrd", ".bmp": ".png", ".jpeg": ".png"}
    assert {ending: mask_ending([Path(f"a{ending}")], "same") for ending in endings} == endings


def test_slices_with_gaps_in_their_header_are_the_readers_matter(tmp_path: Path):
    folder = write_series(tmp_path / "ct", A)
    dataset: Dataset = pydicom.dcmread(folder / "111111_2")
    del dataset.ImagePositionPatient
    dataset.save_as(folder / "111111_2")
    (work,) = found(folder)
    with pytest.raises(SkipSegError, match="ImagePositionPatient"):
        read_work(work)

import gzip
import hashlib
import tarfile

import nibabel as nib
import numpy as np
import pytest

import data_prep
from data_prep import msd_hippocampus
from data_prep.msd_hippocampus import subject_of
from segmentation import SkipSegError
from segmentation.scans import read_label_map, read_scan

AFFINE = np.array([[-1.0, 0, 0, 31], [0, 1, 0, -7], [0, 0, 1, 12], [0, 0, 0, 1]])
IDS = (1, 3, 4)


def volumes(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Image (float32 or uint8, as in the real set) and label map (sometimes float) of one case."""
    rng = np.random.default_rng(number)
    shape = (13 + number, 11, 9)
    image = rng.integers(0, 200, shape).astype(np.uint8 if number % 2 else np.float32)
    label_map = rng.integers(0, 3, shape).astype(np.float32 if number == 3 else np.uint8)
    return image, label_map


@pytest.fixture
def official(tmp_path):
    root = tmp_path / "Task04_Hippocampus"
    for kind, index in (("imagesTr", 0), ("labelsTr", 1)):
        (root / kind).mkdir(parents=True)
        for number in IDS:
            nib.Nifti1Image(volumes(number)[index], AFFINE).to_filename(
                root / kind / f"hippocampus_{number:03d}.nii.gz"
            )
            (root / kind / f"._hippocampus_{number:03d}.nii.gz").write_bytes(b"\x00\x05\x16\x07 leavings of a Mac")
    return root


@pytest.fixture
def listed(official, write_manifest):
    (official / "imagesTr").rename(official / "images")
    names = [f"hippocampus_{number:03d}" for number in IDS]
    files = [(f"images/{name}.nii.gz", f"labelsTr/{name}.nii.gz") for name in names]
    rows = [{"id": name, "image": i, "mask": m, "subject": "s"} for name, (i, m) in zip(names, files, strict=True)]
    write_manifest(official, rows)
    return official


@pytest.fixture
def archive(official, tmp_path):
    with tarfile.open(tmp_path / "Task04_Hippocampus.tar", "w") as bundle:
        bundle.add(official, official.name)
    return tmp_path / "Task04_Hippocampus.tar"


@pytest.mark.parametrize(
    ("layout", "patients"),
    [
        ("official", ["subj001", "subj002", "subj002"]),
        ("archive", ["subj001", "subj002", "subj002"]),
        ("listed", ["s", "s", "s"]),
    ],
)
def test_every_layout_gives_the_volumes_in_their_frame(tmp_path, layout, patients, request):
    dataset = data_prep.prepare("msd-hippocampus", tmp_path / "out", request.getfixturevalue(layout))
    assert [case.name for case in dataset.cases] == [f"hippocampus_{n:03d}" for n in IDS]
    assert [case.patient for case in dataset.cases] == patients
    for number, case in zip(IDS, dataset.cases, strict=True):
        image, label_map = volumes(number)
        scan = read_scan(case.images[0])
        assert scan.array.dtype == image.dtype
        np.testing.assert_array_equal(scan.array[0], image)
        np.testing.assert_array_equal(scan.affine, AFFINE)
        assert case.label is not None
        found = read_label_map(case.label, like=scan).array[0]
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, label_map)


def test_fetched_archive_is_checked_and_used(tmp_path, archive, monkeypatch):
    fetched = []

    def download(url, algorithm, expected):
        fetched.append((url, algorithm, expected))
        return archive

    monkeypatch.setattr(msd_hippocampus, "download", download)
    dataset = data_prep.prepare("msd-hippocampus", tmp_path / "out")
    assert fetched == [(msd_hippocampus.URL, "md5", msd_hippocampus.MD5)]
    assert dataset.extra["sha256"] == hashlib.sha256(archive.read_bytes()).hexdigest()


def test_two_runs_give_the_same_bytes(tmp_path, archive, tree):
    folders = [data_prep.prepare("msd-hippocampus", tmp_path / name, archive).root for name in "ab"]
    assert tree(folders[0]) == tree(folders[1])
    for file in folders[0].rglob("*.nii.gz"):
        assert file.read_bytes()[3:8] == bytes(5)  # no file name, no time
        assert gzip.decompress(file.read_bytes())[:4] == (348).to_bytes(4, "little")


def test_ids_in_pairs_are_one_subject():
    assert subject_of("hippocampus_007") == subject_of("hippocampus_008") != subject_of("hippocampus_009")
    with pytest.raises(SkipSegError, match="does not end in a number"):
        subject_of("hippocampus_left")


@pytest.mark.parametrize(
    ("label_map", "affine", "message"),
    [
        (np.full((14, 11, 9), 3, np.uint8), AFFINE, r"label values \[3\] are not among"),
        (np.zeros((11, 14, 9), np.uint8), AFFINE, "hippocampus_001"),
        (np.zeros((14, 11, 9), np.uint8), np.diag([2.0, 1, 1, 1]), "hippocampus_001"),
        (np.full((14, 11, 9), 0.5, np.float32), AFFINE, "hippocampus_001"),
    ],
    ids=["unknown label", "other shape", "other affine", "fraction"],
)
def test_faulty_label_map_is_refused(tmp_path, official, label_map, affine, message):
    nib.Nifti1Image(label_map, affine).to_filename(official / "labelsTr" / "hippocampus_001.nii.gz")
    with pytest.raises(SkipSegError, match=message):
        data_prep.prepare("msd-hippocampus", tmp_path / "out", official)
    assert not (tmp_path / "out").exists()


def test_missing_label_map_is_named(tmp_path, official):
    (official / "labelsTr" / "hippocampus_003.nii.gz").unlink()
    with pytest.raises(SkipSegError, match=r"labelsTr/hippocampus_003\.nii\.gz is missing"):
        data_prep.prepare("msd-hippocampus", tmp_path / "out", official)

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from segmentation import SkipSegError
from segmentation.data import cache as cache_module
from segmentation.data.cache import (
    VOXELS_PER_CLASS,
    CachedCase,
    cache_case,
    cache_cases,
    foreground_voxels,
    source_hash,
)
from segmentation.data.manifest import Dataset
from segmentation.data.preprocessing import Normalisation, Preprocessing
from segmentation.data.transforms import prepare_image, prepare_label_map
from segmentation.scans import read_label_map, read_scan
from segmentation.scans.workspace import Workspace

ROOT = Path(__file__).parents[2]
PREPROCESSING = Preprocessing(3, (1.2, 1.2, 2.0), None, 0, (Normalisation("window", 0, 255),))
SLICES = Preprocessing(2, (1.2, 1.2, 2.0), 2, 1, (Normalisation("window", 0, 255),))


@pytest.fixture
def dataset(make_dataset, tmp_path: Path) -> Dataset:
    return make_dataset(tmp_path / "data", dims=3, patients=1, cases_each=2)


def prepare(dataset: Dataset, folder: Path, preprocessing=PREPROCESSING, case: int = 0) -> CachedCase:
    return cache_case(dataset, dataset.cases[case], preprocessing, folder / "cache")


@pytest.mark.parametrize("preprocessing", [PREPROCESSING, SLICES])
def test_an_entry_holds_what_preparation_gives(dataset, tmp_path, preprocessing):
    cached = prepare(dataset, tmp_path, preprocessing)
    case = dataset.cases[0]
    scan = read_scan(case.images)
    image = prepare_image(scan, preprocessing)
    labels = prepare_label_map(read_label_map(case.label), preprocessing, 3)
    np.testing.assert_array_equal(cached.image(), image.astype(np.float16))
    np.testing.assert_array_equal(cached.labels(), labels)
    assert cached.image().shape[1:] == cached.labels().shape == labels.shape
    assert cached.nbytes == 2 * image.size + labels.size
    organ, lesion = cached.foreground()
    np.testing.assert_array_equal(organ, np.argwhere(labels == 1))
    np.testing.assert_array_equal(lesion, np.argwhere(labels == 2))
    assert (cached.name, cached.patient) == (case.name, case.patient)


def test_a_mapped_array_gives_the_same_patches(dataset, tmp_path):
    cached = prepare(dataset, tmp_path)
    mapped = cached.image(in_memory=False)
    assert not isinstance(mapped, np.ndarray)
    np.testing.assert_array_equal(mapped[..., 2:9, 3:5, 1:4], cached.image()[..., 2:9, 3:5, 1:4])


def test_the_same_is_not_computed_twice(dataset, tmp_path, monkeypatch):
    first = prepare(dataset, tmp_path)
    monkeypatch.setattr(cache_module, "read_scan", lambda *_, **__: pytest.fail("read again"))
    assert prepare(dataset, tmp_path).folder == first.folder
    moved = shutil.copytree(dataset.root, tmp_path / "elsewhere")
    case = dataset.cases[0]
    copies = {"images": (moved / "imagesTr" / case.images[0].name,), "label": moved / "labelsTr" / case.label.name}
    assert cache_case(dataset, replace(case, **copies), PREPROCESSING, tmp_path / "cache").folder == first.folder


def change_image(dataset):
    path = dataset.cases[0].images[0]
    scan = nib.load(path)
    array = np.asarray(scan.dataobj)
    array[0, 0, 0] += 1
    nib.Nifti1Image(array, scan.affine).to_filename(path)
    return dataset, PREPROCESSING


def change_label(dataset):
    label = nib.nifti1.load(dataset.cases[0].label)
    values = np.asarray(label.dataobj).copy()
    values[0, 0, 0] = 1 - values[0, 0, 0]
    nib.save(nib.Nifti1Image(values, label.affine), dataset.cases[0].label)
    return dataset, PREPROCESSING


CHANGES = {
    "image": change_image,
    "label": change_label,
    "remap": lambda dataset: (replace(dataset, label_remap={2: 1}), PREPROCESSING),
    "classes": lambda dataset: (replace(dataset, labels={"background": 0, "a": 1, "ignore": 2}), PREPROCESSING),
    "spacing": lambda dataset: (dataset, replace(PREPROCESSING, spacing_mm=(1.2, 1.2, 2.1))),
    "window": lambda dataset: (dataset, replace(PREPROCESSING, normalisation=(Normalisation("window", 0, 99),))),
    "slices": lambda dataset: (dataset, SLICES),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changes_the_arrays_changes_the_entry(dataset, tmp_path, change):
    before = prepare(dataset, tmp_path)
    kept = before.image()
    changed, preprocessing = CHANGES[change](dataset)
    after = prepare(changed, tmp_path, preprocessing)
    assert after.folder != before.folder
    np.testing.assert_array_equal(before.image(), kept)
    if change == "remap":
        assert set(np.unique(after.labels())) == {0, 1}


def test_an_interrupted_entry_is_not_taken_as_whole(dataset, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cache_module, "write_json", interrupt)
    with pytest.raises(KeyboardInterrupt):
        prepare(dataset, tmp_path)
    monkeypatch.undo()
    (folder,) = (path.parent for path in (tmp_path / "cache").rglob("image.b2nd"))
    (folder / "image.b2nd").write_bytes(b"half")
    cached = prepare(dataset, tmp_path)
    assert cached.folder == folder
    assert cached.image().shape[1:] == cached.labels().shape


def test_a_full_disk_is_said_and_leaves_nothing_behind(dataset, tmp_path):
    """A limit on the size of files stands for the full disk; in a process of its own, as it cannot be lifted."""
    code = (
        "import resource, numpy as np\n"
        "from pathlib import Path\n"
        "from segmentation.data.cache import _store\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        f"_store(Path({str(tmp_path)!r}) / 'full' / 'image.b2nd', np.random.default_rng(0).random((99, 999)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stderr.splitlines()[-1].startswith("OSError")
    assert list((tmp_path / "full").iterdir()) == []


@pytest.mark.parametrize("name", ["image.b2nd", "labels.b2nd", "foreground.b2nd", "case.json"])
@pytest.mark.parametrize("share", [0, 0.5, 0.95])
def test_a_damaged_entry_is_named_in_one_line(dataset, tmp_path, name, share):
    cached = prepare(dataset, tmp_path)
    path = cached.folder / name
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(SkipSegError, match=rf"{name} is (damaged|not valid JSON).*again|{name} .*rerun") as refused:
        _ = cached.image(), cached.labels(), cached.foreground()
    assert "\n" not in str(refused.value)
    if name != "case.json":
        shutil.rmtree(cached.folder)  # as the message says
        assert prepare(dataset, tmp_path).image().any()


def test_a_label_map_whose_header_is_rounded_lands_on_the_image(make_dataset, tmp_path):
    """Half a voxel decides how many there are after resampling; the label map must not decide otherwise."""
    dataset = make_dataset(tmp_path / "data", dims=3, patients=1, cases_each=1)
    case = dataset.cases[0]
    label = nib.load(case.label)
    scan = read_scan(case.images)
    nib.Nifti1Image(np.asarray(label.dataobj), scan.affine @ np.diag([1, 1, 1.0002, 1])).to_filename(case.label)
    spacing = (*scan.spacing_mm[:2], 2 * scan.spacing_mm[2] * 1.00005)  # 13 voxels: 6.4997 or 6.501 of the new ones
    cached = prepare(dataset, tmp_path, replace(PREPROCESSING, spacing_mm=spacing))
    assert cached.image().shape[1:] == cached.labels().shape


def test_a_case_without_a_label_map_is_refused(dataset, tmp_path):
    with pytest.raises(ValueError, match="no label map to train on"):
        cache_case(dataset, replace(dataset.cases[0], label=None), PREPROCESSING, tmp_path)


def test_cases_come_in_order_and_a_scan_that_is_no_scan_is_named(dataset, tmp_path):
    cached = cache_cases(dataset, reversed(dataset.cases), PREPROCESSING, tmp_path / "cache")
    assert [case.name for case in cached] == ["case_01", "case_00"]
    dataset.cases[0].images[0].write_bytes(b"no scan")
    with pytest.raises(SkipSegError, match="case_00_0000"):
        cache_cases(dataset, dataset.cases, PREPROCESSING, tmp_path / "cache")


def test_a_case_without_foreground_has_no_places(dataset, tmp_path):
    label = nib.load(dataset.cases[0].label)
    nib.Nifti1Image(np.zeros(label.shape, np.int16), label.affine).to_filename(dataset.cases[0].label)
    assert prepare(dataset, tmp_path).foreground() == []


def test_half_precision_is_what_rounding_at_the_end_would_give(dataset):
    """Planes rounded one by one, so that no whole image of single precision ever lies in memory."""
    scan = read_scan(dataset.cases[0].images)
    for preprocessing in (PREPROCESSING, SLICES, replace(PREPROCESSING, normalisation=(Normalisation("zscore"),))):
        half = prepare_image(scan, preprocessing, Workspace(), np.float16)
        assert half.dtype == np.float16
        np.testing.assert_array_equal(half, prepare_image(scan, preprocessing).astype(np.float16))


def test_large_structures_are_remembered_by_an_even_spread():
    mask = np.ones((30, 40, 50), bool)
    mask[10:] = False
    found = foreground_voxels(mask)
    assert len(found) == VOXELS_PER_CLASS
    assert len(np.unique(found, axis=0)) == VOXELS_PER_CLASS
    assert mask[tuple(found.T)].all()
    np.testing.assert_allclose(found.mean(axis=0), (4.5, 19.5, 24.5), atol=0.6)
    assert foreground_voxels(np.zeros((3, 4), bool)).shape == (0, 2)


@pytest.mark.parametrize("changed", ["b", "study/series/c"])
def test_a_folder_is_hashed_by_all_files_below_it(tmp_path, changed):
    (tmp_path / "study" / "series").mkdir(parents=True)
    for name in ("a", "b", "study/series/c"):
        (tmp_path / name).write_text(name)
    before = source_hash(tmp_path)
    (tmp_path / changed).write_text("other")
    assert source_hash(tmp_path) != before


def test_a_structure_that_the_spacing_swallows_is_told(dataset, tmp_path, caplog):
    cache_module._warn_once.cache_clear()
    coarse = replace(PREPROCESSING, spacing_mm=(60.0, 60.0, 60.0))
    (case,) = cache_cases(dataset, dataset.cases[:1], coarse, tmp_path / "cache")
    assert case.vanished()
    told = "'case_00': no voxel of lesion is left at this spacing; a finer data.spacing_mm keeps it"
    assert [record.message for record in caplog.records if "lesion" in record.message] == [told]
    cache_cases(dataset, dataset.cases[:1], coarse, tmp_path / "cache")
    assert caplog.text.count(told) == 1
    assert not cache_case(dataset, dataset.cases[0], PREPROCESSING, tmp_path / "cache").vanished()

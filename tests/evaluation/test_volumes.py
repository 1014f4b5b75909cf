import json

import nibabel as nib
import numpy as np
import pytest

from segmentation.evaluation.overlays import COLOURS
from segmentation.evaluation.volumes import GREYS, MOST_VOXELS, shrinking, write_volume

AFFINE = np.array([[-0.9, 0.1, 0, 40], [0.1, 0.9, 0, -30], [0, 0, 2.5, 7], [0, 0, 0, 1]])
LABELS = {"organ": 1, "lesion": 3}


def written(folder, *, image=None, prediction, reference, affine=AFFINE, labels=LABELS):
    write_volume(folder, "01_case", image, prediction, reference, affine, labels)
    facts = json.loads((folder / "01_case.json").read_text())
    return facts, nib.load(folder / "01_case_image.nii.gz"), nib.load(folder / "01_case_errors.nii.gz")


def masks(shape=(9, 8, 7)):
    return np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)


def test_each_voxel_has_the_code_of_its_class_and_kind(tmp_path):
    prediction, reference = masks()
    pairs = [(1, 1), (1, 0), (0, 1), (1, 3), (3, 3), (3, 0), (0, 3), (3, 1)]
    for place, (predicted, wanted) in enumerate(pairs):
        prediction[place, 2, 3], reference[place, 2, 3] = predicted, wanted
    facts, _, errors = written(tmp_path, prediction=prediction, reference=reference)
    meaning = {entry["value"]: (entry["class"], entry["kind"]) for entry in facts["labels"]}
    kinds = list(COLOURS)
    codes = np.asarray(errors.dataobj)
    assert np.count_nonzero(codes) == len(pairs)
    found = [meaning[code] for code in codes[: len(pairs), 2, 3].tolist()]
    assert found == [("organ", kind) for kind in kinds] + [("lesion", kind) for kind in kinds]


def test_only_what_occurs_is_named(tmp_path):
    prediction, reference = masks()
    prediction[0, 0, 0] = 3
    facts, _, _ = written(tmp_path, prediction=prediction, reference=reference)
    assert [(entry["class"], entry["kind"]) for entry in facts["labels"]] == [("lesion", "false alarm (FP)")]


def test_a_small_scan_keeps_its_voxels_frame_and_intensities(tmp_path):
    prediction, reference = masks((9, 8, 7))
    image = np.random.default_rng(0).normal(-200, 300, (9, 8, 7)).astype(np.float32)
    facts, scan, errors = written(tmp_path, image=image, prediction=prediction, reference=reference)
    low, high = facts["window"]
    assert facts["shrunk"] == [1, 1, 1]
    assert (low, high) == pytest.approx(np.percentile(image, (0.5, 99.5)))
    np.testing.assert_allclose(scan.affine, AFFINE, atol=1e-5)
    np.testing.assert_allclose(errors.affine, AFFINE, atol=1e-5)
    assert scan.header["xyzt_units"] == 2
    np.testing.assert_allclose(scan.get_fdata(), image.clip(low, high), atol=0.51 * (high - low) / GREYS)


def test_a_large_scan_shrinks_in_place(tmp_path):
    shape = (200, 120, 64)
    prediction, reference = masks(shape)
    reference[100:140, 60:80, 20:30] = 1
    image = np.indices(shape)[0].astype(np.float32)
    facts, scan, errors = written(tmp_path, image=image, prediction=prediction, reference=reference)
    assert np.prod(scan.shape) <= MOST_VOXELS
    assert facts["shrunk"] == [2, 2, 1]
    assert scan.shape == errors.shape == (100, 60, 64)
    centre = np.array([99.5, 59.5, 31.5, 1])  # of the grid of either
    shrunk_centre = np.array([49.5, 29.5, 31.5, 1])
    np.testing.assert_allclose((scan.affine @ shrunk_centre)[:3], (AFFINE @ centre)[:3], atol=1e-3)
    codes = np.asarray(errors.dataobj)
    assert np.count_nonzero(codes) == np.count_nonzero(reference) / 4
    assert codes[50, 30, 20] == codes[69, 39, 29] != 0
    assert scan.get_fdata()[50, 0, 0] == pytest.approx(100.5, abs=1)


def test_no_error_vanishes_and_the_most_frequent_one_is_shown(tmp_path):
    shape = (400, 100, 40)
    prediction, reference = masks(shape)
    prediction[200, 50, 5] = 1  # alone in its block
    prediction[300:302, 50, 9] = 1
    reference[300, 51, 9] = 1  # two of false alarm, one missed
    facts, _, errors = written(tmp_path, prediction=prediction, reference=reference, affine=np.diag([1.0, 1, 5, 1]))
    assert facts["shrunk"] == [2, 2, 1]
    codes = np.asarray(errors.dataobj)
    (false_alarm,) = [entry["value"] for entry in facts["labels"]]
    assert codes[100, 25, 5] == codes[150, 25, 9] == false_alarm
    assert np.count_nonzero(codes) == 2


def test_an_error_goes_over_agreement_however_few_its_voxels(tmp_path):
    prediction, reference = masks((400, 100, 40))
    reference[200:202, 50:52, 5] = prediction[200:202, 50:52, 5] = 1
    prediction[201, 51, 5] = 0  # three voxels agree, one is missed
    reference[300:302, 50:52, 9] = prediction[300:302, 50:52, 9] = 1
    facts, _, errors = written(tmp_path, prediction=prediction, reference=reference, affine=np.diag([1.0, 1, 5, 1]))
    kinds = {entry["value"]: entry["kind"] for entry in facts["labels"]}
    codes = np.asarray(errors.dataobj)
    shown = [kinds[int(codes[place])] for place in ((100, 25, 5), (150, 25, 9))]
    assert shown == ["missed (FN)", "agreement (TP)"]


def test_the_place_to_look_at_lies_amid_the_errors(tmp_path):
    prediction, reference = masks((30, 30, 12))
    reference[3:9, 3:9, 2] = 1
    prediction[3:9, 3:9, 2] = 1
    prediction[20:23, 20:23, 8] = 1
    facts, _, _ = written(tmp_path, prediction=prediction, reference=reference)
    np.testing.assert_allclose(facts["at_mm"], (AFFINE @ [21, 21, 8, 1])[:3], atol=1e-3)
    facts, _, _ = written(tmp_path, prediction=reference, reference=reference)
    place = np.linalg.solve(AFFINE, [*facts["at_mm"], 1])[:3].round().astype(int)
    assert reference[tuple(place)] == 1


def test_without_scan_or_labels_the_volume_is_still_whole(tmp_path):
    prediction, reference = masks()
    facts, scan, errors = written(tmp_path, prediction=prediction, reference=reference)
    assert facts["labels"] == []
    assert not np.asarray(errors.dataobj).any()
    assert not scan.get_fdata().any()
    low, high = facts["window"]
    assert high > low


def test_the_same_input_gives_the_same_bytes(tmp_path):
    prediction, reference = masks()
    image = np.random.default_rng(1).random((9, 8, 7)).astype(np.float32)
    contents = []
    for name in ("a", "b"):
        written(tmp_path / name, image=image, prediction=prediction, reference=reference)
        contents.append({file.name: file.read_bytes() for file in (tmp_path / name).iterdir()})
    assert contents[0] == contents[1]
    assert len(contents[0]) == 3


@pytest.mark.parametrize("shape", [(1, 1, 2_000_000), (3, 5, 700_001), (97, 89, 83), (513, 7, 301)])
def test_any_volume_fits(shape):
    factors = shrinking(shape, (1, 1, 1))
    assert np.prod(np.ceil(np.array(shape) / factors)) <= MOST_VOXELS

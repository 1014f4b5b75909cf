import itertools

import numpy as np
import pytest
from scipy.ndimage import binary_erosion, binary_opening, label

import data_prep
from data_prep.phantom import LABELS, SPACING_MM, make_case
from segmentation import SkipSegError
from segmentation.config import PhantomSettings
from segmentation.scans import read_label_map, read_scan

EVERY = list(itertools.product(LABELS, (2, 3)))


@pytest.mark.parametrize(("task", "dims"), EVERY)
def test_every_case_holds_every_class(task, dims):
    for number in range(6):
        scan, label_map = make_case(PhantomSettings(task=task, spatial_dims=dims, size=32), number)
        assert scan.spatial_shape == label_map.shape
        assert set(np.unique(label_map)) == set(LABELS[task].values())


@pytest.mark.parametrize(("task", "dims"), EVERY)
def test_difficulty_hides_the_truth_but_does_not_move_it(task, dims):
    contrasts = []
    for difficulty in (0.0, 0.5, 1.0):
        scan, truth = make_case(PhantomSettings(task=task, spatial_dims=dims, difficulty=difficulty, size=48), 3)
        _, easy_truth = make_case(PhantomSettings(task=task, spatial_dims=dims, difficulty=0.0, size=48), 3)
        np.testing.assert_array_equal(truth, easy_truth)
        values = scan.array[0].astype(float)
        if task == "texture":  # told apart by neighbouring voxels, not by brightness
            values = np.abs(np.diff(values, axis=0, append=values[-1:]))
        top, rest = values[truth == truth.max()], values[truth == truth.max() - 1]
        contrasts.append(abs(top.mean() - rest.mean()) / np.sqrt((top.var() + rest.var()) / 2))
    assert contrasts[0] > 1.5 * contrasts[1] > 1.5 * contrasts[2]


@pytest.mark.parametrize("dims", [2, 3])
def test_texture_cannot_be_told_by_brightness(dims):
    differences = []
    for number in range(12):
        scan, truth = make_case(PhantomSettings(task="texture", spatial_dims=dims, difficulty=0.0, size=48), number)
        values = scan.array[0].astype(float)
        differences.append((values[truth == 1].mean() - values[truth == 0].mean()) / values.std())
    assert abs(np.mean(differences)) < 0.25


@pytest.mark.parametrize("dims", [2, 3])
def test_curves_are_two_voxels_wide(dims):
    for number in range(5):
        _, truth = make_case(PhantomSettings(task="thin", spatial_dims=dims, size=48), number)
        assert binary_opening(truth, np.ones((2,) * dims)).sum() > 0.95 * truth.sum()  # less where the border cuts one
        assert binary_erosion(truth, np.ones((3,) * dims)).sum() < 0.15 * truth.sum()  # crossings alone


def test_lesions_lie_in_the_organ_and_vary_in_size():
    sizes = []
    for number in range(10):
        _, truth = make_case(PhantomSettings(task="lesion", size=64), number)
        assert label(truth > 0)[1] == 1
        components, count = label(truth == 2)
        sizes.extend(np.bincount(components.ravel())[1:])
        assert count <= 5
    assert max(sizes) > 8 * min(sizes)


def test_oblique_volume_keeps_spacing_and_handedness():
    scan, _ = make_case(PhantomSettings(spatial_dims=3, size=32), 1)
    np.testing.assert_allclose(scan.spacing_mm, SPACING_MM)
    directions = scan.affine[:3, :3] / SPACING_MM
    np.testing.assert_allclose(directions.T @ directions, np.eye(3), atol=1e-12)
    assert np.linalg.det(directions) == pytest.approx(1)
    assert np.abs(directions - np.eye(3)).max() > 0.02
    straight, _ = make_case(PhantomSettings(spatial_dims=3, size=32, oblique=False), 1)
    np.testing.assert_array_equal(straight.affine, np.eye(4))


@pytest.mark.parametrize(("task", "dims"), EVERY)
def test_files_hold_what_was_drawn(tmp_path, task, dims):
    options = {"task": task, "spatial_dims": dims, "cases": 2, "size": 24, "seed": 5}
    dataset = data_prep.prepare("phantom", tmp_path / "out", options=options)
    assert dataset.labels == LABELS[task]
    for number, case in enumerate(dataset.cases):
        drawn, truth = make_case(PhantomSettings(**options), number)
        scan = read_scan(case.images[0])
        np.testing.assert_array_equal(scan.array, drawn.array)
        np.testing.assert_allclose(scan.affine, drawn.affine, atol=1e-5)
        assert case.label is not None
        np.testing.assert_array_equal(read_label_map(case.label, like=scan).array[0], truth)


def test_same_settings_same_bytes_and_other_seed_other_bytes(tmp_path, tree):
    small, large, other = (
        data_prep.prepare("phantom", tmp_path / name, options={"cases": cases, "size": 24, "seed": seed}).root
        for name, cases, seed in (("small", 2, 0), ("large", 4, 0), ("other", 2, 1))
    )
    picture = "imagesTr/blob_001_0000.png"
    assert tree(small)[picture] == tree(large)[picture] != tree(other)[picture]
    again = data_prep.prepare("phantom", tmp_path / "again", options={"cases": 2, "size": 24, "seed": 0}).root
    assert tree(again) == tree(small)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sise": 3}, "phantom has the options task, .*; got sise"),
        ({"task": "vessel"}, "phantom has the tasks blob, thin, texture, lesion; got 'vessel'"),
        ({"difficulty": 2.0}, r"difficulty must be in \[0, 1\]"),
    ],
)
def test_wrong_options_are_refused(tmp_path, options, message):
    with pytest.raises(SkipSegError, match=message):
        data_prep.prepare("phantom", tmp_path / "out", options=options)
    assert list(tmp_path.iterdir()) == []

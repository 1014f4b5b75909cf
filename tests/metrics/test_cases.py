import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segmentation import SkipSegError
from segmentation.metrics import COLUMNS, count_lesions, score_case, surface_scores

LABELS = {"organ": 1, "lesion": 2}
SPACING = (0.8, 0.9, 2.5)


def same(first, second):
    return all(
        a[key] == pytest.approx(b[key], nan_ok=True) if isinstance(a[key], float) else a[key] == b[key]
        for a, b in zip(first, second, strict=True)
        for key in COLUMNS
    )


@pytest.fixture(scope="module")
def maps(make_masks):
    (a, b), (c, d) = make_masks((25, 29, 13), seed=1), make_masks((25, 29, 13), seed=2)
    return np.where(c, 2, a).astype(np.uint8), np.where(d, 2, b).astype(np.uint8)


def test_rows_equal_the_single_scores_of_each_class(maps):
    prediction, reference = maps
    rows = score_case(prediction, reference, SPACING, LABELS, None, 1.2)
    assert [row["class"] for row in rows] == list(LABELS)
    for row, value in zip(rows, LABELS.values(), strict=True):
        masks = prediction == value, reference == value
        surface, lesions = surface_scores(*masks, SPACING, 1.2), count_lesions(*masks)
        overlap, sizes = (masks[0] & masks[1]).sum(), [mask.sum() for mask in masks]
        assert tuple(row) == COLUMNS
        assert row["dice"] == pytest.approx(2 * overlap / sum(sizes))
        assert row["iou"] == pytest.approx(overlap / (sum(sizes) - overlap))
        assert row["sensitivity"] == pytest.approx(overlap / sizes[1])
        assert row["precision"] == pytest.approx(overlap / sizes[0])
        assert (row["hd95_mm"], row["assd_mm"], row["nsd"]) == pytest.approx(
            (surface.hd95_mm, surface.assd_mm, surface.nsd)
        )
        assert row["tolerance_mm"] == 1.2
        assert row["volume_prediction_ml"] == pytest.approx(sizes[0] * 0.8 * 0.9 * 2.5 / 1000)
        assert row["volume_reference_ml"] == pytest.approx(sizes[1] * 0.8 * 0.9 * 2.5 / 1000)
        assert row["volume_error_ml"] == pytest.approx(row["volume_prediction_ml"] - row["volume_reference_ml"])
        counted = [row[f"lesions_{name}"] for name in ("reference", "detected", "prediction", "false")]
        assert counted == [lesions.reference, lesions.detected, lesions.prediction, lesions.false]
        assert row["state"] == "both"


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int32, np.int64, np.uint64])
@pytest.mark.parametrize("order", ["C", "F"])
def test_dtype_and_memory_order_do_not_matter(maps, dtype, order):
    expected = score_case(*maps, SPACING, LABELS, None, 1.0)
    others = (np.asarray(each, dtype, order=order) for each in maps)
    assert same(score_case(*others, SPACING, LABELS, None, 1.0), expected)


def test_a_boolean_map_is_a_label_map_of_one_class(make_masks):
    masks = make_masks((49, 67), seed=4)
    rows = score_case(*masks, (1, 1), {"vessel": 1}, None, 1.0)
    assert same(rows, score_case(*(mask.astype(int) for mask in masks), (1, 1), {"vessel": 1}, None, 1.0))


def test_label_values_near_the_end_of_uint8(make_masks):
    masks = make_masks((49, 67), seed=4)
    high = [mask.astype(np.uint8) * 255 for mask in masks]
    rows = score_case(*high, (1, 1), {"vessel": 255}, None, 1.0)
    assert same(rows, score_case(*masks, (1, 1), {"vessel": 1}, None, 1.0))


@pytest.mark.parametrize("dims", [2, 3])
def test_empty_masks_follow_the_policy(dims):
    shape, spacing = ((30, 40), (1, 1)) if dims == 2 else ((4, 6, 12), (3.0, 1.0, 1.5))
    diagonal = 50.0 if dims == 2 else math.hypot(12, 6, 18)
    empty, full = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    full[1, 2] = 1

    def score(prediction, reference):
        (row,) = score_case(prediction, reference, spacing, {"tumour": 1}, None, 1.0)
        names = ("state", "dice", "iou", "nsd", "hd95_mm", "assd_mm", "sensitivity", "precision")
        return [row[name] if row[name] == row[name] else None for name in names]

    assert score(empty, empty) == ["both_empty", None, None, None, None, None, None, None]
    assert score(empty, full) == ["missed", 0, 0, 0, diagonal, diagonal, 0, None]
    assert score(full, empty) == ["false_alarm", 0, 0, 0, diagonal, diagonal, None, 0]
    assert score(full, full) == ["both", 1, 1, 1, 0, 0, 1, 1]


def test_pictures_have_no_volume(make_masks):
    (row,) = score_case(*make_masks((49, 67), seed=1), (1, 1), {"cell": 1}, None, 2.0)
    assert [row[name] for name in COLUMNS if name.startswith("volume")] == [None, None, None]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_single_slice_has_the_surface_of_a_picture_and_a_volume(make_masks, axis):
    masks = make_masks((49, 67), seed=1)
    spacing = [0.5, 0.7]
    (flat,) = score_case(*masks, spacing, {"cell": 1}, None, 2.0)
    slices = (np.expand_dims(mask, axis) for mask in masks)
    (row,) = score_case(*slices, np.insert(spacing, axis, 4.0).tolist(), {"cell": 1}, None, 2.0)
    assert {key for key in COLUMNS if row[key] != flat[key]} == {key for key in COLUMNS if key.startswith("volume")}
    assert row["volume_reference_ml"] == pytest.approx(masks[1].sum() * 0.5 * 0.7 * 4.0 / 1000)


def test_ignored_voxels_are_background_in_both(maps):
    prediction, reference = (each.copy() for each in maps)
    region = np.s_[:, 10:20]
    reference[region] = 3
    rows = score_case(prediction, reference, SPACING, LABELS, 3, 1.0)
    prediction[region] = reference[region] = 0
    assert same(rows, score_case(prediction, reference, SPACING, LABELS, None, 1.0))


@given(hnp.arrays(np.uint8, (2, 5, 4, 3), elements=st.integers(0, 2)))
def test_scores_are_in_range_and_symmetric_where_they_should_be(pair):
    there = score_case(*pair, SPACING, LABELS, None, 1.0)
    back = score_case(*pair[::-1], SPACING, LABELS, None, 1.0)
    for row, mirror in zip(there, back, strict=True):
        for name in ("dice", "iou", "nsd", "hd95_mm", "assd_mm"):
            assert row[name] == pytest.approx(mirror[name], nan_ok=True)
        for name in ("dice", "iou", "nsd", "sensitivity", "precision"):
            assert math.isnan(row[name]) or 0 <= row[name] <= 1 + 1e-12
        assert row["sensitivity"] == pytest.approx(mirror["precision"], nan_ok=True)
        assert row["volume_error_ml"] == pytest.approx(-mirror["volume_error_ml"])


GOOD = {
    "prediction": np.ones((4, 4), int),
    "reference": np.ones((4, 4), int),
    "spacing_mm": (1, 1),
    "labels": {"cell": 1},
    "ignore_label": None,
    "tolerance_mm": 1.0,
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prediction": np.ones((4, 5), int)}, "one grid"),
        ({"prediction": np.ones((4, 4))}, "integer labels"),
        ({"prediction": np.full((4, 4), 255)}, r"the prediction holds label values \[255\] besides 0"),
        ({"reference": np.full((4, 4), -1)}, r"the reference holds label values \[-1\] besides 0"),
        ({"labels": {"background": 0, "cell": 1}}, "leave out background"),
        ({"ignore_label": 1}, "leave out background"),
        ({"spacing_mm": (1, 1, 1)}, "spacing_mm must be 2 positive numbers"),
        ({"tolerance_mm": -2.0}, "tolerance_mm must be 0 or more"),
    ],
)
def test_bad_input_is_refused(change, message):
    with pytest.raises(SkipSegError, match=message):
        score_case(**GOOD | change)


def test_metrics_do_not_load_torch(root):
    code = "import sys, segmentation.metrics, segmentation.statistics; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)

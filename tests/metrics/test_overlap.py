import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from monai.metrics import DiceMetric, MeanIoU

from segmentation import SkipSegError
from segmentation.metrics import Counts, confusion, dice_per_class, iou_per_class

K = 20
"""More than 15 classes: the index of a pair of labels does not fit into uint8."""

label_maps = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=3, max_side=7), elements=st.integers(0, K - 1))


@st.composite
def pairs(draw: st.DrawFn):
    first = draw(label_maps)
    return first, draw(hnp.arrays(np.uint8, first.shape, elements=st.integers(0, K - 1)))


@given(pairs())
def test_confusion_equals_a_direct_count(pair):
    prediction, reference = pair
    expected = np.zeros((K, K), int)
    for p, r in zip(prediction.ravel(), reference.ravel(), strict=True):
        expected[r, p] += 1
    np.testing.assert_array_equal(confusion(prediction, reference, K), expected)


@given(pairs(), st.sampled_from([np.uint8, np.int16, np.uint16, np.int32, np.int64, np.uint64]))
def test_scores_do_not_depend_on_dtype_or_memory_order(pair, dtype):
    prediction, reference = pair
    expected = dice_per_class(prediction, reference, K)
    other = dice_per_class(np.asfortranarray(prediction.astype(dtype)), reference, K)
    np.testing.assert_array_equal(other, expected)


@given(pairs())
def test_scores_are_symmetric_in_range_and_related(pair):
    prediction, reference = pair
    dice, iou = dice_per_class(prediction, reference, K), iou_per_class(prediction, reference, K)
    np.testing.assert_array_equal(dice, dice_per_class(reference, prediction, K))
    np.testing.assert_allclose(dice, 2 * iou / (1 + iou))
    present = np.isin(np.arange(K), np.concatenate([prediction.ravel(), reference.ravel()]))
    np.testing.assert_array_equal(np.isnan(dice), ~present)
    assert ((dice[present] >= 0) & (dice[present] <= 1)).all()


@given(label_maps)
def test_a_map_agrees_with_itself(label_map):
    dice = dice_per_class(label_map, label_map, K)
    np.testing.assert_array_equal(dice[np.unique(label_map)], 1)


@pytest.mark.parametrize("shape", [(49, 67), (25, 29, 13)])
def test_dice_and_iou_equal_monai(make_masks, shape):
    masks = make_masks(shape, seed=3)
    one_hot = [torch.from_numpy(np.stack([~mask, mask]))[None].float() for mask in masks]
    dice = DiceMetric(include_background=True, reduction="none")(*one_hot)[0].numpy()
    iou = MeanIoU(include_background=True, reduction="none")(*one_hot)[0].numpy()
    label_maps = [mask.astype(np.uint8) for mask in masks]
    np.testing.assert_allclose(dice_per_class(*label_maps, 2), dice, rtol=1e-6)
    np.testing.assert_allclose(iou_per_class(*label_maps, 2), iou, rtol=1e-6)


def test_ignored_voxels_do_not_count_whatever_was_predicted():
    reference = np.array([[0, 1, 255], [1, 0, 255]], np.uint8)
    first = confusion(np.array([[0, 1, 1], [1, 0, 0]]), reference, 2, ignore=255)
    second = confusion(np.array([[0, 1, 99], [1, 0, -4]]), reference, 2, ignore=255)
    np.testing.assert_array_equal(first, [[2, 0], [0, 2]])
    np.testing.assert_array_equal(second, first)


def test_everything_ignored_leaves_no_score():
    everywhere = np.full((3, 4), 7)
    assert np.isnan(dice_per_class(everywhere, everywhere, 2, ignore=7)).all()


@pytest.mark.parametrize(
    ("prediction", "reference", "dice", "iou", "sensitivity", "precision"),
    [
        ([0, 0], [0, 0], np.nan, np.nan, np.nan, np.nan),
        ([1, 0], [0, 0], 0, 0, np.nan, 0),
        ([0, 0], [1, 0], 0, 0, 0, np.nan),
        ([1, 0], [0, 1], 0, 0, 0, 0),
        ([1, 1], [1, 0], 2 / 3, 1 / 2, 1, 1 / 2),
        ([1, 1], [1, 1], 1, 1, 1, 1),
    ],
)
def test_counts_by_hand(prediction, reference, dice, iou, sensitivity, precision):
    counts = Counts.of_masks(np.array(prediction, bool), np.array(reference, bool))
    scores = counts.dice, counts.iou, counts.sensitivity, counts.precision
    np.testing.assert_allclose(scores, (dice, iou, sensitivity, precision))


def test_counts_of_masks_equal_those_of_confusion(make_masks):
    masks = make_masks((25, 29, 13), seed=5)
    single = Counts.of_masks(*masks)
    both = Counts.of_confusion(confusion(*(mask.astype(np.uint8) for mask in masks), num_classes=2))
    assert single.prediction == both.prediction[1] == masks[0].sum()
    assert single.reference == both.reference[1] == masks[1].sum()
    assert single.dice == both.dice[1]


@pytest.mark.parametrize(
    ("prediction", "reference", "message"),
    [
        (np.zeros((2, 3), int), np.zeros((3, 2), int), r"one grid, got shapes \(2, 3\) and \(3, 2\)"),
        (np.zeros((2, 3)), np.zeros((2, 3), int), "prediction must hold integer labels, got dtype float64"),
        (np.zeros((2, 3), int), np.full((2, 3), 2), "reference holds label values 2 to 2"),
        (np.full((2, 3), -1), np.zeros((2, 3), int), "prediction holds label values -1 to -1"),
    ],
)
@pytest.mark.parametrize("score", [confusion, dice_per_class, iou_per_class])
def test_bad_maps_are_refused(score, prediction, reference, message):
    with pytest.raises(SkipSegError, match=message):
        score(prediction, reference, 2)

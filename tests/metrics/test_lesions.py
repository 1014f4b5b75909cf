import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp
from skimage import measure

from segmentation import SkipSegError
from segmentation.metrics import Lesions, count_lesions


def masks(*rows):
    return tuple(np.array([list(row)], "U1") == "#" for row in rows)


@pytest.mark.parametrize(
    ("prediction", "reference", "expected"),
    [
        (".....", ".....", Lesions(0, 0, 0, 0)),
        ("#.#..", ".....", Lesions(0, 0, 2, 2)),
        (".....", "#.#..", Lesions(2, 0, 0, 0)),
        ("####.", "#.#..", Lesions(2, 2, 1, 0)),
        ("#.#..", "####.", Lesions(1, 1, 2, 0)),
        ("#...#", "#.#..", Lesions(2, 1, 2, 1)),
    ],
)
def test_counts_by_hand(prediction, reference, expected):
    assert count_lesions(*masks(prediction, reference)) == expected


@pytest.mark.parametrize("dims", [2, 3])
def test_voxels_that_touch_at_a_corner_are_one_lesion(dims):
    mask = np.zeros((5,) * dims, bool)
    mask[(1,) * dims] = mask[(2,) * dims] = True
    assert count_lesions(mask, mask) == Lesions(1, 1, 1, 0)


@given(hnp.arrays(bool, (2, 5, 6, 4)))
def test_counts_equal_skimage(pair):
    prediction, reference = pair
    labelled, regions = (measure.label(mask, connectivity=3) for mask in (prediction, reference))
    detected = [r for r in range(1, regions.max() + 1) if (prediction & (regions == r)).any()]
    false = [p for p in range(1, labelled.max() + 1) if not (reference & (labelled == p)).any()]
    expected = Lesions(regions.max(), len(detected), labelled.max(), len(false))
    assert count_lesions(prediction, reference) == expected


def test_f1():
    assert Lesions(reference=2, detected=1, prediction=2, false=1).f1 == 0.5
    assert Lesions(reference=0, detected=0, prediction=3, false=3).f1 == 0
    assert np.isnan(Lesions(0, 0, 0, 0).f1)


def test_bad_masks_are_refused():
    mask = np.ones((3, 3), bool)
    with pytest.raises(SkipSegError, match="one grid"):
        count_lesions(mask, mask[:2])
    with pytest.raises(SkipSegError, match="boolean mask"):
        count_lesions(mask, mask.astype(np.uint8))

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist

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


def components(mask):
    """Connected components as sets of voxels, by a graph of neighbours."""
    voxels = np.argwhere(mask)
    number, member = connected_components(cdist(voxels, voxels, "chebyshev") <= 1) if len(voxels) else (0, [])
    return [{tuple(voxel) for voxel in voxels[member == each]} for each in range(number)]


@given(hnp.arrays(bool, (2, 5, 6, 4)))
def test_counts_equal_those_of_a_graph(pair):
    predicted, annotated = map(components, pair)
    prediction, reference = (set().union(*parts) for parts in (predicted, annotated))
    detected = sum(bool(part & prediction) for part in annotated)
    false = sum(not part & reference for part in predicted)
    assert count_lesions(*pair) == Lesions(len(annotated), detected, len(predicted), false)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(("shape", "share"), [((40, 50, 30), 0.03), ((40, 50, 30), 0.08), ((90, 110), 0.3)])
def test_counts_equal_those_of_labelled_images(shape, share, order):
    rng = np.random.default_rng(0)
    prediction, reference = (np.asarray(rng.random(shape) < share, order=order) for _ in range(2))

    def labelled(mask, other):
        components, number = ndimage.label(mask, np.ones((3,) * mask.ndim))
        return number, len(np.unique(components[mask & other]))

    (predicted, touched), (annotated, detected) = labelled(prediction, reference), labelled(reference, prediction)
    assert min(detected, predicted - touched) > 10
    assert count_lesions(prediction, reference) == Lesions(annotated, detected, predicted, predicted - touched)


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

import numpy as np
import pytest
import surface_distance
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from monai.metrics import HausdorffDistanceMetric, SurfaceDiceMetric, SurfaceDistanceMetric
from scipy import ndimage
from scipy.spatial.distance import cdist

from segmentation import SkipSegError
from segmentation.metrics import surface_dice, surface_scores, voxel_distances_mm
from segmentation.metrics.surface_elements import element_sizes

GRIDS = [
    ((49, 67), (1.0, 1.0)),
    ((49, 67), (0.7, 1.9)),
    ((25, 29, 13), (1.0, 1.0, 1.0)),
    ((25, 29, 13), (0.8, 0.8, 2.5)),
    ((13, 29, 25), (3.0, 0.5, 1.1)),
]
"""2-D and 3-D, isotropic and not."""

# MONAI 1.6 passes an argument of its own that it has deprecated.
monai_warns = pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")
# surface-distance 0.1, the only release, uses old names of scipy modules.
surface_distance_warns = pytest.mark.filterwarnings(
    "ignore:.*scipy.ndimage.* namespace is deprecated:DeprecationWarning"
)


@st.composite
def small_pairs(draw: st.DrawFn):
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=3, max_side=6))
    spacing = draw(st.tuples(*(st.floats(0.2, 5.0) for _ in shape)))
    return draw(hnp.arrays(bool, shape)), draw(hnp.arrays(bool, shape)), spacing


def in_batch(mask):
    """Background and foreground as MONAI wants them, shape ``(1, 2, *S)``."""
    return torch.from_numpy(np.stack([~mask, mask]))[None].float()


def boundary_voxels(mask):
    """Voxels with a face neighbour outside the mask, by erosion."""
    return np.argwhere(mask & ~ndimage.binary_erosion(mask))


def elements(mask, spacing_mm):
    """Place and size of every surface element, neighbourhood by neighbourhood."""
    whole = np.pad(mask, 1)
    windows = np.lib.stride_tricks.sliding_window_view(whole, (2,) * mask.ndim).reshape(-1, 2**mask.ndim)
    codes = windows @ (1 << np.arange(2**mask.ndim))
    places = np.argwhere(np.ones(np.subtract(whole.shape, 1), bool))
    cut = (codes > 0) & (codes < 2 ** (2**mask.ndim) - 1)
    return places[cut], element_sizes(tuple(spacing_mm))[codes[cut]]


def plain_scores(prediction, reference, spacing_mm, tolerance_mm):
    """The three scores by their definitions: distances of all pairs, nothing cropped."""

    def both_ways(first, second):
        distances = cdist(first * np.asarray(spacing_mm), second * np.asarray(spacing_mm))
        return distances.min(axis=1), distances.min(axis=0)

    there, back = both_ways(boundary_voxels(prediction), boundary_voxels(reference))
    places, areas = zip(*(elements(mask, spacing_mm) for mask in (prediction, reference)), strict=True)
    correct = sum(
        area[distances <= tolerance_mm * (1 + 1e-9)].sum()
        for area, distances in zip(areas, both_ways(*places), strict=True)
    )
    hd95 = max(np.percentile(there, 95), np.percentile(back, 95))
    return hd95, np.concatenate((there, back)).mean(), correct / np.concatenate(areas).sum()


@given(small_pairs(), st.sampled_from([0.0, 0.5, 1.0, 2.0, 30.0]))
def test_scores_equal_the_plain_computation(pair, tolerance_mm):
    prediction, reference, spacing_mm = pair
    if prediction.any() and reference.any():
        scores = surface_scores(prediction, reference, spacing_mm, tolerance_mm)
        expected = plain_scores(prediction, reference, spacing_mm, tolerance_mm)
        assert (scores.hd95_mm, scores.assd_mm, scores.nsd) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("shape", "spacing_mm"), GRIDS)
@pytest.mark.parametrize("tolerance_mm", [1.0, 12.0])
def test_scores_of_surfaces_near_and_far_equal_the_plain_computation(make_masks, shape, spacing_mm, tolerance_mm):
    prediction, reference = make_masks(shape, seed=3)
    prediction[..., :2] = True  # far from the reference
    scores = surface_scores(prediction, reference, spacing_mm, tolerance_mm)
    expected = plain_scores(prediction, reference, spacing_mm, tolerance_mm)
    assert expected[0] > 5
    assert (scores.hd95_mm, scores.assd_mm, scores.nsd) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@monai_warns
@pytest.mark.parametrize(("shape", "spacing_mm"), GRIDS)
@pytest.mark.parametrize("seed", range(4))
def test_hd95_and_assd_equal_monai(make_masks, shape, spacing_mm, seed):
    prediction, reference = make_masks(shape, seed)
    pair = in_batch(prediction), in_batch(reference)
    expected = [
        HausdorffDistanceMetric(percentile=95)(*pair, spacing=spacing_mm).item(),
        SurfaceDistanceMetric(symmetric=True)(*pair, spacing=spacing_mm).item(),
    ]
    assert voxel_distances_mm(prediction, reference, spacing_mm) == pytest.approx(expected, rel=1e-5)


@monai_warns
@surface_distance_warns
@pytest.mark.parametrize(("shape", "spacing_mm"), GRIDS)
@pytest.mark.parametrize("tolerance_mm", [0.0, 0.613, 1.371, 3.17])
@pytest.mark.parametrize("seed", range(2))
def test_surface_dice_equals_monai_and_surface_distance(make_masks, shape, spacing_mm, tolerance_mm, seed):
    prediction, reference = make_masks(shape, seed)
    ours = surface_dice(prediction, reference, spacing_mm, tolerance_mm)
    monai = SurfaceDiceMetric([tolerance_mm], use_subvoxels=True)(
        in_batch(prediction), in_batch(reference), spacing=spacing_mm
    ).item()
    distances = surface_distance.compute_surface_distances(reference, prediction, spacing_mm)
    original = surface_distance.compute_surface_dice_at_tolerance(distances, tolerance_mm)
    assert ours == pytest.approx(original, abs=1e-9)
    assert ours == pytest.approx(monai, abs=1e-5)


@given(small_pairs(), st.floats(0, 4))
def test_scores_are_symmetric_bounded_and_free_of_padding_and_axis_order(pair, tolerance_mm):
    prediction, reference, spacing_mm = pair
    scores = surface_scores(prediction, reference, spacing_mm, tolerance_mm)
    if not (prediction.any() and reference.any()):
        return
    values = (scores.hd95_mm, scores.assd_mm, scores.nsd)

    def again(first, second, spacing):
        other = surface_scores(first, second, spacing, tolerance_mm)
        return pytest.approx((other.hd95_mm, other.assd_mm, other.nsd))

    assert values == again(reference, prediction, spacing_mm)
    assert values == again(np.pad(prediction, 3), np.pad(reference, 3), spacing_mm)
    assert values == again(prediction.T, reference.T, spacing_mm[::-1])
    assert values == again(np.flip(prediction), np.flip(reference), spacing_mm)
    assert 0 <= scores.nsd <= 1 + 1e-12
    assert scores.assd_mm >= 0
    assert 0 <= scores.hd95_mm <= np.linalg.norm(np.multiply(prediction.shape, spacing_mm))


@given(small_pairs())
def test_surface_dice_grows_with_the_tolerance(pair):
    prediction, reference, spacing_mm = pair
    if prediction.any() or reference.any():
        scores = [surface_dice(prediction, reference, spacing_mm, tolerance) for tolerance in (0, 0.5, 1, 2, 4)]
        assert scores == sorted(scores)


@pytest.mark.parametrize(("shape", "spacing_mm"), GRIDS)
def test_a_mask_lies_on_itself(make_masks, shape, spacing_mm):
    mask, _ = make_masks(shape, seed=1)
    scores = surface_scores(mask, mask, spacing_mm, tolerance_mm=0)
    assert (scores.hd95_mm, scores.assd_mm, scores.nsd) == (0, 0, 1)


@pytest.mark.parametrize(("shape", "spacing_mm", "diagonal"), [((30, 40), (1, 1), 50), ((2, 3, 6), (1, 1, 1), 7)])
def test_empty_masks(shape, spacing_mm, diagonal):
    empty, full = np.zeros(shape, bool), np.zeros(shape, bool)
    full[0, 1] = True
    for pair in ((empty, full), (full, empty)):
        scores = surface_scores(*pair, spacing_mm, tolerance_mm=1)
        assert (scores.hd95_mm, scores.assd_mm, scores.nsd) == (diagonal, diagonal, 0)
    scores = surface_scores(empty, empty, spacing_mm, tolerance_mm=1)
    assert np.isnan([scores.hd95_mm, scores.assd_mm, scores.nsd]).all()


def test_percentile_by_hand():
    prediction, reference = np.zeros((2, 30), bool), np.zeros((2, 30), bool)
    reference[0, :20] = prediction[0, :20] = True
    prediction[0, 29] = True  # one of 21 boundary pixels, 10 steps of 2 mm away: beyond the 95th percentile
    assert voxel_distances_mm(prediction, reference, (1.0, 2.0)) == (0.0, pytest.approx(20 / 41))


def test_tolerance_of_three_steps_is_not_lost_to_rounding():
    prediction, reference = np.zeros((9, 9), bool), np.zeros((9, 9), bool)
    prediction[1, 4] = reference[4, 4] = True
    assert surface_dice(prediction, reference, (0.1, 0.1), tolerance_mm=0.3) == 1.0
    assert surface_dice(prediction, reference, (0.1, 0.1), tolerance_mm=0.2999) < 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prediction": np.ones((4, 5), bool)}, "must lie on one grid"),
        ({"prediction": np.ones((4, 4), np.uint8)}, "prediction must be a boolean mask, got dtype uint8"),
        ({"reference": np.ones((4, 4))}, "reference must hold integer labels"),
        ({"spacing_mm": (1.0,)}, "spacing_mm must be 2 positive numbers"),
        ({"spacing_mm": (1.0, 0.0)}, "spacing_mm must be 2 positive numbers"),
        ({"spacing_mm": (1.0, float("nan"))}, "spacing_mm must be 2 positive numbers"),
        ({"tolerance_mm": -1.0}, "tolerance_mm must be 0 or more"),
        ({"tolerance_mm": float("nan")}, "tolerance_mm must be 0 or more"),
        ({"prediction": np.ones(4, bool), "reference": np.ones(4, bool)}, "must be 2-D or 3-D"),
    ],
)
def test_bad_input_is_refused(change, message):
    good = {"prediction": np.ones((4, 4), bool), "reference": np.ones((4, 4), bool)}
    good |= {"spacing_mm": (1.0, 1.0), "tolerance_mm": 1.0}
    for score in (surface_scores, surface_dice):
        with pytest.raises(SkipSegError, match=message):
            score(**good | change)
    if "tolerance_mm" not in change:
        with pytest.raises(SkipSegError, match=message):
            voxel_distances_mm(**{key: value for key, value in (good | change).items() if key != "tolerance_mm"})

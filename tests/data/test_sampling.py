import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentation.data.sampling import cut_patch, draw_center, place_patch, sample_rng

SHAPE = (20, 30)
FOREGROUND = [np.array([[3, 4]]), np.stack([np.full(28, 9), np.arange(28)], axis=1)]


def centers(share: float, foreground=FOREGROUND, draws: int = 3000) -> np.ndarray:
    return np.array([draw_center(sample_rng(0, index), SHAPE, foreground, share) for index in range(draws)])


def test_draws_depend_on_seed_and_number_alone():
    draws = {(seed, index): sample_rng(seed, index).random(3).tolist() for seed in range(3) for index in range(4)}
    assert len({tuple(values) for values in draws.values()}) == len(draws)
    assert sample_rng(2, 3).random(3).tolist() == draws[2, 3]


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_foreground_share_is_kept_and_classes_take_turns(share):
    found = centers(share)
    on_small = (found == (3, 4)).all(axis=1).mean()
    on_large = (found[:, 0] == 9).mean()
    tolerance = 4 * 0.5 / np.sqrt(len(found))
    assert on_small == pytest.approx(share / 2 + (1 - share) / 600, abs=tolerance)
    assert on_large == pytest.approx(share / 2 + (1 - share) / 20, abs=tolerance)


def test_without_foreground_every_voxel_is_as_likely():
    found = centers(1.0, foreground=[])
    counts = [np.bincount(found[:, axis], minlength=size) for axis, size in enumerate(SHAPE)]
    for axis, size in enumerate(SHAPE):
        assert len(counts[axis]) == size
        assert np.abs(counts[axis] - 3000 / size).max() < 5 * np.sqrt(3000 / size)


axes = st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20), st.integers(0, 19)), min_size=1, max_size=3)


@given(axes)
def test_patches_hold_their_centre_and_stay_inside_where_they_fit(axes):
    shape, size, center = zip(*((s, p, min(c, s - 1)) for s, p, c in axes), strict=True)
    start = place_patch(center, size, shape)
    for first, s, p, c in zip(start, shape, size, center, strict=True):
        assert first <= c < first + p
        assert (0 <= first <= s - p) if p <= s else (first <= 0 and first + p >= s)
        if p > s:
            assert abs(-first - (first + p - s)) <= 1
        elif 0 < first < s - p:
            assert first == c - p // 2


@given(st.tuples(st.integers(1, 9), st.integers(1, 9)), st.tuples(*[st.integers(1, 15)] * 2), st.data())
def test_a_cut_equals_indexing_with_the_nearest_voxel(shape, size, data):
    start = [data.draw(st.integers(1 - p, s - 1)) for p, s in zip(size, shape, strict=True)]
    array = np.arange(2 * np.prod(shape)).reshape(2, *shape)
    rows, columns = (np.clip(np.arange(f, f + p), 0, s - 1) for f, p, s in zip(start, size, shape, strict=True))
    np.testing.assert_array_equal(cut_patch(array, start, size), array[:, rows][:, :, columns])

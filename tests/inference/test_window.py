import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segmentation.inference.window import gaussian_window, sliding_window, window_places, window_starts

OVERLAPS = st.one_of(st.sampled_from((0.0, 0.25, 0.5, 0.9)), st.floats(0, 0.95))


def pointwise(x: torch.Tensor) -> torch.Tensor:
    """Two classes from each voxel alone, shape ``(B, 2, *S)``."""
    return torch.stack((x[:, 0], 3 * x[:, 0] - x[:, -1] + 1), dim=1).softmax(dim=1)


@st.composite
def images(draw):
    dims = draw(st.sampled_from((2, 3)))
    most = (40, 23)[dims - 2]
    shape, window = (draw(st.tuples(*[st.integers(1, most)] * dims)) for _ in range(2))
    channels = draw(st.integers(1, 3))
    return np.random.default_rng(draw(st.integers(0, 99))).random((channels, *shape), np.float32), window


@settings(max_examples=60)
@given(images(), OVERLAPS, st.integers(1, 5))
def test_a_pointwise_network_gives_the_same_by_windows_as_in_one_piece(case, overlap, batch_size):
    image, window = case
    whole = pointwise(torch.from_numpy(image)[None])[0].numpy()
    overlap = min(overlap, 0.5) if image.ndim == 4 else overlap  # fewer windows
    stitched = sliding_window(pointwise, image, window, overlap, batch_size)
    assert stitched.dtype == np.float32
    np.testing.assert_allclose(stitched, whole, atol=2e-6)
    np.testing.assert_allclose(stitched.sum(axis=0), 1, atol=1e-5)


@given(st.integers(1, 300), st.integers(1, 80), OVERLAPS)
def test_windows_cover_an_axis_and_overlap_as_asked(size, window, overlap):
    window = min(window, size)
    starts = window_starts(size, window, overlap)
    assert starts[0] == 0
    assert starts[-1] == size - window
    steps = np.diff(starts)
    assert (steps > 0).all()
    assert (steps <= max(1, window * (1 - overlap) + 1e-9)).all()


def test_no_more_windows_than_needed():
    assert window_starts(10, 4, 0.0) == [0, 3, 6]
    assert window_starts(12, 4, 0.0) == [0, 4, 8]
    assert window_starts(13, 4, 0.0) == [0, 3, 6, 9]


def test_places_are_every_combination():
    places = list(window_places((5, 7), (4, 4), 0.5))
    assert [tuple(axis.start for axis in place) for place in places] == [(0, 0), (0, 2), (0, 3), (1, 0), (1, 2), (1, 3)]


@given(st.lists(st.integers(1, 64), min_size=1, max_size=3))
def test_weights_are_positive_symmetric_and_largest_in_the_middle(shape):
    weights = gaussian_window(shape)
    assert weights.shape == tuple(shape)
    assert weights.min() >= 1e-3
    assert weights.max() == 1
    np.testing.assert_array_equal(weights, np.flip(weights))
    assert weights[tuple(size // 2 for size in shape)] == 1


def test_the_middle_of_a_window_counts_more_than_its_edge():
    """A network that always says 'I am window n' shows how two windows share an axis."""
    seen = iter((0.0, 1.0))
    mixed = sliding_window(lambda x: torch.full_like(x, next(seen)), np.zeros((1, 12), np.float32), (8,), 0.5)[0]
    assert (np.diff(mixed[4:8]) > 0).all()
    assert (mixed[:4] == 0).all()
    assert (mixed[8:] == 1).all()
    first, second = (np.exp(-0.5 * ((x - 3.5) / 1) ** 2) for x in (5, 1))
    assert mixed[5] == pytest.approx(second / (first + second), rel=1e-4)


def test_windows_are_never_larger_than_asked_nor_than_the_image():
    sizes: list[tuple[int, ...]] = []

    def network(x: torch.Tensor) -> torch.Tensor:
        sizes.append(tuple(x.shape))
        return x

    sliding_window(network, np.zeros((1, 5, 30), np.float32), (8, 8), 0.5, batch_size=2)
    assert {size[2:] for size in sizes} == {(5, 8)}
    assert [size[0] for size in sizes] == [2, 2, 2, 1]


def test_an_image_without_voxels_is_refused():
    with pytest.raises(ValueError, match=r"no windows, got shape \(1, 0, 4\)"):
        sliding_window(pointwise, np.zeros((1, 0, 4), np.float32), (4, 4), 0.5)

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segmentation.inference.window import KNOWN_WINDOWS, SlidingWindow, gaussian_window, window_starts
from segmentation.scans.workspace import Workspace

OVERLAPS = st.one_of(st.sampled_from((0.0, 0.25, 0.5, 0.9)), st.floats(0, 0.95))


def pointwise(x: np.ndarray) -> np.ndarray:
    """Two classes from each voxel alone, shape ``(B, 2, *S)``."""
    odds = np.exp(2 * x[:, 0] - x[:, -1] + 1)
    return np.stack((1 / (1 + odds), odds / (1 + odds)), axis=1)


def sliding_window(network, image, window, overlap, batch_size=1):
    return SlidingWindow(network, window, overlap, batch_size)(image)


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
    whole = pointwise(image[None])[0]
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


def test_windows_are_counted_beforehand():
    slide = SlidingWindow(pointwise, (4, 4), 0.5)
    assert slide.total((5, 7)) == 6
    slide(np.random.default_rng(0).random((1, 5, 7), np.float32))
    assert (slide.count.computed, slide.count.known) == (6, 0)


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
    image = np.arange(12, dtype=np.float32)[None]
    mixed = sliding_window(lambda x: np.full_like(x, x.flat[0] > 0), image, (8,), 0.5)[0]
    assert (np.diff(mixed[4:8]) > 0).all()
    assert (mixed[:4] == 0).all()
    assert (mixed[8:] == 1).all()
    first, second = (np.exp(-0.5 * ((x - 3.5) / 1) ** 2) for x in (5, 1))
    assert mixed[5] == pytest.approx(second / (first + second), rel=1e-4)


def test_windows_are_never_larger_than_asked_nor_than_the_image():
    sizes: list[tuple[int, ...]] = []

    def network(x: np.ndarray) -> np.ndarray:
        sizes.append(tuple(x.shape))
        return x

    sliding_window(network, np.random.default_rng(0).random((1, 5, 30), np.float32), (8, 8), 0.5, batch_size=2)
    assert {size[2:] for size in sizes} == {(5, 8)}
    assert [size[0] for size in sizes] == [2, 2, 2, 1]


def test_an_image_without_voxels_is_refused():
    with pytest.raises(ValueError, match=r"no windows, got spatial shape \(0, 4\)"):
        sliding_window(pointwise, np.zeros((1, 0, 4), np.float32), (4, 4), 0.5)


def blur(x: np.ndarray) -> np.ndarray:
    """One class from all voxels of a window, so that windows differ where they overlap."""
    return x * x.mean(axis=tuple(range(1, x.ndim)), keepdims=True)


@settings(max_examples=40)
@given(images(), st.sampled_from((0.0, 0.3, 0.5)), st.integers(1, 7))
def test_planes_across_any_axis_in_any_batches_from_files_are_the_same(case, overlap, batch_size):
    image, window = case
    whole = SlidingWindow(blur, window, overlap)(image)
    for axis in range(image.ndim - 1):
        slide = SlidingWindow(blur, window, overlap, batch_size, Workspace(limit=0))
        planes = list(slide.planes(lambda place: image[(slice(None), *place)], image.shape[1:], axis))
        np.testing.assert_allclose(np.stack(planes, axis=axis + 1), whole, atol=1e-5)
        assert slide.count.computed + slide.count.known == slide.total(image.shape[1:])


def test_only_the_windows_in_progress_are_held():
    """Planes in memory are those of one row of windows, however long the image is."""
    space = Workspace(limit=1 << 30)
    slide = SlidingWindow(pointwise, (8, 6), 0.5, workspace=space)
    image = np.random.default_rng(0).random((1, 400, 6), np.float32)
    plane_bytes = 3 * 6 * 4  # two classes and the sum of weights
    held = [
        space._used // plane_bytes for _ in slide.planes(lambda place: image[(slice(None), *place)], image.shape[1:])
    ]
    assert len(held) == 400
    assert max(held) == 8


def test_constant_windows_are_computed_once_and_change_nothing():
    image = np.zeros((2, 40, 12), np.float32)
    image[:, 30:] = np.random.default_rng(0).random((2, 10, 12))
    image[1, :30] = 0.25
    slide = SlidingWindow(blur, (6, 6), 0.5)
    plain = SlidingWindow(blur, (6, 6), 0.5)
    plain._known = NothingKept()
    np.testing.assert_array_equal(slide(image), plain(image))
    assert plain.count.known == 0
    assert slide.count.known >= 20
    assert slide.count.computed + slide.count.known == plain.count.computed


def test_few_constant_windows_are_kept():
    image = np.repeat(np.arange(20, dtype=np.float32), 4)[None]
    slide = SlidingWindow(pointwise, (4,), 0.0)
    whole = pointwise(image[None])[0]
    np.testing.assert_allclose(slide(image), whole, atol=2e-6)
    assert len(slide._known) == KNOWN_WINDOWS


class NothingKept(dict):
    """Forgets every window."""

    def __setitem__(self, key, value) -> None:
        """Keep nothing."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentation import SkipSegError
from segmentation.scans.slices import Stack, find_faults, mend, same_position, stack_affine

SHAPE = (17, 23)


def make_stack(heights, shear=(0.0, 0.0), thickness: float | None = 2.0) -> Stack:
    row, column = np.array([0.8, 0.6, 0.0]), np.array([-0.6, 0.8, 0.0])
    heights = np.asarray(heights, dtype=float)
    normal = np.cross(row, column)
    positions = np.array([5.0, -7.0, 11.0]) + np.outer(heights, normal + shear[0] * row + shear[1] * column)
    return Stack(positions, row, column, SHAPE, (0.8, 1.5), thickness)


def test_an_even_stack_has_no_fault():
    assert find_faults(make_stack(np.arange(9) * 2.5)) == {}


@given(st.floats(0.3, 10), st.lists(st.floats(-0.02, 0.02), min_size=3, max_size=30))
def test_rounding_of_positions_is_no_fault(step: float, jitter: list[float]):
    assert find_faults(make_stack((np.arange(len(jitter)) + jitter) * step)) == {}


@given(st.integers(6, 30), st.data())
def test_missing_slices_are_counted(count: int, data: st.DataObject):
    missing = data.draw(st.sets(st.integers(1, count - 2), min_size=1, max_size=count // 5))
    faults = find_faults(make_stack([2.5 * index for index in range(count) if index not in missing]))
    assert faults == {"gaps": f"{len(missing)} of {count} slices are missing"}


def test_variable_spacing_is_told_with_its_range():
    assert find_faults(make_stack([0, 2, 4, 6, 9, 12])) == {"spacing": "slices lie 2 to 3 mm apart"}


def test_tilt_is_told_in_degrees():
    faults = find_faults(make_stack(np.arange(9) * 2.5, shear=(0, np.tan(np.radians(15)))))
    assert faults == {"tilt": "the gantry was tilted: slices are stacked 15.00 degrees off their normal"}


def test_a_tilted_stack_with_a_gap_has_both_faults():
    assert set(find_faults(make_stack([0, 1, 2, 4, 5, 6], shear=(0.2, 0)))) == {"gaps", "tilt"}


def test_a_slice_shifted_in_its_plane_is_refused():
    stack = make_stack(np.arange(9) * 2.5)
    stack.positions[4, 0] += 1.0
    with pytest.raises(SkipSegError, match="in their plane"):
        find_faults(stack)


@pytest.mark.parametrize("thickness", [None, 0.0, -1.0])
def test_a_lone_slice_needs_a_thickness(thickness: float | None):
    assert find_faults(make_stack([0.0])) == {}
    with pytest.raises(SkipSegError, match="SliceThickness"):
        find_faults(make_stack([0.0], thickness=thickness))


def test_neighbours_at_one_position():
    assert same_position(make_stack([0, 2, 2.001, 4, 4, 6])) == [1, 3]


@pytest.mark.parametrize("shear", [(0.0, 0.0), (0.3, -0.2)])
def test_the_affine_gives_the_position_of_every_slice(shear):
    stack = make_stack(np.arange(9) * 2.5, shear)
    corners = stack_affine(stack) @ np.array([(0, 0, k, 1) for k in range(9)]).T
    np.testing.assert_allclose((corners[:3].T * (-1, -1, 1)), stack.positions, atol=1e-9)


def linear_volume(stack: Stack, lps_slope=(3.0, -2.0, 7.0)) -> np.ndarray:
    """A field that is linear in world space: any linear interpolation of it is exact."""
    i, j = np.mgrid[: stack.shape[0], : stack.shape[1]]
    points = (
        stack.positions[None, None]
        + i[..., None, None] * stack.pixel_mm[0] * stack.row
        + j[..., None, None] * stack.pixel_mm[1] * stack.column
    )
    return (points @ np.array(lps_slope)).astype(np.float32)


@pytest.mark.parametrize(
    ("heights", "even"),
    [([0, 2, 4, 8, 10, 16], np.arange(9) * 2.0), ([0, 2, 4, 6, 9, 12], np.arange(7) * 2.0), ([0, 1, 2, 2.6, 4], None)],
)
def test_mending_uneven_slices_is_exact_on_a_linear_field(heights, even):
    stack = make_stack(heights)
    mended, volume = mend(stack, linear_volume(stack), tuple(find_faults(stack)))
    if even is not None:
        np.testing.assert_allclose(mended.heights_mm - mended.heights_mm[0], even, atol=1e-9)
    assert find_faults(mended) == {}
    np.testing.assert_allclose(volume, linear_volume(mended), rtol=1e-5)


@given(st.floats(-0.6, 0.6), st.floats(-0.6, 0.6))
def test_mending_a_tilt_is_exact_on_a_linear_field_and_loses_no_pixel(a: float, b: float):
    stack = make_stack(np.arange(6) * 2.5, shear=(a, b))
    source = linear_volume(stack)
    mended, volume = mend(stack, source, ("tilt",))
    assert volume.shape == (*mended.shape, 6)
    assert find_faults(mended) == {}
    expected = linear_volume(mended)
    inside = np.abs(volume - expected) < 1e-2
    # Linear interpolation is exact wherever both neighbours exist: all but one line of pixels a side and axis.
    assert inside.sum() >= (SHAPE[0] - 1) * (SHAPE[1] - 1) * 6
    corners = [(i, j) for i in (0, SHAPE[0] - 1) for j in (0, SHAPE[1] - 1)]
    inverse = np.linalg.inv(stack_affine(mended))
    for k in range(6):
        for i, j in corners:
            place = (inverse @ stack_affine(stack) @ (i, j, k, 1))[:3]
            assert (place > -1e-6).all()
            assert (place < np.array(volume.shape) - 1 + 1e-6).all()


def test_mended_integers_are_rounded_and_keep_their_dtype():
    stack = make_stack([0, 2, 6])
    volume = np.stack([np.full(SHAPE, value, np.int16) for value in (0, 10, -11)], axis=-1)
    _, mended = mend(stack, volume, ("gaps",))
    assert mended.dtype == np.int16
    assert mended[3, 4].tolist() == [0, 10, 0, -11]  # -0.5 rounds to even


def test_mending_leaves_the_input_alone():
    stack = make_stack([0, 2, 6])
    volume = linear_volume(stack)
    before = volume.copy()
    mend(replace(stack), volume, ("gaps",))
    np.testing.assert_array_equal(volume, before)

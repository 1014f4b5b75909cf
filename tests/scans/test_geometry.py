import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.transform import Rotation

from segmentation import SkipSegError
from segmentation.scans import Grid, Scan, from_canonical, grid_difference, to_canonical
from segmentation.scans.geometry import check_affine, shear_degrees

SHAPE = (5, 7, 4)


def make_scan(affine: np.ndarray, channels: int = 2) -> Scan:
    return Scan(np.arange(channels * np.prod(SHAPE)).reshape(channels, *SHAPE), affine, "scan")


def test_every_orientation_becomes_ras_and_comes_back_exactly(oriented_affine: np.ndarray):
    scan = make_scan(oriented_affine)
    canonical = to_canonical(scan)
    assert canonical.orientation == "RAS"
    np.testing.assert_array_equal(from_canonical(canonical.array, scan), scan.array)
    np.testing.assert_array_equal(from_canonical(canonical.array[0], scan), scan.array[0])


def test_canonical_volume_equals_nibabels(oriented_affine: np.ndarray):
    scan = make_scan(oriented_affine, channels=1)
    canonical = to_canonical(scan)
    expected = nib.as_closest_canonical(nib.Nifti1Image(scan.array[0].astype(np.int16), oriented_affine))
    np.testing.assert_array_equal(canonical.array[0], expected.get_fdata())
    np.testing.assert_allclose(canonical.affine, expected.affine, atol=1e-5)


affines = st.builds(
    lambda quaternion, spacing, signs, order, origin: _affine(quaternion, spacing, signs, order, origin),
    st.tuples(*[st.floats(-1, 1)] * 3, st.floats(0.1, 1)),
    st.tuples(*[st.floats(0.05, 20)] * 3),
    st.tuples(*[st.sampled_from((-1, 1))] * 3),
    st.permutations(range(3)),
    st.tuples(*[st.floats(-500, 500)] * 3),
)


def _affine(quaternion, spacing, signs, order, origin) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_quat(quaternion).as_matrix()[:, order] * np.array(spacing) * signs
    affine[:3, 3] = origin
    return affine


@given(affines, st.tuples(*[st.integers(0, size - 1) for size in SHAPE]))
def test_a_voxel_keeps_its_place_and_value_under_any_rotation(affine: np.ndarray, voxel: tuple[int, ...]):
    scan = make_scan(affine)
    canonical = to_canonical(scan)
    world = affine @ (*voxel, 1)
    index = np.rint(np.linalg.solve(canonical.affine, world)[:3]).astype(int)
    np.testing.assert_allclose(canonical.affine @ (*index, 1), world, atol=1e-6)
    np.testing.assert_array_equal(canonical.array[:, *index], scan.array[:, *voxel])
    np.testing.assert_array_equal(from_canonical(canonical.array, scan), scan.array)


@given(arrays(np.int16, (2, 3, 4)))
def test_a_picture_passes_through(array: np.ndarray):
    picture = Scan(array, np.eye(4))
    assert to_canonical(picture) is picture
    np.testing.assert_array_equal(from_canonical(array, picture), array)


def test_a_canonical_scan_has_no_header_to_write_in_the_wrong_frame():
    scan = Scan(np.zeros((1, *SHAPE)), np.diag([-1.0, 1, 1, 1]), header=object())
    assert to_canonical(scan).header is None


def test_from_canonical_refuses_other_numbers_of_axes():
    with pytest.raises(SkipSegError, match="3 spatial axes"):
        from_canonical(np.zeros((4, 4)), make_scan(np.eye(4)))


@pytest.mark.parametrize("factor", [0, np.nan, np.inf])
def test_an_affine_that_spans_no_volume_is_refused(factor: float):
    affine = np.eye(4)
    affine[1, 1] = factor
    with pytest.raises(SkipSegError, match="does not span a volume"):
        check_affine(affine, "scan.nii")


def test_parallel_axes_are_refused():
    affine = np.eye(4)
    affine[:3, 1] = affine[:3, 0]
    with pytest.raises(SkipSegError, match="does not span a volume"):
        check_affine(affine, "scan.nii")


def test_spacing_far_from_one_is_a_sound_affine():
    check_affine(np.diag([1e-4, 2e-4, 1e-3, 1.0]), "microscopy.nii")


@pytest.mark.parametrize("size_mm", [1e-8, 1e6, 1e200, np.inf])
def test_voxels_of_a_size_that_no_scan_has_are_refused(size_mm: float):
    with pytest.raises(SkipSegError, match="does not span a volume"):
        check_affine(np.diag([size_mm, 1.0, 1.0, 1.0]), "scan.nii")


@given(affines)
def test_rotations_have_no_shear(affine: np.ndarray):
    assert shear_degrees(affine) < 1e-4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: a, None),
        (lambda a: a + np.array([[0, 0, 0, 5e-4]] * 3 + [[0] * 4]), None),  # rounding of a header
        (lambda a: a @ np.diag([1, 1, 1.1, 1]), "spacing"),
        (lambda a: a @ np.diag([-1, 1, 1, 1]), "orientation"),
        (lambda a: a + np.array([[0, 0, 0, 0.5]] * 3 + [[0] * 4]), "position"),
    ],
)
def test_grid_difference_names_the_difference(change, words: str | None):
    affine = np.diag([0.7, 0.7, 2.0, 1.0])
    difference = grid_difference(Grid((49, 67, 57), affine), Grid((49, 67, 57), change(affine)))
    assert difference is None if words is None else words in (difference or "")


def test_grid_difference_names_shapes_first():
    assert grid_difference(Grid((4, 5), np.eye(4)), Grid((5, 4), np.eye(4))) == "shape (4, 5) against (5, 4)"


def test_a_small_turn_over_a_long_volume_is_a_difference():
    turned = np.eye(4)
    turned[:3, :3] = Rotation.from_euler("z", 0.01, degrees=True).as_matrix()
    assert grid_difference(Grid((512, 512, 3), np.eye(4)), Grid((512, 512, 3), turned)) is not None

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from segmentation.data.warp import LINEAR, NEAREST, needed_size, rotation, warp

SIZES = [(20, 23, 18), (9, 24, 25)]


def matrices() -> list[np.ndarray]:
    """Small and large rotations, each with steps of its own along each axis."""
    rng = np.random.default_rng(0)
    angles = [rng.uniform(-0.4, 0.4, 3), rng.uniform(-0.4, 0.4, 3), np.array([1.4, 1.0, 2.6])]
    return [rotation(each) * rng.uniform(0.8, 1.2, 3) for each in angles]


def smooth_noise(shape) -> np.ndarray:
    field = ndimage.gaussian_filter(np.random.default_rng(1).standard_normal(shape), 2)
    return (field / field.std()).astype(np.float32)


def by_scipy(array, matrix, size, order: int) -> np.ndarray:
    """The same map about the same middles."""
    offset = (np.array(array.shape) - 1) / 2 - matrix @ ((np.array(size) - 1) / 2)
    return ndimage.affine_transform(array, matrix, offset, size, order=order, mode="nearest")


def test_what_changes_linearly_is_resampled_exactly():
    for matrix in matrices():
        for size in SIZES:
            shape = needed_size(matrix, size)
            ramp = sum(slope * axis for slope, axis in zip((0.3, 0.5, -0.7), np.indices(shape), strict=True)).astype(
                np.float32
            )
            np.testing.assert_allclose(warp(ramp, matrix, size, LINEAR), by_scipy(ramp, matrix, size, 1), atol=2e-2)


def test_intensities_are_as_exact_as_those_of_trilinear_interpolation():
    """Cubic interpolation stands for the truth; turned by more than a quarter, volumes are a little less exact."""
    for matrix, factor in zip(matrices(), (1.25, 1.25, 4.0), strict=True):
        for size in SIZES:
            image = smooth_noise(needed_size(matrix, size))
            ours = warp(image, matrix, size, LINEAR)
            linear, cubic = (by_scipy(image, matrix, size, order) for order in (1, 3))
            assert np.abs(ours - linear).max() < 0.07 * factor
            assert np.square(ours - cubic).mean() < factor * np.square(linear - cubic).mean()


def test_labels_are_those_of_the_nearest_voxel_but_at_few_borders():
    for matrix in matrices():
        for size in SIZES:
            field = smooth_noise(needed_size(matrix, size))
            labels = (field > 0).astype(np.uint8) * 3
            ours, nearest = warp(labels, matrix, size, NEAREST), by_scipy(labels, matrix, size, 0)
            assert set(np.unique(ours)) <= {0, 3}
            assert (ours != nearest).mean() < 0.04
            truth = by_scipy(field, matrix, size, 3) > 0
            assert abs((ours > 0).mean() - truth.mean()) < 0.02
            assert ((ours > 0) != truth).mean() < ((nearest > 0) != truth).mean() + 0.015


@pytest.mark.parametrize("flags", [LINEAR, NEAREST])
def test_no_change_is_the_middle(flags):
    array = np.random.default_rng(0).integers(0, 9, (12, 15, 10)).astype(np.float32)
    middle = array[2:-2, 3:-3, 1:-1]
    np.testing.assert_array_equal(warp(array, np.eye(3), middle.shape, flags), middle)


def test_needed_size_is_all_that_a_patch_shows():
    """Voxels beyond it change nothing, and it is not much too large."""
    for matrix in matrices()[:2]:
        for size in SIZES:
            needed = np.array(needed_size(matrix, size))
            image = np.pad(smooth_noise(needed), 3, constant_values=50)
            inner = warp(image[(slice(3, -3),) * 3], matrix, size, LINEAR)
            outer = warp(image, matrix, size, LINEAR)
            assert (np.abs(outer - inner) > 1e-4).mean() < 0.01
            assert ((needed - size) % 2 == 0).all()


def test_rotations_turn_about_the_third_axis_first():
    """As MONAI composes them; a quarter turn shows what lay a quarter turn back."""
    angles = np.array([0.3, -0.2, 0.4])
    expected = Rotation.from_euler("XYZ", angles).as_matrix()
    np.testing.assert_allclose(rotation(angles), expected, atol=1e-12)
    array = np.random.default_rng(0).random((4, 9, 9)).astype(np.float32)
    turned = warp(array, rotation([np.pi / 2, 0, 0]), (4, 9, 9), LINEAR)
    np.testing.assert_allclose(turned, np.rot90(array, -1, axes=(1, 2)), atol=1e-4)

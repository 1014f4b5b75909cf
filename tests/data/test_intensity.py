import numpy as np
import pytest
from scipy import ndimage

from segmentation.data import intensity

SHAPES = [(1, 20, 27, 9), (2, 12, 17, 20)]


def image(shape) -> np.ndarray:
    return np.random.default_rng(0).random(shape, np.float32)


@pytest.mark.parametrize("shape", SHAPES)
def test_blur_is_scipys_gaussian_filter(shape):
    sigmas = (0.3, 1.1, 0.7)
    expected = ndimage.gaussian_filter(image(shape), (0, *sigmas), mode="nearest")
    np.testing.assert_allclose(intensity.blur(image(shape), sigmas), expected, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_noise_has_its_deviation_and_depends_on_its_seed_alone(shape):
    first, again, other = (intensity.add_noise(image(shape), 0.05, seed) - image(shape) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).mean() > 0.02
    assert (first.mean(), first.std()) == pytest.approx((0, 0.05), abs=0.005)


@pytest.mark.parametrize("shape", SHAPES)
def test_scale_shift_and_gamma_are_their_formulas(shape):
    x = 0.2 + 0.5 * image(shape)
    np.testing.assert_allclose(intensity.scale(x.copy(), 1.3), 1.3 * x, rtol=1e-6)
    np.testing.assert_allclose(intensity.shift(x.copy(), -0.1), x - 0.1, rtol=1e-5)
    span = x.max() - x.min()
    expected = ((x - x.min()) / span) ** 0.8 * span + x.min()
    np.testing.assert_allclose(intensity.gamma(x.copy(), 0.8), expected, atol=1e-6)


def test_gamma_leaves_one_value_as_it_is():
    np.testing.assert_array_equal(intensity.gamma(np.full((1, 3, 3, 2), 0.4, np.float32), 1.3), np.float32(0.4))

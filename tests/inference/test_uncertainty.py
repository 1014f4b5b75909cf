"""Entropy and variance maps, against values worked out by hand."""

import math
import tracemalloc

import numpy as np
import pytest

from segmentation import SkipSegError
from segmentation.inference.uncertainty import entropy, variance


def probabilities(shape, seed=0):
    values = np.random.default_rng(seed).gamma(0.3, size=shape).astype(np.float32)
    return values / values.sum(axis=-3, keepdims=True)


def test_entropy_by_hand():
    of_three = np.array([[1, 1 / 3, 0.5, 0.5], [0, 1 / 3, 0.5, 0.25], [0, 1 / 3, 0, 0.25]], np.float32)
    # ln 2 / ln 3 for two equal classes of three; 1.5 ln 2 / ln 3 for shares of 1/2, 1/4, 1/4
    expected = [0, 1, math.log(2) / math.log(3), 1.5 * math.log(2) / math.log(3)]
    found = entropy(of_three)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_entropy_lies_between_0_and_1_whatever_rounding_does():
    found = entropy(np.array([[1 + 1e-6, 0.5 + 1e-7], [-1e-6, 0.5 + 1e-7]], np.float32))
    assert found.min() >= 0
    assert found.max() <= 1
    assert found[0] < 1e-5


def test_entropy_of_an_ensemble_sees_ambiguity_and_disagreement():
    sure = np.array([[1.0], [0.0]], np.float32)
    unsure = np.full((2, 1), 0.5, np.float32)
    for members in ([unsure, unsure], [sure, sure[::-1]]):
        assert entropy(np.mean(members, axis=0)) == 1


def test_variance_by_hand():
    # Class 0: 0.2, 0.4, 0.9 have mean 0.5 and variance (0.09 + 0.01 + 0.16) / 3; class 1 mirrors it.
    members = np.array([[[0.2], [0.8]], [[0.4], [0.6]], [[0.9], [0.1]]], np.float32)
    np.testing.assert_allclose(variance(members), [0.26 / 3], rtol=1e-6)
    # Classes 0, 1, 2 of two sure networks that differ: (1/4 + 1/4 + 0) / 3.
    differ = np.array([[[1.0], [0.0], [0.0]], [[0.0], [1.0], [0.0]]], np.float32)
    np.testing.assert_allclose(variance(differ), [1 / 6], rtol=1e-6)


def test_variance_is_the_mean_over_classes_of_the_population_variance():
    members = probabilities((5, 4, 6, 7))
    found = variance(members)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, members.astype(np.float64).var(axis=0).mean(axis=0), rtol=1e-5, atol=1e-9)
    assert found.max() <= 0.25


def test_networks_that_agree_have_no_variance_at_all():
    one = probabilities((3, 5, 4))
    assert (variance(np.stack([one] * 3)) == 0).all()
    assert (variance(one[None]) == 0).all()


def test_blocks_give_the_bytes_of_the_whole():
    members = probabilities((3, 4, 10, 6), seed=1)
    parts = [variance(members[:, :, :3]), variance(members[:, :, 3:])]
    np.testing.assert_array_equal(variance(members), np.concatenate(parts))
    mean = members.mean(axis=0)
    np.testing.assert_array_equal(entropy(mean), np.concatenate([entropy(mean[:, :3]), entropy(mean[:, 3:])]))


@pytest.mark.parametrize(("measure", "shape"), [(entropy, (5, 200, 300)), (variance, (4, 5, 200, 300))])
def test_memory_is_two_maps(measure, shape):
    values = probabilities(shape)
    measure(values)
    tracemalloc.start()
    measure(values)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.2 * 200 * 300 * 4


@pytest.mark.parametrize("measure", [entropy, variance])
def test_what_is_not_a_number_stays_visible(measure):
    values = probabilities((2, 2, 1, 3))
    values[0, 0, 0, 1] = np.nan
    found = measure(values if measure is variance else values[0])
    assert np.isnan(found).tolist() == [[False, True, False]]


def test_too_few_classes_or_networks_are_refused():
    with pytest.raises(SkipSegError, match="at least 2 classes"):
        entropy(np.ones((1, 3), np.float32))
    for shape in ((0, 2, 3), (2, 0, 3), (3,)):
        with pytest.raises(SkipSegError, match=r"shape \(M, K, \*S\)"):
            variance(np.ones(shape, np.float32))

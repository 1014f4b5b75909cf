import numpy as np
import pytest
from scipy import stats

from segmentation import SkipSegError
from segmentation.statistics import superiority


def test_one_seed_is_clopper_and_pearson_with_one_patient_less():
    a = np.array([[0.9]] * 6 + [[0.1]] * 4)
    found = superiority(a, np.full((10, 1), 0.5))
    exact = [stats.beta.ppf(0.025, 5.4, 4.6), stats.beta.ppf(0.975, 6.4, 3.6)]  # 9 effective patients, 5.4 wins
    assert (found.estimate, found.n) == (0.6, 10)
    assert [found.low, found.high] == pytest.approx(exact)


def test_three_seeds_by_hand():
    wins = np.array([[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 1, 0]])
    # Of the mean, 2/3, patients bring the variance 8/432 and seeds 21/432, with 3 and 2 degrees of freedom.
    freedom = 29**2 / (8**2 / 3 + 21**2 / 2)
    effective = 2 / 9 / (29 / 432) * (stats.t.isf(0.025, 3) / stats.t.isf(0.025, freedom)) ** 2
    won, lost = effective * 2 / 3, effective / 3
    found = superiority(wins.astype(float), np.full((4, 3), 0.5))
    assert found.estimate == pytest.approx(2 / 3)
    ends = [stats.beta.ppf(0.025, won, lost + 1), stats.beta.ppf(0.975, won + 1, lost)]
    assert [found.low, found.high] == pytest.approx(ends)


def test_ties_count_half_and_missing_scores_do_not():
    a, b = np.array([[0.5, 0.6], [0.5, np.nan]]), np.array([[0.5, 0.5], [0.4, 0.9]])
    assert superiority(a, b).estimate == pytest.approx(((0.5 + 1) / 2 + 1) / 2)


def test_unpaired_seeds_compare_each_with_every_other():
    a, b = np.array([[0.5, 0.7], [0.2, 0.9]]), np.array([[0.6, 0.4, 0.8], [0.1, 0.3, 0.5]])
    expected = np.mean([(a[:, [s]] > b).mean() for s in range(2)])
    assert superiority(a, b, paired_seeds=False).estimate == pytest.approx(expected)


def test_swapping_mirrors():
    a, b = np.random.default_rng(0).normal(size=(2, 15, 3))
    one, other = superiority(a, b), superiority(b, a)
    assert (one.estimate, one.low, one.high) == pytest.approx((1 - other.estimate, 1 - other.high, 1 - other.low))


def test_all_agree_and_one_patient():
    always = superiority(np.ones((10, 3)), np.zeros((10, 3)))
    assert (always.estimate, always.high) == (1.0, 1.0)
    assert always.low == pytest.approx(0.025 ** (1 / 10))
    assert superiority(np.ones((1, 3)), np.zeros((1, 3))).low is None


def test_bad_input_is_refused():
    with pytest.raises(SkipSegError, match="confidence must lie"):
        superiority(np.ones((3, 1)), np.zeros((3, 1)), 1.5)
    with pytest.raises(SkipSegError, match="no value at all"):
        superiority(np.full((3, 1), np.nan), np.zeros((3, 1)))

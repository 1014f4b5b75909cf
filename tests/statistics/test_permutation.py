from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from segmentation import SkipSegError
from segmentation.statistics import fewest_patients, sign_flip_p, smallest_p, wilcoxon_p

differences = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=9)


@given(differences)
def test_exact_test_counts_every_pattern(values):
    observed = abs(sum(values))
    sums = [
        abs(sum(s * v for s, v in zip(signs, values, strict=True))) for signs in product((-1, 1), repeat=len(values))
    ]
    assert sign_flip_p(values) == np.mean([total >= observed for total in sums])


@given(differences)
def test_p_does_not_depend_on_sign_scale_or_order(values):
    p_value = sign_flip_p(values)
    assert sign_flip_p([-value for value in values]) == p_value
    assert sign_flip_p([0.1 * value for value in values]) == p_value  # ties survive rounding
    assert sign_flip_p(values[::-1]) == p_value
    assert smallest_p(len(values)) <= p_value <= 1


def test_agrees_with_scipy():
    values = np.random.default_rng(0).normal(0.3, 1, 12)
    theirs = stats.permutation_test((values,), np.mean, permutation_type="samples", n_resamples=2**12)
    assert sign_flip_p(values.tolist()) == pytest.approx(theirs.pvalue)


def test_drawn_patterns_agree_with_the_t_test():
    values = np.random.default_rng(1).normal(0.25, 1, 80)
    assert sign_flip_p(values.tolist()) == pytest.approx(stats.ttest_1samp(values, 0).pvalue, abs=0.01)


def test_drawn_p_is_never_zero_and_repeatable():
    values = [1.0] * 40
    assert sign_flip_p(values) == smallest_p(40) == 1 / 20_000
    values[:18] = [-1.0] * 18
    assert sign_flip_p(values, seed=4) == sign_flip_p(values, seed=4)


@pytest.mark.parametrize("n", [6, 12, 25])
def test_error_rate_is_kept(n):
    rng = np.random.default_rng(n)
    runs = 1000 if n < 16 else 200
    rejected = np.mean([sign_flip_p(rng.standard_t(3, n).tolist()) <= 0.05 for _ in range(runs)])
    assert rejected <= 0.05 + 2.5 * np.sqrt(0.05 * 0.95 / runs)
    assert rejected > 0.01


def test_no_difference_at_all():
    assert sign_flip_p([0.0, 0.0, 0.0]) == 1


@pytest.mark.parametrize("alpha", [0.5, 0.05, 0.01, 0.0017])
def test_fewest_patients(alpha):
    n = fewest_patients(alpha)
    assert smallest_p(n) <= alpha < smallest_p(n - 1)


@pytest.mark.parametrize(
    ("values", "message"), [([], "at least one value a patient"), ([float("inf")], "1 of 1 values are not finite")]
)
def test_bad_input_is_refused(values, message):
    with pytest.raises(SkipSegError, match=message):
        sign_flip_p(values)


@given(st.lists(st.integers(1, 40).flatmap(lambda k: st.sampled_from([k / 7, -k / 7])), min_size=2, max_size=8))
def test_wilcoxon_counts_every_sign_pattern_of_the_ranks(values):
    if len({abs(value) for value in values}) < len(values):
        return  # with ties the test is the normal approximation or another permutation test
    ranks = stats.rankdata(np.abs(values))
    middle = ranks.sum() / 2
    observed = abs(ranks[np.array(values) > 0].sum() - middle)
    sums = [abs(ranks @ np.array(signs) - middle) for signs in product((0, 1), repeat=len(values))]
    assert wilcoxon_p(values) == pytest.approx(np.mean([total >= observed - 1e-9 for total in sums]))


def test_wilcoxon_sees_ties_through_rounding_and_zeros():
    assert wilcoxon_p([0.8 - 0.7, 0.3 - 0.2, 0.5 - 0.4, 0.2]) == wilcoxon_p([0.1, 0.1, 0.1, 0.2])
    assert wilcoxon_p([0.0, 0.0]) == 1

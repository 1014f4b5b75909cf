import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from segmentation import SkipSegError
from segmentation.statistics import cases_needed, cases_to_exclude, minimum_detectable_difference, paired_t_power
from segmentation.statistics.power import equivalence_power


@pytest.mark.parametrize(("effect", "n"), [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_textbook_sample_sizes(effect, n):
    assert cases_needed(sd=1.0, difference=effect) == n  # the usual small, medium and large effects


def test_power_by_simulation():
    data = np.random.default_rng(0).normal(0.6, 1, (20_000, 15))
    found = np.mean(stats.ttest_1samp(data, 0, axis=1).pvalue <= 0.05)
    assert paired_t_power(0.6, 15, 0.05) == pytest.approx(found, abs=0.01)


@pytest.mark.parametrize(("margin", "n", "alpha"), [(0.5, 36, 0.05), (0.9, 9, 0.05), (0.6, 20, 0.01)])
def test_power_of_equivalence_by_simulation(margin, n, alpha):
    data = np.random.default_rng(0).normal(0, 1, (20_000, n))
    reach = stats.t.isf(alpha, n - 1) * data.std(axis=1, ddof=1) / np.sqrt(n)
    found = np.mean(np.abs(data.mean(axis=1)) + reach < margin)
    assert equivalence_power(margin, n, alpha) == pytest.approx(found, abs=0.012)


@given(st.floats(0.01, 1), st.floats(0.1, 3), st.sampled_from([0.01, 0.05]), st.sampled_from([0.8, 0.9]))
def test_one_patient_less_does_not_exclude_the_margin(sd, margin, alpha, power):
    n = cases_to_exclude(sd, margin * sd, alpha, power)
    assert equivalence_power(margin, n, alpha) >= power - 1e-9
    assert n == 2 or equivalence_power(margin, n - 1, alpha) < power + 1e-9


@given(st.floats(0.01, 10), st.floats(0.05, 3), st.sampled_from([0.01, 0.05]), st.sampled_from([0.8, 0.9]))
def test_the_two_questions_agree(sd, effect, alpha, power):
    n = cases_needed(sd, effect * sd, alpha, power)
    assert minimum_detectable_difference(sd, n, alpha, power) <= effect * sd * (1 + 1e-9)
    if n > 2:
        assert minimum_detectable_difference(sd, n - 1, alpha, power) > effect * sd * (1 - 1e-9)


@given(st.floats(0.01, 1), st.integers(2, 300))
def test_more_patients_show_smaller_differences(sd, n):
    assert minimum_detectable_difference(sd, n + 1) < minimum_detectable_difference(sd, n)


def test_the_sign_of_the_difference_does_not_matter():
    assert cases_needed(0.1, -0.05) == cases_needed(0.1, 0.05)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sd": 0.0}, "sd must be positive"),
        ({"sd": float("nan")}, "sd must be positive"),
        ({"alpha": 0.0}, "0 < alpha < power < 1"),
        ({"alpha": 0.9}, "0 < alpha < power < 1"),
        ({"power": 1.0}, "0 < alpha < power < 1"),
    ],
)
def test_bad_input_is_refused(change, message):
    with pytest.raises(SkipSegError, match=message):
        cases_needed(**{"sd": 0.1, "difference": 0.05} | change)
    with pytest.raises(SkipSegError, match=message):
        minimum_detectable_difference(**{"sd": 0.1, "n": 9} | change)
    with pytest.raises(SkipSegError, match=message):
        cases_to_exclude(**{"sd": 0.1, "margin": 0.05} | change)


def test_impossible_questions_are_refused():
    with pytest.raises(SkipSegError, match="not 0"):
        cases_needed(0.1, 0.0)
    with pytest.raises(SkipSegError, match="at least 2 patients"):
        minimum_detectable_difference(0.1, 1)
    with pytest.raises(SkipSegError, match="margin must be positive"):
        cases_to_exclude(0.1, 0.0)

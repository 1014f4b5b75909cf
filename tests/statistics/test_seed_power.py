import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segmentation import SkipSegError
from segmentation.statistics import (
    Spread,
    cases_needed_with_seeds,
    cases_to_exclude,
    cases_to_exclude_with_seeds,
    crossed,
    detectable_with_seeds,
    hierarchical_ci,
    hierarchical_p,
    minimum_detectable_difference,
)

SPREAD = Spread(patient=0.05, seed=0.02, residual=0.04)


@pytest.mark.parametrize(("n", "seeds"), [(15, 3), (15, 8)])
def test_power_by_simulation(n, seeds):
    rng, runs, difference = np.random.default_rng(0), 300, 0.06
    tables = (
        difference
        + SPREAD.patient * rng.normal(size=(n, 1))
        + SPREAD.seed * rng.normal(size=(1, seeds))
        + SPREAD.residual * rng.normal(size=(n, seeds))
        for _ in range(runs)
    )
    found = np.mean([hierarchical_p(crossed(table)) <= 0.05 for table in tables])
    power = SPREAD.power(difference, n, seeds)
    assert abs(power - found) < 3 * np.sqrt(power * (1 - power) / runs) + 0.02


def test_power_of_equivalence_by_simulation():
    rng, runs, n, seeds, margin = np.random.default_rng(0), 200, 20, 5, 0.05
    tables = (
        SPREAD.patient * rng.normal(size=(n, 1))
        + SPREAD.seed * rng.normal(size=(1, seeds))
        + SPREAD.residual * rng.normal(size=(n, seeds))
        for _ in range(runs)
    )
    intervals = [hierarchical_ci(crossed(table), 0.9) for table in tables]
    found = np.mean([max(-each.low, each.high) < margin for each in intervals])
    power = SPREAD.equivalence_power(margin, n, seeds)
    assert abs(power - found) < 3 * np.sqrt(power * (1 - power) / runs) + 0.02


def test_patients_to_exclude_agree_with_their_power_and_with_one_seed():
    n = cases_to_exclude_with_seeds(SPREAD, 0.05, seeds=8)
    assert SPREAD.equivalence_power(0.05, n, 8) >= 0.8 > SPREAD.equivalence_power(0.05, n - 1, 8)
    still = cases_to_exclude_with_seeds(Spread(0.08, 0.0, 0.0), 0.03, seeds=5)
    assert still == pytest.approx(cases_to_exclude(0.08, 0.03), rel=0.04)
    with pytest.raises(SkipSegError, match="finite margin above 0 and 2 seeds"):
        cases_to_exclude_with_seeds(SPREAD, 0.0, seeds=3)


def test_standard_error_by_hand():
    assert Spread(0.3, 0.2, 0.6).error(9, 4) == pytest.approx(np.sqrt(0.09 / 9 + 0.04 / 4 + 0.36 / 36))


def test_seeds_that_do_not_scatter_leave_the_power_of_patients():
    many = detectable_with_seeds(Spread(0.08, 0.0, 0.0), n=20, seeds=5)
    assert many == pytest.approx(minimum_detectable_difference(0.08, 20), rel=0.02)


@settings(max_examples=10)
@given(st.integers(2, 60), st.integers(2, 8))
def test_the_two_questions_agree(n, seeds):
    difference = detectable_with_seeds(SPREAD, n, seeds)
    assert SPREAD.power(difference, n, seeds) == pytest.approx(0.8, abs=1e-3)
    assert cases_needed_with_seeds(SPREAD, difference * 1.001, seeds) <= n


def test_no_number_of_patients_makes_up_for_scattered_seeds():
    assert cases_needed_with_seeds(Spread(0.05, 0.03, 0.05), 0.02, seeds=5) is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: detectable_with_seeds(SPREAD, 1, 3), "at least 2 patients and 2 seeds"),
        (lambda: detectable_with_seeds(SPREAD, 5, 1), "at least 2 patients and 2 seeds"),
        (lambda: detectable_with_seeds(Spread(0, 0, 0), 5, 3), "sd must be positive"),
        (lambda: cases_needed_with_seeds(SPREAD, 0.0, 3), "not 0 and 2 seeds"),
        (lambda: cases_needed_with_seeds(SPREAD, 0.1, 1), "not 0 and 2 seeds"),
        (lambda: cases_needed_with_seeds(SPREAD, 0.1, 3, alpha=0.9), "0 < alpha < power < 1"),
    ],
)
def test_bad_questions_are_refused(call, message):
    with pytest.raises(SkipSegError, match=message):
        call()

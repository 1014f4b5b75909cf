import numpy as np
import pytest

from segmentation import SkipSegError
from segmentation.statistics import Interval, decide, equivalence_interval, mean_ci


def interval(low, high, n=20):
    return Interval((low + high) / 2, low, high, n, "by hand")


@pytest.mark.parametrize(
    ("p_value", "wide", "narrow", "verdict"),
    [
        (0.01, (0.01, 0.09), (0.02, 0.08), "different"),
        (0.01, (0.001, 0.015), (0.002, 0.014), "different"),  # and within the margin
        (0.01, (-0.01, 0.09), (0.0, 0.08), "inconclusive"),  # p and interval disagree
        (0.20, (0.01, 0.09), (0.02, 0.08), "inconclusive"),
        (0.60, (-0.022, 0.01), (-0.019, 0.008), "equivalent"),
        (0.60, (-0.03, 0.01), (-0.021, 0.008), "inconclusive"),
        (0.60, (-0.01, 0.03), (-0.008, 0.020), "inconclusive"),  # the margin itself is outside
    ],
)
def test_verdicts_by_hand(p_value, wide, narrow, verdict):
    assert decide(p_value, interval(*wide), interval(*narrow), alpha=0.05, margin=0.02) == verdict


@pytest.mark.parametrize("n", [2, 5])
def test_too_few_patients_show_nothing(n):
    wide, narrow = interval(0.001, 0.002, n), interval(0.001, 0.002, n)
    assert decide(0.0625, wide, narrow, alpha=0.05, margin=0.02) == "inconclusive"


def test_a_single_patient_shows_nothing():
    alone = mean_ci([0.3])
    assert decide(1.0, alone, alone, alpha=0.05, margin=0.02) == "inconclusive"


def test_interval_is_that_of_two_one_sided_tests():
    values = [0.01, -0.02, 0.0, 0.03, 0.01, -0.01, 0.02]
    assert equivalence_interval(values, alpha=0.05) == mean_ci(values, confidence=0.9)


def test_error_rate_of_equivalence_is_kept():
    rng = np.random.default_rng(0)
    draws = [rng.normal(0.02, 0.03, 15).tolist() for _ in range(1000)]  # truly at the margin
    claimed = np.mean(
        [decide(1.0, mean_ci(d), equivalence_interval(d, 0.05), alpha=0.05, margin=0.02) == "equivalent" for d in draws]
    )
    assert 0.02 < claimed < 0.07


def test_bad_input_is_refused():
    with pytest.raises(SkipSegError, match="margin must be positive"):
        decide(0.5, interval(-1, 1), interval(-1, 1), alpha=0.05, margin=0.0)
    with pytest.raises(SkipSegError, match="alpha must lie between 0 and"):
        equivalence_interval([0.1, 0.2], alpha=0.5)

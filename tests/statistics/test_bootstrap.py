import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from segmentation import SkipSegError
from segmentation.statistics import mean_ci

scores = st.floats(0, 1).map(lambda value: round(value, 3))


def coverage(draw, truth, n, runs, confidence=0.95):
    rng = np.random.default_rng(7)
    intervals = [mean_ci(draw(rng, n), confidence) for _ in range(runs)]
    return np.mean([interval.low <= truth <= interval.high for interval in intervals])


def test_student_t_by_hand():
    interval = mean_ci([1.0, 2.0, 3.0, 4.0])
    half = 3.182446 * np.sqrt(5 / 3) / 2
    assert (interval.low, interval.high) == pytest.approx((2.5 - half, 2.5 + half), rel=1e-6)
    assert (interval.estimate, interval.n) == (2.5, 4)
    assert interval.method == "95 % interval, Student's t"


@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_bca_agrees_with_scipy(confidence):
    data = np.random.default_rng(3).beta(8, 2, 41)
    ours = mean_ci(data.tolist(), confidence)
    widened = 2 * stats.norm.cdf(stats.t.ppf((1 + confidence) / 2, 40) * np.sqrt(41 / 40)) - 1
    theirs = stats.bootstrap((data,), np.mean, confidence_level=widened, n_resamples=20_000, method="BCa")
    width = ours.high - ours.low
    assert "BCa" in ours.method
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.05 * width)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.05 * width)


def test_bca_follows_the_skew():
    interval = mean_ci((np.random.default_rng(0).exponential(size=40)).tolist())
    assert interval.high - interval.estimate > 1.1 * (interval.estimate - interval.low)


@given(st.lists(scores, min_size=2, max_size=40))
def test_interval_holds_the_estimate_and_grows_with_confidence(values):
    narrow, wide = mean_ci(values, 0.8), mean_ci(values, 0.99)
    assert narrow.estimate == pytest.approx(np.mean(values))
    if np.ptp(values):
        assert wide.low <= narrow.low <= narrow.estimate <= narrow.high <= wide.high
    else:
        assert narrow.low == narrow.high == narrow.estimate


@given(st.lists(scores, min_size=2, max_size=40))
def test_interval_is_repeatable(values):
    assert mean_ci(values) == mean_ci(values)


@pytest.mark.parametrize("n", [3, 8])
def test_coverage_of_few_normal_values(n):
    assert coverage(lambda rng, n: rng.normal(0.8, 0.1, n), 0.8, n, runs=2000) == pytest.approx(0.95, abs=0.015)


def test_coverage_of_skewed_scores():
    found = coverage(lambda rng, n: rng.beta(8, 2, n), 0.8, n=30, runs=200)
    assert 0.91 <= found <= 0.985


def test_many_patients_fit_into_memory():
    values = np.random.default_rng(0).normal(0.7, 0.2, 5000)
    interval = mean_ci(values.tolist())
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * 0.2 / np.sqrt(5000), rel=0.05)


def test_one_value_has_no_interval():
    interval = mean_ci([0.7])
    assert (interval.estimate, interval.low, interval.high, interval.n) == (0.7, None, None, 1)


@pytest.mark.parametrize(
    ("values", "confidence", "message"),
    [
        ([], 0.95, "at least one value"),
        ([[0.5, 0.6]], 0.95, "at least one value"),
        ([0.5, float("nan")], 0.95, "1 of 2 values are not finite"),
        ([0.5, 0.6], 95, "between 0 and 1, got 95"),
        ([0.5, 0.6], 0, "between 0 and 1, got 0"),
    ],
)
def test_bad_input_is_refused(values, confidence, message):
    with pytest.raises(SkipSegError, match=message):
        mean_ci(values, confidence)


def test_an_interval_is_cut_to_what_is_possible():
    interval = mean_ci([0.6, 0.9])
    assert interval.within(-10, 10) == interval
    cut = interval.within(0, 1)
    assert (cut.low, cut.estimate, cut.high) == (0, interval.estimate, 1)
    assert mean_ci([0.5]).within(0, 1).low is None

import numpy as np
import pytest
from scipy import stats

from segmentation import SkipSegError
from segmentation.statistics import crossed, hierarchical_ci, hierarchical_p, mean_ci, sign_flip_p, table_of

RNG = np.random.default_rng(0)
NORMAL = RNG.normal(0.02, 0.05, (12, 1)) + RNG.normal(0, 0.03, (1, 4)) + RNG.normal(0, 0.02, (12, 4))


def test_parts_are_those_of_the_analysis_of_variance():
    parts = crossed(NORMAL)
    assert parts.estimate == pytest.approx(NORMAL.mean())
    assert parts.patients == pytest.approx(NORMAL.mean(axis=1))
    assert parts.seeds[0] == pytest.approx(NORMAL.mean(axis=0) - NORMAL.mean())
    assert parts.variances == pytest.approx([NORMAL.mean(axis=1).var(ddof=1) / 12, NORMAL.mean(axis=0).var(ddof=1) / 4])


def test_half_width_is_the_behrens_fisher_quantile():
    parts, interval = crossed(NORMAL), hierarchical_ci(crossed(NORMAL))
    patients, seeds = np.sqrt(parts.variances)

    def beyond(half):  # P(|t_11 patients + t_3 seeds| > half), by adding over t_3
        at = stats.t.ppf((np.arange(20_000) + 0.5) / 20_000, 3) * seeds
        return np.mean(stats.t.sf((half - at) / patients, 11) + stats.t.cdf((-half - at) / patients, 11))

    half = (interval.high - interval.low) / 2
    assert beyond(half) == pytest.approx(0.05, abs=0.004)
    assert hierarchical_p(parts) == pytest.approx(beyond(abs(parts.estimate)), abs=0.01)


def test_without_seed_effects_many_patients_get_the_interval_over_patients():
    patients = np.random.default_rng(1).exponential(0.1, 50)
    table = patients[:, np.newaxis] + np.zeros((1, 3))
    hierarchical, alone = hierarchical_ci(crossed(table)), mean_ci(patients.tolist())
    assert (hierarchical.low, hierarchical.high) == pytest.approx((alone.low, alone.high), abs=0.003)
    assert hierarchical_p(crossed(table - 0.08)) == pytest.approx(sign_flip_p((patients - 0.08).tolist()), abs=0.04)


def test_many_seeds_are_resampled_as_patients_are():
    shifts = np.random.default_rng(2).exponential(0.1, 40)
    by_seed = hierarchical_ci(crossed(np.zeros((3, 1)) + shifts))
    assert (by_seed.low, by_seed.high) == pytest.approx(
        (lambda found: (found.low, found.high))(mean_ci(shifts.tolist())), abs=0.004
    )


def test_one_seed_falls_back_to_patients_and_says_so():
    interval, alone = hierarchical_ci(crossed(NORMAL[:, :1])), mean_ci(NORMAL[:, 0].tolist())
    assert (interval.low, interval.high, interval.n) == (alone.low, alone.high, 12)
    assert interval.method.endswith("one seed, so the share of seeds is unknown")


def test_one_patient_has_no_interval():
    interval = hierarchical_ci(crossed(NORMAL[:1]))
    assert (interval.low, interval.high) == (None, None)


def test_equal_values_have_an_empty_interval():
    interval = hierarchical_ci(crossed(np.full((4, 3), 0.5)))
    assert interval.low == interval.high == 0.5


def test_missing_scores_leave_seeds_their_share():
    table = np.array([[0.2, 0.4], [0.6, np.nan], [0.0, 0.4]])
    parts = crossed(table)
    assert parts.patients == pytest.approx([0.3, 0.6, 0.2])
    # Between the seeds lie 0.3, and the mean of all weighs them by 2/3 and 1/3 rather than by halves.
    assert parts.seeds[0] == pytest.approx(np.array([-0.15, 0.15]) * np.sqrt(2 * (4 / 9 + 1 / 9)))


def test_shifts_of_seeds_are_found_whatever_is_missing():
    shifts = np.array([-0.3, 0.1, 0.2])
    table = np.arange(12.0)[:, np.newaxis] + shifts
    known = np.ones(table.shape, bool)
    known[2:, 1] = known[5:, 2] = False
    weights = (known / known.sum(axis=1, keepdims=True)).mean(axis=0)
    found = crossed(np.where(known, table, np.nan)).seeds[0]
    assert found == pytest.approx(shifts * np.sqrt(3 * weights @ weights))
    assert crossed(table).seeds[0] == pytest.approx(shifts)


def test_tables_are_in_order_with_gaps():
    table = table_of({"b": {3: 0.1}, "a": {1: 0.2, 3: 0.3}})
    assert np.array_equal(table, [[0.2, 0.3], [np.nan, 0.1]], equal_nan=True)


def test_interval_is_repeatable_and_grows_with_confidence():
    narrow, wide = (hierarchical_ci(crossed(NORMAL), level) for level in (0.8, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high
    assert narrow == hierarchical_ci(crossed(NORMAL), 0.8)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([0.1, 0.2], "for each patient and seed"),
        (np.zeros((0, 3)), "for each patient and seed"),
        ([[0.1, np.inf]], "for each patient and seed"),
        ([[0.1, np.nan]], "has no value at all"),
        ([[np.nan], [0.1]], "has no value at all"),
    ],
)
def test_bad_tables_are_refused(table, message):
    with pytest.raises(SkipSegError, match=message):
        crossed(table)


def test_bad_questions_are_refused():
    with pytest.raises(SkipSegError, match="confidence must lie"):
        hierarchical_ci(crossed(NORMAL), 1.0)
    with pytest.raises(SkipSegError, match="needs two of each"):
        hierarchical_p(crossed(NORMAL[:, :1]))

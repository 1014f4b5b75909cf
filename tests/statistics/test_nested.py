"""Seeds that ran one fold each: groups of patients that share a training."""

import numpy as np
import pytest
from scipy import stats

from segmentation import SkipSegError
from segmentation.statistics import (
    checks,
    crossed,
    hierarchical_ci,
    hierarchical_p,
    minimum_detectable_difference,
    mixed_model,
    paired_difference,
    superiority,
    variance_split,
)
from segmentation.statistics.hierarchical import minus


def nested(values, groups):
    """Table of patients by seeds in which each group has a seed of its own."""
    table = np.full((len(values), max(groups) + 1), np.nan)
    table[np.arange(len(values)), groups] = values
    return table


def scores(values, groups):
    return {f"p{i:02}": {g: v} for i, (v, g) in enumerate(zip(values, groups, strict=True))}


def compare(values, groups, statistic=paired_difference, **settings):
    return statistic(scores(values, groups), scores([0.0] * len(values), groups), **settings)


def test_equal_groups_are_the_t_test_over_their_means():
    values, groups = np.random.default_rng(0).normal(0.03, 0.05, 20), np.repeat(np.arange(5), 4)
    means = values.reshape(5, 4).mean(axis=1)
    data = crossed(nested(values, groups))
    found = hierarchical_ci(data)
    expected = stats.t.interval(0.95, 4, loc=means.mean(), scale=stats.sem(means))
    assert (found.low, found.high) == pytest.approx(expected)
    assert hierarchical_p(data) == pytest.approx(stats.ttest_1samp(means, 0).pvalue)
    assert "5 groups of 20 patients" in found.method


def test_two_seeds_a_fold_are_one_group():
    values = np.array([[0.5, 0.7, np.nan, np.nan]] * 3 + [[np.nan, np.nan, 0.4, 0.6]] * 2)
    data = crossed(values)
    assert data.groups.tolist() == [0, 0, 0, 1, 1]
    assert data.patients.tolist() == pytest.approx([0.6] * 3 + [0.5] * 2)


def test_groups_that_agree_exactly():
    data = crossed(nested([0.1, -0.1, 0.1, -0.1], [0, 0, 1, 1]))
    assert hierarchical_p(data) == 1.0
    assert hierarchical_p(crossed(nested([0.3, 0.1, 0.3, 0.1], [0, 0, 1, 1]))) == 0.0


@pytest.mark.parametrize("sizes", [(4, 4, 4, 4, 4), (8, 5, 4, 2, 1)])
@pytest.mark.parametrize("luck", [0.0, 0.05, 0.1])
def test_interval_covers_whatever_a_training_adds(sizes, luck):
    rng, groups, runs = np.random.default_rng(1), np.repeat(np.arange(5), sizes), 1000
    covered = 0
    for _ in range(runs):
        values = 0.07 * rng.normal(size=20) + luck * rng.normal(size=5)[groups]
        found = hierarchical_ci(crossed(nested(values, groups)))
        covered += found.low <= 0 <= found.high
    least = 0.95 - 3 * np.sqrt(0.95 * 0.05 / runs)
    assert least <= covered / runs <= (0.98 if sizes[0] == 8 else 0.975)


def test_power_counts_groups_and_sources_stay_unknown():
    values, groups = np.random.default_rng(2).normal(0.01, 0.05, 20), np.repeat(np.arange(5), 4)
    found = compare(values, groups, checks, margin=0.02, mixed=True)
    sd = values.reshape(5, 4).mean(axis=1).std(ddof=1)
    assert found.spread is None
    assert found.detectable == pytest.approx(minimum_detectable_difference(sd, 5))
    ((seeds, cases),) = found.cases_needed.items()
    assert cases == 4 * int(seeds)
    assert found.mixed.note == "not fitted: groups of patients have no seed in common"
    result = compare(values, groups)
    assert (result.n, result.seeds) == (20, 5)
    assert result.p_value >= found.hierarchical_p
    assert "seed and fold are confounded" in result.method


def test_no_difference_at_all():
    found = compare([0.0] * 6, [0, 0, 1, 1, 2, 2], checks, margin=0.02)
    assert (found.detectable, found.cases_needed, found.hierarchical_p) == (None, {}, 1.0)


def test_variance_keeps_its_counts_where_nothing_is_separable():
    split = variance_split(nested([0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1]), [0, 0, 1, 1])
    assert (split.patients, split.seeds, split.folds, split.sd, split.shares) == (4, 2, 2, {}, {})
    assert not split.separable


def test_superiority_has_no_more_patients_than_there_are():
    groups = np.repeat(np.arange(5), 4)
    wins = np.tile([0.1, 0.1, 0.1, -0.1], 5)
    alike = superiority(nested(wins, groups), nested(np.zeros(20), groups))
    assert "with 20.0 effective patients" in alike.method
    apart = superiority(nested(np.repeat([1, 1, 1, 1, -1], 4), groups), nested(np.zeros(20), groups))
    assert apart.high - apart.low > alike.high - alike.low


def test_conditions_with_other_groups_do_not_compare():
    a, b = (crossed(nested([0.1, 0.2, 0.3, 0.4], groups)) for groups in ([0, 0, 1, 1], [0, 1, 1, 0]))
    assert minus(a, a).estimate == 0
    for other in (b, crossed([[0.1], [0.2], [0.3], [0.4]])):
        with pytest.raises(SkipSegError, match="seeds in different groups"):
            minus(a, other)


def test_mixed_model_of_nested_seeds_is_not_fitted():
    table = nested([0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1])
    assert mixed_model(table, table).estimate is None

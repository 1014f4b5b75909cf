import numpy as np
import pytest

from segmentation import SkipSegError
from segmentation.statistics import variance_split

TRUTH = {"patient": 1.0, "seed": 0.36, "fold": 0.64, "run": 0.25, "residual": 0.49}
SIZES = [3, 5, 4, 8]


def simulated(rng, sizes=SIZES, seeds=3):
    n, index = sum(sizes), np.repeat(np.arange(len(sizes)), sizes)
    sd = {name: np.sqrt(value) for name, value in TRUTH.items()}
    table = sd["patient"] * rng.normal(size=(n, 1)) + sd["seed"] * rng.normal(size=(1, seeds))
    table = table + sd["fold"] * rng.normal(size=(len(sizes), 1))[index]
    table = table + sd["run"] * rng.normal(size=(len(sizes), seeds))[index]
    return table + sd["residual"] * rng.normal(size=(n, seeds)), index


def test_known_components_are_found_without_bias():
    rng = np.random.default_rng(0)
    splits = [variance_split(*simulated(rng)) for _ in range(1500)]
    for name, truth in TRUTH.items():
        values = np.array([getattr(split, name) for split in splits])
        assert abs(values.mean() - truth) < 3.5 * values.std() / np.sqrt(len(values)), name


def test_one_large_study_is_close():
    split = variance_split(*simulated(np.random.default_rng(1), sizes=[40] * 40, seeds=40))
    found = {name: getattr(split, name) for name in TRUTH}
    assert found == pytest.approx(TRUTH, rel=0.5)
    assert found["residual"] == pytest.approx(0.49, rel=0.02)
    assert split.shares["patient"] == pytest.approx(1.0 / sum(TRUTH.values()), abs=0.08)


def test_one_fold_is_the_two_way_analysis_of_variance():
    table = np.random.default_rng(2).normal(size=(7, 4))
    split = variance_split(table)
    rows, columns = table.mean(axis=1), table.mean(axis=0)
    residual = ((table - rows[:, None] - columns + table.mean()) ** 2).sum() / 18
    assert split.residual == pytest.approx(residual)
    assert split.patient == pytest.approx((4 * rows.var(ddof=1) - residual) / 4)
    assert split.seed == pytest.approx((7 * columns.var(ddof=1) - residual) / 7)
    assert (split.fold, split.run) == (None, None)


def test_what_the_design_cannot_tell_is_none():
    one_seed = variance_split(np.array([[0.1], [0.5], [0.3], [0.7]]), [0, 0, 1, 1])
    assert (one_seed.seed, one_seed.run, one_seed.residual) == (None, None, None)
    assert one_seed.patient == pytest.approx(0.08)
    assert one_seed.fold == pytest.approx(0.02 - 0.08 / 2)
    alone = variance_split(np.array([[0.1, 0.2], [0.5, 0.6]]), [0, 1])
    assert (alone.patient, alone.residual, alone.folds) == (None, None, 2)
    assert variance_split(np.array([[0.5]])).shares == variance_split(np.array([[0.5]])).sd == {}


def test_components_below_zero_have_no_share():
    split = variance_split(np.array([[0.0, 1.0], [1.0, 0.0]]))
    assert split.patient < 0
    assert split.sd == pytest.approx({"patient": 0.0, "seed": 0.0, "residual": 0.5**0.5 * 2**0.5})
    assert split.shares == {"patient": 0.0, "seed": 0.0, "residual": 1.0}


def test_incomplete_seeds_are_left_out():
    table = np.random.default_rng(3).normal(size=(6, 3))
    with_gap = table.copy()
    with_gap[2, 1] = np.nan
    assert variance_split(with_gap) == variance_split(table[:, [0, 2]])
    with_gap[[0, 1], [0, 2]] = np.nan
    assert variance_split(with_gap) == variance_split(table[3:])


def test_bad_input_is_refused():
    for values, folds in ((np.zeros((0, 2)), None), (np.zeros(3), None), (np.zeros((3, 2)), [0, 1])):
        with pytest.raises(SkipSegError, match="patients by seeds and a fold a patient"):
            variance_split(values, folds)

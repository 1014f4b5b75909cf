import numpy as np
import pytest

from segmentation import SkipSegError
from segmentation.statistics import (
    cases_needed,
    cases_to_exclude,
    cases_to_exclude_with_seeds,
    checks,
    corrected_resampled_t,
    minimum_detectable_difference,
    variance_split,
    wilcoxon_p,
)

RNG = np.random.default_rng(0)
TABLE = RNG.normal(0.02, 0.05, (8, 1)) + RNG.normal(0, 0.01, (1, 3)) + RNG.normal(0, 0.03, (8, 3))
A = {f"p{i}": dict(enumerate(row)) for i, row in enumerate(TABLE.tolist())}
B = {patient: dict.fromkeys(by_seed, 0.0) for patient, by_seed in A.items()}


def test_numbers_are_those_of_the_parts():
    folds = {patient: int(patient[1]) % 2 for patient in A}
    found = checks(A, B, margin=0.05, folds=folds, mixed=True)
    means, split = TABLE.mean(axis=1), variance_split(TABLE)
    assert found.wilcoxon_p == wilcoxon_p(means.tolist())
    assert found.superiority.estimate == pytest.approx((TABLE > 0).mean())
    assert found.spread.residual == pytest.approx(np.sqrt(split.residual))
    assert list(found.cases_needed) == ["3", "5", "10"]
    exclude = {str(s): cases_to_exclude_with_seeds(found.spread, 0.05, s) for s in (3, 5, 10)}
    assert found.cases_to_exclude == exclude
    assert found.corrected_t == corrected_resampled_t([means[::2].mean(), means[1::2].mean()], 1.0)
    assert found.mixed.estimate == pytest.approx(TABLE.mean(), abs=1e-4)
    assert 0 < found.hierarchical_p < 1


def test_one_seed_leaves_out_what_needs_several():
    alone = {patient: by_seed[0] for patient, by_seed in A.items()}
    found = checks(alone, dict.fromkeys(alone, 0.0), margin=0.05, folds=dict.fromkeys(alone, 0), mixed=True)
    sd = float(TABLE[:, 0].std(ddof=1))
    assert (found.hierarchical_p, found.spread, found.corrected_t) == (None, None, None)
    assert found.detectable == pytest.approx(minimum_detectable_difference(sd, 8))
    assert found.cases_needed == {"1": cases_needed(sd, 0.05)}
    assert found.cases_to_exclude == {"1": cases_to_exclude(sd, 0.05)}
    family = checks(alone, dict.fromkeys(alone, 0.0), margin=0.05, equivalence_alpha=0.01)
    assert family.cases_to_exclude == {"1": cases_to_exclude(sd, 0.05, alpha=0.01)}
    assert "two seeds" in found.mixed.note


@pytest.mark.parametrize(("alpha", "fewest"), [(0.05, 6), (0.05 / 3, 7)])
def test_fewer_patients_than_p_needs_are_never_promised_anything(alpha, fewest):
    a = {f"p{i}": 0.5 + 0.001 * i for i in range(fewest - 1)}
    found = checks(a, dict.fromkeys(a, 0.2), alpha=alpha, margin=0.05, equivalence_alpha=0.05)
    assert found.detectable is None
    assert found.cases_needed == found.cases_to_exclude == {"1": fewest}
    enough = {**a, "one more": 0.51}
    assert checks(enough, dict.fromkeys(enough, 0.2), alpha=alpha).detectable > 0


def test_without_scatter_or_margin_there_is_nothing_to_plan():
    same = dict.fromkeys(A, 0.5)
    assert checks(same, same, margin=0.02).cases_needed == {}
    assert checks(same, same).detectable is None
    seeds = {patient: {0: 0.5, 1: 0.5} for patient in A}
    assert checks(seeds, seeds, margin=0.02).cases_needed == {}
    assert checks(A, B).cases_needed == {}


def test_bad_input_is_refused():
    with pytest.raises(SkipSegError, match="same patients"):
        checks({"p1": 0.5}, {"p2": 0.5})

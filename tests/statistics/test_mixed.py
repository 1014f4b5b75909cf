import numpy as np
import pytest
from scipy import stats
from statsmodels.regression.mixed_linear_model import MixedLM

from segmentation import SkipSegError
from segmentation.statistics import mixed_model, variance_split


def arms(n=20, seeds=4, effect=0.05, seed=0.04, rng_seed=0):
    rng = np.random.default_rng(rng_seed)
    scores = 0.7 + 0.1 * rng.normal(size=(1, n, 1)) + 0.04 * rng.normal(size=(2, n, 1))
    scores = scores + seed * rng.normal(size=(2, 1, seeds)) + 0.03 * rng.normal(size=(2, n, seeds))
    return scores[0] + effect, scores[1]


def test_balanced_estimate_is_the_mean_difference_and_components_are_those_of_moments():
    a, b = arms(n=60, seeds=8)
    found = mixed_model(a, b)
    assert found.converged
    assert found.estimate == pytest.approx((a - b).mean(), rel=1e-3)
    split = variance_split(a - b)  # twice each component that belongs to the arm
    assert 2 * found.sd["patient:arm"] ** 2 == pytest.approx(split.patient, rel=0.2)
    assert found.sd["residual"] ** 2 == pytest.approx(split.residual / 2, rel=0.1)
    assert found.freedom == 14


def test_standard_error_agrees_with_the_moments():
    a, b = arms()
    found, gains, arms_alone = mixed_model(a, b), variance_split(a - b), [variance_split(arm) for arm in (a, b)]
    error = (found.high - found.low) / 2 / 2.446912  # t with 6 degrees of freedom
    of_seeds = sum(split.seed / 4 + split.residual / 80 for split in arms_alone)
    assert error == pytest.approx(np.sqrt(gains.patient / 20 + of_seeds), rel=0.01)


def test_p_value_is_students():
    found = mixed_model(*arms(effect=0.1))
    error = (found.high - found.low) / 2 / 2.446912
    assert found.freedom == 6
    assert found.p_value == pytest.approx(2 * stats.t.sf(abs(found.estimate) / error, found.freedom), rel=0.01)
    assert found.p_value > 1.3 * 2 * stats.norm.sf(abs(found.estimate) / error)


def test_missing_scores_are_left_out():
    a, b = arms()
    a[3, 1] = np.nan
    found = mixed_model(a, b)
    assert found.converged
    assert found.estimate == pytest.approx(np.nanmean(np.nanmean(a, axis=1)) - b.mean(), abs=0.01)


def test_a_fit_that_does_not_converge_is_said(monkeypatch):
    fit = MixedLM.fit
    monkeypatch.setattr(MixedLM, "fit", lambda self, **_: fit(self, reml=True, method="cg", maxiter=1))
    found = mixed_model(*arms(seed=0.0))
    assert not found.converged
    assert "did not converge" in found.note


def test_a_second_optimiser_that_succeeds_is_said_in_one_line():
    for rng_seed in range(20):
        found = mixed_model(*arms(seed=0.0, rng_seed=rng_seed))
        if "first optimiser" in found.note:
            assert found.converged
            assert "Retrying" not in found.note
            return
    pytest.fail("no fit needed its second optimiser: simplify")


def test_a_fit_that_fails_is_said(monkeypatch):
    def fail(self, **_):
        raise np.linalg.LinAlgError("Singular matrix")

    monkeypatch.setattr(MixedLM, "fit", fail)
    found = mixed_model(*arms())
    assert (found.estimate, found.p_value, found.converged) == (None, None, False)
    assert found.note == "the fit failed: Singular matrix"


@pytest.mark.parametrize(
    ("a", "b", "note"),
    [
        (np.ones((5, 1)), np.ones((5, 3)), "two patients and two seeds"),
        (np.ones((1, 3)), np.ones((1, 3)), "two patients and two seeds"),
        (np.ones((5, 3)), np.ones((5, 3)), "all scores are equal"),
        (np.zeros((400, 2)), np.ones((400, 2)), "1600 scores are more than 1500"),
    ],
)
def test_what_cannot_be_fitted_is_not(a, b, note):
    found = mixed_model(a, b)
    assert found.estimate is None
    assert note in found.note


def test_bad_input_is_refused():
    with pytest.raises(SkipSegError, match="tables of the same patients"):
        mixed_model(np.ones((5, 2)), np.ones((4, 2)))
    with pytest.raises(SkipSegError, match=r"confidence in \(0, 1\)"):
        mixed_model(np.ones((5, 2)), np.ones((5, 2)), confidence=95)

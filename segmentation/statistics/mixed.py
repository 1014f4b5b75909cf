"""The linear mixed model as a second opinion on a paired comparison."""

import math
import warnings
from dataclasses import dataclass

import numpy as np
from scipy import stats

from segmentation import SkipSegError
from segmentation.statistics.hierarchical import Array
from segmentation.statistics.nested import groups_of

MOST_SCORES = 1500
"""Above this number of scores no model is fitted: the time grows with its cube, 5 s here."""


@dataclass(frozen=True)
class MixedModel:
    """A fitted model ``score ~ arm + (1 | patient) + (1 | patient:arm) + (1 | seed:arm)``.

    Attributes:
        estimate: Effect of the arm: a minus b. None if no model was fitted.
        low, high: Its confidence interval. None without a standard error.
        p_value: Two-sided.
        freedom: Degrees of freedom of the t distribution behind interval and p-value.
        sd: Standard deviation of each random term and of the residual.
        converged: Whether the fit ended at an optimum. If not, the numbers are not to be used.
        note: What went wrong or deserves care; empty if nothing.
    """

    estimate: float | None
    low: float | None
    high: float | None
    p_value: float | None
    freedom: int
    sd: dict[str, float]
    converged: bool
    note: str


def mixed_model(a: Array, b: Array, confidence: float = 0.95) -> MixedModel:
    """Fit scores of two conditions by restricted maximum likelihood.

    Patients differ in how much they gain, hence the term ``patient:arm``: without it, each further seed counts as
    further patients, and with 15 patients and 5 seeds 23 % of equal arms come out different at 0.05. Interval and
    p-value use Student's t with as many degrees of freedom as the smallest term that holds the arm leaves,
    ``min(n - 1, 2 (S - 1))``: with the normal distribution 3 seeds give 9 % instead of 5. The seeds of both arms
    are taken as unrelated: where training with the same seed makes arms alike, this interval is the wider one.

    Args:
        a: Scores of the first condition, shape ``(n, S)``: patients by seeds, nan where one is missing.
        b: Scores of the second, shape ``(n, T)``.
        confidence: Of the interval, in (0, 1).

    Returns:
        The model. A fit that fails or does not converge is returned as such, with the reason in ``note``.

    Raises:
        SkipSegError: If ``confidence`` lies outside (0, 1) or the tables have different patients.

    Examples:
        >>> mixed_model(np.ones((4, 1)), np.ones((4, 1))).note
        'not fitted: it needs two patients and two seeds of each condition'
    """
    if not 0 < confidence < 1 or a.ndim != 2 or b.ndim != 2 or len(a) != len(b):
        raise SkipSegError(
            f"need a confidence in (0, 1) and tables of the same patients, got {confidence}, {a.shape}, {b.shape}"
        )
    freedom = min(len(a) - 1, a.shape[1] + b.shape[1] - 2)
    if min(len(a), a.shape[1], b.shape[1]) < 2:
        return _without(freedom, "not fitted: it needs two patients and two seeds of each condition")
    if groups_of(a) is not None or groups_of(b) is not None:
        return _without(freedom, "not fitted: groups of patients have no seed in common")
    known = np.concatenate([~np.isnan(a).ravel(), ~np.isnan(b).ravel()])
    if known.sum() > MOST_SCORES:
        return _without(freedom, f"not fitted: {known.sum()} scores are more than {MOST_SCORES}")
    scores = np.concatenate([a.ravel(), b.ravel()])[known]
    return _fit(scores, [codes[known] for codes in _codes(a, b)], freedom, confidence)


def _codes(a: Array, b: Array) -> list[Array]:
    """Arm, patient, patient by arm and seed by arm of each score, for tables of shapes ``(n, S)`` and ``(n, T)``."""
    arm = np.repeat([0, 1], [a.size, b.size])
    patient = np.concatenate([np.indices(a.shape)[0].ravel(), np.indices(b.shape)[0].ravel()])
    seed = np.concatenate([np.indices(a.shape)[1].ravel(), a.shape[1] + np.indices(b.shape)[1].ravel()])
    return [arm, patient, arm * len(a) + patient, seed]


def _fit(scores: Array, codes: list[Array], freedom: int, confidence: float) -> MixedModel:
    """Fit with statsmodels: all scores are one group, and crossed terms are its variance components."""
    # statsmodels brings pandas and takes seconds to import; only a report of several seeds needs it.
    from statsmodels.regression.mixed_linear_model import MixedLM, VCSpec

    unit = float(scores.std())
    if unit == 0:
        return _without(freedom, "not fitted: all scores are equal")
    arm, *terms = codes
    names = ["patient", "patient:arm", "seed:arm"]
    designs = [np.equal.outer(codes, np.unique(codes)).astype(float) for codes in terms]
    columns = [[[str(k) for k in range(design.shape[1])]] for design in designs]
    components = VCSpec(names, columns, [[design] for design in designs])
    fixed = np.column_stack([np.ones(len(scores)), 0.5 - arm])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model = MixedLM(scores / unit, fixed, groups=np.zeros(len(scores)), exog_vc=components)
            fit = model.fit(reml=True, method=["bfgs", "powell"])  # powell needs no gradient: it fails at variance 0
        except (np.linalg.LinAlgError, ValueError) as error:
            return _without(freedom, f"the fit failed: {str(error).splitlines()[0]}")
    estimate, error = (_digits(unit * float(found[1])) for found in (fit.params, fit.bse))
    parts = zip([*names, "residual"], [*fit.vcomp, fit.scale], strict=True)
    sd = {name: _digits(unit * math.sqrt(max(0.0, part))) for name, part in parts}
    notes = _notes(bool(fit.converged), [str(each.message).splitlines()[0] for each in caught])
    if not (math.isfinite(error) and error > 0):
        reason = "; ".join([*notes, "no standard error"])
        return MixedModel(estimate, None, None, None, freedom, sd, bool(fit.converged), reason)
    half = error * float(stats.t.isf((1 - confidence) / 2, freedom))
    p_value = 2 * float(stats.t.sf(abs(estimate) / error, freedom))
    ends = (_digits(estimate - half), _digits(estimate + half))
    return MixedModel(estimate, *ends, p_value, freedom, sd, bool(fit.converged), "; ".join(notes))


def _notes(converged: bool, warned: list[str]) -> list[str]:
    """What the fit warned of; how a first optimiser failed is one line once the second has succeeded."""
    if not converged:
        return ["the fit did not converge: do not use these numbers", *dict.fromkeys(warned)]
    search = [message for message in warned if "optimization" in message]
    first = ["the first optimiser did not converge, the second did"] if search else []
    return first + list(dict.fromkeys(message for message in warned if message not in search))


def _digits(value: float) -> float:
    """Keep four significant digits: those beyond depend on where the search for the optimum stopped."""
    return float(f"{value:.4g}")


def _without(freedom: int, note: str) -> MixedModel:
    """No model, with the reason."""
    return MixedModel(None, None, None, None, freedom, {}, False, note)

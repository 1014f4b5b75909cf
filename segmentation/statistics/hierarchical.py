"""A mean over patients and seeds: the choice of patients and the luck of training both move it.

Patients and seeds are crossed: each patient is scored by the networks of every seed, so one lucky seed shifts all
patients together and an interval over patients alone is too narrow. A patient is held out in one fold, so the fold
goes with the patient. The error of the mean is drawn as the sum of an error from the patients and one from the
seeds. A factor with 20 levels or more is resampled, one with fewer is drawn from Student's t distribution with
its degrees of freedom, for resampling three seeds leaves out a third of their variance. The sum of two such errors
is Behrens' and Fisher's solution for two unknown variances, which keeps its level however they share (Robinson
1976, doi:10.1214/aos/1176343593). The scatter of single scores enters both errors: with seeds that do not differ
the interval is too wide rather than too narrow.

Where each seed ran a fold of its own, patients and seeds are not crossed: see :mod:`segmentation.statistics.nested`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from segmentation import SkipSegError
from segmentation.statistics.bootstrap import (
    FEWEST_FOR_BOOTSTRAP,
    RESAMPLES,
    Interval,
    bca,
    mean_ci,
    resampled_means,
)
from segmentation.statistics.nested import GroupError, group_error, groups_of

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Crossed:
    """A mean over patients and seeds, taken apart.

    Attributes:
        patients: Value of each patient, averaged over the seeds, shape ``(n,)``; the estimate is their mean.
        seeds: Shift of all patients under each seed, shape ``(S,)``, mean 0. One array; two for a difference
            of conditions that were trained with seeds of their own. None where patients lie in ``groups``.
        groups: Group of each patient, shape ``(n,)``, where patients of two groups have no seed in common, as if
            each seed ran one fold; None where patients and seeds are crossed.
    """

    patients: Array
    seeds: tuple[Array, ...]
    groups: NDArray[np.int64] | None = None

    @property
    def estimate(self) -> float:
        """The mean."""
        return float(self.patients.mean())

    @property
    def factors(self) -> tuple[Array, ...]:
        """Values of the patients and shifts of the seeds."""
        return (self.patients, *self.seeds)

    @property
    def replicated(self) -> bool:
        """Whether each factor has at least two levels, so that its share can be estimated."""
        return all(len(values) > 1 for values in self.factors)

    @property
    def nested(self) -> GroupError | None:
        """Error of the mean where patients lie in groups."""
        return None if self.groups is None else group_error(self.patients, self.groups)

    @property
    def variances(self) -> Array:
        """Variance of the mean that each factor brings, patients (or their groups) first, shape ``(factors,)``."""
        if self.nested:
            return np.array([self.nested.variance])
        return np.array([values.var(ddof=1) / len(values) if len(values) > 1 else 0.0 for values in self.factors])

    @property
    def freedoms(self) -> Array:
        """Degrees of freedom of the variances, shape ``(factors,)``."""
        return np.array([self.nested.freedom] if self.nested else [max(1, len(values) - 1) for values in self.factors])


def table_of(scores: Mapping[str, Mapping[int, float]]) -> Array:
    """Lay scores out as patients by seeds, both in order, shape ``(n, S)``; nan where a score is missing."""
    seeds = sorted({seed for by_seed in scores.values() for seed in by_seed})
    rows = [[scores[patient].get(seed, np.nan) for seed in seeds] for patient in sorted(scores)]
    return np.array(rows, np.float64).reshape(len(rows), len(seeds))


def crossed(values: Any) -> Crossed:
    """Take a table of scores or differences apart into patients and seeds.

    Args:
        values: One value for each patient and seed, array of shape ``(n, S)``; nan where one is missing. Paired
            seeds of two conditions enter as one table of differences.

    Raises:
        SkipSegError: If the table has another shape, an infinite value, or a patient or seed without any value.

    Examples:
        >>> parts = crossed([[0.7, 0.9], [0.5, 0.7]])
        >>> parts.patients.round(3).tolist(), parts.seeds[0].round(3).tolist()
        ([0.8, 0.6], [-0.1, 0.1])
    """
    table = np.asarray(values, np.float64)
    known = ~np.isnan(table)
    if table.ndim != 2 or table.size == 0 or np.isinf(table).any():
        raise SkipSegError(f"need a finite value for each patient and seed, got an array of shape {table.shape}")
    if not (known.any(axis=0).all() and known.any(axis=1).all()):
        raise SkipSegError("a patient or seed has no value at all; leave it out of the table")
    patients, groups = np.nanmean(table, axis=1), groups_of(table)
    if groups is not None:
        return Crossed(patients, (), groups)
    return Crossed(patients, (_seed_shifts(table - patients[:, np.newaxis], known),))


def _seed_shifts(within: Array, known: NDArray[np.bool_]) -> Array:
    """Shift of all patients under each seed, by least squares, so that a patient with few seeds hides no seed's share.

    Args:
        within: Values minus the mean of their patient, shape ``(n, S)``.
        known: Where there is a value, same shape.

    Returns:
        Shape ``(S,)``, mean 0. Where some are missing the mean of all patients weighs one seed more than another:
        the shifts are scaled so that they bring the variance that they bring with these weights.
    """
    share = known / known.sum(axis=1, keepdims=True)  # of each seed in the mean of a patient
    sums = np.where(known, within, 0.0).sum(axis=0)
    shifts = np.linalg.pinv(np.diag(known.sum(axis=0)) - known.T @ share) @ sums
    weights = share.mean(axis=0)
    return shifts * np.sqrt(len(weights) * (weights @ weights))


def minus(a: Crossed, b: Crossed) -> Crossed:
    """Difference of two conditions on the same patients, each with seeds of its own.

    Raises:
        SkipSegError: If patients lie in groups, and not in the same ones in both.
    """
    same = a.groups is b.groups is None or (
        a.groups is not None and b.groups is not None and np.array_equal(a.groups, b.groups)
    )
    if not same:
        raise SkipSegError("the conditions give their patients seeds in different groups; run both on the same seeds")
    return Crossed(a.patients - b.patients, a.seeds + tuple(-shifts for shifts in b.seeds), a.groups)


def hierarchical_ci(data: Crossed, confidence: float = 0.95, seed: int = 0) -> Interval:
    """Estimate a mean over patients and seeds with its confidence interval.

    Args:
        data: The mean, taken apart by :func:`crossed`.
        confidence: Probability that the interval covers the mean over all such patients and seeds, in (0, 1).
        seed: Seed of the resampling.

    Returns:
        The mean with its interval. With one seed it is that of :func:`mean_ci` over patients, and its ``method``
        says that the share of the seeds is unknown. Where patients lie in groups it is Student's t over groups.

    Raises:
        SkipSegError: If ``confidence`` lies outside (0, 1).

    Examples:
        Two patients who agree, trained with three seeds that do not:

        >>> interval = hierarchical_ci(crossed([[0.5, 0.6, 0.7], [0.5, 0.6, 0.7]]))
        >>> round(interval.low, 2), round(interval.estimate, 2), round(interval.high, 2)
        (0.35, 0.6, 0.85)
    """
    over_patients = mean_ci(data.patients.tolist(), confidence, seed)
    if not data.replicated:
        few = "one patient or one seed" if over_patients.low is None else "one seed, so the share of seeds is unknown"
        return Interval(*_numbers(over_patients), method=f"{over_patients.method}; {few}")
    if not data.variances.any():
        return over_patients
    if data.nested:
        return _over_groups(data, data.nested, confidence)
    low, high = _ends(data, _errors(data, seed), confidence)
    sizes = " and ".join(str(len(shifts)) for shifts in data.seeds)
    method = f"{100 * confidence:.4g} % interval, hierarchical bootstrap over {len(data.patients)} patients and {sizes}"
    how = f"Student's t for fewer than {FEWEST_FOR_BOOTSTRAP}, {RESAMPLES} resamples, seed {seed}"
    return Interval(data.estimate, low, high, len(data.patients), f"{method} seeds, {how}")


def hierarchical_p(data: Crossed, seed: int = 0) -> float:
    """Test whether a mean over patients and seeds is 0, two-sided.

    Returns:
        The share ``(b + 1) / (m + 1)`` of drawn errors that are at least as large as the estimate; that of
        Student's t over groups where patients lie in groups.

    Raises:
        SkipSegError: If there is one patient or one seed only: there is nothing to draw from.

    Examples:
        >>> hierarchical_p(crossed([[0.5, -0.6, 0.2], [0.4, -0.3, 0.1]])) > 0.5
        True
    """
    if not data.replicated:
        raise SkipSegError("a test over patients and seeds needs two of each; test over patients with sign_flip_p")
    if data.nested:
        return _p_over_groups(data.estimate, data.nested)
    errors = np.abs(_errors(data, seed))
    least = abs(data.estimate) - 1e-12 * float(np.abs(data.patients).mean())  # a sum in another order differs
    return float((np.count_nonzero(errors >= least) + 1) / (RESAMPLES + 1))


def _over_groups(data: Crossed, error: GroupError, confidence: float) -> Interval:
    """Student's t interval over groups of patients."""
    half = float(stats.t.isf((1 - confidence) / 2, error.freedom)) * error.variance**0.5
    method = (
        f"{100 * confidence:.4g} % interval, Student's t over {error.count} groups of {len(data.patients)} patients "
        f"that have no seed in common, so that seed and fold are confounded; {error.freedom:.3g} degrees of freedom"
    )
    return Interval(data.estimate, data.estimate - half, data.estimate + half, len(data.patients), method)


def _p_over_groups(estimate: float, error: GroupError) -> float:
    """Two-sided p-value of Student's t over groups of patients; 1 if nothing differs."""
    if error.variance == 0:
        return float(abs(estimate) < 1e-12)
    return 2 * float(stats.t.sf(abs(estimate) / error.variance**0.5, error.freedom))


def _ends(data: Crossed, errors: Array, confidence: float) -> tuple[float, float]:
    """Ends of the interval; its skew is that of the factors that are resampled, for Student's t has none."""
    resampled = [values for values in data.factors if len(values) >= FEWEST_FOR_BOOTSTRAP]
    if not resampled:
        half = float(np.quantile(np.abs(errors), confidence))
        return data.estimate - half, data.estimate + half
    cubes = sum(float(((values - values.mean()) ** 3).sum()) / len(values) ** 3 for values in resampled)
    spread = sum(float(values.var()) / len(values) for values in data.factors)
    ends = stats.norm.ppf([(1 - confidence) / 2, (1 + confidence) / 2])
    return bca(data.estimate + errors, data.estimate, cubes / (6 * spread**1.5), ends)


def _errors(data: Crossed, seed: int) -> Array:
    """Draw errors of the mean, shape ``(RESAMPLES,)``: the sum of one error for each factor."""
    rng = np.random.default_rng(seed)
    return np.sum([_error(values, rng) for values in data.factors], axis=0)


def _error(values: Array, rng: np.random.Generator) -> Array:
    """Draw errors of the mean of one factor's values, shape ``(n,)``, as many as :data:`RESAMPLES`."""
    n = len(values)
    if n < FEWEST_FOR_BOOTSTRAP:
        return values.std(ddof=1) / np.sqrt(n) * rng.permutation(_even_t(n - 1))
    unknown_spread = np.sqrt(n / rng.chisquare(n - 1, RESAMPLES))  # what makes Student's t of a normal value
    return unknown_spread * (resampled_means(values, rng) - values.mean())


@lru_cache(maxsize=FEWEST_FOR_BOOTSTRAP)
def _even_t(freedom: int) -> Array:
    """Evenly likely values of Student's t, shape ``(RESAMPLES,)``: its tails without the luck of drawing."""
    return stats.t.ppf((np.arange(RESAMPLES) + 0.5) / RESAMPLES, freedom)


def _numbers(interval: Interval) -> tuple[float, float | None, float | None, int]:
    """An interval without its method."""
    return interval.estimate, interval.low, interval.high, interval.n

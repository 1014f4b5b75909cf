"""Confidence intervals of a mean over patients."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from segmentation import SkipSegError

FEWEST_FOR_BOOTSTRAP = 20
"""Below this number of patients Student's t is used: resampling few values underestimates their spread."""

RESAMPLES = 9_999
RESAMPLES_AT_ONCE = 1 << 22
"""Values drawn in one go, so that memory does not grow with the number of patients."""


@dataclass(frozen=True)
class Interval:
    """A mean and the range in which the mean of all such patients plausibly lies.

    Attributes:
        estimate: Mean of the values.
        low, high: Ends of the interval; None when a single value says nothing about the spread.
        n: Number of values, that is of patients.
        method: How the interval was computed, for a table's caption.
    """

    estimate: float
    low: float | None
    high: float | None
    n: int
    method: str


def mean_ci(values: Sequence[float], confidence: float = 0.95, seed: int = 0) -> Interval:
    """Estimate a mean with its confidence interval.

    From 20 values on, this is the bias-corrected and accelerated bootstrap (BCa; Efron 1987), which follows the
    skew of scores that crowd towards 1. With fewer values the bootstrap is too narrow and Student's t
    interval is given. It may reach beyond the range of the score: that is what few patients can tell.

    Args:
        values: One mean score a patient. Values of one patient's several scans are not independent: average
            them first.
        confidence: Probability that the interval covers the true mean, in (0, 1).
        seed: Seed of the resampling; the same values and seed give the same interval.

    Returns:
        The mean with its interval.

    Raises:
        SkipSegError: If there are no values, one is not finite, or ``confidence`` lies outside (0, 1).

    Examples:
        >>> interval = mean_ci([0.7, 0.8, 0.9])
        >>> round(interval.low, 2), round(interval.estimate, 2), round(interval.high, 2), interval.method
        (0.55, 0.8, 1.05, "95 % interval, Student's t")
    """
    data = check_values(values)
    if not 0 < confidence < 1:
        raise SkipSegError(f"confidence must lie between 0 and 1, got {confidence}; 0.95 is usual")
    n, mean = len(data), float(data.mean())
    name = f"{100 * confidence:.4g} % interval"
    if n < 2:
        return Interval(mean, None, None, n, "no interval: one patient says nothing about the spread")
    if np.ptp(data) == 0:
        return Interval(mean, mean, mean, n, f"{name}, all values are equal")
    if n < FEWEST_FOR_BOOTSTRAP:
        low, high = stats.t.interval(confidence, n - 1, loc=mean, scale=stats.sem(data))
        return Interval(mean, float(low), float(high), n, f"{name}, Student's t")
    low, high = _bca(data, confidence, np.random.default_rng(seed))
    return Interval(mean, low, high, n, f"{name}, BCa bootstrap over patients, {RESAMPLES} resamples, seed {seed}")


def check_values(values: Sequence[float]) -> NDArray[np.float64]:
    """Turn one value a patient into an array, shape ``(n,)``.

    Raises:
        SkipSegError: If there are no values or one is not finite.
    """
    data = np.asarray(values, np.float64)
    if data.ndim != 1 or data.size == 0:
        raise SkipSegError(f"a mean needs at least one value a patient, got an array of shape {data.shape}")
    if not np.isfinite(data).all():
        raise SkipSegError(f"{np.count_nonzero(~np.isfinite(data))} of {data.size} values are not finite; leave out")
    return data


def _bca(data: NDArray[np.float64], confidence: float, rng: np.random.Generator) -> tuple[float, float]:
    """Ends of the BCa interval of the mean of values of shape ``(n,)`` that are not all equal."""
    means = _resampled_means(data, rng)
    below = (np.count_nonzero(means < data.mean()) + np.count_nonzero(means <= data.mean())) / 2  # ties count half
    bias = stats.norm.ppf(below / len(means))
    deviations = data - data.mean()
    acceleration = (deviations**3).sum() / (6 * (deviations**2).sum() ** 1.5)
    ends = bias + stats.norm.ppf([(1 - confidence) / 2, (1 + confidence) / 2])
    low, high = np.quantile(means, stats.norm.cdf(bias + ends / (1 - acceleration * ends)))
    return float(low), float(high)


def _resampled_means(data: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Means of bootstrap samples of values of shape ``(n,)``; returns shape ``(RESAMPLES,)``."""
    rows = max(1, RESAMPLES_AT_ONCE // len(data))
    sizes = [min(rows, RESAMPLES - start) for start in range(0, RESAMPLES, rows)]
    return np.concatenate([rng.choice(data, (size, len(data))).mean(axis=1) for size in sizes])

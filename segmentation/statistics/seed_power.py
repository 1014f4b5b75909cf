"""What a number of patients and seeds can show: the power of the hierarchical interval, before anything is trained."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import optimize, special, stats

from segmentation import SkipSegError
from segmentation.statistics.hierarchical import Array
from segmentation.statistics.power import check_question, fewest

_SHARES = np.linspace(0, np.pi / 2, 33)
"""Angles whose tangent is the error from the seeds over that from the patients."""

_MOST_PATIENTS = 2**24


@dataclass(frozen=True)
class Spread:
    """Standard deviations of paired differences, in their unit.

    Attributes:
        patient: Of patients, beyond what one training adds.
        seed: Of seeds: the shift of all patients together.
        residual: Of a patient under a seed.
    """

    patient: float
    seed: float
    residual: float

    def error(self, n: int, seeds: int) -> float:
        """Standard error of the mean difference over ``n`` patients and this number of seeds."""
        return math.sqrt(self.patient**2 / n + self.seed**2 / seeds + self.residual**2 / (n * seeds))

    def power(self, difference: float, n: int, seeds: int, alpha: float = 0.05) -> float:
        """Probability that the hierarchical interval leaves out 0, for normal values.

        Args:
            difference: True mean difference.
            n: Number of patients, at least 2.
            seeds: Number of seeds, at least 2, the same ones for both conditions.
            alpha: Error rate, in (0, 1).

        Examples:
            >>> round(Spread(patient=0.05, seed=0.01, residual=0.05).power(0.03, n=40, seeds=5), 2)
            0.75
        """
        half, size = self._half_widths(n, seeds, alpha), abs(difference) / self.error(n, seeds)
        return float(np.mean(special.ndtr(size - half) + special.ndtr(-size - half)))

    def equivalence_power(self, margin: float, n: int, seeds: int, alpha: float = 0.05) -> float:
        """Probability that the hierarchical interval of confidence ``1 - 2 alpha`` lies inside the margin around 0.

        Args:
            margin: Largest difference that does not matter in practice, positive; the true difference is 0.
            n: Number of patients, at least 2.
            seeds: Number of seeds, at least 2, the same ones for both conditions.
            alpha: Error rate of the claim of equivalence, in (0, 0.5).

        Examples:
            >>> round(Spread(patient=0.05, seed=0.01, residual=0.05).equivalence_power(0.03, n=40, seeds=5), 2)
            0.72
        """
        room = margin / self.error(n, seeds) - self._half_widths(n, seeds, 2 * alpha)
        return float(np.mean(np.maximum(0.0, 2 * special.ndtr(room) - 1)))

    def _half_widths(self, n: int, seeds: int, alpha: float) -> Array:
        """Half of the interval's width over the standard error, evenly likely values, shape ``(64, 64)``."""
        rest = self.residual**2 / (n * seeds)
        patients = np.sqrt((self.patient**2 / n + rest) * _chi_square(n - 1))[:, np.newaxis]
        shifts = np.sqrt((self.seed**2 / seeds + rest) * _chi_square(seeds - 1))[np.newaxis]
        factor = np.interp(np.arctan2(shifts, patients), _SHARES, _critical(n, seeds, alpha))
        return np.hypot(patients, shifts) * factor / self.error(n, seeds)


def detectable_with_seeds(spread: Spread, n: int, seeds: int, alpha: float = 0.05, power: float = 0.8) -> float:
    """Smallest true mean difference that n patients and a number of seeds are likely to show.

    Args:
        spread: Of the paired differences.
        n: Number of patients, at least 2.
        seeds: Number of seeds, at least 2.
        alpha: Two-sided error rate, in (0, 1).
        power: Wanted probability to find the difference, in (alpha, 1).

    Returns:
        The difference, in the unit of ``spread``.

    Raises:
        SkipSegError: If an argument lies outside its range.

    Examples:
        Where seeds scatter, more seeds help and more patients alone do not:

        >>> spread = Spread(patient=0.05, seed=0.02, residual=0.05)
        >>> [round(detectable_with_seeds(spread, n, seeds), 3) for n, seeds in ((40, 3), (400, 3), (40, 10))]
        [0.073, 0.065, 0.031]
    """
    check_question(spread.error(2, 2), alpha, power)
    if n < 2 or seeds < 2:
        raise SkipSegError(f"need at least 2 patients and 2 seeds, got {n} and {seeds}; one has no spread")
    highest = spread.error(n, seeds)
    while spread.power(highest, n, seeds, alpha) < power:
        highest *= 2
    found = optimize.root_scalar(
        lambda size: spread.power(size, n, seeds, alpha) - power, bracket=(0.0, highest), rtol=1e-6
    )
    return float(found.root)


def cases_needed_with_seeds(
    spread: Spread, difference: float, seeds: int, alpha: float = 0.05, power: float = 0.8
) -> int | None:
    """Number of patients that a true mean difference needs with a number of seeds.

    Args:
        spread: Of the paired differences.
        difference: True mean difference, not 0.
        seeds: Number of seeds, at least 2.
        alpha: Two-sided error rate, in (0, 1).
        power: Wanted probability to find the difference, in (alpha, 1).

    Returns:
        The number, at least 2; None if no number suffices, because the seeds alone scatter too much.

    Raises:
        SkipSegError: If an argument lies outside its range.

    Examples:
        >>> spread = Spread(patient=0.05, seed=0.01, residual=0.05)
        >>> [cases_needed_with_seeds(spread, 0.02, seeds) for seeds in (3, 5, 10)]
        [None, 228, 78]
    """
    check_question(spread.error(2, 2), alpha, power)
    if difference == 0 or not math.isfinite(difference) or seeds < 2:
        raise SkipSegError(f"need a finite difference that is not 0 and 2 seeds, got {difference} and {seeds}")
    return _fewest(lambda n: spread.power(difference, n, seeds, alpha) >= power)


def cases_to_exclude_with_seeds(
    spread: Spread, margin: float, seeds: int, alpha: float = 0.05, power: float = 0.8
) -> int | None:
    """Number of patients with which two conditions that do not differ are likely found equivalent, by seeds.

    Args:
        spread: Of the paired differences.
        margin: Largest difference that does not matter in practice, positive.
        seeds: Number of seeds, at least 2.
        alpha: Error rate of the claim of equivalence, in (0, 0.5).
        power: Wanted probability to rule out a difference of the margin either way, in (alpha, 1).

    Returns:
        The number, at least 2; None if no number suffices, because the seeds alone scatter too much.

    Raises:
        SkipSegError: If an argument lies outside its range.

    Examples:
        >>> spread = Spread(patient=0.05, seed=0.01, residual=0.05)
        >>> [cases_to_exclude_with_seeds(spread, 0.02, seeds) for seeds in (3, 5, 10)]
        [None, 204, 85]
    """
    check_question(spread.error(2, 2), alpha, power)
    if not (math.isfinite(margin) and margin > 0) or seeds < 2:
        raise SkipSegError(f"need a finite margin above 0 and 2 seeds, got {margin} and {seeds}")
    return _fewest(lambda n: spread.equivalence_power(margin, n, seeds, alpha) >= power)


def _fewest(enough: Callable[[int], bool]) -> int | None:
    """The smallest number of patients that suffices; None where not even very many do."""
    return fewest(enough) if enough(_MOST_PATIENTS) else None


@lru_cache(maxsize=4096)
def _chi_square(freedom: int) -> Array:
    """Values of chi-square over its degrees of freedom, evenly likely, shape ``(64,)``."""
    return stats.chi2.ppf((np.arange(64) + 0.5) / 64, freedom) / freedom


@lru_cache(maxsize=4096)
def _critical(n: int, seeds: int, alpha: float) -> Array:
    """Half the interval's width, in standard errors, for each of the shares of the seeds; shape ``(33,)``."""
    even = (np.arange(128) + 0.5) / 128
    patients, shifts = stats.t.ppf(even, n - 1)[:, np.newaxis], stats.t.ppf(even, seeds - 1)[np.newaxis]
    sums = [np.abs(np.cos(share) * patients + np.sin(share) * shifts) for share in _SHARES]
    return np.array([np.quantile(each, 1 - alpha) for each in sums])

"""What a number of patients can show, before they are spent: the power of a paired comparison.

The computation is that of the paired t test (Cohen 1988): close to the sign-flip test for the mean, and
optimistic for scores with heavy tails.
"""

import math
from collections.abc import Callable
from itertools import count

import numpy as np
from scipy import optimize, special, stats

from segmentation import SkipSegError

NODES, WEIGHTS = np.polynomial.legendre.leggauss(200)
"""Points and weights of a quadrature over (-1, 1), shape ``(200,)``; the power is then right to about 1e-6."""


def minimum_detectable_difference(sd: float, n: int, alpha: float = 0.05, power: float = 0.8) -> float:
    """Smallest true mean difference that n patients are likely to show.

    Args:
        sd: Standard deviation of the paired differences between patients.
        n: Number of patients, at least 2.
        alpha: Two-sided error rate, in (0, 1).
        power: Wanted probability to find the difference, in (alpha, 1).

    Returns:
        The difference, in the unit of ``sd``.

    Raises:
        SkipSegError: If an argument lies outside its range.

    Examples:
        >>> round(minimum_detectable_difference(sd=0.08, n=20), 3)
        0.053
    """
    check_question(sd, alpha, power)
    if n < 2:
        raise SkipSegError(f"n must be at least 2 patients, got {n}; one patient has no spread")
    highest = next(2.0**k for k in count() if paired_t_power(2.0**k, n, alpha) >= power)
    found = optimize.root_scalar(lambda effect: paired_t_power(effect, n, alpha) - power, bracket=(0.0, highest))
    return sd * float(found.root)


def cases_needed(sd: float, difference: float, alpha: float = 0.05, power: float = 0.8) -> int:
    """Number of patients that a true mean difference needs to be likely found.

    Args:
        sd: Standard deviation of the paired differences between patients.
        difference: True mean difference, not 0.
        alpha: Two-sided error rate, in (0, 1).
        power: Wanted probability to find the difference, in (alpha, 1).

    Returns:
        The number, at least 2.

    Raises:
        SkipSegError: If an argument lies outside its range.

    Examples:
        Half a standard deviation:

        >>> cases_needed(sd=0.1, difference=0.05)
        34
    """
    check_question(sd, alpha, power)
    if difference == 0 or not math.isfinite(difference):
        raise SkipSegError(f"difference must be finite and not 0, got {difference}; no number of patients shows 0")
    effect = abs(difference) / sd
    return fewest(lambda n: paired_t_power(effect, n, alpha) >= power)


def cases_to_exclude(sd: float, margin: float, alpha: float = 0.05, power: float = 0.8) -> int:
    """Number of patients with which two conditions that do not differ are likely found equivalent.

    Args:
        sd: Standard deviation of the paired differences between patients.
        margin: Largest difference that does not matter in practice, positive.
        alpha: Error rate of the claim of equivalence, that of each of its two one-sided tests.
        power: Wanted probability to rule out a difference of the margin either way, in (alpha, 1).

    Returns:
        The number, at least 2.

    Raises:
        SkipSegError: If an argument lies outside its range.

    Examples:
        >>> cases_to_exclude(sd=0.1, margin=0.05)
        36
    """
    check_question(sd, alpha, power)
    if not (math.isfinite(margin) and margin > 0):
        raise SkipSegError(f"margin must be positive and finite, got {margin}; 0.02 is usual for Dice")
    return fewest(lambda n: equivalence_power(margin / sd, n, alpha) >= power)


def fewest(enough: Callable[[int], bool]) -> int:
    """Find the smallest number of patients, at least 2, for which a rising question is answered with yes.

    Examples:
        >>> fewest(lambda n: n >= 37)
        37
    """
    above = next(2**k for k in count(1) if enough(2**k))
    below = above // 2
    while above - below > 1:
        middle = (above + below) // 2
        above, below = (middle, below) if enough(middle) else (above, middle)
    return above


def equivalence_power(margin: float, n: int, alpha: float) -> float:
    """Probability that two one-sided paired t tests rule out a margin where there is no difference.

    The chance that the interval of confidence ``1 - 2 alpha`` lies inside the margin (Schuirmann 1987).

    Args:
        margin: Over the standard deviation of the differences, positive.
        n: Number of patients, at least 2.
        alpha: Error rate of each test, in (0, 0.5).

    Examples:
        >>> round(equivalence_power(0.5, 36, 0.05), 3)
        0.805
    """
    freedom = n - 1
    spread = np.sqrt(2 * special.gammaincinv(freedom / 2, (NODES + 1) / 2) / freedom)
    room = margin * math.sqrt(n) - stats.t.isf(alpha, freedom) * spread
    return float(WEIGHTS / 2 @ np.maximum(0.0, 2 * special.ndtr(room) - 1))


def paired_t_power(effect: float, n: int, alpha: float) -> float:
    """Probability that a two-sided paired t test finds an effect.

    Args:
        effect: True mean difference over the standard deviation of the differences, at least 0.
        n: Number of patients, at least 2.
        alpha: Error rate, in (0, 1).

    Examples:
        >>> round(paired_t_power(0.5, 34, 0.05), 3)
        0.808
    """
    # The noncentral t distribution, averaged over the spread of a sample by hand: scipy.stats.nct is nan at times.
    freedom = n - 1
    spread = np.sqrt(2 * special.gammaincinv(freedom / 2, (NODES + 1) / 2) / freedom)
    critical = stats.t.isf(alpha / 2, freedom) * spread
    shift = effect * math.sqrt(n)
    return float(WEIGHTS / 2 @ (special.ndtr(shift - critical) + special.ndtr(-shift - critical)))


def check_question(sd: float, alpha: float, power: float) -> None:
    """Check what every question about power is asked with.

    Raises:
        SkipSegError: If ``sd`` is not positive and finite, or not ``0 < alpha < power < 1``.
    """
    if not (math.isfinite(sd) and sd > 0):
        raise SkipSegError(f"sd must be positive and finite, got {sd}; estimate it from a pilot or a similar study")
    if not 0 < alpha < power < 1:
        raise SkipSegError(f"need 0 < alpha < power < 1, got alpha {alpha} and power {power}; 0.05 and 0.8 are usual")

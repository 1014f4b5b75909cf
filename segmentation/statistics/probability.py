"""How often is one condition better: the probability that a patient scores higher under a than under b.

A mean difference can come from a few patients. P(A>B) counts them instead (Bouthillier et al. 2021,
arXiv:2103.03098, who propose to ask for 0.75 or more before calling a method better).
"""

import math

import numpy as np
from scipy import stats

from segmentation import SkipSegError
from segmentation.statistics.bootstrap import Interval
from segmentation.statistics.hierarchical import Array, Crossed, crossed, minus


def superiority(a: Array, b: Array, confidence: float = 0.95, *, paired_seeds: bool = True) -> Interval:
    """Estimate P(A>B) for a new patient and a new training, ties counted half.

    The interval is that of Clopper and Pearson with the effective number of patients in place of the number
    (Korn and Graubard 1998): the number of independent patients whose mean would vary as much as this one does
    over patients and seeds. It never leaves [0, 1] and is not empty when all patients agree.

    Args:
        a: Scores of the first condition, shape ``(n, S)``: patients by seeds, nan where one is missing.
        b: Scores of the second, shape ``(n, S)``; without paired seeds its number of seeds may differ.
        confidence: Probability that the interval covers P(A>B), in (0, 1).
        paired_seeds: Whether column s of both was trained with the same seed. If not, each score of a is
            compared with every score of b of the same patient.

    Returns:
        The probability with its interval; with one patient without.

    Raises:
        SkipSegError: If ``confidence`` lies outside (0, 1) or the tables are not usable.

    Examples:
        Six patients, all better:

        >>> found = superiority(np.full((6, 1), 0.8), np.full((6, 1), 0.7))
        >>> found.estimate, round(found.low, 2), found.high
        (1.0, 0.54, 1.0)
    """
    if not 0 < confidence < 1:
        raise SkipSegError(f"confidence must lie between 0 and 1, got {confidence}; 0.95 is usual")
    wins = crossed(_wins(a, b)) if paired_seeds else _unpaired_wins(a, b)
    n = len(wins.patients)
    share = min(1.0, max(0.0, wins.estimate))
    if n < 2:
        return Interval(share, None, None, n, "no interval: one patient says nothing about the spread")
    effective = _effective(wins, share, confidence)
    won, lost, tail = effective * share, effective * (1 - share), (1 - confidence) / 2
    low = float(stats.beta.ppf(tail, won, lost + 1)) if won > 0 else 0.0
    high = float(stats.beta.isf(tail, won + 1, lost)) if lost > 0 else 1.0
    name = f"{100 * confidence:.4g} % interval, Clopper-Pearson with {effective:.1f} effective patients"
    return Interval(share, low, high, n, name)


def _wins(a: Array, b: Array) -> Array:
    """1 where a is higher, 0 where b is, 0.5 where they tie; nan where either is missing."""
    return np.where(np.isnan(a) | np.isnan(b), np.nan, (np.sign(a - b) + 1) / 2)


def _unpaired_wins(a: Array, b: Array) -> Crossed:
    """Wins of tables of shapes ``(n, S)`` and ``(n, T)``, every seed of a against every seed of b."""
    wins = _wins(a[:, :, np.newaxis], b[:, np.newaxis, :])
    by_a, by_b = crossed(np.nanmean(wins, axis=2)), crossed(np.nanmean(wins, axis=1))
    return minus(by_a, Crossed(np.zeros(len(a)), tuple(-shifts for shifts in by_b.seeds), by_b.groups))


def _effective(wins: Crossed, share: float, confidence: float) -> float:
    """Number of independent patients that would tell as much, with few degrees of freedom made up for."""
    n, variances = len(wins.patients), wins.variances
    if not variances.any() or share in (0.0, 1.0):
        return float(n)
    satterthwaite = variances.sum() ** 2 / (variances**2 / wins.freedoms).sum()
    ends = stats.t.isf((1 - confidence) / 2, np.array([n - 1, satterthwaite]))
    effective = float(share * (1 - share) / variances.sum() * math.pow(ends[0] / ends[1], 2))
    return min(float(n), effective) if wins.nested else effective  # groups may agree by chance

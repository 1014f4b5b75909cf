"""Two conditions on the same patients: how large is the difference, and what do the data show about it?"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from segmentation import SkipSegError
from segmentation.statistics.bootstrap import Interval, mean_ci
from segmentation.statistics.equivalence import Verdict, decide, equivalence_interval, inside
from segmentation.statistics.permutation import MOST_FOR_EXACT, fewest_patients, sign_flip_p, smallest_p
from segmentation.statistics.power import minimum_detectable_difference

POWER = 0.8
"""Probability of finding the difference that the sentence calls detectable."""


@dataclass(frozen=True)
class PairedDifference:
    """A paired comparison of conditions a and b over patients.

    Attributes:
        mean: Mean of a minus b.
        low, high: Its ``1 - alpha`` interval; None with a single patient.
        p_value: Of the two-sided sign-flip test over patients.
        smallest_p: The smallest p-value that this number of patients can give.
        n: Number of patients.
        method: How interval and p-value were computed.
        verdict: ``"different"``, ``"equivalent"`` or ``"inconclusive"``.
        sentence: The verdict in plain words, with what this number of patients can and cannot show.
    """

    mean: float
    low: float | None
    high: float | None
    p_value: float
    smallest_p: float
    n: int
    method: str
    verdict: Verdict
    sentence: str


def paired_difference(
    a: Mapping[str, float], b: Mapping[str, float], alpha: float = 0.05, margin: float = 0.02, seed: int = 0
) -> PairedDifference:
    """Compare two conditions on the same patients.

    Args:
        a: Patient to mean score of the first condition.
        b: Patient to mean score of the second condition, same patients.
        alpha: Error rate of each claim, in (0, 0.5).
        margin: Largest difference that does not matter in practice, in the unit of the score, fixed beforehand.
        seed: Seed of resampling.

    Returns:
        Mean difference a minus b with interval, p-value, verdict and a sentence for the reader.

    Raises:
        SkipSegError: If the patients differ, there are none, a score is not finite, or ``alpha`` or ``margin``
            lies outside its range.

    Examples:
        >>> a = {"p1": 0.81, "p2": 0.74, "p3": 0.90}
        >>> b = {"p1": 0.80, "p2": 0.70, "p3": 0.84}
        >>> result = paired_difference(a, b)
        >>> result.verdict, result.p_value
        ('inconclusive', 0.25)
        >>> result.sentence
        'Mean difference +0.0367 (95 % interval -0.0258 to +0.0992): inconclusive: with 3 patients p is 0.25 at
        best, whatever the difference; at least 6 are needed.'
    """
    if a.keys() != b.keys():
        alone = sorted(a.keys() ^ b.keys())
        raise SkipSegError(
            f"paired scores must cover the same patients, got {len(alone)} with one score only, such as "
            f"{', '.join(alone[:3])}; leave them out of both"
        )
    differences = [a[patient] - b[patient] for patient in sorted(a)]
    narrow = equivalence_interval(differences, alpha, seed)
    wide = mean_ci(differences, 1 - alpha, seed)
    p_value = sign_flip_p(differences, seed)
    verdict = decide(p_value, wide, narrow, alpha, margin)
    kind = "exact" if wide.n <= MOST_FOR_EXACT else "Monte-Carlo"
    return PairedDifference(
        mean=wide.estimate,
        low=wide.low,
        high=wide.high,
        p_value=p_value,
        smallest_p=smallest_p(wide.n),
        n=wide.n,
        method=f"{wide.method}; {kind} sign-flip test",
        verdict=verdict,
        sentence=f"{_numbers(wide, alpha)}: {_finding(verdict, p_value, wide, narrow, differences, alpha, margin)}",
    )


def _numbers(interval: Interval, alpha: float) -> str:
    """Mean difference and interval in words."""
    if interval.low is None:
        return f"Mean difference {interval.estimate:+.3g}"
    return (
        f"Mean difference {interval.estimate:+.3g} "
        f"({100 * (1 - alpha):.4g} % interval {interval.low:+.3g} to {interval.high:+.3g})"
    )


def _finding(
    verdict: Verdict,
    p_value: float,
    wide: Interval,
    narrow: Interval,
    differences: list[float],
    alpha: float,
    margin: float,
) -> str:
    """Verdict in words, and what the number of patients can and cannot show."""
    patients = f"{wide.n} patient{'s' if wide.n > 1 else ''}"
    if verdict == "different":
        small = f", yet within {margin:g}, too small to matter in practice" if inside(narrow, margin) else ""
        return f"different (p = {p_value:.3g}, {patients}){small}."
    if verdict == "equivalent":
        return f"equivalent, for {patients} rule out a difference of {margin:g} or more either way."
    if smallest_p(wide.n) > alpha:
        return (
            f"inconclusive: with {patients} p is {smallest_p(wide.n):.3g} at best, whatever the difference; "
            f"at least {fewest_patients(alpha)} are needed."
        )
    detectable = minimum_detectable_difference(float(np.std(differences, ddof=1)), wide.n, alpha, POWER)
    return (
        f"inconclusive (p = {p_value:.3g}), for {patients} can neither show this difference nor rule out one of "
        f"{margin:g}; they would likely show one of {detectable:.2g} or more."
    )

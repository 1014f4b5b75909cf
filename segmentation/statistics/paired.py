"""Two conditions on the same patients: how large is the difference, and what do the data show about it?"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from segmentation import SkipSegError
from segmentation.statistics.bootstrap import Interval
from segmentation.statistics.equivalence import Verdict, check_alpha, decide, inside
from segmentation.statistics.hierarchical import (
    Array,
    Crossed,
    crossed,
    hierarchical_ci,
    hierarchical_p,
    minus,
    table_of,
)
from segmentation.statistics.permutation import MOST_FOR_EXACT, fewest_patients, sign_flip_p, smallest_p
from segmentation.statistics.power import minimum_detectable_difference
from segmentation.statistics.seed_power import Spread, detectable_with_seeds
from segmentation.statistics.variance import variance_split
from segmentation.terminal import counted

POWER = 0.8
"""Probability of finding the difference that the sentence calls detectable."""

Scores = Mapping[str, float | Mapping[int, float]]
"""Patient to mean score, or patient to seed to mean score."""


@dataclass(frozen=True)
class PairedDifference:
    """A paired comparison of conditions a and b over patients and seeds.

    Attributes:
        mean: Mean of a minus b.
        low, high: Its interval; None with a single patient.
        level: Probability that the interval covers the true difference: ``1 - alpha``.
        p_value: What the verdict rests on: with one seed ``sign_flip_p``, with several the larger one of it and
            of the test over patients and seeds, for the sign-flip test takes the trained networks as given.
        sign_flip_p: Of the two-sided sign-flip test over patients.
        smallest_p: The smallest p-value that this number of patients can give.
        n: Number of patients.
        seeds: Number of seeds of each condition, the smaller one if they differ.
        method: How interval and p-value were computed.
        verdict: ``"different"``, ``"equivalent"`` or ``"inconclusive"``.
        sentence: The verdict in plain words, with what this number of patients can and cannot show.
    """

    mean: float
    low: float | None
    high: float | None
    level: float
    p_value: float
    sign_flip_p: float
    smallest_p: float
    n: int
    seeds: int
    method: str
    verdict: Verdict
    sentence: str


@dataclass(frozen=True)
class Aligned:
    """Scores of two conditions as tables with one row a patient.

    Attributes:
        a, b: Patients by seeds, shapes ``(n, S)`` and ``(n, T)``; nan where a score is missing.
        paired_seeds: Whether the columns of both are the same seeds; else each condition has seeds of its own.
    """

    a: Array
    b: Array
    paired_seeds: bool

    @property
    def seeds(self) -> int:
        """Number of seeds of each condition, the smaller one if they differ."""
        return min(self.a.shape[1], self.b.shape[1])

    def difference(self) -> Crossed:
        """Mean difference a minus b, taken apart into patients and seeds."""
        return crossed(self.a - self.b) if self.paired_seeds else minus(crossed(self.a), crossed(self.b))

    def spread(self) -> Spread | None:
        """Standard deviations of the differences between patients, seeds and within; None if inseparable."""
        if self.difference().groups is not None:
            return None
        if self.paired_seeds:
            split = variance_split(self.a - self.b)
            if not split.separable or (split.seed is None and self.seeds > 1):
                return None
            return Spread(*(max(0.0, part or 0.0) ** 0.5 for part in (split.patient, split.seed, split.residual)))
        patients, *seeds = self.difference().variances
        return Spread(float(patients * len(self.a)) ** 0.5, float(sum(seeds) * self.seeds) ** 0.5, 0.0)


def aligned(a: Scores, b: Scores) -> Aligned:
    """Lay the scores of two conditions side by side.

    Seeds that both conditions have are paired, others are left out. Conditions without a common seed are compared
    with seeds of their own.

    Raises:
        SkipSegError: If the patients differ, there are none, or a score is not finite.

    Examples:
        >>> tables = aligned({"p1": {0: 0.5, 1: 0.6}}, {"p1": {1: 0.4, 2: 0.4}})
        >>> tables.a.tolist(), tables.b.tolist(), tables.paired_seeds
        ([[0.6]], [[0.4]], True)
    """
    if a.keys() != b.keys():
        alone = sorted(a.keys() ^ b.keys())
        raise SkipSegError(
            f"paired scores must cover the same patients, got {len(alone)} with one score only, such as "
            f"{', '.join(alone[:3])}; leave them out of both"
        )
    if not a:
        raise SkipSegError("a comparison needs at least one value a patient, got no patient")
    first, second = _by_seed(a), _by_seed(b)
    lost = [p for of in (first, second) for p, scores in of.items() if not all(map(math.isfinite, scores.values()))]
    if lost:
        raise SkipSegError(f"scores of {len(lost)} patients are not finite, such as of {lost[0]}; leave them out")
    both = {patient: first[patient].keys() & second[patient].keys() for patient in first}
    if not any(both.values()):
        return Aligned(table_of(first), table_of(second), paired_seeds=False)
    tables = [{p: {s: of[p][s] for s in seeds} for p, seeds in both.items()} for of in (first, second)]
    return Aligned(table_of(tables[0]), table_of(tables[1]), paired_seeds=True)


def paired_difference(
    a: Scores,
    b: Scores,
    alpha: float = 0.05,
    margin: float = 0.02,
    seed: int = 0,
    equivalence_alpha: float | None = None,
) -> PairedDifference:
    """Compare two conditions on the same patients.

    Args:
        a: Patient to mean score of the first condition, or patient to seed to mean score.
        b: The same of the second condition, same patients.
        alpha: Level at which a difference is judged, in (0, 0.5). In a family of contrasts this is the one that
            :func:`segmentation.statistics.holm` gives.
        margin: Largest difference that does not matter in practice, in the unit of the score, fixed beforehand.
        seed: Seed of resampling.
        equivalence_alpha: Level at which equivalence is judged; ``alpha`` by default.

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
        best, whatever the difference; at least 6 are needed to reach 0.05.'
    """
    tables = aligned(a, b)
    data = tables.difference()
    equivalence_alpha = check_alpha(alpha if equivalence_alpha is None else equivalence_alpha)
    wide, narrow = (hierarchical_ci(data, 1 - rate, seed) for rate in (check_alpha(alpha), 2 * equivalence_alpha))
    flipped = sign_flip_p(data.patients.tolist(), seed)
    p_value = max(flipped, hierarchical_p(data, seed)) if data.replicated else flipped
    verdict = decide(p_value, wide, narrow, alpha, margin)
    kind = "exact" if wide.n <= MOST_FOR_EXACT else "Monte-Carlo"
    over = "groups" if data.nested else "patients and seeds"
    test = f"{kind} sign-flip test{f', no smaller than that over {over}' if data.replicated else ''}"
    return PairedDifference(
        mean=wide.estimate,
        low=wide.low,
        high=wide.high,
        level=1 - alpha,
        p_value=p_value,
        sign_flip_p=flipped,
        smallest_p=smallest_p(wide.n),
        n=wide.n,
        seeds=tables.seeds,
        method=f"{wide.method}; {test}",
        verdict=verdict,
        sentence=f"{_numbers(wide, alpha)}: {_finding(verdict, p_value, wide, narrow, tables, alpha, margin)}",
    )


def detectable_difference(tables: Aligned, alpha: float = 0.05) -> float | None:
    """Smallest true difference that these patients and seeds would probably show; None if there is none to tell."""
    n, data = len(tables.a), tables.difference()
    if smallest_p(n) > alpha:  # no difference, however large, would show
        return None
    if data.nested:
        groups, sd = int(data.nested.groups), data.nested.variance**0.5
        return minimum_detectable_difference(sd * groups**0.5, groups, alpha, POWER) if groups > 1 and sd > 0 else None
    if tables.seeds > 1 < n:
        spread = tables.spread()
        if spread is None or not spread.error(n, 2) > 0:
            return None
        return detectable_with_seeds(spread, n, tables.seeds, alpha, POWER)
    sd = float(np.std(data.patients, ddof=1)) if n > 1 else 0.0
    return minimum_detectable_difference(sd, n, alpha, POWER) if sd > 0 else None


def _by_seed(scores: Scores) -> dict[str, Mapping[int, float]]:
    """Scores by patient and seed; those without a seed count as one seed."""
    return {patient: score if isinstance(score, Mapping) else {0: score} for patient, score in scores.items()}


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
    tables: Aligned,
    alpha: float,
    margin: float,
) -> str:
    """Verdict in words, and what the number of patients and seeds can and cannot show."""
    patients = counted(wide.n, "patient")
    number = f"{patients} and {tables.seeds} seeds" if tables.seeds > 1 else patients
    if verdict == "different":
        small = f", yet within {margin:g}, too small to matter in practice" if inside(narrow, margin) else ""
        return f"different (p = {p_value:.3g}, {number}){small}."
    if verdict == "equivalent":
        return f"equivalent, for {number} rule out a difference of {margin:g} or more either way."
    if smallest_p(wide.n) > alpha:
        return (
            f"inconclusive: with {patients} p is {smallest_p(wide.n):.3g} at best, whatever the difference; "
            f"at least {fewest_patients(alpha)} are needed to reach {alpha:.3g}."
        )
    detectable = detectable_difference(tables, alpha)
    likely = f"; they would probably show a true one of {detectable:.2g} or more" if detectable is not None else ""
    return (
        f"inconclusive (p = {p_value:.3g}): {number} can neither show this difference nor rule out one of "
        f"{margin:g}{likely}."
    )

"""Different, equivalent or inconclusive: "no significant difference" alone is never a finding.

A difference is shown by a small p-value and an interval without 0. Equivalence is shown by two one-sided tests
(TOST; Schuirmann 1987), which is the same as a narrower interval that lies inside the margin on both sides.
"""

from collections.abc import Sequence
from typing import Literal

from segmentation import SkipSegError
from segmentation.statistics.bootstrap import Interval, mean_ci
from segmentation.statistics.permutation import smallest_p

Verdict = Literal["different", "equivalent", "inconclusive"]
"""What the data show about two conditions."""


def equivalence_interval(differences: Sequence[float], alpha: float, seed: int = 0) -> Interval:
    """The interval that has to lie inside the margin: confidence ``1 - 2 alpha``, as TOST at level ``alpha`` asks.

    Args:
        differences: One paired difference a patient.
        alpha: Error rate of the equivalence claim, in (0, 0.5).
        seed: Seed of the resampling.

    Raises:
        SkipSegError: If ``alpha`` lies outside (0, 0.5) or the differences are not usable.

    Examples:
        >>> equivalence_interval([0.001, -0.002, 0.0, 0.003, 0.001, -0.001], alpha=0.05).method
        "90 % interval, Student's t"
    """
    return mean_ci(differences, confidence=1 - 2 * check_alpha(alpha), seed=seed)


def check_alpha(alpha: float) -> float:
    """Return an error rate that leaves room for two one-sided tests.

    Raises:
        SkipSegError: If ``alpha`` lies outside (0, 0.5).
    """
    if not 0 < alpha < 0.5:
        raise SkipSegError(f"alpha must lie between 0 and 0.5, got {alpha}; 0.05 is usual")
    return alpha


def decide(p_value: float, difference: Interval, equivalence: Interval, alpha: float, margin: float) -> Verdict:
    """Give the verdict on a paired comparison.

    Args:
        p_value: Of the sign-flip test.
        difference: Mean difference with its ``1 - alpha`` interval.
        equivalence: Mean difference with its ``1 - 2 alpha`` interval.
        alpha: Error rate of each claim.
        margin: Largest difference that does not matter in practice, positive, fixed before looking at the data.

    Returns:
        ``"different"`` if ``p_value`` is at most ``alpha`` and the interval leaves out 0, even when the
        difference lies within the margin; otherwise ``"equivalent"`` if the narrower interval lies inside
        ``(-margin, margin)``; otherwise ``"inconclusive"``. With too few patients for any p-value of at most
        ``alpha``, nothing is claimed.

    Raises:
        SkipSegError: If ``margin`` is not positive.

    Examples:
        >>> values = [0.001, -0.002, 0.0, 0.003, 0.001, -0.001]
        >>> decide(0.8, mean_ci(values), equivalence_interval(values, 0.05), alpha=0.05, margin=0.02)
        'equivalent'
    """
    if not margin > 0:
        raise SkipSegError(f"margin must be positive, got {margin}; 0.02 is usual for Dice")
    if difference.low is None or difference.high is None or smallest_p(difference.n) > alpha:
        return "inconclusive"
    if p_value <= alpha and not difference.low <= 0 <= difference.high:
        return "different"
    return "equivalent" if inside(equivalence, margin) else "inconclusive"


def inside(interval: Interval, margin: float) -> bool:
    """Tell whether an interval lies strictly within the margin on both sides of 0.

    Examples:
        >>> inside(Interval(0.0, -0.01, 0.01, 9, ""), margin=0.02)
        True
    """
    return interval.low is not None and interval.high is not None and -margin < interval.low <= interval.high < margin

"""Readouts that expect no loss, or no difference: the two one-sided tests (TOST; Schuirmann 1987) over replicates."""

from collections.abc import Sequence

from segmentation.ablation.suites.suite import Readout
from segmentation.statistics import equivalence_interval
from segmentation.statistics.equivalence import inside

ALPHA = 0.05
"""Error rate of each one-sided test; the interval is then one of 90 %."""


def not_worse(name: str, gains: Sequence[float], margin: float, decides: bool = True) -> Readout:
    """Read out a gain that is expected above ``-margin``, with its 90 % interval.

    Args:
        name: What was measured.
        gains: One paired difference for each independent replicate.
        margin: Loss that does not matter, positive.
        decides: Whether the verdict depends on it.

    Returns:
        Met if the whole interval lies above ``-margin``, not met if it lies below, otherwise open.

    Examples:
        >>> not_worse("dense minus plain", [0.01, -0.01, 0.0], margin=0.02).met
        True
    """
    interval = equivalence_interval(gains, ALPHA)
    met = None
    if interval.low is not None and interval.high is not None:
        met = True if interval.low > -margin else False if interval.high < -margin else None
    expected = f"above -{margin} (90 % interval)"
    return Readout(name, expected, interval.estimate, interval.low, interval.high, met, decides)


def equivalent(name: str, gains: Sequence[float], margin: float, decides: bool = True) -> Readout:
    """Read out a gain that is expected within ``margin`` of 0, with its 90 % interval; see :func:`not_worse`.

    Returns:
        Met if the whole interval lies inside the margin, not met if it lies outside on one side, otherwise open.

    Examples:
        >>> equivalent("concat minus none", [0.1, 0.12, 0.11], margin=0.02).met
        False
    """
    interval = equivalence_interval(gains, ALPHA)
    met = None
    if interval.low is not None and interval.high is not None:
        beyond = interval.low >= margin or interval.high <= -margin
        met = True if inside(interval, margin) else False if beyond else None
    expected = f"within {margin} of 0 (90 % interval)"
    return Readout(name, expected, interval.estimate, interval.low, interval.high, met, decides)

"""Several declared contrasts in one study: each is judged more strictly, so that the study keeps its error rate."""

from collections.abc import Sequence
from dataclasses import dataclass

from segmentation import SkipSegError


@dataclass(frozen=True)
class Judged:
    """How Holm's procedure judges one contrast of a family.

    Attributes:
        p_value: Adjusted p-value; at most alpha exactly if the contrast is rejected.
        level: Level at which the p-value itself was judged: alpha over the number of contrasts not yet rejected.
    """

    p_value: float
    level: float


def holm(p_values: Sequence[float], alpha: float = 0.05) -> list[Judged]:
    """Judge a family of contrasts so that one false rejection or more has probability at most ``alpha``.

    The smallest of m p-values is judged at ``alpha / m``, the next at ``alpha / (m - 1)``, and so on up to the
    first that fails; all after it fail too (Holm 1979). No assumption on how the tests depend on each other.

    Args:
        p_values: One p-value a contrast, each in [0, 1]; 1 for a contrast without data.
        alpha: Error rate of the family, in (0, 1).

    Returns:
        The judgement of each contrast, in the order given.

    Raises:
        SkipSegError: If a p-value or ``alpha`` lies outside its range.

    Examples:
        >>> [round(judged.p_value, 3) for judged in holm([0.01, 0.04, 0.03])]
        [0.03, 0.06, 0.06]
        >>> [round(judged.level, 4) for judged in holm([0.01, 0.04, 0.03])]
        [0.0167, 0.025, 0.025]
    """
    if not all(0 <= p <= 1 for p in p_values) or not 0 < alpha < 1:
        raise SkipSegError(f"p-values must lie in [0, 1] and alpha in (0, 1), got {list(p_values)} and {alpha}")
    judged: dict[int, Judged] = {}
    adjusted, level, going_on = 0.0, alpha, True
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        left = len(p_values) - rank
        adjusted = max(adjusted, min(1.0, left * p_values[index]))
        level = alpha / left if going_on else level
        going_on = going_on and p_values[index] <= level
        judged[index] = Judged(adjusted, level)
    return [judged[index] for index in range(len(p_values))]

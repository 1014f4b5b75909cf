"""The sign-flip test: could the differences between two conditions be luck?

If two conditions are equally good, the difference of each patient could as well have had the other sign. The
p-value is the share of all sign patterns whose mean is at least as far from 0 as the observed one.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from segmentation.statistics.bootstrap import check_values

MOST_FOR_EXACT = 16
"""Up to this number of patients all sign patterns are counted (65 536 of them); beyond it they are drawn."""

DRAWS = 19_999
DRAWS_AT_ONCE = 1 << 22
"""Signs drawn in one go, so that memory does not grow with the number of patients."""

ROUNDING = 1e-12
"""Relative slack within which two means are the same: sums in another order differ in the last digit."""


def sign_flip_p(differences: Sequence[float], seed: int = 0) -> float:
    """Test whether differences are centred on 0, two-sided.

    Args:
        differences: One paired difference a patient.
        seed: Seed of the drawn sign patterns, which are used beyond 16 patients.

    Returns:
        The p-value in (0, 1]. Exact up to 16 patients; else ``(b + 1) / (m + 1)`` for the b of m drawn patterns
        that are as extreme, which is never 0 (Phipson and Smyth 2010).

    Raises:
        SkipSegError: If there are no differences or one is not finite.

    Examples:
        Five patients who all gain cannot reach 0.05; six can:

        >>> sign_flip_p([0.1, 0.2, 0.1, 0.3, 0.2])
        0.0625
        >>> sign_flip_p([0.1, 0.2, 0.1, 0.3, 0.2, 0.1])
        0.03125
    """
    data = check_values(differences)
    least = abs(data.sum()) - ROUNDING * np.abs(data).sum()
    if len(data) <= MOST_FOR_EXACT:
        patterns = np.arange(2 ** len(data))[:, np.newaxis] >> np.arange(len(data)) & 1
        return _extreme(patterns, data, least) / len(patterns)
    rng = np.random.default_rng(seed)
    rows = max(1, DRAWS_AT_ONCE // len(data))
    sizes = [min(rows, DRAWS - start) for start in range(0, DRAWS, rows)]
    extreme = sum(_extreme(rng.integers(0, 2, (size, len(data)), np.int8), data, least) for size in sizes)
    return (extreme + 1) / (DRAWS + 1)


def wilcoxon_p(differences: Sequence[float]) -> float:
    """Check by ranks: Wilcoxon's signed-rank test, two-sided, zeros counted by Pratt's rule.

    It asks whether the differences are symmetric about 0, not whether their mean is 0, and one huge difference
    weighs no more than its rank. Where it disagrees with :func:`sign_flip_p`, few patients make the mean.

    Args:
        differences: One paired difference a patient.

    Returns:
        The p-value; exact for up to 50 patients without ties, 1 if all differences are 0.

    Raises:
        SkipSegError: If there are no differences or one is not finite.

    Examples:
        >>> wilcoxon_p([0.1, 0.2, 0.15, 0.3, 0.25, 0.05])
        0.03125
    """
    data = check_values(differences)
    data = np.round(data / max(np.abs(data).max(), 1e-300), 12)  # equal differences stay ties after subtraction
    found: Any = stats.wilcoxon(data, zero_method="pratt") if data.any() else None
    return 1.0 if found is None else float(found.pvalue)


def smallest_p(n: int) -> float:
    """Smallest p-value that n patients can give: two of ``2**n`` sign patterns, if all differences agree.

    Examples:
        >>> [smallest_p(n) for n in (1, 3, 5, 6)]
        [1.0, 0.25, 0.0625, 0.03125]
    """
    return 2.0 / 2**n if n <= MOST_FOR_EXACT else 1 / (DRAWS + 1)


def fewest_patients(alpha: float) -> int:
    """Fewest patients of whom the exact test can give a p-value of at most ``alpha``, in (0, 1).

    Examples:
        >>> fewest_patients(0.05)
        6
    """
    return math.ceil(1 - math.log2(alpha))


def _extreme(patterns: NDArray[np.integer], data: NDArray[np.float64], least: float) -> int:
    """Count the 0/1 sign patterns, shape ``(m, n)``, under which the differences, shape ``(n,)``, sum to ``least``."""
    return int(np.count_nonzero(np.abs((2.0 * patterns - 1.0) @ data) >= least))

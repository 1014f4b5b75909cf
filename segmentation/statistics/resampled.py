"""Folds as replicates: the t test of cross-validation, corrected for training sets that overlap."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from segmentation import SkipSegError
from segmentation.statistics.bootstrap import check_values


@dataclass(frozen=True)
class CorrectedT:
    """A mean difference over folds.

    Attributes:
        mean: Mean of the folds' differences.
        low, high: Its confidence interval.
        p_value: Two-sided.
        folds: Number of folds.
    """

    mean: float
    low: float
    high: float
    p_value: float
    folds: int


def corrected_resampled_t(differences: Sequence[float], test_share: float, confidence: float = 0.95) -> CorrectedT:
    """Test a mean difference over the folds of a cross-validation (Nadeau and Bengio 2003).

    The variance of the mean of J folds is ``(1 / J + test_share) s**2`` rather than ``s**2 / J``, for the folds
    share their training sets. It asks for the difference on new training sets too, which a test over patients
    does not: where two methods are equally good only on average over training sets, the sign-flip test over 30
    patients of a 5-fold cross-validation finds a difference in 10 % of studies at 0.05, this one in 2 %. It pays
    with power: five folds leave four degrees of freedom.

    Args:
        differences: Mean difference of each fold, averaged over seeds.
        test_share: Size of a test set over that of a training set: ``1 / (K - 1)`` for K folds.
        confidence: Of the interval, in (0, 1).

    Returns:
        Mean difference over folds with interval and p-value.

    Raises:
        SkipSegError: If there are fewer than two folds or an argument lies outside its range.

    Examples:
        >>> found = corrected_resampled_t([0.02, 0.03, 0.01, 0.04, 0.02], test_share=0.25)
        >>> round(found.mean, 3), round(found.p_value, 3)
        (0.024, 0.035)
    """
    data = check_values(differences)
    if len(data) < 2 or not test_share > 0 or not 0 < confidence < 1:
        raise SkipSegError(
            f"need two folds or more, a positive test_share and a confidence in (0, 1), got {len(data)} folds, "
            f"test_share {test_share} and confidence {confidence}"
        )
    mean, freedom = float(data.mean()), len(data) - 1
    error = float(data.std(ddof=1) * np.sqrt(1 / len(data) + test_share))
    half = error * float(stats.t.isf((1 - confidence) / 2, freedom))
    certain = 1.0 if mean == 0 else 0.0  # folds that all agree
    p_value = 2 * float(stats.t.sf(abs(mean) / error, freedom)) if error > 0 else certain
    return CorrectedT(mean, mean - half, mean + half, p_value, len(data))

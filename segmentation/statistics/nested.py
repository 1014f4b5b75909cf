"""A mean over patients who share trainings in groups: each seed ran one fold, so a fold's patients share its luck.

Nothing is common to two groups, so the groups are the independent values: what a fold, a seed and their one training
add lies in the scatter of the groups and need not be told apart. The variance of the mean is that of a sample of
clusters (Cochran 1977, chapter 9), and Student's t has as many degrees of freedom as there are effective groups less
one; for equal groups this is the t interval over their means. In 20 000 simulated studies of 20 normal patients in 5
equal groups it covers 95 % whether the luck of a training scatters not at all or more than the patients, where an
interval over patients covers 93, 83 and 71 % at a luck of 0.3, 0.7 and 1.4 of their standard deviation. Groups of 8,
5, 4, 2 and 1 patients give 95 to 97 %, for unequal groups count as fewer.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components


@dataclass(frozen=True)
class GroupError:
    """Error of a mean whose values come in groups.

    Attributes:
        variance: Of the mean.
        groups: Effective number of groups: their number if all have the same size, else less.
        count: Number of groups.
    """

    variance: float
    groups: float
    count: int

    @property
    def freedom(self) -> float:
        """Degrees of freedom of Student's t."""
        return self.groups - 1


def groups_of(table: NDArray[np.float64]) -> NDArray[np.int64] | None:
    """Group of each patient, where the patients fall into groups that have no seed in common.

    Args:
        table: One value for each patient and seed, shape ``(n, S)``; nan where one is missing.

    Returns:
        A number for each patient, shape ``(n,)``; None if all patients hang together by common seeds.

    Examples:
        >>> groups_of(np.array([[0.5, np.nan], [0.6, np.nan], [np.nan, 0.7]])).tolist()
        [0, 0, 1]
        >>> groups_of(np.array([[0.5, np.nan], [0.6, 0.7]])) is None
        True
    """
    known = (~np.isnan(table)).astype(np.int64)
    found: Any = connected_components(known @ known.T, directed=False)
    return found[1].astype(np.int64) if found[0] > 1 else None


def group_error(values: NDArray[np.float64], groups: NDArray[np.int64]) -> GroupError:
    """Estimate the error of the mean of grouped values.

    Args:
        values: One value a patient, shape ``(n,)``.
        groups: Group of each, shape ``(n,)``; at least two groups.

    Examples:
        Two groups that agree within and differ between:

        >>> error = group_error(np.array([0.5, 0.5, 0.7, 0.7]), np.array([0, 0, 1, 1]))
        >>> round(error.variance, 4), error.groups
        (0.01, 2.0)
    """
    n, sizes = len(values), np.bincount(groups)
    effective = n**2 / int(sizes @ sizes)
    off = np.bincount(groups, weights=values - values.mean()) / n
    rounding = (1e-12 * float(np.abs(values).mean())) ** 2  # sums of equal groups differ in the last digit
    scatter = float(off @ off)
    return GroupError(scatter * effective / (effective - 1) if scatter > rounding else 0.0, effective, len(sizes))

"""What probabilities say, voxel by voxel: the most probable class, the entropy, and the variance between networks.

All read arrays of any extent, so that a large scan can be walked plane by plane, and need two maps beside them.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr

from segmentation import SkipSegError


def entropy(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Predictive entropy of class probabilities, as a share of the largest there can be.

    ``H = -sum_k p_k log p_k / log K`` with ``0 log 0 = 0``: Shannon's entropy, of the mean over the networks where
    there are several, as in Nair et al. (arXiv:1808.01200) and Camarasa et al. (arXiv:2109.10702). It is large where
    the networks agree that a voxel is ambiguous and where they disagree.

    Args:
        probabilities: Of K classes, shape ``(K, *S)``, summing to 1 over K.

    Returns:
        Shape ``(*S)``, float32, in [0, 1]: 0 where one class has all the probability, 1 where all have the same.

    Raises:
        SkipSegError: If there are fewer than two classes.

    Examples:
        >>> entropy(np.array([[1.0, 0.5, 0.9], [0.0, 0.5, 0.1]], np.float32)).round(3)
        array([0.   , 1.   , 0.469], dtype=float32)
    """
    classes = len(probabilities)
    if classes < 2:
        raise SkipSegError(f"entropy needs probabilities of at least 2 classes, got shape {probabilities.shape}")
    total = np.zeros(probabilities.shape[1:], np.float32)
    term = np.empty_like(total)
    for of_class in probabilities:
        total += entr(np.maximum(of_class, 0, out=term), out=term)  # rounding may leave a share just below 0
    total /= np.float32(math.log(classes))
    return np.clip(total, 0, 1, out=total)


def variance(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Variance between the networks of an ensemble, averaged over the classes.

    ``V = 1/K sum_k 1/M sum_m (p_mk - mean_m p_mk)^2``: the "averaged variance" of Camarasa et al. (arXiv:2109.10702);
    for two classes it is the variance of the foreground's probability. It is large where networks disagree only.
    Computed as ``1/(K M^2) sum_k sum_{m<n} (p_mk - p_nk)^2``, which is the same and exactly 0 where all agree.

    Args:
        probabilities: Of K classes by M networks, shape ``(M, K, *S)``.

    Returns:
        Shape ``(*S)``, float32, in [0, 1/4]; 0 for a single network.

    Raises:
        SkipSegError: If there is no network or no class.

    Examples:
        >>> sure, unsure = [[1.0], [0.0]], [[0.5], [0.5]]
        >>> variance(np.array([sure, unsure], np.float32))
        array([0.0625], dtype=float32)
    """
    if probabilities.ndim < 2 or 0 in probabilities.shape[:2]:
        raise SkipSegError(f"variance needs probabilities of shape (M, K, *S), got shape {probabilities.shape}")
    members, classes = probabilities.shape[:2]
    total = np.zeros(probabilities.shape[2:], np.float32)
    difference = np.empty_like(total)
    for first in range(members):
        for second in range(first):
            for one, other in zip(probabilities[first], probabilities[second], strict=True):
                np.subtract(one, other, out=difference)
                total += np.square(difference, out=difference)
    total /= np.float32(classes * members**2)
    return total


def most_probable(probabilities: NDArray[np.float32], out: NDArray[np.unsignedinteger[Any]]) -> None:
    """Write the most probable class; ties go to the lower one.

    Args:
        probabilities: Shape ``(K, *S)``.
        out: Zeros of shape ``(*S)`` to write into.

    Raises:
        SkipSegError: If a probability is NaN, which would pass for background.

    Examples:
        >>> classes = np.zeros(2, np.uint8)
        >>> most_probable(np.array([[0.3, 0.5], [0.7, 0.5]], np.float32), classes)
        >>> classes
        array([1, 0], dtype=uint8)
    """
    best = probabilities[0].copy()
    for index, values in enumerate(probabilities[1:], start=1):
        out[values > best] = index
        np.maximum(best, values, out=best)  # keeps NaN
    if np.isnan(best).any():
        raise SkipSegError("the network gives NaN: its weights are damaged, or its training diverged; train anew")

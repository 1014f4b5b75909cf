"""Lesions as things: how many were found, and how many of the found are real."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from segmentation.metrics.masks import check_masks, common_box
from segmentation.metrics.nearest import flat_steps

RULE = (
    "Lesions are connected components; voxels that touch at a face, an edge or a corner belong together (26 "
    "neighbours in 3-D, 8 in 2-D). A reference lesion is detected when the prediction covers at least one of its "
    "voxels; a predicted lesion is false when it covers no reference voxel."
)
"""The rule of counting in words, for tables and reports."""


@dataclass(frozen=True)
class Lesions:
    """Numbers of connected components in a pair of masks, by :data:`RULE`.

    Attributes:
        reference: Lesions in the reference.
        detected: Lesions of the reference that the prediction touches.
        prediction: Lesions in the prediction.
        false: Lesions of the prediction that touch no reference voxel.
    """

    reference: int
    detected: int
    prediction: int
    false: int

    @property
    def f1(self) -> float:
        """Lesion F1, ``2 detected / (2 detected + missed + false)``; nan without any lesion.

        Examples:
            >>> Lesions(reference=4, detected=3, prediction=5, false=1).f1
            0.75
        """
        counted = self.detected + self.reference + self.false
        return 2 * self.detected / counted if counted else float("nan")


def count_lesions(prediction: NDArray[np.bool_], reference: NDArray[np.bool_]) -> Lesions:
    """Count lesions, and which of them both masks share.

    One predicted blob over two reference lesions detects both; many blobs over one lesion detect one.

    Args:
        prediction: Predicted mask, shape ``(*S)``, boolean.
        reference: Annotated mask, same shape.

    Returns:
        The four counts.

    Raises:
        SkipSegError: If the masks are not boolean or differ in shape.

    Examples:
        >>> count_lesions(np.array([[1, 1, 0, 0, 1]], bool), np.array([[0, 1, 0, 0, 0]], bool))
        Lesions(reference=1, detected=1, prediction=2, false=1)
    """
    check_masks(prediction, reference)
    box = common_box(prediction, reference)
    masks = np.pad(prediction[box], 1), np.pad(reference[box], 1)
    predicted, touched = _components(*masks)
    annotated, detected = _components(*masks[::-1])
    return Lesions(reference=annotated, detected=detected, prediction=predicted, false=predicted - touched)


def _components(mask: NDArray[np.bool_], other: NDArray[np.bool_]) -> tuple[int, int]:
    """Number of components of a padded mask, shape ``(*S)``, and how many touch the other mask, same shape."""
    starts, ends = _runs(mask)
    if not len(starts):
        return 0, 0
    number, component = connected_components(_touching(starts, ends, mask.shape), directed=False)
    shared, _ = _runs(mask & other)
    return number, len(np.unique(component[starts.searchsorted(shared, side="right") - 1]))


def _runs(mask: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """First place of each run of a padded mask, shape ``(*S)``, in the flat array, and the first place after it."""
    flat = mask.ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    return changes[::2], changes[1::2]


def _touching(starts: NDArray[np.intp], ends: NDArray[np.intp], shape: Sequence[int]) -> csr_array:
    """Graph of the runs that touch at a face, an edge or a corner, each pair once."""
    steps = flat_steps(shape)[:-1]
    jumps = [jump for way in product((-1, 0, 1), repeat=len(steps)) if (jump := int(np.dot(way, steps))) > 0]
    # Runs are in order: those of a neighbouring line that touch one run follow each other.
    first = ends.searchsorted(np.add.outer(starts, jumps))
    count = starts.searchsorted(np.add.outer(ends, jumps), side="right") - first
    before = count.cumsum() - count.ravel()
    touched = np.arange(count.sum()) + np.repeat(first.ravel() - before, count.ravel())
    bounds = np.append(0, count.sum(axis=1).cumsum())
    return csr_array((np.ones(len(touched)), touched, bounds), shape=(len(starts), len(starts)))

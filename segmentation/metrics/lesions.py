"""Lesions as things: how many were found, and how many of the found are real."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from segmentation.metrics.masks import check_masks, common_box

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
    predicted, touched = _components(prediction[box], reference[box])
    annotated, detected = _components(reference[box], prediction[box])
    return Lesions(reference=annotated, detected=detected, prediction=predicted, false=predicted - touched)


def _components(mask: NDArray[np.bool_], other: NDArray[np.bool_]) -> tuple[int, int]:
    """Number of components of a mask, shape ``(*S)``, and how many of them touch the other, same shape."""
    if not mask.any():
        return 0, 0
    components: NDArray[np.int32] = np.empty(mask.shape, np.int32)
    ndimage.label(mask, structure=np.ones((3,) * mask.ndim), output=components)
    number = int(components.max())
    touched = np.zeros(number + 1, bool)
    touched[components[mask & other]] = True
    return number, int(touched.sum())

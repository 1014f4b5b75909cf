"""What a score means when a mask is empty: the one rule, stated once and printed with every table.

Libraries disagree here, and the disagreement decides results: a dropped missed lesion flatters a model.
Every score of this project follows :data:`POLICY`; :func:`case_state` names the four situations.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

POLICY = (
    "Empty masks: a class that is absent from both prediction and reference has no score (nan) and is left out of "
    "means. If exactly one of the two is empty, Dice, IoU and surface Dice are 0 and the distances HD95 and ASSD are "
    "the diagonal of the image, so that a missed structure or a false alarm is never dropped. Sensitivity has no "
    "value without a reference, precision none without a prediction."
)
"""The rule in words, for tables and reports."""

State = Literal["both", "missed", "false_alarm", "both_empty"]
"""Whether a class occurs in both masks, in the reference only, in the prediction only, or in neither."""


def case_state(prediction_voxels: int, reference_voxels: int) -> State:
    """Name the situation of one class in one case, from its number of voxels in each mask.

    Examples:
        >>> case_state(prediction_voxels=0, reference_voxels=12)
        'missed'
    """
    if prediction_voxels:
        return "both" if reference_voxels else "false_alarm"
    return "missed" if reference_voxels else "both_empty"


def worst_distance_mm(shape: Sequence[int], spacing_mm: Sequence[float]) -> float:
    """Diagonal of an image from outer corner to outer corner: no surface distance in it is larger.

    Args:
        shape: Size of each spatial axis in voxels.
        spacing_mm: Distance between voxel centres along each axis, in mm (1 for a picture, in pixels).

    Returns:
        The length of the diagonal in mm.

    Examples:
        >>> worst_distance_mm((30, 40), (1.0, 1.0))
        50.0
    """
    return float(np.linalg.norm(np.multiply(shape, spacing_mm)))

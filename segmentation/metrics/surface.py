"""Distances between the surfaces of two masks, in mm: HD95, ASSD and the surface Dice (NSD).

"HD95" names different numbers in different tools. Here HD95 and ASSD follow Metrics Reloaded (Maier-Hein et al.
2024, https://doi.org/10.1038/s41592-023-02151-z), which is MONAI's form too: boundary voxels are those with a face
neighbour outside the mask (beyond the image border is outside), and every one counts alike. The surface Dice
weighs surface elements by their area, after Nikolov et al. (2021). What empty masks score is stated in
:mod:`segmentation.metrics.policy`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from segmentation import SkipSegError
from segmentation.metrics.masks import check_masks, check_spacing, common_box
from segmentation.metrics.policy import case_state, worst_distance_mm
from segmentation.metrics.surface_elements import surface_elements

Points = NDArray[np.float64]
"""Places in mm, shape ``(N, D)``."""

ROUNDING = 1e-9
"""Relative slack of the tolerance: three steps of 0.1 mm lie within 0.3 mm although 3 * 0.1 > 0.3 in binary."""


@dataclass(frozen=True)
class SurfaceScores:
    """How far the surfaces of two masks lie apart.

    Attributes:
        hd95_mm: 95 % Hausdorff distance in mm.
        assd_mm: Average symmetric surface distance in mm.
        nsd: Surface Dice (normalised surface distance) at the tolerance, in [0, 1].
    """

    hd95_mm: float
    assd_mm: float
    nsd: float


def surface_scores(
    prediction: NDArray[np.bool_],
    reference: NDArray[np.bool_],
    spacing_mm: Sequence[float],
    tolerance_mm: float,
) -> SurfaceScores:
    """Compute the three surface scores of two masks.

    The cost grows with the surface, not with the image: only the box around both masks is looked at, and
    distances are taken from points to points.

    Args:
        prediction: Predicted mask, shape ``(*S)``, 2-D or 3-D, boolean.
        reference: Annotated mask, same shape.
        spacing_mm: Distance between voxel centres along each axis, in mm; ones for a picture, whose unit is pixels.
        tolerance_mm: Distance up to which a surface element counts as correct, in mm, at least 0.

    Returns:
        The scores. All nan when both masks are empty; the diagonal of the image and a surface Dice of 0 when
        one is.

    Raises:
        SkipSegError: If the masks are not boolean or differ in shape, or spacing or tolerance are not sensible.

    Examples:
        Two single voxels, three steps apart along an axis of 2 mm:

        >>> prediction, reference = np.zeros((5, 5, 5), bool), np.zeros((5, 5, 5), bool)
        >>> prediction[0, 2, 2] = reference[3, 2, 2] = True
        >>> surface_scores(prediction, reference, spacing_mm=(2.0, 1.0, 1.0), tolerance_mm=1.0)
        SurfaceScores(hd95_mm=6.0, assd_mm=6.0, nsd=0.0)
    """
    check_tolerance(tolerance_mm)
    return SurfaceScores(
        *voxel_distances_mm(prediction, reference, spacing_mm),
        surface_dice(prediction, reference, spacing_mm, tolerance_mm),
    )


def voxel_distances_mm(
    prediction: NDArray[np.bool_], reference: NDArray[np.bool_], spacing_mm: Sequence[float]
) -> tuple[float, float]:
    """Compute HD95 and ASSD from the distances between boundary voxels.

    With ``d(P, R)`` the distances from each boundary voxel of P to the nearest of R, HD95 is the larger of the
    95th percentiles of ``d(P, R)`` and of ``d(R, P)`` (linear interpolation), and ASSD is the mean over both
    lists taken together.

    Args:
        prediction: Predicted mask, shape ``(*S)``, 2-D or 3-D, boolean.
        reference: Annotated mask, same shape.
        spacing_mm: Distance between voxel centres along each axis, in mm.

    Returns:
        HD95 and ASSD in mm: nan when both masks are empty, the diagonal of the image when one is.

    Raises:
        SkipSegError: If the masks are not boolean or differ in shape, or the spacing does not fit.

    Examples:
        >>> mask = np.ones((4, 4), bool)
        >>> voxel_distances_mm(mask, mask, spacing_mm=(1.0, 1.0))
        (0.0, 0.0)
    """
    crops = _crop(prediction, reference, spacing_mm)
    if crops is None:
        distance = float("nan") if not (prediction.any() or reference.any()) else _diagonal(prediction, spacing_mm)
        return distance, distance
    there, back = _distances_both_ways(*(_boundary(mask, spacing_mm) for mask in crops))
    hd95 = max(np.percentile(there, 95), np.percentile(back, 95))
    return float(hd95), float(np.concatenate((there, back)).mean())


def surface_dice(
    prediction: NDArray[np.bool_],
    reference: NDArray[np.bool_],
    spacing_mm: Sequence[float],
    tolerance_mm: float,
) -> float:
    """Compute the part of both surfaces, by area, that lies within a tolerance of the other surface.

    Args:
        prediction: Predicted mask, shape ``(*S)``, 2-D or 3-D, boolean.
        reference: Annotated mask, same shape.
        spacing_mm: Distance between voxel centres along each axis, in mm.
        tolerance_mm: Largest distance that counts as agreement, in mm, at least 0; choose it from the
            disagreement between annotators.

    Returns:
        Surface Dice in [0, 1]: nan when both masks are empty, 0 when one is.

    Raises:
        SkipSegError: If the masks are not boolean or differ in shape, or spacing or tolerance are not sensible.

    Examples:
        >>> mask = np.ones((4, 4), bool)
        >>> surface_dice(mask, mask, spacing_mm=(1.0, 1.0), tolerance_mm=0.0)
        1.0
    """
    check_tolerance(tolerance_mm)
    crops = _crop(prediction, reference, spacing_mm)
    if crops is None:
        return 0.0 if prediction.any() or reference.any() else float("nan")
    (prediction_points, prediction_areas), (reference_points, reference_areas) = (
        surface_elements(mask, spacing_mm) for mask in crops
    )
    there, back = _distances_both_ways(prediction_points, reference_points)
    within = tolerance_mm * (1 + ROUNDING)
    correct = prediction_areas[there <= within].sum() + reference_areas[back <= within].sum()
    return float(correct / (prediction_areas.sum() + reference_areas.sum()))


def check_tolerance(tolerance_mm: float) -> None:
    """Refuse a tolerance that is negative or not finite.

    Raises:
        SkipSegError: If ``tolerance_mm`` is not a number of mm from 0 up.
    """
    if not (np.isfinite(tolerance_mm) and tolerance_mm >= 0):
        raise SkipSegError(f"tolerance_mm must be 0 or more and finite, got {tolerance_mm}; 1 to 2 mm are usual")


def _crop(
    prediction: NDArray[np.bool_], reference: NDArray[np.bool_], spacing_mm: Sequence[float]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]] | None:
    """Crop two masks, shape ``(*S)``, to their common box; None if one of them is empty."""
    check_masks(prediction, reference)
    check_spacing(prediction.shape, spacing_mm)
    box = common_box(prediction, reference)
    crops = prediction[box], reference[box]
    return crops if case_state(*(int(np.count_nonzero(mask)) for mask in crops)) == "both" else None


def _diagonal(mask: NDArray[np.bool_], spacing_mm: Sequence[float]) -> float:
    """Diagonal in mm of an image of shape ``(*S)``."""
    return worst_distance_mm(mask.shape, spacing_mm)


def _boundary(mask: NDArray[np.bool_], spacing_mm: Sequence[float]) -> Points:
    """Centres of the voxels of a mask, shape ``(*S)``, that have a face neighbour outside it."""
    padded = np.pad(mask, 1)
    core = tuple(slice(1, -1) for _ in mask.shape)
    inner = mask.copy()
    for axis in range(mask.ndim):
        for neighbour in (slice(0, -2), slice(2, None)):
            inner &= padded[(*core[:axis], neighbour, *core[axis + 1 :])]
    return np.argwhere(mask & ~inner) * np.asarray(spacing_mm, np.float64)


def _distances_both_ways(first: Points, second: Points) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distance from each point to the nearest of the other set, shapes ``(N,)`` and ``(M,)``."""
    return _nearest(first, second), _nearest(second, first)


def _nearest(points: Points, targets: Points) -> NDArray[np.float64]:
    """Distance from each of N points to the nearest target, shape ``(N,)``."""
    # Points of a grid share coordinates, for which scipy advises against balancing by medians.
    return KDTree(targets, leafsize=32, balanced_tree=False, compact_nodes=False).query(points)[0]

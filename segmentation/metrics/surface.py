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

from segmentation import SkipSegError
from segmentation.metrics.masks import check_masks, check_spacing, common_box
from segmentation.metrics.nearest import beyond, flat_steps, nearest_mm, padded
from segmentation.metrics.policy import worst_distance_mm
from segmentation.metrics.surface_elements import element_patterns, element_sizes


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

    Only the box around both masks is looked at, and distances are taken from surface to surface.

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
    pair = _padded_crops(prediction, reference, spacing_mm)
    return SurfaceScores(
        *_hd95_and_assd(*pair, prediction.shape, spacing_mm), _surface_dice(*pair, spacing_mm, tolerance_mm)
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
    pair = _padded_crops(prediction, reference, spacing_mm)
    return _hd95_and_assd(*pair, prediction.shape, spacing_mm)


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
    return _surface_dice(*_padded_crops(prediction, reference, spacing_mm), spacing_mm, tolerance_mm)


def check_tolerance(tolerance_mm: float) -> None:
    """Refuse a tolerance that is negative or not finite.

    Raises:
        SkipSegError: If ``tolerance_mm`` is not a number of mm from 0 up.
    """
    if not (np.isfinite(tolerance_mm) and tolerance_mm >= 0):
        raise SkipSegError(f"tolerance_mm must be 0 or more and finite, got {tolerance_mm}; 1 to 2 mm are usual")


def _padded_crops(
    prediction: NDArray[np.bool_], reference: NDArray[np.bool_], spacing_mm: Sequence[float]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Crop two masks, shape ``(*S)``, to their common box, and pad them for the search of distances."""
    check_masks(prediction, reference)
    check_spacing(prediction.shape, spacing_mm)
    box = common_box(prediction, reference)
    return padded(prediction[box], spacing_mm), padded(reference[box], spacing_mm)


def _hd95_and_assd(
    prediction: NDArray[np.bool_], reference: NDArray[np.bool_], shape: Sequence[int], spacing_mm: Sequence[float]
) -> tuple[float, float]:
    """HD95 and ASSD of two padded masks, shape ``(*S)``, of an image of the given shape."""
    first, second = _boundary(prediction), _boundary(reference)
    if not (first.any() and second.any()):
        worst = worst_distance_mm(shape, spacing_mm) if first.any() or second.any() else float("nan")
        return worst, worst
    there, back = (
        nearest_mm(np.flatnonzero(points), targets, spacing_mm)
        for points, targets in ((first, second), (second, first))
    )
    hd95 = max(np.percentile(there, 95), np.percentile(back, 95))
    return float(hd95), float(np.concatenate((there, back)).mean())


def _surface_dice(
    prediction: NDArray[np.bool_], reference: NDArray[np.bool_], spacing_mm: Sequence[float], tolerance_mm: float
) -> float:
    """Surface Dice of two padded masks, shape ``(*S)``."""
    sizes = element_sizes(tuple(map(float, spacing_mm)))
    patterns = [element_patterns(mask) for mask in (prediction, reference)]
    surfaces = [(pattern != 0) & (pattern != len(sizes) - 1) for pattern in patterns]
    places = [np.flatnonzero(surface) for surface in surfaces]
    if not all(map(len, places)):
        return 0.0 if any(map(len, places)) else float("nan")
    wrong = [beyond(*pair, spacing_mm, tolerance_mm) for pair in zip(places, surfaces[::-1], strict=True)]

    def area(elements: Sequence[NDArray[np.intp]]) -> float:
        found = np.concatenate([pattern.take(each) for pattern, each in zip(patterns, elements, strict=True)])
        return float(np.bincount(found, minlength=len(sizes)) @ sizes)

    return 1 - area(wrong) / area(places)


def _boundary(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The voxels of a padded mask, shape ``(*S)``, that have a face neighbour outside it."""
    flat = mask.ravel()
    inner = flat.copy()
    for jump in flat_steps(mask.shape):  # beyond the end of a line lies the margin of the next: both are empty
        inner[jump:] &= flat[:-jump]
        inner[:-jump] &= flat[jump:]
    return (flat & ~inner).reshape(mask.shape)

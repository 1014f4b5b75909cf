"""All scores of one case, one row a class: what ``cases.csv`` holds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from segmentation import SkipSegError
from segmentation.metrics.lesions import count_lesions
from segmentation.metrics.masks import check_label_maps, check_spacing, common_box
from segmentation.metrics.overlap import Counts
from segmentation.metrics.policy import case_state, worst_distance_mm
from segmentation.metrics.surface import check_tolerance, surface_scores

COLUMNS = (
    "class",
    "dice",
    "iou",
    "sensitivity",
    "precision",
    "hd95_mm",
    "assd_mm",
    "nsd",
    "tolerance_mm",
    "volume_prediction_ml",
    "volume_reference_ml",
    "volume_error_ml",
    "lesions_reference",
    "lesions_detected",
    "lesions_prediction",
    "lesions_false",
    "state",
)
"""Keys of a row, in the order of the table."""

MM3_PER_ML = 1000.0


def score_case(
    prediction: NDArray[np.integer],
    reference: NDArray[np.integer],
    spacing_mm: Sequence[float],
    labels: Mapping[str, int],
    ignore_label: int | None,
    tolerance_mm: float,
) -> list[dict[str, Any]]:
    """Score a predicted label map against the reference, class by class.

    A volume of a single slice has no surface towards its neighbours: its surfaces and lesions are those of the
    2-D slice, in mm.

    Args:
        prediction: Predicted label of every voxel, shape ``(*S)``, 2-D or 3-D, any integer dtype.
        reference: Annotated label of every voxel, same shape.
        spacing_mm: Distance between voxel centres along each axis, in mm. For a picture: ones, and every
            "mm" below reads "pixels".
        labels: Name and value of every foreground class; 0 is the background.
        ignore_label: Voxels with this value in the reference are background in both maps, whatever was
            predicted there; None for none.
        tolerance_mm: Tolerance of the surface Dice in mm.

    Returns:
        One row a class, in the order of ``labels``, with the keys :data:`COLUMNS`. Scores that are not defined
        are nan (see :data:`segmentation.metrics.policy.POLICY`). Volumes are in millilitres, their error
        prediction minus reference; for a picture they are None. ``state`` is ``"both"``, ``"missed"``,
        ``"false_alarm"`` or ``"both_empty"``.

    Raises:
        SkipSegError: If the maps differ in shape or are not integer, hold a value that is neither 0 nor in
            ``labels``, if a class has the value 0 or that of ``ignore_label``, or if spacing or tolerance are
            not sensible.

    Examples:
        >>> reference = np.zeros((10, 10, 10), np.uint8)
        >>> reference[2:6, 2:6, 2:6] = 1
        >>> (row,) = score_case(np.roll(reference, 1, axis=0), reference, (2.0, 1.0, 1.0), {"tumour": 1}, None, 1.0)
        >>> row["dice"], row["hd95_mm"], row["volume_reference_ml"], row["state"]
        (0.75, 2.0, 0.128, 'both')
    """
    check_label_maps(prediction, reference)
    check_spacing(reference.shape, spacing_mm)
    check_tolerance(tolerance_mm)
    if {0, ignore_label} & set(labels.values()):
        raise SkipSegError(
            f"labels must name foreground values only, got {dict(labels)} with ignore label {ignore_label}; "
            "leave out background (0) and ignore"
        )
    voxel_ml = math.prod(spacing_mm) / MM3_PER_ML if reference.ndim == 3 else None
    if (axis := _single_slice(reference.shape)) is not None:
        prediction, reference = prediction.squeeze(axis), reference.squeeze(axis)
        spacing_mm = [*spacing_mm[:axis], *spacing_mm[axis + 1 :]]
    if reference.flags.f_contiguous:  # as NIfTI files are read: no score depends on the order of axes, but speed does
        prediction, reference, spacing_mm = prediction.T, reference.T, spacing_mm[::-1]
    if ignore_label is not None:
        annotated = reference != ignore_label
        prediction, reference = prediction * annotated, reference * annotated
    shape, box = reference.shape, common_box(prediction != 0, reference != 0)
    prediction, reference = prediction[box], reference[box]
    _check_values("prediction", prediction, labels)
    _check_values("reference", reference, labels)
    boxes = [_boxes(label_map) for label_map in (prediction, reference)]
    rows = []
    for name, value in labels.items():
        box = _hull([found[value] for found in boxes if value in found], reference.ndim)
        masks = prediction[box] == value, reference[box] == value
        rows.append({"class": name, **_score_class(*masks, shape, spacing_mm, voxel_ml, tolerance_mm)})
    return rows


def _single_slice(shape: Sequence[int]) -> int | None:
    """The axis of size 1 of a volume that is one slice, if it is."""
    return shape.index(1) if len(shape) == 3 and shape.count(1) == 1 else None


def _score_class(
    prediction: NDArray[np.bool_],
    reference: NDArray[np.bool_],
    shape: Sequence[int],
    spacing_mm: Sequence[float],
    voxel_ml: float | None,
    tolerance_mm: float,
) -> dict[str, Any]:
    """Score two masks that were cropped, shape ``(*S)``, from an image of the given shape."""
    counts = Counts.of_masks(prediction, reference)
    state = case_state(int(counts.prediction), int(counts.reference))
    surface = surface_scores(prediction, reference, spacing_mm, tolerance_mm)
    if state in ("missed", "false_alarm"):  # the diagonal of the image, where surface_scores saw the crop's
        worst = worst_distance_mm(shape, spacing_mm)
        surface = replace(surface, hd95_mm=worst, assd_mm=worst)
    lesions = count_lesions(prediction, reference)

    def millilitres(voxels: NDArray[np.int64]) -> float | None:
        return None if voxel_ml is None else int(voxels) * voxel_ml

    return {
        "dice": float(counts.dice),
        "iou": float(counts.iou),
        "sensitivity": float(counts.sensitivity),
        "precision": float(counts.precision),
        "hd95_mm": surface.hd95_mm,
        "assd_mm": surface.assd_mm,
        "nsd": surface.nsd,
        "tolerance_mm": tolerance_mm,
        "volume_prediction_ml": millilitres(counts.prediction),
        "volume_reference_ml": millilitres(counts.reference),
        "volume_error_ml": millilitres(counts.prediction - counts.reference),
        "lesions_reference": lesions.reference,
        "lesions_detected": lesions.detected,
        "lesions_prediction": lesions.prediction,
        "lesions_false": lesions.false,
        "state": state,
    }


def _check_values(name: str, label_map: NDArray[np.integer], labels: Mapping[str, int]) -> None:
    """Refuse a label map, shape ``(*S)``, that holds a value besides 0 and the named ones."""
    named = sum(np.count_nonzero(label_map == value) for value in set(labels.values()))
    if named != np.count_nonzero(label_map):
        unknown = sorted(set(np.unique(label_map).tolist()) - {0, *labels.values()})
        raise SkipSegError(
            f"the {name} holds label values {unknown} besides 0 (background) and the named {dict(labels)}; "
            "name them in labels, or remap them when the file is read"
        )


def _boxes(label_map: NDArray[np.integer]) -> dict[int, tuple[slice, ...]]:
    """Box around every value of a label map, shape ``(*S)``, found in one pass."""
    if not label_map.size:
        return {}
    found = ndimage.find_objects(label_map.astype(np.uint8, copy=False) if label_map.dtype == bool else label_map)
    return {value: box for value, box in enumerate(found, start=1) if box is not None}


def _hull(boxes: Sequence[tuple[slice, ...]], dims: int) -> tuple[slice, ...]:
    """Smallest box around several; an empty one around none."""
    if not boxes:
        return (slice(0, 0),) * dims
    return tuple(
        slice(min(part.start for part in axis), max(part.stop for part in axis)) for axis in zip(*boxes, strict=True)
    )

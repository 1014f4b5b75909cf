"""What metrics ask of their input: maps on one grid, of a whole-number type, and cropped to where something is."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from segmentation import SkipSegError


def check_label_maps(prediction: NDArray[np.generic], reference: NDArray[np.generic]) -> None:
    """Refuse maps that cannot be compared voxel by voxel.

    Args:
        prediction: Predicted class of every voxel, or a mask, shape ``(*S)``.
        reference: Annotated class of every voxel, or a mask, shape ``(*S)``.

    Raises:
        SkipSegError: If the shapes differ, or a dtype is neither integer nor boolean.
    """
    if prediction.shape != reference.shape:
        raise SkipSegError(
            f"prediction and reference must lie on one grid, got shapes {prediction.shape} and {reference.shape}; "
            "resample one onto the other first"
        )
    for name, label_map in (("prediction", prediction), ("reference", reference)):
        if label_map.dtype.kind not in "iub":
            raise SkipSegError(
                f"the {name} must hold integer labels, got dtype {label_map.dtype}; take the argmax of probabilities, "
                "or cast labels that are whole numbers"
            )


def check_masks(prediction: NDArray[np.bool_], reference: NDArray[np.bool_]) -> None:
    """Refuse masks that differ in shape or are not boolean, such as a label map of several classes.

    Args:
        prediction: Predicted mask, shape ``(*S)``.
        reference: Annotated mask, shape ``(*S)``.

    Raises:
        SkipSegError: If the shapes differ, or a dtype is not boolean.
    """
    check_label_maps(prediction, reference)
    for name, mask in (("prediction", prediction), ("reference", reference)):
        if mask.dtype != bool:
            raise SkipSegError(
                f"the {name} must be a boolean mask, got dtype {mask.dtype}; choose a class with label_map == value"
            )


def check_spacing(shape: Sequence[int], spacing_mm: Sequence[float]) -> None:
    """Refuse a spacing that does not fit the 2-D or 3-D image shape ``S``, or is not positive.

    Args:
        shape: Size of each spatial axis in voxels.
        spacing_mm: Distance between voxel centres along each axis, in mm.

    Raises:
        SkipSegError: If the image is neither 2-D nor 3-D, or a spacing is missing, not finite or not positive.
    """
    if len(shape) not in (2, 3):
        raise SkipSegError(f"masks must be 2-D or 3-D, got shape {tuple(shape)}; remove axes of size 1 first")
    if len(spacing_mm) != len(shape) or not all(np.isfinite(size) and size > 0 for size in spacing_mm):
        raise SkipSegError(
            f"spacing_mm must be {len(shape)} positive numbers for an image of shape {tuple(shape)}, "
            f"got {tuple(spacing_mm)}; read it from the image header"
        )


def common_box(prediction: NDArray[np.bool_], reference: NDArray[np.bool_]) -> tuple[slice, ...]:
    """Find the smallest box that holds both masks; scores of the crop equal scores of the whole image.

    Args:
        prediction: Predicted mask, shape ``(*S)``.
        reference: Annotated mask, shape ``(*S)``.

    Returns:
        One slice per axis; empty slices when both masks are empty.

    Examples:
        >>> mask = np.zeros((5, 6), bool)
        >>> mask[1:3, 4] = True
        >>> common_box(mask, mask)
        (slice(1, 3, None), slice(4, 5, None))
    """
    occupied = prediction | reference
    box: list[slice] = []
    for axis in range(prediction.ndim):
        lines = np.flatnonzero(np.logical_or.reduce(occupied, axis=tuple(range(1, prediction.ndim - axis))))
        box.append(slice(int(lines[0]), int(lines[-1]) + 1) if lines.size else slice(0, 0))
        occupied = np.logical_or.reduce(occupied)  # the other axes are looked for in the shadow, which is smaller
    return tuple(box)

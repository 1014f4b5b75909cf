"""Overlap of a prediction with a reference: the voxel counts, and the scores that follow from them.

Nothing here depends on voxel spacing. What an absent class scores is stated in :mod:`segmentation.metrics.policy`.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from segmentation import SkipSegError
from segmentation.metrics.masks import check_label_maps


@dataclass(frozen=True)
class Counts:
    """Voxels on which prediction and reference agree and differ, one entry a class (or a single number).

    Attributes:
        true_positive: Voxels of the class in both maps, shape ``(K,)`` or ``()``.
        false_positive: Voxels of the class in the prediction only, same shape.
        false_negative: Voxels of the class in the reference only, same shape.

    Examples:
        >>> Counts(np.array([3, 0]), false_positive=np.array([1, 0]), false_negative=np.array([1, 0])).dice
        array([0.75,  nan])
    """

    true_positive: NDArray[np.int64]
    false_positive: NDArray[np.int64]
    false_negative: NDArray[np.int64]

    @classmethod
    def of_masks(cls, prediction: NDArray[np.bool_], reference: NDArray[np.bool_]) -> Self:
        """Count two masks of the same shape ``(*S)``."""
        true_positive = np.count_nonzero(prediction & reference)
        return cls(
            np.asarray(true_positive),
            np.asarray(np.count_nonzero(prediction) - true_positive),
            np.asarray(np.count_nonzero(reference) - true_positive),
        )

    @classmethod
    def of_confusion(cls, matrix: NDArray[np.int64]) -> Self:
        """Read the counts of each class off a confusion matrix, shape ``(K, K)``, of :func:`confusion`."""
        agreed = np.diag(matrix)
        return cls(agreed, matrix.sum(axis=0) - agreed, matrix.sum(axis=1) - agreed)

    @property
    def prediction(self) -> NDArray[np.int64]:
        """Voxels of the class in the prediction."""
        return self.true_positive + self.false_positive

    @property
    def reference(self) -> NDArray[np.int64]:
        """Voxels of the class in the reference."""
        return self.true_positive + self.false_negative

    @property
    def dice(self) -> NDArray[np.float64]:
        """Dice coefficient ``2 TP / (2 TP + FP + FN)`` in [0, 1]; nan when both masks are empty."""
        return _ratio(2 * self.true_positive, self.prediction + self.reference)

    @property
    def iou(self) -> NDArray[np.float64]:
        """Intersection over union ``TP / (TP + FP + FN)`` in [0, 1]; nan when both masks are empty."""
        return _ratio(self.true_positive, self.prediction + self.false_negative)

    @property
    def sensitivity(self) -> NDArray[np.float64]:
        """Found part of the reference, ``TP / (TP + FN)``; nan without a reference."""
        return _ratio(self.true_positive, self.reference)

    @property
    def precision(self) -> NDArray[np.float64]:
        """Correct part of the prediction, ``TP / (TP + FP)``; nan without a prediction."""
        return _ratio(self.true_positive, self.prediction)


def confusion(
    prediction: NDArray[np.integer], reference: NDArray[np.integer], num_classes: int, ignore: int | None = None
) -> NDArray[np.int64]:
    """Count how often each reference class was predicted as each class.

    Args:
        prediction: Predicted class of every voxel, shape ``(*S)`` with any number of axes, values in
            ``[0, num_classes)``. Class 0 is the background. Any integer dtype gives the same counts.
        reference: Annotated class of every voxel, same shape and range, or ``ignore``.
        num_classes: Number of classes K, background included.
        ignore: Voxels with this value in the reference are not counted, whatever was predicted there.

    Returns:
        Number of voxels with reference class r and predicted class p at ``[r, p]``, shape ``(K, K)``.

    Raises:
        SkipSegError: If the shapes differ, a dtype is not integer or boolean, or a counted voxel holds a
            value outside ``[0, num_classes)``.

    Examples:
        >>> confusion(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 9]), num_classes=2, ignore=9)
        array([[1, 0],
               [1, 1]])
    """
    check_label_maps(prediction, reference)
    if ignore is not None:
        counted = reference != ignore
        prediction, reference = prediction[counted], reference[counted]
    for name, label_map in (("prediction", prediction), ("reference", reference)):
        if label_map.size and not 0 <= label_map.min() <= label_map.max() < num_classes:
            raise SkipSegError(
                f"the {name} holds label values {label_map.min()} to {label_map.max()}, but {num_classes} classes "
                f"allow 0 to {num_classes - 1}; correct the labels, or name an ignore label"
            )
    pair = reference.astype(np.int64)  # wide before multiplying: uint8 would wrap around beyond 15 classes
    pair *= num_classes
    pair += prediction.astype(np.int64)
    return np.bincount(pair.ravel(order="K"), minlength=num_classes**2).reshape(num_classes, num_classes)


def dice_per_class(
    prediction: NDArray[np.integer], reference: NDArray[np.integer], num_classes: int, ignore: int | None = None
) -> NDArray[np.float64]:
    """Score the overlap of two label maps: twice the shared voxels over the voxels of both, class by class.

    Args:
        prediction: Predicted class of every voxel, shape ``(*S)``, values in ``[0, num_classes)``.
        reference: Annotated class of every voxel, same shape and range, or ``ignore``.
        num_classes: Number of classes K, background included.
        ignore: Reference value of the voxels to leave out.

    Returns:
        Dice of each class in [0, 1], nan for a class that neither map holds, shape ``(K,)``. Entry 0 is the
        background, so the usual summary is ``np.nanmean(dice[1:])``.

    Raises:
        SkipSegError: As :func:`confusion`.

    Examples:
        One of two foreground voxels is found, and class 2 occurs in neither map:

        >>> dice_per_class(np.array([[0, 0], [0, 1]]), np.array([[0, 0], [1, 1]]), num_classes=3).round(3)
        array([0.8  , 0.667,   nan])
    """
    return Counts.of_confusion(confusion(prediction, reference, num_classes, ignore)).dice


def iou_per_class(
    prediction: NDArray[np.integer], reference: NDArray[np.integer], num_classes: int, ignore: int | None = None
) -> NDArray[np.float64]:
    """Score the overlap of two label maps: shared voxels over the union, class by class.

    Args:
        prediction: Predicted class of every voxel, shape ``(*S)``, values in ``[0, num_classes)``.
        reference: Annotated class of every voxel, same shape and range, or ``ignore``.
        num_classes: Number of classes K, background included.
        ignore: Reference value of the voxels to leave out.

    Returns:
        Intersection over union of each class in [0, 1], nan for a class that neither map holds, shape ``(K,)``.

    Raises:
        SkipSegError: As :func:`confusion`.

    Examples:
        >>> iou_per_class(np.array([[0, 0], [0, 1]]), np.array([[0, 0], [1, 1]]), num_classes=3)
        array([0.66666667, 0.5       ,        nan])
    """
    return Counts.of_confusion(confusion(prediction, reference, num_classes, ignore)).iou


def _ratio(numerator: ArrayLike, denominator: NDArray[np.int64]) -> NDArray[np.float64]:
    """Divide elementwise, shape ``(K,)`` or ``()``; nan where the denominator is 0."""
    undefined = np.full(np.shape(denominator), np.nan)
    return np.divide(numerator, denominator, out=undefined, where=denominator > 0)

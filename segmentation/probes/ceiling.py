"""Information ceiling without long skips: the Dice that a mask keeps when it is shrunk and enlarged again.

Level l of a network sees the image shrunk by the strides s_1 ... s_l. The mask of each class is averaged over blocks of
this size (rounded up at the far end, as the network does) and interpolated linearly back, and the largest class wins.
The Dice with the mask itself is the ceiling of level l; that of the bottleneck tells what is left when everything must
pass it. It needs no training and tells thin structures from compact ones. It is a ceiling for one number a voxel and
class: a bottleneck of many channels can code more, so a trained network may lie above it.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from segmentation.figures import Figure, Series
from segmentation.metrics.overlap import dice_per_class
from segmentation.model.resize import enlarge
from segmentation.model.units import AveragePool
from segmentation.probes.context import NotMeasurableError, ProbeContext, ProbeResult
from segmentation.probes.lesion import case_dice, patient_interval
from segmentation.probes.prepared import prepared_cases

NOTE = (
    "Dice of the reference with itself after it was shrunk to a level and enlarged. A low ceiling at the bottleneck "
    "means that the structure cannot be drawn from there at one number a voxel, and that skips have something to "
    "bring; a high one means that they may not be needed. Networks can lie above it, for a voxel has many channels."
)


def shrink_and_enlarge(labels: NDArray[np.integer[Any]], factor: Sequence[int], classes: int) -> NDArray[np.int64]:
    """Shrink a label map by whole factors and enlarge it again.

    Args:
        labels: Class of every voxel, shape ``(*S)``, 2-D or 3-D; ``classes`` and more count as background.
        factor: Factor along each axis.
        classes: Number of classes, background included.

    Returns:
        Class of every voxel, shape ``(*S)``.

    Examples:
        A line one pixel wide is lost by a factor of 2; a half of the picture is kept:

        >>> line, half = np.zeros((4, 4), int), np.zeros((4, 4), int)
        >>> line[:, 1], half[:, 2:] = 1, 1
        >>> shrink_and_enlarge(line, (2, 2), 2).any(), (shrink_and_enlarge(half, (2, 2), 2) == half).all()
        (np.False_, np.True_)
    """
    known = torch.from_numpy(np.where(labels < classes, labels, 0).astype(np.int64))
    shares = functional.one_hot(known, classes).movedim(-1, 0)[None].double()
    return enlarge(AveragePool(factor)(shares), factor, labels.shape, "linear").argmax(dim=1)[0].numpy()


def ceilings(labels: NDArray[np.integer[Any]], strides: Sequence[Sequence[int]], classes: int) -> NDArray[np.float64]:
    """Dice that each class keeps at each level.

    Args:
        labels: Class of every voxel, shape ``(*S)``; ``classes`` where voxels are to be ignored. It may have one more
            axis in front than the strides: slices, which are never shrunk against each other.
        strides: Factor along each axis of every step down, ``depth`` of them.
        classes: Number of classes, background included.

    Returns:
        Shape ``(depth, classes - 1)``: level 1 to the bottleneck, foreground classes; nan for a class that is absent.

    Examples:
        A square of 4 pixels fills whole blocks of 2, and a quarter of four blocks of 4:

        >>> square = np.zeros((8, 8), int)
        >>> square[2:6, 2:6] = 1
        >>> ceilings(square, [(2, 2), (2, 2)], classes=2).tolist()
        [[1.0], [0.0]]
    """
    front = (1,) * (labels.ndim - len(strides[0]))
    kept: list[NDArray[np.float64]] = []
    for level in range(1, len(strides) + 1):
        factor = (*front, *(math.prod(axis) for axis in zip(*strides[:level], strict=True)))
        again = shrink_and_enlarge(labels, factor, classes)
        kept.append(dice_per_class(again, labels, classes + 1, ignore=classes)[1:classes])
    return np.stack(kept)


def probe(context: ProbeContext) -> ProbeResult:
    """Measure the ceilings of a run's held-out cases, beside the Dice that the run reaches on them."""
    cases, strides = prepared_cases(context), context.architecture.strides
    if not cases:
        raise NotMeasurableError("this run has no held-out case")
    kept = {case.name: ceilings(case.labels, strides, len(context.dataset.classes)) for case in cases}
    levels = range(1, len(strides) + 1)
    mean = {
        name: {
            f"L{level}": vars(
                patient_interval(context, {case: float(found[level - 1, index]) for case, found in kept.items()})
            )
            for level in levels
        }
        for index, name in enumerate(context.classes)
        if any(np.isfinite(found[:, index]).any() for found in kept.values())  # else no case drawn holds the class
    }
    reached = patient_interval(context, case_dice(context, context.network)).estimate
    values = {
        "mean": mean,
        "cases": {case: found.tolist() for case, found in kept.items()},
        "dice_of_the_run": reached,
    }
    series = [
        Series(name, *([1.0, *(found[f"L{level}"]["estimate"] for level in levels)], [0, *levels]))
        for name, found in mean.items()
    ]
    figure = Figure(
        "lines", "Dice that a mask keeps at each level; the line is what the run reaches", "level", "Dice", series,
        reference=reached,
    )  # fmt: skip
    return ProbeResult(values, [figure], NOTE)

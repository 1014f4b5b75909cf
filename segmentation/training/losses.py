"""Losses on logits; voxels with the ignore label count for nothing, and everything is computed in float32."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from segmentation.model.unet import UNet
from segmentation.training.ranks import sum_over_ranks

LossName = Literal["dice_ce", "dice", "ce", "focal", "tversky", "dice_focal"]
Loss = Callable[[Tensor, Tensor], Tensor]
SMOOTH = 1e-5
"""Keeps the quotient of an overlap loss defined where a class is absent from batch and prediction."""


def overlap_loss(logits: Tensor, labels: Tensor, alpha: float, beta: float) -> Tensor:
    """One minus the Tversky index of the softmax, averaged over foreground classes.

    Sums run over the whole batch, that of all processes of a training, so that a patch without a class does not
    decide alone. With ``alpha = beta = 0.5`` this is the soft Dice loss (Milletari et al. 2016, arXiv:1606.04797);
    otherwise it weighs the two kinds of error (Salehi et al. 2017, arXiv:1706.05721).

    Args:
        logits: Shape ``(B, K, *S)``.
        labels: Class indices, shape ``(B, *S)``; an index of K or more is ignored.
        alpha: Weight of false positives.
        beta: Weight of false negatives.

    Returns:
        Scalar in [0, 1].

    Examples:
        >>> labels = torch.tensor([[0, 1, 1]])
        >>> certain = 50 * torch.tensor([[[1.0, 0, 0], [0, 1, 1]]])
        >>> round(overlap_loss(certain, labels, 0.5, 0.5).item(), 4)
        0.0
    """
    classes = logits.shape[1]
    counted = (labels < classes).unsqueeze(1)
    probabilities = logits.float().softmax(dim=1) * counted
    target = functional.one_hot(labels.clamp(max=classes - 1), classes).movedim(-1, 1) * counted
    axes = (0, *range(2, logits.ndim))
    sums = [(probabilities * target).sum(axes), probabilities.sum(axes), target.float().sum(axes)]
    overlap, predicted, present = sum_over_ranks(torch.stack(sums)[:, 1:])
    false_positive = predicted - overlap
    false_negative = present - overlap
    index = (overlap + SMOOTH) / (overlap + alpha * false_positive + beta * false_negative + SMOOTH)
    return 1 - index.mean()


def cross_entropy(logits: Tensor, labels: Tensor, focus: float = 0.0) -> Tensor:
    """Mean cross-entropy over the voxels that count; with ``focus`` > 0 the focal loss (arXiv:1708.02002).

    Args:
        logits: Shape ``(B, K, *S)``.
        labels: Class indices, shape ``(B, *S)``; an index of K or more is ignored.
        focus: Exponent gamma of ``(1 - p)^gamma``, which plays down voxels that are already right.

    Returns:
        Scalar; 0 if every voxel is ignored.

    Examples:
        >>> round(cross_entropy(torch.zeros(1, 2, 3), torch.tensor([[0, 1, 2]])).item(), 4)
        0.6931
    """
    classes = logits.shape[1]
    counted = labels < classes
    loss = functional.cross_entropy(logits.float(), labels.clamp(max=classes - 1), reduction="none")
    if focus:
        loss = loss * (1 - torch.exp(-loss)) ** focus
    total, count = sum_over_ranks(torch.stack([(loss * counted).sum(), counted.sum().to(loss)]))
    return total / count.clamp(min=1)


def build_loss(name: LossName) -> Loss:
    """Choose a loss of logits, shape ``(B, K, *S)``, and labels, shape ``(B, *S)``.

    ``dice_ce`` is the sum of soft Dice and cross-entropy, ``tversky`` weighs misses (0.7) over false alarms (0.3).

    Raises:
        ValueError: If ``name`` is unknown.
    """

    def dice(logits: Tensor, labels: Tensor) -> Tensor:
        return overlap_loss(logits, labels, 0.5, 0.5)

    def focal(logits: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(logits, labels, focus=2.0)

    match name:
        case "dice":
            return dice
        case "ce":
            return cross_entropy
        case "focal":
            return focal
        case "tversky":
            return lambda logits, labels: overlap_loss(logits, labels, 0.3, 0.7)
        case "dice_ce":
            return lambda logits, labels: dice(logits, labels) + cross_entropy(logits, labels)
        case "dice_focal":
            return lambda logits, labels: dice(logits, labels) + focal(logits, labels)
        case _:
            raise ValueError(f"unknown loss {name!r}")


def deep_loss(loss: Loss, outputs: Sequence[Tensor], labels: Tensor, strides: Sequence[Sequence[int]]) -> Tensor:
    """Weigh the loss at each supervised level by 1, 1/2, 1/4, ... and divide by the sum of weights.

    Args:
        loss: Loss of one level.
        outputs: Logits, finest first, shapes ``(B, K, *S_level)``.
        labels: Class indices at the finest level, shape ``(B, *S)``. A voxel of a coarser level is judged by the
            first of those that it stands for, as no map is stretched, see :mod:`segmentation.model.resize`.
        strides: Factor along each axis of every step down.

    Returns:
        Scalar.
    """
    total = torch.zeros((), device=labels.device)
    weight_sum = 0.0
    for level, logits in enumerate(outputs):
        if level:
            labels = labels[(..., *(slice(None, None, step) for step in strides[level - 1]))]
        total = total + loss(logits, labels) / 2**level
        weight_sum += 1 / 2**level
    return total / weight_sum


def network_loss(network: UNet, loss: Loss, images: Tensor, labels: Tensor) -> Tensor:
    """Loss that ``network`` is trained by, at every level that it supervises.

    Args:
        network: Gives logits, at one or several levels.
        loss: Loss of one level.
        images: Standardised, shape ``(B, C, *S)``.
        labels: Class indices, shape ``(B, *S)``.

    Returns:
        Scalar.
    """
    if network.settings.deep_supervision:
        return deep_loss(loss, network.forward_deep(images), labels, network.strides)
    return loss(network(images), labels)

"""The bench of the suites: small synthetic tasks in memory, small U-Nets, and a plain training of some hundred steps.

Every replicate has a seed of its own, from which its data, its initial weights and its order follow, so that
replicates are independent and their spread holds every source of chance (Bouthillier et al. 2021,
arXiv:2103.03098). Arms of one replicate share all three.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segmentation.config import NetworkSettings
from segmentation.data.phantoms import Task, plant, smooth_noise
from segmentation.metrics.overlap import dice_per_class
from segmentation.model.unet import UNet
from segmentation.plain import from_plain
from segmentation.training.losses import build_loss

LOSS = build_loss("dice_ce")
DEFAULTS: dict[str, Any] = {"depth": 3, "width": 8, "activation": "relu", "norm": "batch", "init": "he"}
"""Network of the bench, unless a suite says otherwise."""


@dataclass(frozen=True)
class Pictures:
    """A synthetic task, split once.

    Attributes:
        images: Training images with mean 0 and standard deviation 1, shape ``(N, 1, S, S)``.
        labels: Their label maps, 0 or 1, shape ``(N, S, S)``.
        test_images, test_labels: The same for the test cases.
    """

    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def make_pictures(
    task: Task,
    seed: int,
    train: int = 32,
    test: int = 48,
    size: int = 48,
    difficulty: float = 0.0,
    noise: float = 0.1,
    level: int = 0,
) -> Pictures:
    """Draw a task.

    Args:
        task: What is planted.
        seed: Source of every draw.
        train: Training cases.
        test: Test cases.
        size: Pixels along each axis.
        difficulty: 0 to 1; for ``"texture"`` the blend of the two textures: higher is harder.
        noise: Standard deviation of the white noise, where the planted contrast is about 1.
        level: The task is drawn ``2**level`` times smaller and each pixel repeated, under noise that grows as
            ``2**level``: its finest detail can be seen at this level, and no finer one shows it as clearly.

    Returns:
        The pictures. Structures are label 1; with ``"lesion"`` the organ and its lesions alike.

    Examples:
        >>> make_pictures("thin", seed=0, train=2, test=1, size=32).images.shape
        torch.Size([2, 1, 32, 32])
    """
    rng = np.random.default_rng([seed, size, level])
    images, labels = [], []
    small = size // 2**level
    repeat = np.ones((2**level, 2**level))
    for _ in range(train + test):
        signal, truth = plant(task, rng, (small, small), np.ones(2), difficulty)
        image = np.kron(signal, repeat) + 0.1 * smooth_noise(rng, (size, size), size / 8)
        image += noise * 2**level * rng.standard_normal((size, size))
        images.append((image - image.mean()) / image.std())
        labels.append(np.kron(truth > 0, repeat))
    x = torch.tensor(np.stack(images)[:, None], dtype=torch.float32)
    y = torch.tensor(np.stack(labels), dtype=torch.int64)
    return Pictures(x[:train], y[:train], x[train:], y[train:])


def make_network(seed: int, **settings: Any) -> UNet:
    """Build a small U-Net of two classes; ``settings`` depart from :data:`DEFAULTS`.

    Examples:
        >>> make_network(0, long_skip="none").channels
        [8, 16, 32, 64]
    """
    return UNet(from_plain(NetworkSettings, DEFAULTS | settings), dims=2, in_channels=1, classes=2, seed=seed)


def fit(
    network: torch.nn.Module,
    images: Tensor,
    labels: Tensor,
    steps: int,
    seed: int,
    learning_rate: float = 3e-3,
    optimizer: str = "adam",
    batch: int = 8,
    after_backward: Callable[[int], None] | None = None,
    after_step: Callable[[int], None] | None = None,
) -> list[float]:
    """Train for ``steps`` steps on batches drawn with replacement, at a constant learning rate.

    Args:
        network: Changed in place; maps images to logits of two classes.
        images: Images, shape ``(N, 1, S, S)``.
        labels: Label maps, shape ``(N, S, S)``.
        steps: Optimiser steps.
        seed: Source of the order of the cases and, with dropout, of its masks.
        learning_rate: Constant.
        optimizer: ``"adam"``, or ``"sgd"`` with momentum 0.9.
        batch: Cases in a step.
        after_backward: Called with the step when gradients stand.
        after_step: Called with the step when weights have changed.

    Returns:
        The loss of each step.
    """
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    parameters = network.parameters()
    choose: dict[str, Callable[[], torch.optim.Optimizer]] = {
        "adam": lambda: torch.optim.Adam(parameters, learning_rate),
        "sgd": lambda: torch.optim.SGD(parameters, learning_rate, momentum=0.9),
    }
    optimiser = choose[optimizer]()
    losses: list[float] = []
    network.train()
    for step in range(steps):
        chosen = torch.randint(len(images), (batch,), generator=generator)
        optimiser.zero_grad()
        loss = LOSS(network(images[chosen]), labels[chosen])
        loss.backward()
        if after_backward:
            after_backward(step)
        optimiser.step()
        losses.append(loss.item())
        if after_step:
            after_step(step)
    return losses


@torch.no_grad()
def dice_of(network: torch.nn.Module, images: Tensor, labels: Tensor, batch: int = 16) -> list[float]:
    """Dice of each case, in evaluation mode.

    Args:
        network: Maps images to logits of two classes.
        images: Images, shape ``(N, 1, S, S)``.
        labels: Label maps, shape ``(N, S, S)``; every case holds its structure.
        batch: Cases at a time.

    Returns:
        One Dice in [0, 1] a case; nan for a case without structure in either map.
    """
    network.eval()
    predicted = torch.cat([network(part).argmax(dim=1) for part in images.split(batch)])
    pairs = zip(predicted.numpy(), labels.numpy(), strict=True)
    return [float(dice_per_class(mask, truth, num_classes=2)[1]) for mask, truth in pairs]


def loss_of(network: torch.nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Loss of a batch: images of shape ``(B, 1, S, S)``, labels of shape ``(B, S, S)``; a scalar."""
    return LOSS(network(images), labels)


def mean(values: Sequence[float]) -> float:
    """Mean that leaves out nan.

    Examples:
        >>> mean([0.5, float("nan"), 1.0])
        0.75
    """
    return float(np.nanmean(values))


def train_and_score(cell: Any) -> dict[str, Any]:
    """Do the usual cell: draw a task, train a network on it, score the test cases.

    Args:
        cell: ``task`` (arguments of :func:`make_pictures`), ``network`` (settings), ``seed``, ``steps`` and any
            other argument of :func:`fit` under ``fit``.

    Returns:
        ``dice`` (mean over test cases), ``loss`` (mean of the last 20 steps), ``parameters``.
    """
    data = make_pictures(seed=cell["seed"], **cell["task"])
    network = make_network(cell["seed"], **cell["network"])
    losses = fit(network, data.images, data.labels, cell["steps"], cell["seed"], **cell.get("fit", {}))
    return {
        "dice": mean(dice_of(network, data.test_images, data.test_labels)),
        "loss": mean(losses[-20:]),
        "parameters": sum(p.numel() for p in network.parameters()),
    }

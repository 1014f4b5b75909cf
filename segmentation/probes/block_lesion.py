"""Lesions of single branches: a residual network is like an ensemble of paths (Veit et al. 2016, arXiv:1605.06431).

A branch F (a convolution unit, or those that a short skip spans) is bypassed: with a short skip F = 0, so that an
additive block passes x on; without one the branch becomes the identity, where input and output have one shape. The
change is Dice(bypassed) - Dice(intact) of each held-out case: below 0 the bypass costs Dice.

The profile of path lengths holds the forward pass fixed. The gradient of k random branches passes through F alone, of
the others through the short skip alone: that is the gradient of one path of length k. Its mean norm at the image, times
the number of such paths, binomial(n, k), tells how much paths of each length contribute.
"""

import math
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from segmentation.config import ADDITIVE
from segmentation.figures import Figure, Series
from segmentation.model.order import evaluating
from segmentation.model.skips import ShortJoin
from segmentation.probes.context import Batch, LossFunction, NotMeasurableError, ProbeContext, ProbeResult
from segmentation.probes.lesion import Lesion, summarise

NOTE = (
    "Changes are Dice with the bypass less Dice without it: below 0 the bypass costs Dice. A network whose "
    "Dice hardly changes when one branch is bypassed does not need its layers to follow each other. "
    "Branches that change the number of channels cannot be bypassed without a short skip and are left out there."
)


def removable_branches(network: nn.Module, images: Tensor) -> dict[str, ShortJoin]:
    """Branches that can be bypassed, by the name of their join, in the order in which they are computed.

    Args:
        network: Left as it is.
        images: Any input that it takes, shape ``(B, C, *S)``.
    """
    found: dict[str, ShortJoin] = {}

    def watch(name: str) -> Any:
        def hook(module: ShortJoin, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
            if module.kind != "none" or inputs[0].shape == inputs[1].shape:
                found[name] = module

        return hook

    joins = {name: module for name, module in network.named_modules() if isinstance(module, ShortJoin)}
    hooks = [join.register_forward_hook(watch(name)) for name, join in joins.items()]
    try:
        with evaluating(network), torch.no_grad():
            network(images)
    finally:
        for hook in hooks:
            hook.remove()
    return found


@contextmanager
def bypassed(*joins: ShortJoin) -> Generator[None]:
    """Bypass the branches that end in ``joins`` while the block runs: F = 0, or the identity without a short skip.

    Examples:
        >>> from segmentation.config import NetworkSettings
        >>> join = ShortJoin("add", NetworkSettings(), dims=2, channels=1)
        >>> with bypassed(join):
        ...     join(torch.tensor([1.0]), torch.tensor([5.0]))
        tensor([1.])
    """

    def hook(module: ShortJoin, inputs: tuple[Tensor, Tensor], output: Tensor) -> Tensor:
        x, branch = inputs
        return x if module.kind == "none" else module.forward(x, torch.zeros_like(branch))

    hooks = [join.register_forward_hook(hook) for join in joins]
    try:
        yield
    finally:
        for each in hooks:
            each.remove()


@contextmanager
def swapped(units: nn.ModuleList, first: int, second: int) -> Generator[None]:
    """Exchange two units of a chain while the block runs.

    Examples:
        >>> units = nn.ModuleList([nn.ReLU(), nn.Tanh()])
        >>> with swapped(units, 0, 1):
        ...     [type(unit).__name__ for unit in units]
        ['Tanh', 'ReLU']
    """
    a, b = units[first], units[second]
    units[first], units[second] = b, a
    try:
        yield
    finally:
        units[first], units[second] = a, b


@dataclass(frozen=True)
class PathProfile:
    """Gradient that paths of each length carry to the image.

    Attributes:
        one_path: Mean norm of the gradient of one path, for k = 0, ..., n branches on it.
        all_paths: The same times the number of such paths.
    """

    one_path: Sequence[float]
    all_paths: Sequence[float]


def path_profile(
    network: nn.Module,
    loss: LossFunction,
    batches: Sequence[Batch],
    joins: Sequence[ShortJoin],
    samples: int = 8,
    seed: int = 0,
) -> PathProfile:
    """Measure the gradient of paths by their length.

    Args:
        network: Measured in evaluation mode.
        loss: Loss of the network on a batch.
        batches: Images, shape ``(B, C, *S)``, and labels, shape ``(B, *S)``.
        joins: Additive joins, n of them.
        samples: Random sets of k branches, for each k.
        seed: Source of the sets.
    """
    rng = np.random.default_rng(seed)
    one_path: list[float] = []
    for length in range(len(joins) + 1):
        count = 1 if length in (0, len(joins)) else samples
        norms = [
            _path_gradient(network, loss, batch, joins, set(rng.permutation(len(joins))[:length].tolist()))
            for _ in range(count)
            for batch in batches
        ]
        one_path.append(float(np.mean(norms)))
    return PathProfile(one_path, [math.comb(len(joins), k) * norm for k, norm in enumerate(one_path)])


def _path_gradient(
    network: nn.Module, loss: LossFunction, batch: Batch, joins: Sequence[ShortJoin], on_path: set[int]
) -> float:
    """Norm of the gradient at the image, of the path through the branches ``on_path`` alone."""

    def watch(passes: bool) -> Any:
        def hook(module: ShortJoin, inputs: tuple[Tensor, Tensor], output: Tensor) -> Tensor:
            x, branch = inputs
            return module.forward(x.detach(), branch) if passes else module.forward(x, branch.detach())

        return hook

    hooks = [join.register_forward_hook(watch(index in on_path)) for index, join in enumerate(joins)]
    try:
        with evaluating(network), torch.enable_grad():
            images = batch[0].detach().clone().requires_grad_()
            (gradient,) = torch.autograd.grad(loss(network, images, batch[1]), images)
    finally:
        for each in hooks:
            each.remove()
    return float(gradient.double().norm())


def probe(context: ProbeContext) -> ProbeResult:
    """Bypass each branch of a run's network; with additive short skips, also measure the path lengths.

    Raises:
        NotMeasurableError: If no branch can be bypassed.
    """
    network = context.network
    joins = removable_branches(network, context.batches[0][0][:1])
    if not joins:
        raise NotMeasurableError("no block of this network can be bypassed: each changes the number of channels")

    def make(join: ShortJoin) -> Lesion:
        return lambda: bypassed(join)

    lesions = {name.replace(".joins", ""): make(join) for name, join in joins.items()}
    result = summarise(context, "Change of Dice when a branch is bypassed", lesions, NOTE)
    additive = [join for join in joins.values() if join.kind in ADDITIVE]
    if not additive:
        return result
    profile = path_profile(network, context.loss, context.batches, additive, seed=context.options.seed)
    figure = Figure(
        "lines", "Gradient at the image by length of path", "branches on the path", "norm of the gradient",
        [Series("one path", profile.one_path), Series("all paths of this length", profile.all_paths)], log_y=True,
    )  # fmt: skip
    return ProbeResult({**result.values, "paths": vars(profile)}, [*result.figures, figure], NOTE)

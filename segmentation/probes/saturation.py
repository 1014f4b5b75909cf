"""Saturation: the share of activations where the non-linearity passes hardly any gradient.

Let f be the non-linearity of a unit and z what it is given, over all voxels, channels and batches.

    saturation      S_l = mean[ |f'(z)| < 0.01 max |f'| ]
    dead fraction   share of channels with |f'(z)| < 0.01 max |f'| at every voxel of every image: for ReLU,
                    channels that are never positive, whose filters no longer learn

max |f'| is 1/4 for the sigmoid and 1 for tanh and ReLU; elsewhere it is taken over a fine grid. For ReLU, S is simply
the share of zeros. Saturation as the cause of vanishing: Glorot and Bengio 2010.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from segmentation.figures import Figure, Series
from segmentation.probes.context import Batch, NotMeasurableError, ProbeContext, ProbeResult
from segmentation.probes.modes import batch_statistics

ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid)
SHARE = 0.01
"""A derivative below this share of the largest one counts as none."""


@dataclass(frozen=True)
class Saturation:
    """One non-linearity.

    Attributes:
        name: The module.
        kind: Its class.
        saturated: S_l in [0, 1].
        dead: Share of dead channels, in [0, 1].
    """

    name: str
    kind: str
    saturated: float
    dead: float


@dataclass
class _Count:
    """Sums over all batches: voxels, saturated voxels, and which channels have ever passed a gradient."""

    total: int = 0
    saturated: int = 0
    alive: Tensor | None = None


def saturation(network: nn.Module, batches: Sequence[Batch]) -> list[Saturation]:
    """Measure every non-linearity of a network, in the order in which it computes them.

    Args:
        network: Left as it is.
        batches: Images of shape ``(B, C, *S)`` and labels of shape ``(B, *S)``.

    Returns:
        One entry for each module of :data:`ACTIVATIONS` that the images reach; empty for none.
    """
    counts: dict[str, _Count] = {}
    modules = {name: module for name, module in network.named_modules() if isinstance(module, ACTIVATIONS)}

    def watch(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor]) -> None:
            _count(counts.setdefault(name, _Count()), module, inputs[0])

        return hook

    hooks = [module.register_forward_pre_hook(watch(name)) for name, module in modules.items()]
    try:
        with batch_statistics(network), torch.no_grad():
            for images, _ in batches:
                network(images)
    finally:
        for hook in hooks:
            hook.remove()
    return [_summary(name, modules[name], count) for name, count in counts.items()]


def derivative(activation: nn.Module, z: Tensor) -> Tensor:
    """|f'(z)| of a non-linearity at each entry of ``z``, shape ``(B, C, *S)``, same shape.

    Examples:
        >>> derivative(nn.Sigmoid(), torch.zeros(1, 1)).item()
        0.25
    """
    with torch.enable_grad():
        leaf = z.detach().clone().requires_grad_(True)
        # Not activation(leaf): it may carry hooks, and may work in place.
        (slope,) = torch.autograd.grad(activation.forward(leaf.clone()).sum(), leaf)
    return slope.abs()


def largest_derivative(activation: nn.Module) -> float:
    """Largest |f'| over z in [-10, 10], on a grid of 0.001.

    Examples:
        >>> round(largest_derivative(nn.GELU()), 3)
        1.129
    """
    slopes = next(activation.parameters(), torch.zeros(1))  # those of a PReLU, one or one a channel
    grid = torch.linspace(-10, 10, 20_001, device=slopes.device).expand(1, slopes.numel(), -1)
    return derivative(activation, grid).max().item()


def _count(count: _Count, activation: nn.Module, z: Tensor) -> None:
    """Add a map, shape ``(B, C, *S)``."""
    steep = derivative(activation, z) >= SHARE * largest_derivative(activation)
    count.total += steep.numel()
    count.saturated += steep.numel() - int(steep.sum())
    alive = steep.transpose(0, 1).flatten(1).any(dim=1)
    count.alive = alive if count.alive is None else count.alive | alive


def _summary(name: str, activation: nn.Module, count: _Count) -> Saturation:
    """Turn counts into shares."""
    assert count.alive is not None
    dead = 1 - count.alive.double().mean().item()
    return Saturation(name, type(activation).__name__, count.saturated / count.total, dead)


def probe(context: ProbeContext) -> ProbeResult:
    """Measure the run's network at its start and after training."""
    networks = {"at the start": context.initial(), "after training": context.network}
    found = {when: saturation(network, context.batches) for when, network in networks.items()}
    if not found["after training"]:
        raise NotMeasurableError(
            f"the network of {context.folder} has no non-linearity; saturation means nothing for it"
        )
    values = {when: [asdict(each) for each in layers] for when, layers in found.items()}
    names = [each.name for each in found["after training"]]
    figures = [
        Figure(
            "lines",
            title,
            x_label="non-linearity, from input to output",
            y_label=label,
            series=[Series(when, [getattr(each, field) for each in layers]) for when, layers in found.items()],
            ticks=names,
        )
        for field, title, label in (
            ("saturated", "Saturated activations", "share of activations"),
            ("dead", "Dead channels", "share of channels"),
        )
    ]
    note = (
        "A saturated activation passes less than a hundredth of the largest gradient that its non-linearity can pass. "
        "About half of a ReLU's activations are zero in a healthy network; dead channels are the sign of trouble. They "
        "are dead on these patches; others may wake them."
    )
    return ProbeResult(values, figures, note)

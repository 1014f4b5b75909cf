"""The layers that hold weights, in the order in which a network computes them."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

WEIGHTED = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
"""Layers whose weights are a matrix or a bank of filters."""


@contextmanager
def evaluating(network: nn.Module) -> Generator[None]:
    """Put every module into evaluation mode, and afterwards each back into its own."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def layers_in_order(network: nn.Module, images: Tensor) -> dict[str, nn.Module]:
    """Name and module of each weighted layer, in the order of its first use.

    Args:
        network: Left as it is; nothing is drawn from random numbers.
        images: Any input that it takes, shape ``(B, C, *S)``.

    Returns:
        Layers that the input reaches; those that it does not reach are left out.

    Examples:
        >>> last, first = nn.Linear(3, 1), nn.Linear(2, 3)
        >>> network = nn.ModuleDict({"last": last, "first": first})
        >>> network.forward = lambda x: last(first(x))
        >>> list(layers_in_order(network, torch.zeros(1, 2)))
        ['first', 'last']
    """
    found: dict[str, nn.Module] = {}

    def note(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            found.setdefault(name, module)

        return hook

    weighted = [(name, module) for name, module in network.named_modules() if isinstance(module, WEIGHTED)]
    hooks = [module.register_forward_hook(note(name)) for name, module in weighted]
    try:
        with evaluating(network), torch.no_grad():
            network(images)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def hidden_layers(network: nn.Module, images: Tensor) -> dict[str, nn.Module]:
    """The layers of :func:`layers_in_order` without ``head`` or ``heads``, for images of shape ``(B, C, *S)``."""
    return {name: layer for name, layer in layers_in_order(network, images).items() if not name.startswith("head")}


def weight_of(layer: nn.Module) -> nn.Parameter:
    """The weights of a weighted layer."""
    return layer.get_parameter("weight")

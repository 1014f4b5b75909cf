"""Weights as a place that one can leave and come back to, exactly."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from segmentation.model.order import evaluating

Direction = Sequence[Tensor]
"""One tensor a parameter, of its shape: where to go in the space of weights."""


@contextmanager
def kept_weights(network: nn.Module) -> Generator[list[Tensor]]:
    """Evaluate with weights that may be moved: at the end parameters, buffers and modes are bit for bit as before.

    Yields:
        The parameters as they were, in the order of ``network.parameters()``.

    Examples:
        >>> network = nn.Linear(1, 1)
        >>> before = network.weight.item()
        >>> with kept_weights(network) as home, torch.no_grad():
        ...     _ = network.weight.fill_(7.0)
        >>> network.weight.item() == before
        True
    """
    state = {name: value.detach().clone() for name, value in network.state_dict().items()}
    named = {name: state[name] for name, _ in network.named_parameters()}
    with evaluating(network):
        try:
            yield list(named.values())
        finally:
            with torch.no_grad():
                for name, value in network.state_dict().items():
                    value.copy_(state[name])


@torch.no_grad()
def move_to(network: nn.Module, home: Sequence[Tensor], steps: Sequence[tuple[float, Direction]]) -> None:
    """Set the parameters to home plus the sum of factor times direction.

    Args:
        network: Changed in place.
        home: One tensor a parameter, of the shape of the parameter.
        steps: Factors and directions.
    """
    for index, parameter in enumerate(network.parameters()):
        parameter.copy_(home[index])
        for factor, direction in steps:
            parameter.add_(direction[index], alpha=factor)


def flat_weights(network: nn.Module) -> Tensor:
    """Copy the parameters with more than one axis, end to end, shape ``(P,)``; biases and norms are left out."""
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters() if parameter.ndim > 1])


def as_direction(network: nn.Module, flat: Tensor) -> list[Tensor]:
    """Shape the inverse of :func:`flat_weights`: zeros for parameters with one axis.

    Args:
        network: Gives the shapes.
        flat: Shape ``(P,)``.

    Examples:
        >>> network = nn.Linear(2, 1)
        >>> as_direction(network, torch.tensor([1.0, 2.0]))
        [tensor([[1., 2.]]), tensor([0.])]
    """
    direction, start = [], 0
    for parameter in network.parameters():
        if parameter.ndim <= 1:
            direction.append(torch.zeros_like(parameter))
            continue
        part = flat[start : start + parameter.numel()]
        direction.append(part.view(parameter.shape).to(parameter))
        start += parameter.numel()
    return direction

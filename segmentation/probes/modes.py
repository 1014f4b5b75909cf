"""Batch normalisation while a network is measured: as in training, but without any lasting effect."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage] - the common base has no other name

from segmentation.model.order import evaluating
from segmentation.probes.context import Batch


def _batch_norms(network: nn.Module) -> list[_BatchNorm]:
    """Every batch normalisation of a network."""
    return [module for module in network.modules() if isinstance(module, _BatchNorm)]


@contextmanager
def batch_statistics(network: nn.Module) -> Generator[None]:
    """Evaluation mode, but batch normalisation uses the statistics of the batch and forgets them.

    The gradient is then the one that training sees, dropout apart.
    """
    with evaluating(network):
        tracked = [(module, module.track_running_stats) for module in _batch_norms(network)]
        for module, _ in tracked:
            module.training, module.track_running_stats = True, False
        try:
            yield
        finally:
            for module, track in tracked:
                module.track_running_stats = track


def settle(network: nn.Module, batches: Sequence[Batch]) -> nn.Module:
    """Give the batch normalisations of a network the mean statistics of ``batches``.

    A network that was never trained has none, and its evaluation mode would be that of a network without
    normalisation.

    Args:
        network: Changed in place; without batch normalisation, nothing changes.
        batches: Images of shape ``(B, C, *S)`` and labels of shape ``(B, *S)``.

    Returns:
        The network.
    """
    norms = _batch_norms(network)
    momenta = [module.momentum for module in norms]
    for module in norms:
        module.reset_running_stats()
        module.momentum = None  # the plain mean over batches
    with evaluating(network), torch.no_grad():
        for module in norms:
            module.training = True
        for images, _ in batches if norms else ():
            network(images)
    for module, momentum in zip(norms, momenta, strict=True):
        module.momentum = momentum
    return network

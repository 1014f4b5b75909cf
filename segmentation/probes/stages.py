"""The blocks of a U-Net by name, their maps as they are computed, and voxels drawn from maps of any resolution."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from segmentation.model.unet import UNet


def stages(network: UNet) -> dict[str, nn.Module]:
    """Blocks from input to output: ``E0`` to ``E(depth-1)``, the bottleneck ``B``, ``D(depth-1)`` to ``D0``."""
    found = {f"E{level}": block for level, block in enumerate(network.encoder)} | {"B": network.bottleneck}
    return found | {f"D{level}": network.decoder[level] for level in reversed(range(len(network.decoder)))}


@contextmanager
def captured(modules: Mapping[str, nn.Module]) -> Generator[dict[str, Tensor]]:
    """Keep the output of modules: after each forward pass the yielded dictionary holds the latest, by name.

    Examples:
        >>> network = nn.Sequential(nn.Identity(), nn.ReLU())
        >>> with captured({"last": network[1]}) as outputs:
        ...     _ = network(torch.tensor([-1.0, 2.0]))
        >>> outputs["last"]
        tensor([0., 2.])
    """
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            outputs[name] = output

        return hook

    hooks = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def sample_stages(
    network: nn.Module, modules: Mapping[str, nn.Module], images: Tensor, samples: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """Features of the same random places in the maps of several modules, whatever their resolution.

    A place is an image of the batch and a point in it; a map gives the voxel in which the point lies.

    Args:
        network: In evaluation mode.
        modules: Parts of it.
        images: Shape ``(B, C, *S)``.
        samples: Number of places.
        generator: Source of the places, on the CPU.

    Returns:
        For each module, shape ``(samples, C)``.
    """
    with captured(modules) as maps:
        network(images)
    image = torch.randint(len(images), (samples,), generator=generator)
    points = torch.rand(samples, images.ndim - 2, generator=generator, dtype=torch.float64)
    return {name: at_points(maps[name], image, points) for name in modules}


def at_points(maps: Tensor, image: Tensor, points: Tensor) -> Tensor:
    """Features at points of maps.

    Args:
        maps: Shape ``(B, C, *S)``.
        image: Index into the batch, shape ``(n,)``.
        points: Coordinates in [0, 1), shape ``(n, len(S))``.

    Returns:
        Shape ``(n, C)``.

    Examples:
        >>> at_points(torch.arange(4.0).view(1, 1, 4), torch.tensor([0, 0]), torch.tensor([[0.0], [0.9]])).flatten()
        tensor([0., 3.])
    """
    sizes = torch.tensor(maps.shape[2:])
    index = (points * sizes).long().to(maps.device)
    return maps.movedim(1, -1)[(image.to(maps.device), *index.unbind(dim=1))]


def pooled(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Join features, each of shape ``(n, C)``, of several batches by name."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

"""Effective receptive field: how far the network looks, in mm (Luo et al. 2016, arXiv:1701.04128).

    ERF(x) = mean over random inputs of |d y_centre / d x|, summed over image channels and averaged over classes,

y_centre being the logits of the middle voxel and the inputs standard normal noise. Its area is that of the voxels
above 0.0455 of the maximum (two standard deviations of a Gaussian leave that share outside), its radius that of a
disc of this area, sqrt(area / pi), or of a ball of this volume. The centre mass is the share of the sum within 3
voxels of the middle. The theoretical field, r = 1 + sum (k - 1) prod of strides along a chain, is the largest extent
that the layers allow; skips leave it as it is and change what lies inside.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from segmentation.figures import Figure, Series
from segmentation.model.layers import layers
from segmentation.model.order import evaluating
from segmentation.probes.context import ProbeContext, ProbeResult
from segmentation.probes.modes import settle

Array = NDArray[np.float64]
SHARE_OF_MAXIMUM = 0.0455
CENTRE_VOXELS = 3.0
NOTE = (
    "A sharp centre with wide, faint surroundings is what long skips make; without them the centre is broad. A patch "
    "smaller than the theoretical field cuts it off, and normalisations that look at the whole map spread a faint "
    "gradient over it."
)


@dataclass(frozen=True)
class Field:
    """How far a network looks.

    Attributes:
        area: Of the effective field: mm squared in 2-D, mm cubed in 3-D.
        radius_mm: Of a disc or ball of this area.
        centre_mass: Share within 3 voxels of the middle, in [0, 1].
        extent_mm: Along each axis, from the first to the last voxel with any gradient.
    """

    area: float
    radius_mm: float
    centre_mass: float
    extent_mm: Sequence[float]


def effective_field(
    network: nn.Module, channels: int, size: Sequence[int], inputs: int = 16, seed: int = 0, batch: int = 4
) -> Array:
    """Mean absolute gradient of the middle voxel's logits on standard normal inputs.

    Args:
        network: Maps images to logits; measured in evaluation mode.
        channels: Channels of an image.
        size: Voxels of an image along each axis.
        inputs: Random images.
        seed: Source of the images.
        batch: Images at a time.

    Returns:
        Shape ``size``.
    """
    generator = torch.Generator().manual_seed(seed)
    like = next(network.parameters())
    total = torch.zeros(*size, dtype=torch.float64)
    with evaluating(network), torch.enable_grad():
        for start in range(0, inputs, batch):
            count = min(batch, inputs - start)
            images = torch.randn(count, channels, *size, generator=generator).to(like).requires_grad_()
            total += _centre_gradient(network(images), images)
    return (total / inputs).numpy()


def _centre_gradient(logits: Tensor, images: Tensor) -> Tensor:
    """Absolute gradient of the middle voxel, shape ``(*S)``: summed over images and channels, mean over classes."""
    middle = logits[(..., *(voxels // 2 for voxels in logits.shape[2:]))].sum(dim=0)
    total = torch.zeros(images.shape[2:], dtype=torch.float64)
    for value in middle:
        (gradient,) = torch.autograd.grad(value, images, retain_graph=True)
        total += gradient.abs().sum(dim=(0, 1)).double().cpu()
    return total / len(middle)


def describe_field(field: Array, spacing_mm: Sequence[float]) -> Field:
    """Measure an effective receptive field.

    Args:
        field: Mean absolute gradient, shape ``(*S)``, 2-D or 3-D, its middle at ``S // 2``.
        spacing_mm: Voxel spacing along each axis.

    Examples:
        >>> field = np.zeros((9, 9))
        >>> field[3:6, 3:6] = 1.0
        >>> found = describe_field(field, (2.0, 2.0))
        >>> found.area, round(found.radius_mm, 3), found.centre_mass, found.extent_mm
        (36.0, 3.385, 1.0, [6.0, 6.0])
    """
    spacing = np.asarray(spacing_mm, np.float64)
    area = float(np.count_nonzero(field > SHARE_OF_MAXIMUM * field.max()) * spacing.prod())
    radius = math.sqrt(area / math.pi) if field.ndim == 2 else (3 * area / (4 * math.pi)) ** (1 / 3)
    axes = [np.arange(voxels) - voxels // 2 for voxels in field.shape]
    distance = np.sqrt(sum(offset.astype(np.float64) ** 2 for offset in np.meshgrid(*axes, indexing="ij")))
    mass = float(field[distance <= CENTRE_VOXELS].sum() / field.sum()) if field.any() else math.nan
    reached = [
        np.flatnonzero(field.any(axis=tuple(a for a in range(field.ndim) if a != axis))) for axis in range(field.ndim)
    ]
    extent = [float((r[-1] - r[0] + 1) * s) if len(r) else 0.0 for r, s in zip(reached, spacing, strict=True)]
    return Field(area, radius, mass, extent)


def centre_profile(field: Array) -> Array:
    """Field along the last axis through the middle, divided by its largest value: shape ``(S[-1],)`` from ``(*S)``."""
    line = field[(*(voxels // 2 for voxels in field.shape[:-1]), slice(None))]
    return line / line.max()


def theoretical_field(context: ProbeContext) -> tuple[int, ...]:
    """Voxels along each axis that a voxel of the logits depends on at most."""
    a = context.architecture
    found = layers(a.settings, a.dims, a.in_channels, a.classes, a.strides, a.kernels)
    return next(layer.field for layer in found if layer.name == "heads.0")


def probe(context: ProbeContext) -> ProbeResult:
    """Measure the effective receptive field of a run's network, at the start and now, on images of its patch size."""
    a, size, spacing = context.architecture, context.settings.data.patch_size or [], context.spacing_mm
    networks = {"at the start": settle(context.initial(), context.batches), "after training": context.network}
    fields = {
        when: effective_field(network, a.in_channels, size, seed=context.options.seed)
        for when, network in networks.items()
    }
    theory = [voxels * s for voxels, s in zip(theoretical_field(context), spacing, strict=True)]
    measured = {when: vars(describe_field(field, spacing)) for when, field in fields.items()}
    offsets = [(index - size[-1] // 2) * spacing[-1] for index in range(size[-1])]
    profiles = [Series(when, centre_profile(field).tolist(), offsets) for when, field in fields.items()]
    now = fields["after training"]
    plane = now if now.ndim == 2 else now[now.shape[0] // 2]
    figures = [
        Figure(
            "lines", f"Effective receptive field through the middle (theory: {theory[-1]:g} mm wide)",
            "distance from the middle, mm (pixels for pictures)", "gradient, largest = 1", profiles, log_y=True,
        ),
        Figure(
            "surface", "Effective receptive field", "mm", "mm", values=plane.tolist(), x=offsets,
            y=[(index - plane.shape[0] // 2) * spacing[-2] for index in range(plane.shape[0])],
            value_label="mean |gradient|", log_y=True,
        ),
    ]  # fmt: skip
    return ProbeResult(measured | {"theoretical_mm": theory, "patch": list(size)}, figures, NOTE)

"""From one level to another: every step keeps voxel i of a coarse map over voxels i * stride, i * stride + 1, ... .

Sizes are rounded up on the way down, and the far end is cut off on the way up, so that any input size works and no
map is ever stretched against another.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segmentation.config import NetworkSettings
from segmentation.model.units import MAXPOOL, UPCONV, AveragePool, ConvUnit

_LINEAR = {2: "bilinear", 3: "trilinear"}


def crop_to(x: Tensor, size: Sequence[int]) -> Tensor:
    """Cut the far end of each spatial axis of ``x``, shape ``(B, C, *S)``, down to ``size``."""
    # A cut of nothing would still be copied on the way back. An exported graph must cut whatever size it was traced on.
    always = torch.compiler.is_exporting()
    for axis, voxels in enumerate(size, start=2):
        if always or x.shape[axis] != voxels:
            x = x.narrow(axis, 0, voxels)
    return x


def enlarge(x: Tensor, factor: Sequence[int], size: Sequence[int], mode: Literal["nearest", "linear"]) -> Tensor:
    """Interpolate a map by whole factors and cut it to a size.

    Args:
        x: Feature map, shape ``(B, C, *S)``.
        factor: Factor along each axis.
        size: Voxels to keep along each axis, at most ``S * factor``.
        mode: Repeat voxels, or interpolate linearly between their centres.

    Returns:
        Feature map, shape ``(B, C, *size)``.
    """
    how = "nearest" if mode == "nearest" else _LINEAR[len(size)]
    align = None if mode == "nearest" else False
    return crop_to(F.interpolate(x, scale_factor=[float(f) for f in factor], mode=how, align_corners=align), size)


class Decimate(nn.Module):
    """Keep every ``stride``-th voxel along each axis, from the first."""

    def __init__(self, stride: Sequence[int]) -> None:
        super().__init__()
        self.stride = tuple(stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map shape ``(B, C, *S)`` to ``(B, C, *ceil(S / stride))``."""
        return x[(..., *(slice(None, None, step) for step in self.stride))]


class Rescale(nn.Module):
    """Bring a map from one level to another, by pooling down or linear interpolation up.

    Args:
        dims: 2 or 3 spatial axes.
        strides: Factor along each axis of every step down.
        source: Level of the map.
        target: Level to bring it to.
        pool: How windows are pooled on the way down.
    """

    def __init__(
        self, dims: int, strides: Sequence[Sequence[int]], source: int, target: int, pool: Literal["max", "avg"]
    ) -> None:
        super().__init__()
        steps = strides[min(source, target) : max(source, target)]
        factor = tuple(math.prod(axis) for axis in zip(*steps, strict=True))
        self.factor = factor
        self.pool = None
        if source < target:
            self.pool = MAXPOOL[dims](factor, ceil_mode=True) if pool == "max" else AveragePool(factor)

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """Map shape ``(B, C, *S)`` to ``(B, C, *size)``, ``size`` being that of the target level."""
        if not self.factor:
            return x
        return self.pool(x) if self.pool is not None else enlarge(x, self.factor, size, "linear")


def down_layer(
    settings: NetworkSettings, dims: int, channels: int, kernel: Sequence[int], stride: Sequence[int]
) -> nn.Module:
    """Build the step to the next coarser level; nothing where the next block's first convolution takes it."""
    match settings.downsample:
        case "maxpool":
            return MAXPOOL[dims](tuple(stride), ceil_mode=True)
        case "avgpool":
            return AveragePool(stride)
        case "stride":
            return ConvUnit(settings, dims, channels, channels, kernel, stride)
        case "decimate":
            return Decimate(stride)
        case "first_conv":
            return nn.Identity()


def up_layer(
    settings: NetworkSettings,
    dims: int,
    in_channels: int,
    out_channels: int,
    kernel: Sequence[int],
    stride: Sequence[int],
) -> nn.Module:
    """Build what :func:`upsample` applies: a transposed convolution, or the unit that follows an interpolation."""
    if settings.upsample == "transpose":
        return UPCONV[dims](in_channels, out_channels, tuple(stride), tuple(stride))
    return ConvUnit(settings, dims, in_channels, out_channels, kernel)


def upsample(
    layer: nn.Module,
    x: Tensor,
    stride: Sequence[int],
    size: Sequence[int],
    how: Literal["transpose", "nearest", "linear"],
) -> Tensor:
    """Bring a decoder map to the next finer level.

    Args:
        layer: From :func:`up_layer`.
        x: Coarse map, shape ``(B, C, *S)``.
        stride: Factor along each axis.
        size: Voxels of the finer level.
        how: As in the settings.

    Returns:
        Map of shape ``(B, C', *size)``.
    """
    if how == "transpose":
        return crop_to(layer(x), size)
    return layer(enlarge(x, stride, size, how))

"""Convolution units and the blocks made of them: plain, residual or dense."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from segmentation.config import Activation, NetworkSettings, Norm, ShortSkip
from segmentation.model.skips import join_short_skip

Layer = Callable[..., nn.Module]
"""Builds a layer; one for each number of spatial axes."""

CONV: dict[int, Layer] = {2: nn.Conv2d, 3: nn.Conv3d}
UPCONV: dict[int, Layer] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
MAXPOOL: dict[int, Layer] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
DROPOUT: dict[int, Layer] = {2: nn.Dropout2d, 3: nn.Dropout3d}
_BATCH_NORM: dict[int, Layer] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}

_ACTIVATIONS: dict[Activation, Layer] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "leaky_relu": lambda: nn.LeakyReLU(0.01, inplace=True),
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


class InstanceNorm(nn.Module):
    """Instance normalisation with scale and shift; unlike PyTorch's own, it also takes a map of a single voxel.

    A small image ends as one voxel in the bottleneck. Normalised, that voxel is the shift alone.

    Args:
        channels: Channels of the map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each channel of each image, shape ``(B, C, *S)``."""
        return torch.instance_norm(x, self.weight, self.bias, None, None, True, 0.0, 1e-5, True)


def norm_layer(norm: Norm, dims: int, channels: int) -> nn.Module:
    """Build the normalisation of a map with ``channels`` channels; group uses 8 channels a group where it divides."""
    match norm:
        case "none":
            return nn.Identity()
        case "batch":
            return _BATCH_NORM[dims](channels)
        case "instance":
            return InstanceNorm(channels)
        case "group":
            return nn.GroupNorm(channels // 8 if channels % 8 == 0 else 1, channels)


def conv_unit(
    settings: NetworkSettings,
    dims: int,
    in_channels: int,
    out_channels: int,
    kernel: tuple[int, ...],
    stride: tuple[int, ...] | int = 1,
) -> nn.Sequential:
    """Build convolution, normalisation, activation; the output has ``ceil(size / stride)`` voxels an axis."""
    padding = tuple(size // 2 for size in kernel)
    # A bias just before a normalisation would be subtracted again at once.
    conv = CONV[dims](in_channels, out_channels, kernel, stride, padding, bias=settings.norm == "none")
    return nn.Sequential(conv, norm_layer(settings.norm, dims, out_channels), _ACTIVATIONS[settings.activation]())


class ConvBlock(nn.Module):
    """A block of convolution units with a short skip connection.

    * ``"none"``: the units in sequence.
    * ``"add"``: every two units are a residual branch; a 1x1 convolution projects x where channels differ.
    * ``"dense"``: each unit adds ``out_channels / convs`` channels to the stack, and a 1x1 unit brings the
      stack back to ``out_channels``.

    The units have the same names in all three, so that they draw the same initial weights.

    Args:
        settings: The architecture.
        dims: 2 or 3 spatial axes.
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel: Size of the convolutions along each axis.
        short: The short skip connection.
    """

    def __init__(
        self,
        settings: NetworkSettings,
        dims: int,
        in_channels: int,
        out_channels: int,
        kernel: tuple[int, ...],
        short: ShortSkip,
    ) -> None:
        super().__init__()
        self.short: ShortSkip = short
        self.span = 2 if short == "add" else 1
        growth = max(1, out_channels // settings.convs) if short == "dense" else out_channels
        self.units = nn.ModuleList()
        self.projections = nn.ModuleList()
        channels = in_channels
        for index in range(settings.convs):
            self.units.append(conv_unit(settings, dims, channels, growth, kernel))
            if index % self.span == 0:
                project = short == "add" and channels != out_channels
                self.projections.append(CONV[dims](channels, out_channels, 1) if project else nn.Identity())
            channels = channels + growth if short == "dense" else growth
        dense = short == "dense"
        self.fuse = conv_unit(settings, dims, channels, out_channels, (1,) * dims) if dense else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map features of shape ``(B, in_channels, *S)`` to ``(B, out_channels, *S)``."""
        for index, project in enumerate(self.projections):
            branch = x
            for unit in self.units[index * self.span : (index + 1) * self.span]:
                branch = unit(branch)
            x = join_short_skip(project(x), branch, self.short)
        return self.fuse(x)

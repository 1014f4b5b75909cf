"""Layers for 2 and 3 spatial axes, and the convolution unit that every network is built of."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segmentation.config import Activation, NetworkSettings, Norm
from segmentation.model.channels_last import instance_norm, is_channels_last

Layer = Callable[..., nn.Module]
"""Builds a layer; one for each number of spatial axes."""

CONV: dict[int, Layer] = {2: nn.Conv2d, 3: nn.Conv3d}
UPCONV: dict[int, Layer] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
MAXPOOL: dict[int, Layer] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
DROPOUT: dict[int, Layer] = {2: nn.Dropout2d, 3: nn.Dropout3d}
_BATCH_NORM: dict[int, Layer] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}

_ACTIVATIONS: dict[Activation, Callable[[bool], nn.Module]] = {
    "relu": lambda inplace: nn.ReLU(inplace),
    "leaky_relu": lambda inplace: nn.LeakyReLU(0.01, inplace),
    "prelu": lambda _: nn.PReLU(),
    "elu": lambda _: nn.ELU(),
    "gelu": lambda _: nn.GELU(),
    "silu": lambda _: nn.SiLU(),
    "tanh": lambda _: nn.Tanh(),
    "sigmoid": lambda _: nn.Sigmoid(),
    "identity": lambda _: nn.Identity(),
}


class AveragePool(nn.Module):
    """Mean of each window, sizes rounded up; unlike PyTorch's own in 3-D, it also takes a map below one window.

    Args:
        stride: Size of the windows, and step between them, along each axis.
    """

    def __init__(self, stride: Sequence[int]) -> None:
        super().__init__()
        self.stride = tuple(stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map shape ``(B, C, *S)`` to ``(B, C, *ceil(S / stride))``; a window over the end has its inner mean."""
        pool = F.avg_pool2d if len(self.stride) == 2 else F.avg_pool3d
        return pool(x, tuple(map(min, self.stride, x.shape[2:])), self.stride, ceil_mode=True)


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
        if x.device.type == "cpu" and x.dtype == torch.float32 and is_channels_last(x):
            return instance_norm(x, self.weight, self.bias)
        return torch.instance_norm(x, self.weight, self.bias, None, None, True, 0.0, 1e-5, True)


def norm_layer(norm: Norm, dims: int, channels: int) -> nn.Module:
    """Build the normalisation of a map with ``channels`` channels.

    Each subtracts a mean and divides by a deviation, then scales and shifts each channel. Mean and deviation are
    taken over batch and space (batch), space (instance), space and 8 channels, or all where 8 does not divide them
    (group), or space and all channels (layer).
    """
    match norm:
        case "none":
            return nn.Identity()
        case "batch":
            return _BATCH_NORM[dims](channels)
        case "instance":
            return InstanceNorm(channels)
        case "group":
            return nn.GroupNorm(channels // 8 if channels % 8 == 0 else 1, channels)
        case "layer":
            return nn.GroupNorm(1, channels)


def activation_layer(activation: Activation, inplace: bool = False) -> nn.Module:
    """Build the non-linearity; ``prelu`` learns one slope, which starts at 0.25."""
    return _ACTIVATIONS[activation](inplace)


class ConvUnit(nn.Sequential):
    """Convolution, normalisation, activation; or, with order norm-act-conv, the convolution last.

    The output has ``ceil(size / stride)`` voxels along each axis. The convolution has a bias only without
    normalisation, which would subtract it again.

    Args:
        settings: Order, normalisation and activation.
        dims: 2 or 3 spatial axes.
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel: Size of the convolution along each axis, odd.
        stride: Step of the convolution along each axis.
    """

    def __init__(
        self,
        settings: NetworkSettings,
        dims: int,
        in_channels: int,
        out_channels: int,
        kernel: Sequence[int],
        stride: Sequence[int] | int = 1,
    ) -> None:
        last = settings.order == "norm-act-conv"
        step = stride if isinstance(stride, int) else tuple(stride)
        padding = tuple(size // 2 for size in kernel)
        conv = CONV[dims](in_channels, out_channels, tuple(kernel), step, padding, bias=settings.norm == "none")
        norm = norm_layer(settings.norm, dims, in_channels if last else out_channels)
        # Without a normalisation in front, an activation in place would overwrite what others still read.
        activation = activation_layer(settings.activation, inplace=not last or settings.norm != "none")
        super().__init__(*((norm, activation, conv) if last else (conv, norm, activation)))
        self.norm_follows = not last and settings.norm != "none"

    @property
    def conv(self) -> nn.Module:
        """The convolution, wherever it stands."""
        return next(layer for layer in self if hasattr(layer, "kernel_size"))

    def start_at_zero(self) -> None:
        """Set the output to the activation of zero: by the scale of the normalisation, else by the convolution.

        Behind a convolution of zeros a normalisation would divide by its epsilon, and enlarge the first gradients.
        """
        layer = self[1] if self.norm_follows else self.conv
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)

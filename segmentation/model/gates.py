"""Gates: small networks inside a skip connection.

Those of long skips take the upsampled decoder map u and the encoder map s of one level, and give a map of the shape of
s, which is then joined. That of a short skip weighs the branch against its input.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segmentation.config import NetworkSettings
from segmentation.model.units import CONV, ConvUnit, activation_layer


class AttentionGate(nn.Module):
    """Attention U-Net (Oktay et al. 2018, arXiv:1804.03999): a * s with a = sigmoid(psi(relu(Wg u + Wx s))).

    Wg and Wx are 1x1 convolutions to half the channels, psi is one to a single channel; all have a bias. In the paper
    u is the coarser map, and a is upsampled; here, as in most reimplementations, u is upsampled before.

    Args:
        dims: 2 or 3 spatial axes.
        channels: Channels of u and of s.
    """

    def __init__(self, dims: int, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // 2)
        self.from_decoder = CONV[dims](channels, inner, 1)
        self.from_encoder = CONV[dims](channels, inner, 1)
        self.psi = CONV[dims](inner, 1, 1)

    def attention(self, upsampled: Tensor, skip: Tensor) -> Tensor:
        """Share of each voxel that passes, in (0, 1): shape ``(B, 1, *S)`` from two maps ``(B, C, *S)``."""
        return torch.sigmoid(self.psi(F.relu(self.from_decoder(upsampled) + self.from_encoder(skip))))

    def forward(self, upsampled: Tensor, skip: Tensor) -> Tensor:
        """Weigh each voxel of ``skip``; all of shape ``(B, C, *S)``."""
        return self.attention(upsampled, skip) * skip


class ScalarGate(nn.Module):
    """Additive U-Net (arXiv:2601.13208): softplus(w) * s, one learnt w a level; softplus(w) starts at 1."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(math.log(math.e - 1)))

    def forward(self, upsampled: Tensor, skip: Tensor) -> Tensor:
        """Scale ``skip``, shape ``(B, C, *S)``."""
        return F.softplus(self.weight) * skip


class SqueezeExcitation(nn.Module):
    """Squeeze and excitation (Hu et al. 2018, arXiv:1709.01507): s * sigmoid(W2 relu(W1 mean(s))).

    The mean is over space; W1 leads to a sixteenth of the channels, at least 4 so that not all can start dead in a
    narrow network, W2 back; both have a bias.

    Args:
        dims: 2 or 3 spatial axes.
        channels: Channels of s.
    """

    def __init__(self, dims: int, channels: int) -> None:
        super().__init__()
        hidden = max(4, channels // 16)
        self.squeeze = CONV[dims](channels, hidden, 1)
        self.excite = CONV[dims](hidden, channels, 1)

    def forward(self, upsampled: Tensor, skip: Tensor) -> Tensor:
        """Weigh each channel of ``skip``, shape ``(B, C, *S)``."""
        mean = skip.mean(dim=tuple(range(2, skip.ndim)), keepdim=True)
        return torch.sigmoid(self.excite(F.relu(self.squeeze(mean)))) * skip


class ResPath(nn.Module):
    """MultiResUNet (Ibtehaz and Rahman 2020, arXiv:1902.04049): a chain of s <- act(unit(s) + W s), W being 1x1.

    Args:
        settings: What the convolution units are made of.
        dims: 2 or 3 spatial axes.
        channels: Channels of s.
        kernel: Size of the units' convolutions along each axis.
        length: Number of links; the paper has 4 at the finest of 4 levels and 1 at the coarsest.
    """

    def __init__(self, settings: NetworkSettings, dims: int, channels: int, kernel: Sequence[int], length: int) -> None:
        super().__init__()
        self.units = nn.ModuleList(ConvUnit(settings, dims, channels, channels, kernel) for _ in range(length))
        self.shortcuts = nn.ModuleList(CONV[dims](channels, channels, 1) for _ in range(length))
        self.activations = nn.ModuleList(activation_layer(settings.activation) for _ in range(length))

    def forward(self, upsampled: Tensor, skip: Tensor) -> Tensor:
        """Carry ``skip`` along the path, shape ``(B, C, *S)``."""
        for unit, shortcut, activation in zip(self.units, self.shortcuts, self.activations, strict=True):
            skip = activation(unit(skip) + shortcut(skip))
        return skip


class HighwayGate(nn.Module):
    """Highway network (Srivastava et al. 2015, arXiv:1505.00387): T in T * F(x) + (1 - T) * x.

    T = sigmoid(W x + b) with W 1x1; b starts at -1, so that a block carries most of x at first.

    Args:
        dims: 2 or 3 spatial axes.
        channels: Channels of x and of T.
    """

    def __init__(self, dims: int, channels: int) -> None:
        super().__init__()
        self.conv = CONV[dims](channels, channels, 1, bias=False)
        self.bias = nn.Parameter(torch.full((channels,), -1.0))

    def forward(self, x: Tensor) -> Tensor:
        """Share of the branch at each voxel and channel, in (0, 1); shape ``(B, C, *S)``."""
        return torch.sigmoid(self.conv(x) + self.bias.view(-1, *(1,) * (x.ndim - 2)))

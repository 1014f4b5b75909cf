"""The U-Net (Ronneberger et al. 2015, arXiv:1505.04597) with long and short skip connections as settings.

The network returns logits and knows nothing of training: no loss, no data, no optimiser.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from segmentation.config import NetworkSettings
from segmentation.model.blocks import CONV, DROPOUT, MAXPOOL, UPCONV, ConvBlock, conv_unit
from segmentation.model.init import init_parameters
from segmentation.model.skips import join_long_skip, long_skip_channels


def crop_to(x: Tensor, size: Sequence[int]) -> Tensor:
    """Cut the far end of each spatial axis of ``x``, shape ``(B, C, *S)``, down to ``size``."""
    for axis, voxels in enumerate(size, start=2):
        x = x.narrow(axis, 0, voxels)
    return x


class UNet(nn.Module):
    """Encoder, bottleneck and decoder over any input size.

    A level halves the resolution by rounding up, and the decoder cuts its upsampled map back to the size of
    its level, so that every input size gives an output of exactly that size.

    Args:
        settings: The architecture; ``depth`` and ``width`` must be set.
        dims: 2 or 3 spatial axes.
        in_channels: Channels of the image.
        classes: Channels of the logits, background included.
        strides: Factor by which each of the ``depth`` steps down shrinks each axis, such as ``(1, 2, 2)`` for
            thick slices; 2 along all axes if not given.
        kernels: Size of the 3x3 convolutions at each of the ``depth + 1`` levels; 3 along all axes if not given.
        seed: Seed of the initial weights.

    Raises:
        ValueError: If ``depth`` or ``width`` is missing, or ``strides`` or ``kernels`` has another length.

    Examples:
        >>> import torch
        >>> net = UNet(NetworkSettings(depth=2, width=8), dims=2, in_channels=1, classes=3)
        >>> net(torch.zeros(1, 1, 37, 50)).shape
        torch.Size([1, 3, 37, 50])
    """

    def __init__(
        self,
        settings: NetworkSettings,
        dims: int,
        in_channels: int,
        classes: int,
        strides: Sequence[Sequence[int]] | None = None,
        kernels: Sequence[Sequence[int]] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if settings.depth is None or settings.width is None:
            raise ValueError(f"a network needs depth and width, got {settings.depth} and {settings.width}")
        depth = settings.depth
        steps = [tuple(stride) for stride in strides or [(2,) * dims] * depth]
        sizes = [tuple(kernel) for kernel in kernels or [(3,) * dims] * (depth + 1)]
        if len(steps) != depth or len(sizes) != depth + 1:
            raise ValueError(f"depth {depth} needs {depth} strides and {depth + 1} kernels, got {steps} and {sizes}")
        channels = [min(settings.width * 2**level, settings.max_width) for level in range(depth + 1)]
        self.settings = settings
        self.dims = dims
        self.channels = channels

        self.encoder = nn.ModuleList()
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        self.decoder = nn.ModuleList()
        self.heads = nn.ModuleList()
        for level in range(depth + 1):
            width, short = channels[level], settings.short_skip_at(level, "bottleneck" if level == depth else "encoder")
            read = in_channels if level == 0 else channels[level - 1]
            block = ConvBlock(settings, dims, read, width, sizes[level], short)
            if level == depth:
                self.bottleneck = block
                self.dropout = DROPOUT[dims](settings.dropout) if settings.dropout else nn.Identity()
                break
            self.encoder.append(block)
            if settings.downsample == "maxpool":
                self.down.append(MAXPOOL[dims](steps[level], ceil_mode=True))
            else:
                self.down.append(conv_unit(settings, dims, width, width, sizes[level], steps[level]))
            self.up.append(UPCONV[dims](channels[level + 1], width, steps[level], steps[level]))
            joined = long_skip_channels(settings.long_skip_at(level), width)
            self.decoder.append(ConvBlock(settings, dims, joined, width, sizes[level], short))
            if level == 0 or (settings.deep_supervision and level < depth - 1):
                self.heads.append(CONV[dims](width, classes, 1))
        init_parameters(self, settings.init, settings.activation, seed)

    def forward(self, x: Tensor) -> Tensor:
        """Map images of shape ``(B, in_channels, *S)`` to logits of shape ``(B, classes, *S)``."""
        return self.heads[0](self.decode(x)[0])

    def forward_deep(self, x: Tensor) -> list[Tensor]:
        """Logits of every supervised level, finest first: shapes ``(B, classes, *S_level)``."""
        return [head(features) for head, features in zip(self.heads, self.decode(x), strict=False)]

    def decode(self, x: Tensor) -> list[Tensor]:
        """Decoder maps of an image of shape ``(B, in_channels, *S)``, finest first."""
        encoded: list[Tensor | None] = []
        sizes: list[Sequence[int]] = []
        for level, (block, down) in enumerate(zip(self.encoder, self.down, strict=True)):
            x = block(x)
            sizes.append(x.shape[2:])
            encoded.append(None if self.settings.long_skip_at(level) == "none" else x)
            x = down(x)
        x = self.dropout(self.bottleneck(x))
        decoded: list[Tensor] = []
        for level in reversed(range(len(self.decoder))):
            x = crop_to(self.up[level](x), sizes[level])
            x = join_long_skip(x, encoded[level], self.settings.long_skip_at(level))
            x = self.decoder[level](x)
            decoded.append(x)
        return decoded[::-1]


def count_parameters(network: nn.Module) -> int:
    """Count the numbers that training changes.

    Examples:
        >>> count_parameters(nn.Conv2d(3, 8, kernel_size=3))
        224
    """
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)

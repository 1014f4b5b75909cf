"""Long skips that wire the whole decoder, not one level: U-Net++, U-Net 3+, and skips across levels."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segmentation.config import NetworkSettings
from segmentation.model.blocks import ConvBlock
from segmentation.model.resize import Rescale, up_layer, upsample
from segmentation.model.units import CONV, ConvUnit


class NestedNodes(nn.Module):
    """The inner nodes of U-Net++ (Zhou et al. 2018, arXiv:1807.10165).

    With X[i][0] the encoder map of level i, and up() to the size and channels of level i,
    X[i][j] = block(X[i][0], ..., X[i][j-1], up(X[i+1][j-1])), all stacked along channels. Here are the nodes with
    i + j below the depth; the last one of each level, i + j = depth, is the network's own decoder block.

    Args:
        settings: The architecture.
        dims: 2 or 3 spatial axes.
        channels: Channels of each level, the bottleneck last.
        kernels: Size of the convolutions at each level.
        strides: Factor along each axis of every step down.
    """

    def __init__(
        self,
        settings: NetworkSettings,
        dims: int,
        channels: Sequence[int],
        kernels: Sequence[Sequence[int]],
        strides: Sequence[Sequence[int]],
    ) -> None:
        super().__init__()
        self.settings = settings
        self.strides = strides
        self.depth = len(strides)
        self.blocks = nn.ModuleDict()
        self.ups = nn.ModuleDict()
        for column, level in self._nodes():
            read, width, kernel = channels[level + 1], channels[level], kernels[level]
            self.ups[f"{level}_{column}"] = up_layer(settings, dims, read, width, kernel, strides[level])
            short, convs = settings.short_skip_at(level, "decoder"), settings.convs_at(level)
            stacked = (column + 1) * width
            self.blocks[f"{level}_{column}"] = ConvBlock(settings, dims, stacked, width, kernel, short, convs)

    def _nodes(self) -> list[tuple[int, int]]:
        """Column and level of every inner node, in the order in which they are computed."""
        return [(column, level) for column in range(1, self.depth) for level in range(self.depth - column)]

    def forward(self, skips: Sequence[Tensor]) -> list[list[Tensor]]:
        """Compute the maps X[i][0], ..., X[i][depth-i-1] of each level from X[i][0], shapes ``(B, C_i, *S_i)``."""
        rows = [[skip] for skip in skips]
        for column, level in self._nodes():
            up, coarse, size = self.ups[f"{level}_{column}"], rows[level + 1][column - 1], skips[level].shape[2:]
            upsampled = upsample(up, coarse, self.strides[level], size, self.settings.upsample)
            rows[level].append(self.blocks[f"{level}_{column}"](torch.cat((*rows[level], upsampled), dim=1)))
        return rows


class FullScaleLevel(nn.Module):
    """A decoder level of U-Net 3+ (Huang et al. 2020, arXiv:2004.08790).

    It reads one map of every level: from finer and equal ones the encoder's, max-pooled down; from coarser ones the
    decoder's, and the bottleneck, interpolated up. Each passes a unit to the channels of level 0; they are stacked
    and fused by one more unit that keeps their number, (depth + 1) times the channels of level 0.

    Args:
        settings: The architecture.
        dims: 2 or 3 spatial axes.
        read: Channels of the map of each level.
        width: Channels of level 0.
        kernel: Size of the convolutions at this level.
        strides: Factor along each axis of every step down.
        level: This level.
    """

    def __init__(
        self,
        settings: NetworkSettings,
        dims: int,
        read: Sequence[int],
        width: int,
        kernel: Sequence[int],
        strides: Sequence[Sequence[int]],
        level: int,
    ) -> None:
        super().__init__()
        self.level = level
        self.rescales = nn.ModuleList(Rescale(dims, strides, source, level, "max") for source in range(len(read)))
        self.branches = nn.ModuleList(ConvUnit(settings, dims, channels, width, kernel) for channels in read)
        self.fuse = ConvUnit(settings, dims, len(read) * width, len(read) * width, kernel)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Map one map a level, shapes ``(B, C_k, *S_k)``, to ``(B, (depth + 1) * C_0, *S)`` at this level."""
        size = maps[self.level].shape[2:]
        rescaled = [rescale(x, size) for rescale, x in zip(self.rescales, maps, strict=True)]
        return self.fuse(torch.cat([unit(x) for unit, x in zip(self.branches, rescaled, strict=True)], dim=1))


class Route(nn.Module):
    """Carry an encoder map to the decoder of another level: averaged down or interpolated up, then a 1x1 convolution.

    Args:
        dims: 2 or 3 spatial axes.
        channels: Channels of each level.
        strides: Factor along each axis of every step down.
        source: Encoder level.
        target: Decoder level.
    """

    def __init__(
        self, dims: int, channels: Sequence[int], strides: Sequence[Sequence[int]], source: int, target: int
    ) -> None:
        super().__init__()
        self.rescale = Rescale(dims, strides, source, target, "avg")
        self.project = CONV[dims](channels[source], channels[target], 1)

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """Map shape ``(B, C_source, *S_source)`` to ``(B, C_target, *size)``."""
        return self.project(self.rescale(x, size))

"""Blocks of convolution units with a short skip connection: plain, residual, highway or dense."""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from segmentation.config import ADDITIVE, NetworkSettings, ShortSkip
from segmentation.model.init import init_parameters
from segmentation.model.skips import ShortJoin
from segmentation.model.units import CONV, AveragePool, ConvUnit

BOTTLENECK_UNITS = 3
"""Units of a bottleneck branch: 1x1, 3x3, 1x1."""


class ConvBlock(nn.Module):
    """A block of convolution units with a short skip connection.

    The units form branches F. Each reads some x and ends in a :class:`~segmentation.model.skips.ShortJoin`:

    * ``none``: one unit a branch, so that the units are in sequence.
    * ``add``, ``scaled_add``, ``gated_add``: ``short_skip_every`` units a branch; a 1x1 convolution projects x
      where channels or size differ.
    * ``dense``: one unit a branch, which adds ``out_channels / convs`` channels to the stack; a 1x1 unit brings the
      stack back to ``out_channels``.
    * A branch of ``bottleneck`` blocks is always 1x1, 3x3, 1x1 with a quarter of its channels inside (He et al.
      2016, arXiv:1512.03385), and ``convs`` counts branches.

    The units have the same names with every short skip, so that they draw the same initial weights.

    Args:
        settings: The architecture.
        dims: 2 or 3 spatial axes.
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel: Size of the convolutions along each axis.
        short: The short skip connection.
        convs: Units of the block, or branches if they are bottlenecks; otherwise those of the settings.
        stride: Step of the first convolution along each axis.

    Attributes:
        units: All units in order.
        span: Units of a branch; the last branch may have fewer.
        projections: How x reaches the join of each branch.
        joins: The join of each branch.
    """

    def __init__(
        self,
        settings: NetworkSettings,
        dims: int,
        in_channels: int,
        out_channels: int,
        kernel: Sequence[int],
        short: ShortSkip,
        convs: int | None = None,
        stride: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        convs = convs or settings.convs
        self.short: ShortSkip = short
        self.span = settings.short_skip_every if short in ADDITIVE else 1
        count = convs
        if settings.block == "bottleneck":
            self.span = BOTTLENECK_UNITS
            count *= BOTTLENECK_UNITS
        dense = short == "dense"
        write = max(1, out_channels // convs) if dense else out_channels
        self.units = nn.ModuleList()
        self.projections = nn.ModuleList()
        self.joins = nn.ModuleList()
        channels, step = in_channels, tuple(stride or (1,) * dims)
        for start in range(0, count, self.span):
            length = min(self.span, count - start)
            for a, b, size in _branch(settings, channels, write, kernel, length):
                self.units.append(ConvUnit(settings, dims, a, b, size, step if len(self.units) == 0 else 1))
            self.projections.append(_projection(short, dims, channels, write, step if start == 0 else (1,) * dims))
            self.joins.append(ShortJoin(short, settings, dims, write))
            channels = channels + write if dense else write
        self.fuse = ConvUnit(settings, dims, channels, out_channels, (1,) * dims) if dense else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map features of shape ``(B, in_channels, *S)`` to ``(B, out_channels, *ceil(S / stride))``."""
        for index, (project, join) in enumerate(zip(self.projections, self.joins, strict=True)):
            branch = x
            for unit in self.units[index * self.span : (index + 1) * self.span]:
                branch = unit(branch)
            x = join(project(x), branch)
        return self.fuse(x)

    def start_as_identity(self) -> None:
        """Set the last unit of each residual branch to zero; other short skips are left as they are."""
        if self.short in ("add", "scaled_add"):
            ends = [*range(self.span, len(self.units), self.span), len(self.units)]
            for last in (self.units[end - 1] for end in ends):
                assert isinstance(last, ConvUnit)
                last.start_at_zero()


def _branch(
    settings: NetworkSettings, read: int, write: int, kernel: Sequence[int], units: int
) -> list[tuple[int, int, Sequence[int]]]:
    """Channels read, channels written and kernel of each unit of a branch."""
    if settings.block == "bottleneck":
        inner, one = max(1, write // 4), (1,) * len(kernel)
        return [(read, inner, one), (inner, inner, kernel), (inner, write, one)]
    return [(read, write, kernel), *[(write, write, kernel)] * (units - 1)]


def _projection(short: ShortSkip, dims: int, read: int, write: int, stride: Sequence[int]) -> nn.Module:
    """What brings x to the size of its branch and, for a sum, to its channels."""
    strided = math.prod(stride) > 1
    if short in ADDITIVE and (strided or read != write):
        return CONV[dims](read, write, 1, tuple(stride))
    if short == "dense" and strided:
        return AveragePool(stride)
    return nn.Identity()


def draw_weights(network: nn.Module, settings: NetworkSettings, seed: int) -> None:
    """Draw the initial weights of a network of blocks, as ``init``, ``gain`` and ``zero_last`` say."""
    init_parameters(network, settings.init, settings.activation, seed, settings.gain)
    if settings.zero_last:
        for module in network.modules():
            if isinstance(module, ConvBlock):
                module.start_as_identity()

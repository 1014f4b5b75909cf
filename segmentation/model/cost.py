"""Cost of layers and blocks, from their sizes alone: parameters, multiplications, memory, receptive field."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from segmentation.config import NetworkSettings, ShortSkip
from segmentation.model.field import Reach

IN_PLACE = ("relu", "leaky_relu")
"""Activations that overwrite the map they read, where nothing else reads it."""
_BOTTLENECK_UNITS = 3


@dataclass(frozen=True)
class LayerCost:
    """One layer and what it costs for one image.

    Attributes:
        name: Dotted name of its module in the network.
        channels: Channels that it writes.
        size: Voxels of its output along each axis.
        parameters: Numbers that training changes.
        macs: Multiply-accumulates of a convolution; 0 for every other layer.
        activation: Numbers of 4 bytes that it writes; 0 if it overwrites what it reads.
        field: Voxels of the image, along each axis, that one voxel of its output depends on at most, borders left
            out. Normalisation and squeeze-excitation, which see a whole map, are not counted.
    """

    name: str
    channels: int
    size: tuple[int, ...]
    parameters: int
    macs: int
    activation: int
    field: tuple[int, ...]


class Map(NamedTuple):
    """A feature map: its channels, its size, and which voxels of the image it depends on (empty: not followed)."""

    channels: int
    size: tuple[int, ...]
    reach: tuple[Reach, ...] = ()

    @property
    def voxels(self) -> int:
        """Voxels of one channel."""
        return math.prod(self.size)


class Tape:
    """Writes down layers as a network is followed from its image to its logits.

    Args:
        settings: The architecture.
        dims: Spatial axes.

    Attributes:
        one: Kernel of 1x1 convolutions, and stride of those that keep the size.
        layers: What was written down, in order.
    """

    def __init__(self, settings: NetworkSettings, dims: int) -> None:
        self.settings = settings
        self.dims = dims
        self.one = (1,) * dims
        self.layers: list[LayerCost] = []

    def write(self, name: str, y: Map, parameters: int = 0, macs: int = 0, written: int | None = None) -> Map:
        """Write down a layer whose output is ``y``; ``written`` is what it writes if that is not ``y``."""
        activation = y.channels * y.voxels if written is None else written
        if parameters or macs or activation:
            field = tuple(reach.width for reach in y.reach)
            self.layers.append(LayerCost(name, y.channels, y.size, parameters, macs, activation, field))
        return y

    def conv(
        self, name: str, x: Map, channels: int, kernel: Sequence[int], stride: Sequence[int] | None = None,
        bias: bool = True,
    ) -> Map:  # fmt: skip
        """A convolution; its output has ``ceil(size / stride)`` voxels an axis."""
        steps = stride or self.one
        size = tuple(-(-n // s) for n, s in zip(x.size, steps, strict=True))
        reach = tuple(r.window(k, s) for r, k, s in zip(x.reach, kernel, steps, strict=False))
        y = Map(channels, size, reach)
        weights = x.channels * channels * math.prod(kernel)
        return self.write(name, y, weights + bias * channels, weights * y.voxels)

    def upconv(self, name: str, x: Map, channels: int, stride: Sequence[int], size: tuple[int, ...]) -> Map:
        """A transposed convolution whose kernel is its stride; its output is then cut to ``size``."""
        weights = x.channels * channels * math.prod(stride)
        reach = tuple(r.repeat(s) for r, s in zip(x.reach, stride, strict=False))
        full = channels * x.voxels * math.prod(stride)
        return self.write(name, Map(channels, size, reach), weights + channels, weights * x.voxels, full)

    def norm(self, name: str, x: Map) -> Map:
        """The normalisation, with scale and shift for each channel."""
        return x if self.settings.norm == "none" else self.write(name, x, 2 * x.channels)

    def act(self, name: str, x: Map, in_place: bool = True) -> Map:
        """The activation; ``prelu`` learns one slope."""
        activation = self.settings.activation
        kept = activation == "identity" or (in_place and activation in IN_PLACE)
        return self.write(name, x, int(activation == "prelu"), written=0 if kept else None)

    def unit(self, name: str, x: Map, channels: int, kernel: Sequence[int], stride: Sequence[int] | None = None) -> Map:
        """A convolution unit."""
        bias = self.settings.norm == "none"
        if self.settings.order == "norm-act-conv":
            x = self.act(f"{name}.1", self.norm(f"{name}.0", x), in_place=not bias)
            return self.conv(f"{name}.2", x, channels, kernel, stride, bias)
        x = self.conv(f"{name}.0", x, channels, kernel, stride, bias)
        return self.act(f"{name}.2", self.norm(f"{name}.1", x))

    def pool(self, name: str, x: Map, stride: Sequence[int], indices: bool = False) -> Map:
        """Pooling whose window is its stride; the size is rounded up. Maxima keep 64-bit ``indices``."""
        size = tuple(-(-n // s) for n, s in zip(x.size, stride, strict=True))
        reach = tuple(r.window(s, s, 0) for r, s in zip(x.reach, stride, strict=False))
        y = Map(x.channels, size, reach)
        return self.write(name, y, written=y.channels * y.voxels * (3 if indices else 1))

    def decimate(self, x: Map, stride: Sequence[int]) -> Map:
        """Every ``stride``-th voxel: a view, which writes nothing."""
        size = tuple(-(-n // s) for n, s in zip(x.size, stride, strict=True))
        reach = tuple(r.window(1, s) for r, s in zip(x.reach, stride, strict=False))
        return Map(x.channels, size, reach)

    def enlarge(self, name: str, x: Map, factor: Sequence[int], size: tuple[int, ...], mode: str) -> Map:
        """Interpolation by whole factors, ``"nearest"`` or ``"linear"``, cut to ``size``."""
        pairs = zip(x.reach, factor, strict=False)
        reach = tuple(r.repeat(f) if mode == "nearest" else r.interpolate(f) for r, f in pairs)
        return self.write(name, Map(x.channels, size, reach))

    def stack(self, name: str, *maps: Map) -> Map:
        """Concatenation along channels."""
        return self.write(name, self.merged(sum(each.channels for each in maps), *maps))

    def merged(self, channels: int, *maps: Map) -> Map:
        """A map of ``channels`` channels that depends on all of ``maps``."""
        reach = maps[0].reach
        for each in maps[1:]:
            reach = tuple(a.join(b) for a, b in zip(reach, each.reach, strict=True))
        return Map(channels, maps[0].size, reach)

    def block(
        self, name: str, x: Map, channels: int, kernel: Sequence[int], short: ShortSkip, convs: int,
        stride: tuple[int, ...],
    ) -> Map:  # fmt: skip
        """A block of convolution units with a short skip."""
        dense, bottleneck = short == "dense", self.settings.block == "bottleneck"
        write = max(1, channels // convs) if dense else channels
        span = 1 if short in ("none", "dense") else self.settings.short_skip_every
        branch_units = [(write, kernel)] * min(span, convs)
        count = convs
        if bottleneck:
            inner = max(1, write // 4)
            branch_units = [(inner, self.one), (inner, kernel), (write, self.one)]
            span, count = _BOTTLENECK_UNITS, convs * _BOTTLENECK_UNITS
        for index, start in enumerate(range(0, count, span)):
            branch = x
            for unit, (out, size) in enumerate(branch_units[: count - start], start):
                branch = self.unit(f"{name}.units.{unit}", branch, out, size, self.one if unit else stride)
            x = self._short_join(name, index, x, branch, short, self.one if index else stride)
        return self.unit(f"{name}.fuse", x, channels, self.one) if dense else x

    def _short_join(
        self, block: str, index: int, x: Map, branch: Map, short: ShortSkip, stride: tuple[int, ...]
    ) -> Map:
        """The end of a short skip."""
        if short == "none":
            return branch
        join, projection = f"{block}.joins.{index}", f"{block}.projections.{index}"
        strided = math.prod(stride) > 1
        if short == "dense":
            return self.stack(join, self.pool(projection, x, stride) if strided else x, branch)
        if strided or x.channels != branch.channels:
            x = self.conv(projection, x, branch.channels, self.one, stride)
        if short == "gated_add":
            gate = self.conv(f"{join}.gate.conv", x, branch.channels, self.one, bias=False)
            self.write(f"{join}.gate", gate, gate.channels)
        learned = short == "scaled_add" and self.settings.short_skip_scale_learned
        return self.write(join, self.merged(branch.channels, x, branch), int(learned))

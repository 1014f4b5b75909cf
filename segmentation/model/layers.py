"""Every layer of a network and its cost, from its description alone: nothing is built, PyTorch is not needed.

This follows :class:`segmentation.model.unet.UNet` step by step; tests hold the two together, layer by layer. Counted
are the multiply-accumulates of convolutions and transposed convolutions; normalisation, activation, pooling,
interpolation, sums and biases are not.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from segmentation.config import LongSkip, NetworkSettings, ShortSkip
from segmentation.model.cost import LayerCost, Map, Tape
from segmentation.model.field import Reach

Kernels = Sequence[Sequence[int]]
"""One value for each axis, at each level or step."""
SIZE = {2: (256, 256), 3: (96, 96, 96)}
"""Voxels of the image if none are given."""
_BYTES = 4


@dataclass(frozen=True)
class TotalCost:
    """What a whole network costs.

    Attributes:
        parameters: Numbers that training changes.
        macs: Multiply-accumulates of the convolutions, for one image, all supervised outputs included.
        activation_bytes: Bytes, in fp32, of the image and of every map that the forward pass writes for it: about
            what training keeps for the backward pass, and an upper bound of it. Weights, gradients, the optimiser's
            state and the workspace of convolutions come on top.
    """

    parameters: int
    macs: int
    activation_bytes: int


def layers(
    settings: NetworkSettings,
    dims: int,
    in_channels: int,
    classes: int,
    strides: Kernels | None = None,
    kernels: Kernels | None = None,
    size: Sequence[int] | None = None,
    follow: bool = True,
) -> list[LayerCost]:
    """List the layers of a network in the order in which it computes them.

    Args:
        settings: The architecture; ``depth`` and ``width`` or ``widths`` must be set.
        dims: Spatial axes.
        in_channels: Channels of the image.
        classes: Channels of the logits.
        strides: Factor by which each step down shrinks each axis; 2 if not given.
        kernels: Size of the convolutions at each level, unless the settings have a ``kernel``; 3 if not given.
        size: Voxels of the image along each axis; 256 in 2-D and 96 in 3-D if not given.
        follow: Also follow receptive fields; otherwise ``field`` is empty.

    Raises:
        SkipSegError: If depth or width is missing.

    Examples:
        >>> first, *_, head = layers(NetworkSettings(depth=2, width=8, norm="none"), 2, 1, 2, size=(64, 64))
        >>> first.name, first.parameters, first.macs, first.field
        ('encoder.0.units.0.0', 80, 294912, (3, 3))
        >>> head.name, head.size, head.field
        ('heads.0', (64, 64), (44, 44))
    """
    walk = _Walk(settings, dims, strides, kernels)
    voxels = tuple(size or SIZE[dims])
    periods = map(math.prod, zip(*walk.strides, strict=True))
    reach = tuple(map(Reach.of_image, periods)) if follow else ()
    walk.network(Map(in_channels, voxels, reach), classes)
    return walk.layers


def total_cost(
    settings: NetworkSettings,
    dims: int,
    in_channels: int,
    classes: int,
    strides: Kernels | None = None,
    kernels: Kernels | None = None,
    size: Sequence[int] | None = None,
) -> TotalCost:
    """Sum the costs of all layers; arguments as of :func:`layers`.

    Raises:
        SkipSegError: If depth or width is missing.

    Examples:
        >>> total_cost(NetworkSettings(depth=4, width=64, max_width=1024, norm="none"), 2, 1, 1).parameters
        31030593
    """
    found = layers(settings, dims, in_channels, classes, strides, kernels, size, follow=False)
    written = in_channels * math.prod(size or SIZE[dims]) + sum(layer.activation for layer in found)
    parameters = sum(layer.parameters for layer in found)
    return TotalCost(parameters, sum(layer.macs for layer in found), _BYTES * written)


class _Walk(Tape):
    """Follows a network from its image to its logits; its methods mirror the modules of the same names."""

    def __init__(self, settings: NetworkSettings, dims: int, strides: Kernels | None, kernels: Kernels | None) -> None:
        super().__init__(settings, dims)
        self.channels = settings.channels()
        self.depth = len(self.channels) - 1
        self.strides = [tuple(each) for each in strides or [(2,) * dims] * self.depth]
        self.kernels = [tuple(each) for each in kernels or [(3,) * dims] * (self.depth + 1)]
        if settings.kernel is not None:
            self.kernels = [(settings.kernel,) * dims] * (self.depth + 1)

    def network(self, x: Map, classes: int) -> None:
        """The whole network."""
        settings = self.settings
        if settings.order == "norm-act-conv" or settings.input_skip:
            x = self.conv("stem", x, self.channels[0], self.kernels[0])
        image = x
        encoded: list[Map] = []
        for level in range(self.depth):
            x = self._encode(f"encoder.{level}", x, level)
            encoded.append(x)
            x = self._down(level, x)
        x = self._encode("bottleneck", x, self.depth)
        match settings.long_skip:
            case "nested":
                decoded = self._decode_nested(encoded, x)
            case "fullscale":
                decoded = self._decode_fullscale(encoded, x)
            case _:
                decoded = self._decode_plain(encoded, x)
        if settings.input_skip:
            decoded[0] = self.write("input_skip", self.merged(decoded[0].channels, decoded[0], image))
        supervised = max(1, self.depth - 1) if settings.deep_supervision else 1
        for level in reversed(range(supervised)):
            y = decoded[level]
            if settings.order == "norm-act-conv":
                y = self.act(f"finals.{level}.1", self.norm(f"finals.{level}.0", y))
            self.conv(f"heads.{level}", y, classes, self.one)

    # Blocks

    def _encode(self, name: str, x: Map, level: int) -> Map:
        """A block on the way down."""
        strided = level > 0 and self.settings.downsample == "first_conv"
        short = self.settings.short_skip_at(level, "bottleneck" if level == self.depth else "encoder")
        return self._block(name, x, level, short, self.strides[level - 1] if strided else self.one)

    def _decode(self, name: str, x: Map, level: int) -> Map:
        """A block on the way up."""
        return self._block(name, x, level, self.settings.short_skip_at(level, "decoder"), self.one)

    def _block(self, name: str, x: Map, level: int, short: ShortSkip, stride: tuple[int, ...]) -> Map:
        """A block of ``level``."""
        convs = self.settings.convs_at(level)
        return self.block(name, x, self.channels[level], self.kernels[level], short, convs, stride)

    # From level to level

    def _down(self, level: int, x: Map) -> Map:
        """The step to the next coarser level."""
        name, stride = f"down.{level}", self.strides[level]
        match self.settings.downsample:
            case "maxpool" | "avgpool":
                return self.pool(name, x, stride, indices=self.settings.downsample == "maxpool")
            case "stride":
                return self.unit(name, x, x.channels, self.kernels[level], stride)
            case "decimate":
                return self.decimate(x, stride)
            case "first_conv":
                return x

    def _up(self, name: str, x: Map, level: int, size: tuple[int, ...]) -> Map:
        """The step to the next finer level."""
        channels, stride = self.channels[level], self.strides[level]
        if self.settings.upsample == "transpose":
            return self.upconv(name, x, channels, stride, size)
        enlarged = self.enlarge(name, x, stride, size, self.settings.upsample)
        return self.unit(name, enlarged, channels, self.kernels[level])

    def _rescale(
        self, name: str, x: Map, source: int, target: int, size: tuple[int, ...], indices: bool = False
    ) -> Map:
        """From any level to any other, by pooling or linear interpolation."""
        steps = self.strides[min(source, target) : max(source, target)]
        factor = tuple(map(math.prod, zip(*steps, strict=True)))
        if not factor:
            return x
        if source > target:
            return self.enlarge(name, x, factor, size, "linear")
        return self.pool(name, x, factor, indices)

    # Long skips

    def _tap(self, level: int, x: Map) -> Map:
        """Where a long skip leaves the encoder."""
        settings = self.settings
        learned = settings.long_skip_scale_learned
        scaled = learned or settings.long_skip_scale * settings.long_skip_scale_decay**level != 1
        stood_in = settings.long_skip_placebo not in ("none", "dup")
        changed = scaled or stood_in or settings.long_skip_norm != "none"
        changed = changed or settings.long_skip_gradient == "backward_only" or settings.long_skip_dropout > 0
        return self.write(f"taps.{level}", x, int(learned), written=x.channels * x.voxels * changed)

    def _join(self, level: int, kind: LongSkip, x: Map, skip: Map) -> Map:
        """Where a long skip enters the decoder."""
        name = f"joins.{level}"
        match kind:
            case "gated":
                skip = self._attention(f"{name}.gate", x, skip)
            case "gated_scalar":
                skip = self.write(f"{name}.gate", skip, 1)
            case "se":
                mean = skip._replace(size=self.one)
                hidden = self.conv(f"{name}.gate.squeeze", mean, max(4, skip.channels // 16), self.one)
                self.conv(f"{name}.gate.excite", hidden, skip.channels, self.one)
                skip = self.write(f"{name}.gate", skip)
            case "respath":
                skip = self._respath(f"{name}.gate", skip, level)
            case _:
                pass
        if kind in ("concat", "gated", "se", "respath"):
            return self.stack(name, x, skip)
        return self.write(name, self.merged(x.channels, x, skip))

    def _attention(self, name: str, x: Map, skip: Map) -> Map:
        """Attention gate."""
        inner = max(1, skip.channels // 2)
        self.conv(f"{name}.from_decoder", x, inner, self.one)
        both = self.conv(f"{name}.from_encoder", skip, inner, self.one)
        both = self.write(name, self.merged(inner, x, both))
        share = self.conv(f"{name}.psi", both, 1, self.one)
        return self.write(name, self.merged(skip.channels, share, skip), written=(1 + skip.channels) * skip.voxels)

    def _respath(self, name: str, skip: Map, level: int) -> Map:
        """Residual path."""
        for link in range(self.depth - level):
            branch = self.unit(f"{name}.units.{link}", skip, skip.channels, self.kernels[level])
            self.conv(f"{name}.shortcuts.{link}", skip, skip.channels, self.one)
            skip = self.act(f"{name}.activations.{link}", self.write(name, branch), in_place=False)
        return skip

    def _decode_plain(self, encoded: Sequence[Map], x: Map) -> list[Map]:
        """Each level joined with the one encoder map that it reads, if any; finest first."""
        decoded: list[Map] = []
        sources = self.settings.long_skip_permute or range(self.depth)
        for level in reversed(range(self.depth)):
            kind, source, size = self.settings.long_skip_at(level), sources[level], encoded[level].size
            x = self._up(f"up.{level}", x, level, size)
            if kind != "none":
                skip = self._tap(source, encoded[source])
                if source != level:
                    skip = self._rescale(f"routes.{level}.rescale", skip, source, level, size)
                    skip = self.conv(f"routes.{level}.project", skip, self.channels[level], self.one)
                x = self._join(level, kind, x, skip)
            x = self._decode(f"decoder.{level}", x, level)
            decoded.append(x)
        return decoded[::-1]

    def _decode_nested(self, encoded: Sequence[Map], x: Map) -> list[Map]:
        """U-Net++; finest first."""
        rows = [[self._tap(level, each)] for level, each in enumerate(encoded)]
        for column in range(1, self.depth + 1):
            for level in range(self.depth - column + 1):
                last = column + level == self.depth
                up, block = f"nested.ups.{level}_{column}", f"nested.blocks.{level}_{column}"
                up, block = (f"up.{level}", f"decoder.{level}") if last else (up, block)
                coarse = rows[level + 1][column - 1] if level + 1 < self.depth else x
                upsampled = self._up(up, coarse, level, encoded[level].size)
                stacked = self.stack(block, *rows[level], upsampled)
                rows[level].append(self._decode(block, stacked, level))
        return [row[-1] for row in rows]

    def _decode_fullscale(self, encoded: Sequence[Map], x: Map) -> list[Map]:
        """U-Net 3+; finest first."""
        maps = [*(self._tap(level, each) for level, each in enumerate(encoded)), x]
        width = self.channels[0]
        for level in reversed(range(self.depth)):
            name, kernel, size = f"decoder.{level}", self.kernels[level], maps[level].size
            read = [
                self._rescale(f"{name}.rescales.{k}", each, k, level, size, indices=True) for k, each in enumerate(maps)
            ]
            parts = [self.unit(f"{name}.branches.{k}", each, width, kernel) for k, each in enumerate(read)]
            maps[level] = self.unit(f"{name}.fuse", self.stack(name, *parts), len(parts) * width, kernel)
        return maps[:-1]

"""The U-Net (Ronneberger et al. 2015, arXiv:1505.04597) with long and short skip connections as settings.

The network returns logits and knows nothing of training: no loss, no data, no optimiser.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segmentation.config import WHOLE_DECODER, NetworkSettings
from segmentation.model.blocks import ConvBlock, draw_weights
from segmentation.model.resize import down_layer, up_layer, upsample
from segmentation.model.skips import SkipJoin, SkipTap
from segmentation.model.units import CONV, DROPOUT, activation_layer, norm_layer
from segmentation.model.wiring import FullScaleLevel, NestedNodes, Route


class UNet(nn.Module):
    """Encoder, bottleneck and decoder over any input size.

    A level halves the resolution by rounding up, and the decoder cuts its upsampled map back to the size of
    its level, so that every input size gives an output of exactly that size.

    Args:
        settings: The architecture; ``depth`` and ``width`` or ``widths`` must be set.
        dims: 2 or 3 spatial axes.
        in_channels: Channels of the image.
        classes: Channels of the logits, background included.
        strides: Factor by which each of the ``depth`` steps down shrinks each axis, such as ``(1, 2, 2)`` for
            thick slices; 2 along all axes if not given.
        kernels: Size of the convolutions at each of the ``depth + 1`` levels, unless the settings have a ``kernel``;
            3 along all axes if not given.
        seed: Seed of the initial weights.

    Attributes:
        channels: Channels of each level, the bottleneck last.
        encoder: Block of each level.
        taps: Where the encoder map of a level leaves for the decoder, by ``str(level)``; see :meth:`tap`.
        joins: Where it enters the decoder, by ``str(level)``: none for ``none``, ``nested`` and ``fullscale``.
        sources: Encoder level that each decoder level with a long skip reads.
        up: Upsampling into each level; none for ``fullscale``.
        decoder: Block of each level.
        heads: 1x1 convolution to logits of each supervised level, finest first.

    Raises:
        SkipSegError: If ``depth`` or ``width`` is missing.
        ValueError: If ``strides`` or ``kernels`` has another length.

    Examples:
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
        self.settings = settings
        self.dims = dims
        self.channels = settings.channels()
        depth = len(self.channels) - 1
        self.strides = [tuple(stride) for stride in strides or [(2,) * dims] * depth]
        self.kernels = [tuple(kernel) for kernel in kernels or [(3,) * dims] * (depth + 1)]
        found = f"{self.strides} and {self.kernels}"
        if len(self.strides) != depth or len(self.kernels) != depth + 1:
            raise ValueError(f"depth {depth} needs {depth} strides and {depth + 1} kernels, got {found}")
        if settings.kernel is not None:
            self.kernels = [(settings.kernel,) * dims] * (depth + 1)
        # In this order: an optimiser that is resumed knows its parameters by their place.
        self.encoder, self.down, self.up, self.decoder, self.heads, self.finals = (nn.ModuleList() for _ in range(6))
        self._build_encoder(in_channels)
        self._build_skips()
        self._build_decoder(classes)
        draw_weights(self, settings, seed)

    def _build_encoder(self, in_channels: int) -> None:
        """Make what leads from the image to the bottleneck."""
        settings, dims, channels, depth = self.settings, self.dims, self.channels, len(self.strides)
        padding = tuple(size // 2 for size in self.kernels[0])
        stem = settings.order == "norm-act-conv" or settings.input_skip
        blocks: list[ConvBlock] = []
        for level, width in enumerate(channels):
            read = channels[level - 1] if level else channels[0] if stem else in_channels
            stride = self.strides[level - 1] if level and settings.downsample == "first_conv" else None
            short = settings.short_skip_at(level, "bottleneck" if level == depth else "encoder")
            convs = settings.convs_at(level)
            blocks.append(ConvBlock(settings, dims, read, width, self.kernels[level], short, convs, stride))
        self.encoder.extend(blocks[:-1])
        for width, kernel, stride in zip(channels, self.kernels, self.strides, strict=False):
            self.down.append(down_layer(settings, dims, width, kernel, stride))
        self.bottleneck = blocks[-1]
        self.dropout = DROPOUT[dims](settings.dropout) if settings.dropout else nn.Identity()
        conv = CONV[dims](in_channels, channels[0], self.kernels[0], padding=padding)
        self.stem = conv if stem else nn.Identity()

    def _build_skips(self) -> None:
        """Make the long skips: a tap where one leaves the encoder, a route and a join where it enters the decoder."""
        settings, dims, depth = self.settings, self.dims, len(self.strides)
        joined = [level for level in range(depth) if settings.long_skip_at(level) != "none"]
        permutation = settings.long_skip_permute or range(depth)
        self.sources = {level: permutation[level] for level in joined}
        self.taps = nn.ModuleDict({str(level): SkipTap(settings, level) for level in sorted(self.sources.values())})
        self.joins = nn.ModuleDict()
        self.routes = nn.ModuleDict()
        self.nested = None
        if settings.long_skip == "nested":
            self.nested = NestedNodes(settings, dims, self.channels, self.kernels, self.strides)
        if settings.long_skip in WHOLE_DECODER:
            return
        for level, source in self.sources.items():
            kind, width, kernel = settings.long_skip_at(level), self.channels[level], self.kernels[level]
            self.joins[str(level)] = SkipJoin(kind, settings, dims, width, kernel, depth - level)
            if source != level:
                self.routes[str(level)] = Route(dims, self.channels, self.strides, source, level)

    def _build_decoder(self, classes: int) -> None:
        """Make what leads from the bottleneck to the logits."""
        settings, dims, channels, depth = self.settings, self.dims, self.channels, len(self.strides)
        wide = (depth + 1) * channels[0]
        for level in range(depth):
            kernel, width = self.kernels[level], channels[level]
            if settings.long_skip == "fullscale":
                read = [*channels[: level + 1], *[wide] * (depth - level - 1), channels[-1]]
                self.decoder.append(FullScaleLevel(settings, dims, read, channels[0], kernel, self.strides, level))
                continue
            self.up.append(up_layer(settings, dims, channels[level + 1], width, kernel, self.strides[level]))
            short, convs = settings.short_skip_at(level, "decoder"), settings.convs_at(level)
            self.decoder.append(ConvBlock(settings, dims, self._joined(level), width, kernel, short, convs))
        for level in range(max(1, depth - 1) if settings.deep_supervision else 1):
            width = wide if settings.long_skip == "fullscale" else channels[level]
            final = nn.Sequential(norm_layer(settings.norm, dims, width), activation_layer(settings.activation))
            self.finals.append(final if settings.order == "norm-act-conv" else nn.Identity())
            self.heads.append(CONV[dims](width, classes, 1))

    def _joined(self, level: int) -> int:
        """Channels that the decoder block of ``level`` reads."""
        if self.nested is not None:
            return (len(self.strides) - level + 1) * self.channels[level]
        join = self.joins[str(level)] if level in self.sources else None
        return join.channels if isinstance(join, SkipJoin) else self.channels[level]

    def tap(self, level: int) -> SkipTap | None:
        """Tap of an encoder level, or ``None`` where no long skip reads it."""
        if level not in self.sources.values():
            return None
        tap = self.taps[str(level)]
        assert isinstance(tap, SkipTap)
        return tap

    def forward(self, x: Tensor) -> Tensor:
        """Map images of shape ``(B, in_channels, *S)`` to logits of shape ``(B, classes, *S)``."""
        return self.heads[0](self.finals[0](self.decode(x)[0]))

    def forward_deep(self, x: Tensor) -> list[Tensor]:
        """Logits of every supervised level, finest first: shapes ``(B, classes, *S_level)``."""
        outputs = zip(self.heads, self.finals, self.decode(x), strict=False)
        return [head(final(features)) for head, final, features in outputs]

    def decode(self, x: Tensor) -> list[Tensor]:
        """Decoder maps of an image of shape ``(B, in_channels, *S)``, finest first."""
        image = self.stem(x)
        encoded, sizes, x = self._encode(image)
        if self.nested is not None:
            decoded = self._decode_nested(encoded, x)
        elif self.settings.long_skip == "fullscale":
            decoded = self._decode_fullscale(encoded, x)
        else:
            decoded = self._decode_plain(encoded, sizes, x)
        if self.settings.input_skip:
            decoded[0] = decoded[0] + image
        return decoded

    def _encode(self, x: Tensor) -> tuple[dict[int, Tensor], list[Sequence[int]], Tensor]:
        """Encoder maps that some long skip reads, size of every level, and the bottleneck's map."""
        encoded: dict[int, Tensor] = {}
        sizes: list[Sequence[int]] = []
        for level, (block, down) in enumerate(zip(self.encoder, self.down, strict=True)):
            x = block(x)
            sizes.append(x.shape[2:])
            if str(level) in self.taps:
                encoded[level] = x
            x = down(x)
        return encoded, sizes, self.dropout(self.bottleneck(x))

    def _upsample(self, level: int, x: Tensor, size: Sequence[int]) -> Tensor:
        """Bring a decoder map to ``level``."""
        return upsample(self.up[level], x, self.strides[level], size, self.settings.upsample)

    def _decode_plain(self, encoded: dict[int, Tensor], sizes: list[Sequence[int]], x: Tensor) -> list[Tensor]:
        """Join each level with the one encoder map that it reads, if any."""
        decoded: list[Tensor] = []
        for level in reversed(range(len(sizes))):
            x = self._upsample(level, x, sizes[level])
            if level in self.sources:
                source, route = self.sources[level], str(level) in self.routes
                skip = self.taps[str(source)](encoded[source], x)
                skip = self.routes[str(level)](skip, sizes[level]) if route else skip
                x = self.joins[str(level)](x, skip)
            x = self.decoder[level](x)
            decoded.append(x)
        return decoded[::-1]

    def _decode_nested(self, encoded: dict[int, Tensor], x: Tensor) -> list[Tensor]:
        """Stack each level with all nodes before it."""
        assert self.nested is not None
        rows = self.nested([self.taps[str(level)](encoded[level]) for level in sorted(encoded)])
        decoded: list[Tensor] = []
        for level in reversed(range(len(rows))):
            x = self._upsample(level, x, rows[level][0].shape[2:])
            x = self.decoder[level](torch.cat((*rows[level], x), dim=1))
            decoded.append(x)
        return decoded[::-1]

    def _decode_fullscale(self, encoded: dict[int, Tensor], x: Tensor) -> list[Tensor]:
        """Replace, from the coarsest level on, the encoder's map by the decoder's, which finer levels then read."""
        maps = [*(self.taps[str(level)](encoded[level]) for level in sorted(encoded)), x]
        for level in reversed(range(len(encoded))):
            maps[level] = self.decoder[level](maps)
        return maps[:-1]


def count_parameters(network: nn.Module) -> int:
    """Count the numbers that training changes.

    Examples:
        >>> count_parameters(nn.Conv2d(3, 8, kernel_size=3))
        224
    """
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)

"""The skip connections: the study's independent variable, alone in its file.

A long skip leaves the encoder through a :class:`SkipTap` and enters the decoder through a :class:`SkipJoin`. A
:class:`ShortJoin` ends a short skip inside a block. One convention holds everywhere: y = x + F(x).
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from segmentation.config import LongSkip, NetworkSettings, Placebo, ShortSkip
from segmentation.model.gates import AttentionGate, HighwayGate, ResPath, ScalarGate, SqueezeExcitation

_STACK: tuple[LongSkip, ...] = ("concat", "gated", "se", "respath")
_JOIN: dict[LongSkip, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "gated_scalar": torch.add,
    "mean": lambda upsampled, skip: (upsampled + skip) / 2,
    "mul": torch.mul,
    "max": torch.maximum,
    **dict.fromkeys(_STACK, lambda upsampled, skip: torch.cat((upsampled, skip), dim=1)),
}


def placebo_of(skip: Tensor, kind: Placebo, upsampled: Tensor | None, seed: int | None) -> Tensor:
    """Replace an encoder map by a stand-in, so that the network keeps its parameters and loses the information.

    Args:
        skip: Encoder map, shape ``(B, C, *S)``.
        kind: ``"zeros"``; ``"dup"``, the decoder map again; ``"noise"``, Gaussian with the mean and deviation of
            each channel of each image; ``"shuffle"``, in training (without ``seed``) the encoder map of the
            previous image of the batch, else its own, rolled by half; ``"none"`` keeps the map.
        upsampled: Decoder map, shape ``(B, C, *S)``; only ``"dup"`` reads it.
        seed: Seed of the noise, which is then one map for all images, so that no image depends on the others of
            its batch; ``None`` draws from the global generator.

    Returns:
        The stand-in, shape ``(B, C, *S)``. Zeros and noise pass no gradient to the encoder.

    Raises:
        ValueError: If ``"dup"`` is given no decoder map of the shape of ``skip``.

    Examples:
        >>> maps = torch.arange(3.0).reshape(3, 1, 1, 1)
        >>> placebo_of(maps, "shuffle", None, None).flatten()
        tensor([2., 0., 1.])
    """
    match kind:
        case "none":
            return skip
        case "zeros":
            return torch.zeros_like(skip)
        case "dup":
            if upsampled is None or upsampled.shape != skip.shape:
                found = None if upsampled is None else tuple(upsampled.shape)
                raise ValueError(f"placebo dup needs a decoder map of shape {tuple(skip.shape)}, got {found}")
            return upsampled
        case "noise":
            return _noise_like(skip.detach(), seed)
        case "shuffle" if seed is None and skip.shape[0] > 1:
            return skip.roll(1, dims=0)
        case "shuffle":
            return roll_part(skip, 2)


def roll_part(skip: Tensor, parts: int) -> Tensor:
    """Roll each map, shape ``(B, C, *S)``, by one part of its size along every axis: as it was, but in another place.

    Windows of one scan are neighbours, and those of a volume cut into slices nearly alike: the map of another one
    would still be nearly the right one.
    """
    return skip.roll([size // parts for size in skip.shape[2:]], dims=tuple(range(2, skip.ndim)))


def _noise_like(x: Tensor, seed: int | None) -> Tensor:
    """Gaussian with the mean and the deviation of each channel of each image."""
    space = tuple(range(2, x.ndim))
    if seed is None:
        noise = torch.randn_like(x)
    else:  # drawn on the CPU, so that every device has the same
        noise = torch.randn(1, *x.shape[1:], generator=torch.Generator().manual_seed(seed)).to(x)
    return x.mean(space, keepdim=True) + x.std(space, correction=0, keepdim=True) * noise


def drop(x: Tensor, share: float, mode: Literal["element", "channel", "path"]) -> Tensor:
    """Set a random share of a map to zero and divide the rest by what is kept, so that the expectation stays.

    Args:
        x: Feature map, shape ``(B, C, *S)``.
        share: Probability of zero, in [0, 1).
        mode: What is dropped at a time: ``"element"``, ``"channel"`` (Tompson et al. 2015, arXiv:1411.4280), or
            ``"path"``, the whole map of an image (Huang et al. 2016, arXiv:1603.09382).

    Returns:
        Thinned map, shape ``(B, C, *S)``; from the global random generator.

    Examples:
        >>> drop(torch.ones(64, 1, 3, 3), 0.5, "path").mean(dim=(1, 2, 3)).unique()
        tensor([0., 2.])
    """
    own = {"element": x.ndim, "channel": 2, "path": 1}[mode]
    keep = x.new_empty((*x.shape[:own], *(1,) * (x.ndim - own))).bernoulli_(1 - share)
    return x * keep / (1 - share)


class SkipTap(nn.Module):
    """Where the map of an encoder level leaves for the decoder: every long skip of that level flows through here.

    In this order: placebo, normalisation, gradient, scale, dropout. A tap of the default settings is the identity
    and has no parameters. Lesions and the measures of skips hook the taps.

    Args:
        settings: All of ``long_skip_*``. The scale starts at ``long_skip_scale * long_skip_scale_decay**level``
            (ScaleLong, arXiv:2310.13545). The gradient is cut by s.detach() (forward_only) or the value by
            s - s.detach() (backward_only). Instance normalisation has no parameters here.
        level: Encoder level.
    """

    def __init__(self, settings: NetworkSettings, level: int) -> None:
        super().__init__()
        self.settings = settings
        self.level = level
        scale = settings.long_skip_scale * settings.long_skip_scale_decay**level
        self.scale = nn.Parameter(torch.tensor(scale)) if settings.long_skip_scale_learned else scale

    def forward(self, encoded: Tensor, upsampled: Tensor | None = None) -> Tensor:
        """Map an encoder map, shape ``(B, C, *S)``, to what the decoder sees of it, of the same shape.

        Args:
            encoded: Encoder map, shape ``(B, C, *S)``.
            upsampled: Decoder map, shape ``(B, C, *S)``; only the placebo ``dup`` reads it.
        """
        settings = self.settings
        skip = placebo_of(encoded, settings.long_skip_placebo, upsampled, None if self.training else self.level)
        if settings.long_skip_norm == "instance":
            skip = torch.instance_norm(skip, None, None, None, None, True, 0.0, 1e-5, True)
        match settings.long_skip_gradient:
            case "both":
                pass
            case "forward_only":
                skip = skip.detach()
            case "backward_only":
                skip = skip - skip.detach()
        if isinstance(self.scale, Tensor) or self.scale != 1:
            skip = skip * self.scale
        if self.training and settings.long_skip_dropout:
            skip = drop(skip, settings.long_skip_dropout, settings.long_skip_dropout_mode)
        return skip


class SkipJoin(nn.Module):
    """Where a long skip enters the decoder: joins the upsampled decoder map u with the encoder map s of its level.

    * ``concat``: u and s stacked along channels, u first (U-Net, arXiv:1505.04597).
    * ``add``: u + s (LinkNet, arXiv:1707.03718); ``mean``: (u + s) / 2; ``mul``: u * s; ``max``: max(u, s).
    * ``gated``, ``se``, ``respath``: u stacked with what the gate makes of s; ``gated_scalar``: their sum. The
      formulas stand with the gates, in :mod:`segmentation.model.gates`.

    Args:
        kind: Any long skip that joins two maps: not none, nested or fullscale.
        settings: What convolution units are made of.
        dims: 2 or 3 spatial axes.
        channels: Channels of u and of s.
        kernel: Size of convolutions at this level.
        path: Links of a ``respath``: the levels from here to the bottleneck.

    Attributes:
        channels: Channels of the joined map: twice those of u where maps are stacked.

    Raises:
        ValueError: If ``kind`` does not join two maps.

    Examples:
        >>> join = SkipJoin("concat", NetworkSettings(), dims=2, channels=4, kernel=(3, 3), path=1)
        >>> join(torch.ones(1, 4, 5, 7), torch.ones(1, 4, 5, 7)).shape, join.channels
        (torch.Size([1, 8, 5, 7]), 8)
    """

    def __init__(
        self, kind: LongSkip, settings: NetworkSettings, dims: int, channels: int, kernel: Sequence[int], path: int
    ) -> None:
        super().__init__()
        if kind not in _JOIN:
            raise ValueError(f"a join of two maps must be one of {tuple(_JOIN)}, got {kind!r}")
        self.kind: LongSkip = kind
        self.channels = 2 * channels if kind in _STACK else channels
        match kind:
            case "gated":
                self.gate = AttentionGate(dims, channels)
            case "gated_scalar":
                self.gate = ScalarGate()
            case "se":
                self.gate = SqueezeExcitation(dims, channels)
            case "respath":
                self.gate = ResPath(settings, dims, channels, kernel, path)
            case _:
                self.gate = None

    def forward(self, upsampled: Tensor, skip: Tensor) -> Tensor:
        """Join two maps of shape ``(B, C, *S)`` to one of shape ``(B, channels, *S)``.

        Raises:
            ValueError: If the two do not have one shape.
        """
        if skip.shape != upsampled.shape:
            found = f"{tuple(upsampled.shape)} and {tuple(skip.shape)}"
            raise ValueError(f"long skip {self.kind!r} joins maps of one shape, got {found}")
        return _JOIN[self.kind](upsampled, skip if self.gate is None else self.gate(upsampled, skip))


class ShortJoin(nn.Module):
    """Where a short skip ends: joins the input x of some convolutions with their output F(x).

    Nothing follows the sum, so that dy/dx = 1 + F' holds as written and a branch of zeros is the identity.

    * ``none``: F(x). * ``add``: x + F(x) (He et al. 2016, arXiv:1512.03385).
    * ``scaled_add``: x + a F(x), with a fixed or learnt (SkipInit, arXiv:2002.10444).
    * ``gated_add``: T F(x) + (1 - T) x (:class:`~segmentation.model.gates.HighwayGate`).
    * ``dense``: x and F(x) stacked along channels (Huang et al. 2017, arXiv:1608.06993).

    Args:
        kind: The short skip.
        settings: ``short_skip_scale`` and whether it is learnt.
        dims: 2 or 3 spatial axes.
        channels: Channels of F(x), and of x in the additive kinds.
    """

    def __init__(self, kind: ShortSkip, settings: NetworkSettings, dims: int, channels: int) -> None:
        super().__init__()
        self.kind: ShortSkip = kind
        scale = settings.short_skip_scale
        learned = kind == "scaled_add" and settings.short_skip_scale_learned
        self.scale = nn.Parameter(torch.tensor(scale)) if learned else scale
        self.gate = HighwayGate(dims, channels) if kind == "gated_add" else None

    def forward(self, x: Tensor, branch: Tensor) -> Tensor:
        """Join x, shape ``(B, C, *S)``, with F(x), shape ``(B, C', *S)``; ``dense`` gives C + C' channels."""
        match self.kind:
            case "none":
                return branch
            case "add":
                return x + branch
            case "scaled_add":
                return x + self.scale * branch
            case "gated_add" if self.gate is not None:
                return x + self.gate(x) * (branch - x)
            case _:
                return torch.cat((x, branch), dim=1)

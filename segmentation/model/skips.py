"""Skip connections: the study's independent variable, alone in its file.

A long skip connection joins an encoder map with the decoder map of the same level. A short skip connection
joins the input of some convolutions with what they made of it. One convention holds everywhere: y = x + F(x).
"""

from typing import get_args

import torch
from torch import Tensor

from segmentation.config import LongSkip, ShortSkip


def long_skip_channels(kind: LongSkip, channels: int) -> int:
    """Count the channels that a decoder block reads when decoder and encoder map have ``channels`` each.

    Examples:
        >>> [long_skip_channels(kind, 16) for kind in ("concat", "add", "none")]
        [32, 16, 16]
    """
    return 2 * channels if kind == "concat" else channels


def join_long_skip(upsampled: Tensor, encoded: Tensor | None, kind: LongSkip) -> Tensor:
    """Join an upsampled decoder map with the encoder map of the same level.

    Args:
        upsampled: Decoder feature map, shape ``(B, C, *S)``.
        encoded: Encoder feature map, shape ``(B, C, *S)``; may be ``None`` for ``"none"``, which ignores it.
        kind: ``"concat"`` stacks the two along channels, ``"add"`` sums them, ``"none"`` keeps the decoder map.

    Returns:
        Joined feature map, shape ``(B, 2C, *S)`` for ``"concat"``, else ``(B, C, *S)``.

    Raises:
        ValueError: If ``kind`` is unknown, or the two maps do not have one shape.

    Examples:
        >>> upsampled, encoded = torch.ones(1, 4, 5, 7), torch.ones(1, 4, 5, 7)
        >>> join_long_skip(upsampled, encoded, "concat").shape
        torch.Size([1, 8, 5, 7])
        >>> join_long_skip(upsampled, encoded, "add").unique()
        tensor([2.])
    """
    if kind not in get_args(LongSkip):
        raise ValueError(f"long skip must be one of {get_args(LongSkip)}, got {kind!r}")
    if kind == "none":
        return upsampled
    if encoded is None or encoded.shape != upsampled.shape:
        found = None if encoded is None else tuple(encoded.shape)
        raise ValueError(f"long skip {kind!r} joins maps of one shape, got {tuple(upsampled.shape)} and {found}")
    return torch.cat((upsampled, encoded), dim=1) if kind == "concat" else upsampled + encoded


def join_short_skip(x: Tensor, branch: Tensor, kind: ShortSkip) -> Tensor:
    """Join the input x of some convolutions with their output F(x).

    Nothing follows the sum, so that dy/dx = 1 + F' holds as written and a branch of zeros is the identity.

    Args:
        x: Input, projected to the branch's channels for ``"add"``, shape ``(B, C, *S)``.
        branch: F(x), shape ``(B, C', *S)``.
        kind: ``"add"`` gives x + F(x) (He et al. 2016, arXiv:1512.03385), ``"dense"`` stacks the two along
            channels (Huang et al. 2017, arXiv:1608.06993), ``"none"`` keeps F(x).

    Returns:
        Joined feature map, shape ``(B, C + C', *S)`` for ``"dense"``, else ``(B, C', *S)``.

    Raises:
        ValueError: If ``kind`` is unknown.

    Examples:
        >>> x, branch = torch.ones(1, 4, 5, 7), torch.ones(1, 4, 5, 7)
        >>> [join_short_skip(x, branch, kind).shape[1] for kind in ("none", "add", "dense")]
        [4, 4, 8]
    """
    match kind:
        case "none":
            return branch
        case "add":
            return x + branch
        case "dense":
            return torch.cat((x, branch), dim=1)
        case _:
            raise ValueError(f"short skip must be one of {get_args(ShortSkip)}, got {kind!r}")

"""Maps whose channels lie last in memory: the layout in which convolutions on a CPU are fastest.

oneDNN computes a convolution of such maps as products of matrices, without reordering them before and after. PyTorch's
instance normalisation does not know the layout, and copies each map twice; the one of this module does.
"""

from typing import Any

import torch
from torch import Tensor

from segmentation.config import Norm

CHANNELS_LAST_NORMS: frozenset[Norm] = frozenset({"none", "instance"})
"""Normalisations that are fast and exact in this layout.

PyTorch's over groups of channels is ten times slower on its way back, and over a batch it sums in single precision.
"""

FORMAT = {2: torch.channels_last, 3: torch.channels_last_3d}
"""The layout for each number of spatial axes."""


def channels_last(x: Tensor) -> Tensor:
    """Copy a map of shape ``(B, C, *S)`` so that the channels of a voxel lie side by side; its values stay.

    Examples:
        >>> channels_last(torch.zeros(2, 3, 4, 5)).stride()
        (60, 1, 15, 3)
    """
    # Tensor.to would return a map of one channel as it is, and the first convolution would not see the layout.
    return torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=FORMAT[x.ndim - 2]).copy_(x)


def is_channels_last(x: Tensor) -> bool:
    """Tell whether the channels of a map, shape ``(B, C, *S)``, lie last, and not first as well."""
    return not x.is_contiguous() and x.is_contiguous(memory_format=FORMAT[x.ndim - 2])


def instance_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Normalise each channel of each image: ``(x - mean) / sqrt(var + 1e-5) * weight + bias`` (arXiv:1607.08022).

    Args:
        x: Map whose channels lie last, shape ``(B, C, *S)``.
        weight: Scale of each channel, shape ``(C,)``.
        bias: Shift of each channel, shape ``(C,)``.

    Returns:
        Normalised map, shape ``(B, C, *S)``, channels last. It has first derivatives only; ``create_graph`` is refused.

    Examples:
        >>> x = channels_last(torch.arange(16.0).reshape(1, 2, 2, 4))
        >>> [round(v, 2) for v in instance_norm(x, torch.ones(2), torch.zeros(2))[0, 0, 0].tolist()]
        [-1.53, -1.09, -0.65, -0.22]
    """
    # PyTorch does not say what apply returns.
    return _InstanceNorm.apply(x, weight, bias)  # pyright: ignore[reportReturnType, reportUnknownVariableType]


class _InstanceNorm(torch.autograd.Function):
    """Image by image, so that a map is still in the cache when it is read again; no other memory than the results."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Keep the centred map, in place of x, for the way back."""
        centred, result = torch.empty_like(x), torch.empty_like(x)
        voxels = x[0, 0].numel()
        deviations: list[Tensor] = []
        for image, c, y in zip(_rows(x), _rows(centred), _rows(result), strict=True):
            torch.sub(image, _sums(image) / voxels, out=c)
            torch.mul(c, c, out=y)
            deviations.append((_sums(y) / voxels + 1e-5).rsqrt())
            torch.addcmul(bias, c, weight * deviations[-1], out=y)
        ctx.save_for_backward(centred, torch.stack(deviations), weight)
        return result

    # PyTorch declares backward for any arguments, and calls it with one gradient a result.
    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """With h the normalised map and g the gradient: ``weight * inverse * (g - mean(g) - h * mean(g * h))``."""
        if torch.is_grad_enabled():  # once_differentiable says so only where the graph leads back to a leaf
            raise RuntimeError("this normalisation has no second derivatives; lay the network out with channels first")
        centred, inverses, weight = ctx.saved_tensors
        gradient = gradients[0].contiguous(memory_format=FORMAT[centred.ndim - 2])
        result = torch.empty_like(centred)
        voxels = centred[0, 0].numel()
        weights, biases = torch.empty_like(inverses), torch.empty_like(inverses)
        images = zip(_rows(gradient), _rows(centred), _rows(result), inverses, weights, biases, strict=True)
        for g, c, d, inverse, of_weight, of_bias in images:
            scale = weight * inverse
            torch.mul(g, c, out=d)
            torch.mul(_sums(d), inverse, out=of_weight)
            of_bias.copy_(_sums(g))
            torch.addcmul(-scale * of_bias / voxels, c, -scale * inverse * of_weight / voxels, out=d)
            d.addcmul_(g, scale)
        return result, weights.sum(0), biases.sum(0)


def _rows(x: Tensor) -> Tensor:
    """The same memory as ``(B, *S, C)``."""
    return x.movedim(1, -1)


def _sums(rows: Tensor) -> Tensor:
    """Sum of each channel; in two stages, which round less than one."""
    return rows.flatten(1, -2).sum(1).sum(0)

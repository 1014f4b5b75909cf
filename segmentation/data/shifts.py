"""Images as another scanner would show them: noisier, blurred, of another gain, or under an uneven field.

Each shift takes images of shape ``(B, C, *S)``, 2-D or 3-D, and gives images of the same shape. Structures stay where
they are, so labels stay true. The same images and seed always give the same result.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

_INTERPOLATION = {2: "bilinear", 3: "trilinear"}
_FIELD_KNOTS = 4
"""Points along each axis between which the field is interpolated."""


def add_noise(images: Tensor, level: float, seed: int = 0) -> Tensor:
    """Add white Gaussian noise.

    Args:
        images: Of shape ``(B, C, *S)``.
        level: Its standard deviation, in standard deviations of ``images``.
        seed: Source of the noise.
    """
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed)).to(images)
    return images + level * images.std() * noise


def blur(images: Tensor, sigma: float) -> Tensor:
    """Smooth by a Gaussian, cut at three ``sigma``, borders repeated.

    Args:
        images: Of shape ``(B, C, *S)``.
        sigma: Its standard deviation in voxels.

    Examples:
        >>> point = torch.zeros(1, 1, 9, 9)
        >>> point[..., 4, 4] = 1.0
        >>> round(blur(point, 1.0).sum().item(), 4), round(blur(point, 1.0)[0, 0, 4, 4].item(), 4)
        (1.0, 0.1592)
    """
    radius = math.ceil(3 * sigma)
    offsets = torch.arange(-radius, radius + 1)
    weights = torch.exp(-(offsets**2) / (2 * sigma**2)).to(images)
    weights /= weights.sum()
    for axis in range(2, images.ndim):
        last = images.shape[axis] - 1
        places = torch.arange(last + 1)
        shifted = (images.index_select(axis, (places + o).clamp(0, last).to(images.device)) for o in offsets)
        images = torch.stack([w * each for w, each in zip(weights, shifted, strict=True)]).sum(dim=0)
    return images


def gain(images: Tensor, factor: float) -> Tensor:
    """Multiply the contrast of images, shape ``(B, C, *S)``, about the mean of each image and channel.

    Examples:
        >>> gain(torch.tensor([[[[1.0, 3.0]]]]), 0.5).flatten().tolist()
        [1.5, 2.5]
    """
    mean = images.mean(dim=tuple(range(2, images.ndim)), keepdim=True)
    return mean + factor * (images - mean)


def bias_field(images: Tensor, factor: float, seed: int = 0) -> Tensor:
    """Multiply intensities by a smooth field, as the coils of an MR scanner do.

    The field is exp of a map drawn at 4 points along each axis and interpolated linearly, scaled to reach from
    ``1 / factor`` or less to ``factor`` or less, one of them reached. Intensities count from the smallest of each
    image and channel.

    Args:
        images: Of shape ``(B, C, *S)``.
        factor: Largest factor of the field, above 1.
        seed: Source of the fields, one an image.
    """
    dims = images.ndim - 2
    generator = torch.Generator().manual_seed(seed)
    knots = torch.randn(len(images), 1, *(_FIELD_KNOTS,) * dims, generator=generator)
    smooth = functional.interpolate(knots, images.shape[2:], mode=_INTERPOLATION[dims], align_corners=True)
    axes = tuple(range(1, images.ndim))
    smooth = smooth - smooth.mean(dim=axes, keepdim=True)
    smooth = (smooth / smooth.abs().amax(dim=axes, keepdim=True)).to(images)
    lowest = images.amin(dim=axes[1:], keepdim=True)
    return lowest + (images - lowest) * torch.exp(math.log(factor) * smooth)


def standardise(images: Tensor) -> Tensor:
    """Bring each image and channel, shape ``(B, C, *S)``, to mean 0 and standard deviation 1.

    Examples:
        >>> standardise(torch.tensor([[[[1.0, 3.0]]]])).flatten().tolist()
        [-1.0, 1.0]
    """
    axes = tuple(range(2, images.ndim))
    centred = images - images.mean(dim=axes, keepdim=True)
    return centred / images.std(dim=axes, keepdim=True, unbiased=False)

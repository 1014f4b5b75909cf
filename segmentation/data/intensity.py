"""Changes of intensities, each as a small function; arrays are changed in place where that is faster.

Every function takes a volume of shape ``(C, I, J, K)``, contiguous, and returns one of the same shape.
"""

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

Image = NDArray[np.float32]


def scale(image: Image, factor: float) -> Image:
    """Multiply intensities of shape ``(C, *S)``, in place."""
    return np.multiply(image, np.float32(factor), out=image)


def shift(image: Image, offset: float) -> Image:
    """Add to intensities of shape ``(C, *S)``, in place."""
    return np.add(image, np.float32(offset), out=image)


def gamma(image: Image, exponent: float) -> Image:
    """Raise intensities to a power between the lowest and the highest of the image, shape ``(C, *S)``, in place.

    Examples:
        >>> gamma(np.array([[[0.5, 1.0, 1.5]]], np.float32), 2.0).tolist()
        [[[0.5, 0.75, 1.5]]]
    """
    low, high = image.min(), image.max()
    if low == high:
        return image
    image -= low
    image /= high - low
    np.power(image, np.float32(exponent), out=image)
    image *= high - low
    image += low
    return image


def add_noise(image: Image, deviation: float, seed: int) -> Image:
    """Add white Gaussian noise to shape ``(C, *S)``, in place; PyTorch draws it three times as fast as NumPy."""
    noise = torch.empty(image.shape).normal_(0, deviation, generator=torch.Generator().manual_seed(seed))
    image += noise.numpy()
    return image


def blur(image: Image, sigmas: Sequence[float] | NDArray[np.float64]) -> Image:
    """Smooth shape ``(C, *S)`` by a Gaussian cut at four standard deviations, the rim repeated.

    Args:
        image: Of shape ``(C, *S)``.
        sigmas: Standard deviation along each axis, in voxels.
    """
    across, rows, columns = map(_gaussian, sigmas)
    # All planes of a channel side by side are one picture, whose columns run along the first axis.
    first = [_filtered(channel.reshape(len(channel), -1), across) for channel in image]
    planes = np.stack(first).reshape(-1, *image.shape[-2:])
    return np.stack([_filtered(plane, rows, columns) for plane in planes]).reshape(image.shape)


def _filtered(picture: Any, rows: NDArray[np.float64], columns: Any = 1.0) -> Any:
    """A picture filtered along its columns by ``rows``, and along its rows by ``columns``."""
    return cv2.sepFilter2D(picture, -1, np.atleast_1d(columns), rows, borderType=cv2.BORDER_REPLICATE)


def _gaussian(sigma: float) -> NDArray[np.float64]:
    """Weights of a sampled Gaussian."""
    reach = math.floor(4 * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return weights / weights.sum()

"""From a scan to what the network sees, and back: every step has its inverse here.

An image is turned to canonical axes (closest to RAS+), resampled to the planned spacing, and its intensities
are mapped affinely into [0, 1]. Training, inference and export share this one path, so a model meets at
inference exactly what it met in training.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from torch.nn import functional

from segmentation.data.preprocessing import Preprocessing
from segmentation.scans import Scan, from_canonical, to_canonical

_INTERPOLATION = {2: "bilinear", 3: "trilinear"}


def prepare_image(scan: Scan, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Prepare the intensities of ``scan``: shape ``(C, *S)``, values in [0, 1], slice axis first."""
    shape = preprocessing.prepared_shape(scan)
    channels = zip(to_canonical(scan).array, preprocessing.normalisation, strict=True)
    image = np.stack([np.clip(resample(entry.apply(x), shape), 0, 1) for x, entry in channels])
    axis = preprocessing.slice_axis
    return image if axis is None else np.ascontiguousarray(np.moveaxis(image, axis + 1, 1))


def prepare_label_map(labels: Scan, preprocessing: Preprocessing, classes: int) -> NDArray[np.uint8]:
    """Prepare a label map: shape ``(*S)``, on the grid of :func:`prepare_image`; the ignore label survives as K."""
    shape = preprocessing.prepared_shape(labels)
    array = to_canonical(labels).array[0]
    if array.shape != shape:
        array = resample_labels(array, shape, classes)
    if preprocessing.slice_axis is not None:
        array = np.moveaxis(array, preprocessing.slice_axis, 0)
    return np.ascontiguousarray(array, dtype=np.uint8)


def restore_label_map(
    probabilities: NDArray[np.float32], scan: Scan, preprocessing: Preprocessing
) -> NDArray[np.uint8]:
    """Bring probabilities on the prepared grid back to a label map in the scan's own frame.

    Probabilities, not labels, are resampled, one class at a time, so memory holds two maps of the scan's size.

    Args:
        probabilities: Shape ``(K, *S)``, slice axis first if there is one.
        scan: The scan they were computed from.
        preprocessing: How it was prepared.

    Returns:
        Class index of every voxel, shape as ``scan.spatial_shape``.
    """
    if preprocessing.slice_axis is not None:
        probabilities = np.moveaxis(probabilities, 1, preprocessing.slice_axis + 1)
    shape = to_canonical(scan).spatial_shape
    best = resample(probabilities[0], shape)
    label_map = np.zeros(shape, np.uint8)
    for index in range(1, len(probabilities)):
        values = resample(probabilities[index], shape)
        wins = values > best
        label_map[wins] = index
        best[wins] = values[wins]
    return from_canonical(label_map, scan)


def resample(channel: NDArray[np.floating[Any]], shape: Sequence[int]) -> NDArray[np.float32]:
    """Resample one map to another number of voxels over the same extent, by linear interpolation.

    Where an axis shrinks, the map is first smoothed along it by a Gaussian of ``(factor - 1) / 2`` voxels, so
    that fine detail does not alias.

    Args:
        channel: Values, shape ``(*S)``.
        shape: New spatial shape.

    Returns:
        Values on the new grid, shape ``shape``; the input itself if nothing changes.

    Examples:
        >>> resample(np.array([[0.0, 1.0]], np.float32), (1, 4)).round(2)
        array([[0.  , 0.25, 0.75, 1.  ]], dtype=float32)
    """
    values = np.ascontiguousarray(channel, dtype=np.float32)
    if values.shape == tuple(shape):
        return values.copy()
    for axis, (old, new) in enumerate(zip(values.shape, shape, strict=True)):
        if old > new:
            values = gaussian_filter1d(values, (old / new - 1) / 2, axis=axis, mode="nearest")
    tensor = torch.from_numpy(values)[None, None]
    mode = _INTERPOLATION[values.ndim]
    return functional.interpolate(tensor, tuple(shape), mode=mode, align_corners=False)[0, 0].numpy()


def resample_labels(label_map: NDArray[Any], shape: Sequence[int], classes: int) -> NDArray[np.uint8]:
    """Resample a label map, shape ``(*S)``: each class as a mask by :func:`resample`, then the largest wins.

    Args:
        label_map: Class indices below ``classes``, or ``classes`` for voxels to ignore.
        shape: New spatial shape.
        classes: Number of classes K, background included.

    Returns:
        Class indices on the new grid, shape ``shape``.
    """
    best = np.zeros(tuple(shape), np.float32)
    result = np.zeros(tuple(shape), np.uint8)
    for index in range(classes + 1):
        mask = label_map == index
        if mask.any():
            values = resample(mask.astype(np.float32), shape)
            wins = values > best
            result[wins] = index
            best[wins] = values[wins]
    return result


def stack_context(
    image: NDArray[Any], positions: Sequence[int] | NDArray[np.integer[Any]], context: int
) -> NDArray[Any]:
    """Give each slice its neighbours as channels; beyond the first and last slice, that slice is repeated.

    Args:
        image: Shape ``(C, S, H, W)``.
        positions: Slice indices, n of them.
        context: Neighbours on each side.

    Returns:
        Shape ``(n, C * (2 * context + 1), H, W)``, from the lowest neighbour to the highest, channels together.

    Examples:
        >>> stack = stack_context(np.arange(3.0).reshape(1, 3, 1, 1), [0], context=1)
        >>> stack.ravel()
        array([0., 0., 1.])
    """
    offsets = np.arange(-context, context + 1)
    index = np.clip(np.asarray(positions)[:, None] + offsets, 0, image.shape[1] - 1)
    stack = np.moveaxis(image[:, index], 0, 2)
    return stack.reshape(len(index), -1, *image.shape[2:])


def standardise(images: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """Centre and scale images in [0, 1], shape ``(B, C, *S)`` with C network channels, by the dataset's statistics."""
    repeats = 1 + 2 * preprocessing.context_slices
    shape = (1, -1) + (1,) * (images.ndim - 2)
    mean = torch.tensor([n.mean for n in preprocessing.normalisation] * repeats, device=images.device).view(shape)
    std = torch.tensor([n.std for n in preprocessing.normalisation] * repeats, device=images.device).view(shape)
    return (images - mean) / std

"""From a scan to what the network sees, and back: every step has its inverse here.

An image is turned to canonical axes (closest to RAS+), resampled to the planned spacing, and its intensities
are mapped affinely into [0, 1]. Training, inference and export share this one path, so a model meets at
inference exactly what it met in training.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from segmentation.data.planes import resample, resampled
from segmentation.data.preprocessing import Preprocessing
from segmentation.scans import Scan, from_canonical, to_canonical
from segmentation.scans.blocks import c_order
from segmentation.scans.workspace import Workspace

if TYPE_CHECKING:  # prediction without PyTorch prepares scans too
    from torch import Tensor


def plane_axis(scan: Scan, preprocessing: Preprocessing) -> int:
    """Canonical axis across the planes in which a scan is prepared and its map restored.

    It is the axis across the slices where the network reads slices, else the slowest in memory, so that a scan in
    a file is read from front to back.
    """
    if preprocessing.slice_axis is not None:
        return preprocessing.slice_axis
    return int(np.argmax(np.abs(to_canonical(scan).array.strides[1:])))


def prepare_image(
    scan: Scan,
    preprocessing: Preprocessing,
    workspace: Workspace | None = None,
    dtype: type[np.float32] | type[np.float16] = np.float32,
) -> NDArray[np.floating[Any]]:
    """Prepare the intensities of ``scan``, plane by plane.

    Args:
        scan: Intensities in their own unit.
        preprocessing: What to do with them.
        workspace: Where the prepared image lies, in the order of its planes; ``None`` takes memory, in C order.
        dtype: What the image is rounded to.

    Returns:
        Shape ``(C, *S)``, values in [0, 1], slice axis first.
    """
    space = workspace or Workspace()
    axis = plane_axis(scan, preprocessing)
    channels = np.moveaxis(to_canonical(scan).array, axis + 1, 1)  # (C, planes, *inside)
    shape = _axis_first(preprocessing.prepared_shape(scan), axis)
    mappings = [
        entry.fitted(channel, space.release)
        for channel, entry in zip(channels, preprocessing.normalisation, strict=True)
    ]
    # Resampled as differences from a corner, so that air around the body stays exactly one value: windows of one
    # value are computed once.
    first = (slice(1),) * len(shape)
    corner = np.stack([mapping(channel[first]) for channel, mapping in zip(channels, mappings, strict=True)])[:, 0]
    planes = (
        np.stack([mapping(channel[index]) for channel, mapping in zip(channels, mappings, strict=True)]) - corner
        for index in range(channels.shape[1])
    )
    image = space.zeros((len(channels), *shape), dtype)
    for index, plane in enumerate(resampled(planes, channels.shape[1:], shape)):
        np.clip(plane + corner, 0, 1, out=image[:, index])
        space.release()
    if preprocessing.slice_axis is not None:
        return image
    canonical = np.moveaxis(image, 1, axis + 1)
    return c_order(canonical) if workspace is None else canonical


def prepare_label_map(labels: Scan, preprocessing: Preprocessing, classes: int) -> NDArray[np.uint8]:
    """Prepare a label map: shape ``(*S)``, on the grid of :func:`prepare_image`; the ignore label survives as K."""
    shape = preprocessing.prepared_shape(labels)
    array = to_canonical(labels).array[0]
    if array.shape != shape:
        array = resample_labels(array, shape, classes)
    if preprocessing.slice_axis is not None:
        array = np.moveaxis(array, preprocessing.slice_axis, 0)
    return c_order(array.astype(np.uint8, copy=False))


def restore_planes(
    planes: Iterable[NDArray[np.float32]], prepared: Sequence[int], scan: Scan, preprocessing: Preprocessing
) -> Iterator[NDArray[np.float32]]:
    """Bring class probabilities from the prepared grid back to the scan's canonical grid, plane by plane.

    Probabilities, not labels, are resampled.

    Args:
        planes: Planes across :func:`plane_axis`, each of shape ``(K, *inside)``.
        prepared: Canonical shape of the prepared image.
        scan: The scan that it was prepared from.
        preprocessing: How it was prepared.

    Yields:
        Planes of the canonical grid of ``scan`` in order, each of shape ``(K, *inside)``.
    """
    axis = plane_axis(scan, preprocessing)
    shape = to_canonical(scan).spatial_shape
    yield from resampled(planes, _axis_first(prepared, axis), _axis_first(shape, axis))


def canonical_zeros(
    scan: Scan, axis: int, dtype: Any, workspace: Workspace, classes: int | None = None
) -> NDArray[Any]:
    """Zeros on the canonical grid of ``scan``, the given axis first and slowest in memory.

    Args:
        scan: Gives the grid.
        axis: Canonical axis that comes first.
        dtype: Of the array.
        workspace: Where it lies.
        classes: Size of a class axis before the spatial axes; ``None`` for no such axis.

    Returns:
        Shape ``(planes, *inside)``, or ``(planes, classes, *inside)``.
    """
    planes, *inside = _axis_first(to_canonical(scan).spatial_shape, axis)
    return workspace.zeros((planes, *([] if classes is None else [classes]), *inside), dtype)


def to_scan_frame(planes: NDArray[Any], scan: Scan, axis: int) -> NDArray[Any]:
    """Turn what :func:`canonical_zeros` gave into the scan's own axis order, a view.

    Args:
        planes: Shape ``(planes, *inside)`` or ``(planes, classes, *inside)``.
        scan: Gives the frame.
        axis: Canonical axis that comes first.

    Returns:
        Shape ``(*S)`` as ``scan.spatial_shape``, or ``(classes, *S)``.
    """
    before = planes.ndim - scan.spatial_dims
    return from_canonical(np.moveaxis(planes, 0, axis + before), scan)


def _axis_first(shape: Sequence[int], axis: int) -> tuple[int, ...]:
    """Move one entry of a shape to the front."""
    return (shape[axis], *(size for index, size in enumerate(shape) if index != axis))


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


def standardise(images: "Tensor", preprocessing: Preprocessing) -> "Tensor":
    """Centre and scale images in [0, 1], shape ``(B, C, *S)`` with C network channels, by the dataset's statistics."""
    shape = (1, -1) + (1,) * (images.ndim - 2)
    mean = images.new_tensor(preprocessing.channel_means).view(shape)
    std = images.new_tensor(preprocessing.channel_stds).view(shape)
    return (images - mean) / std

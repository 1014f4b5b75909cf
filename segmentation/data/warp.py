"""Resampling of patches under an affine map, by OpenCV.

OpenCV turns pictures several times faster than PyTorch or SciPy interpolate volumes. A volume is therefore turned in
two passes of pictures: along its first axis, which leaves the other two where they are, then within the planes across
it (as in two-pass picture warping: Catmull & Smith 1980, doi:10.1145/800250.807505). Both passes are linear, so the
result is an interpolation from eight voxels, exact for intensities that change linearly, as trilinear interpolation is.
"""

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_WARP = cv2.WARP_INVERSE_MAP
LINEAR, NEAREST = cv2.INTER_LINEAR | _WARP, cv2.INTER_NEAREST | _WARP


def needed_size(matrix: NDArray[np.float64], size: Sequence[int]) -> tuple[int, ...]:
    """Spatial shape of what :func:`warp` needs for a patch of ``size``, centred like it; may be smaller.

    Args:
        matrix: As for :func:`warp`, shape ``(3, 3)``.
        size: Spatial shape of the patch.

    Examples:
        >>> needed_size(np.diag([2.0, 0.5, 1.0]), (9, 9, 9))
        (19, 7, 11)
    """
    half = (np.array(size) - 1) / 2
    beyond = np.ceil(np.abs(matrix) @ half - half - 1e-9).astype(int) + 1  # one voxel for both ends of interpolation
    return tuple(int(p + 2 * more) for p, more in zip(size, beyond, strict=True))


def warp(array: NDArray[Any], matrix: NDArray[np.float64], size: Sequence[int], flags: int) -> NDArray[Any]:
    """Resample a volume: the voxel at ``x`` from the middle shows what was at ``matrix @ x`` from it.

    Beyond the rim, the nearest voxel is repeated.

    Args:
        array: Intensities (float32) or labels (uint8), shape ``(I, J, K)``.
        matrix: From the new grid to the old one, in voxels, shape ``(3, 3)``; it must be invertible.
        size: New spatial shape.
        flags: ``LINEAR`` or ``NEAREST``.

    Returns:
        Shape ``size``.

    Examples:
        >>> warp(np.arange(5, dtype=np.float32).reshape(1, 1, 5), np.diag([1.0, 1.0, 0.5]), (1, 1, 3), LINEAR)
        array([[[1.5, 2. , 2.5]]], dtype=float32)
    """
    old, new = _middle(array.shape), _middle(size)
    # The old axis that runs most along the new first one comes first, so that the planes keep their extent.
    first = int(np.argmax(np.abs(np.cross(matrix[:, 1], matrix[:, 2]))))
    order = [first, *(axis for axis in range(3) if axis != first)]
    array, matrix, old = np.ascontiguousarray(array.transpose(order)), matrix[order], old[order]
    # In planes of equal new first coordinate i, the old first coordinate is along * i + across @ (v, w).
    across = matrix[0, 1:] @ np.linalg.inv(matrix[1:, 1:])
    along = matrix[0, 0] - across @ matrix[1:, 0]
    slanted = np.empty((array.shape[1], size[0], array.shape[2]), array.dtype)
    shear = np.array([[along, across[1]], [0.0, 1.0]])
    for v in range(len(slanted)):
        start = old[0] - along * new[0] + across[0] * (v - old[1]) - across[1] * old[2]
        _warp_plane(array[:, v], shear, (start, 0.0), slanted[v].shape, flags, slanted[v])
    result = np.empty(tuple(size), array.dtype)
    for i in range(size[0]):
        start = old[1:] + matrix[1:, 0] * (i - new[0]) - matrix[1:, 1:] @ new[1:]
        _warp_plane(slanted[:, i], matrix[1:, 1:], start, size[1:], flags, result[i])
    return result


def rotation(angles: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Matrix of a rotation about the third, the second, then the first axis.

    Args:
        angles: In radians, about each axis, shape ``(3,)``.

    Returns:
        Shape ``(3, 3)``.

    Examples:
        >>> rotation([0, 0, math.pi / 2]).round(2)
        array([[ 0., -1.,  0.],
               [ 1.,  0.,  0.],
               [ 0.,  0.,  1.]])
    """
    return _turn(1, 2, angles[0]) @ _turn(2, 0, angles[1]) @ _turn(0, 1, angles[2])


def _turn(one: int, other: int, angle: float) -> NDArray[np.float64]:
    """Rotation in the plane of two axes, from ``one`` to ``other``."""
    matrix = np.eye(3)
    matrix[[one, other], [one, other]] = math.cos(angle)
    matrix[other, one] = math.sin(angle)
    matrix[one, other] = -math.sin(angle)
    return matrix


def _middle(shape: Sequence[int]) -> NDArray[np.float64]:
    """Coordinates of the middle of a grid."""
    return (np.array(shape) - 1) / 2


def _warp_plane(
    plane: NDArray[Any],
    matrix: NDArray[np.float64],
    start: Sequence[float] | NDArray[np.float64],
    size: Sequence[int],
    flags: int,
    out: NDArray[Any],
) -> None:
    """Show at row and column ``x`` what is at ``matrix @ x + start``; OpenCV names columns first."""
    (a, b), (c, d) = matrix
    inverse = np.array([[d, c, start[1]], [b, a, start[0]]])
    cv2.warpAffine(plane, inverse, (size[1], size[0]), dst=out, flags=flags, borderMode=cv2.BORDER_REPLICATE)

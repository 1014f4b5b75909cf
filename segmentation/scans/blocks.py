"""Voxels between files and arrays a block at a time, so that no second copy of a scan ever lies in memory.

Files of volumes keep their first axis fastest and their last one slowest. An array that is filled from a file, or
written to one, is therefore handled slowest axis first: a volume of shape ``(C, I, J, K)`` as ``(C, K, J, I)``.
"""

import gzip
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from segmentation import SkipSegError
from segmentation.scans.scan import Grid
from segmentation.scans.workspace import Workspace

BLOCK_BYTES = 1 << 22
"""Bytes that are handled at a time: the processor's cache still holds them, and a call costs nothing beside them."""

MOST_COMPRESSED = 1032
"""Bytes that one byte of a deflate stream can stand for, at most (zlib's technical details)."""

_ACROSS = 8
"""Blocks that are gathered at a time from an array whose slowest axis is not the file's."""

_PADDING_BYTES = 4096
"""Bytes behind the voxels that may be padding; more of them are voxels that the header does not know of."""


@dataclass(frozen=True, eq=False)
class Layout:
    """What the header of a volume's file says of its voxels.

    Attributes:
        grid: Where they lie.
        channels: How many channels there are.
        dtype: Of the array that they are read into.
    """

    grid: Grid
    channels: int
    dtype: np.dtype[Any]


class Readable(Protocol):
    """A file, or a stream that decompresses one."""

    def read(self, size: int, /) -> bytes:
        """Give up to ``size`` bytes, fewer only at the end."""
        ...


def zeros(shape: Sequence[int], dtype: DTypeLike, workspace: Workspace | None) -> NDArray[Any]:
    """Give an array of zeros in C order, shape ``shape``, within the budget of a workspace if there is one.

    Raises:
        SkipSegError: If the array goes into a file and the disk is full.
    """
    if workspace is None:
        return np.zeros(shape, dtype)
    try:
        return workspace.zeros(shape, dtype)
    except OSError as error:
        size = math.prod(shape) * np.dtype(dtype).itemsize
        raise SkipSegError(
            f"no room for a temporary file of {size >> 20} MiB ({error.strerror}); free disk space or allow more memory"
        ) from None


def release(workspace: Workspace | None) -> None:
    """Let the pages that were touched leave the process's memory, where they can."""
    if workspace is not None:
        workspace.release()


def slowest_first(volume: NDArray[Any]) -> NDArray[Any]:
    """View a volume of shape ``(..., I, J, K)`` as ``(..., K, J, I)``, or the other way about.

    Examples:
        >>> slowest_first(np.zeros((2, 3, 4, 5))).shape
        (2, 5, 4, 3)
    """
    return volume.swapaxes(-3, -1)


def empty_volume(channels: int, shape: Sequence[int], dtype: DTypeLike, workspace: Workspace | None) -> NDArray[Any]:
    """Give an array for a volume, shape ``(C, I, J, K)``, whose last axis is the slowest in memory, as in a file."""
    return slowest_first(zeros((channels, *shape[::-1]), dtype, workspace))


def check_room(voxel_bytes: int, there: int, most_compressed: int = 1) -> None:
    """Refuse a header that claims more than its file can hold, before memory is taken for it.

    Args:
        voxel_bytes: What the header claims, whatever stands before the voxels included.
        there: Size of the file in bytes.
        most_compressed: Bytes that one byte of the file can stand for, at most.

    Raises:
        EOFError: If the file is too small.

    Examples:
        >>> check_room(10 << 30, 1024, MOST_COMPRESSED)
        Traceback (most recent call last):
        ...
        EOFError: its header claims 10737418240 bytes, which a file of 1024 cannot hold
    """
    if voxel_bytes > there * most_compressed:
        raise EOFError(f"its header claims {voxel_bytes} bytes, which a file of {there} cannot hold")


def taker(stream: Readable, stored: np.dtype[Any]) -> Callable[[int], NDArray[Any]]:
    """Give a function that reads a number of voxels of dtype ``stored``, fewer only at the end; shape ``(N,)``."""

    def take(count: int) -> NDArray[Any]:
        content = stream.read(count * stored.itemsize)
        return np.frombuffer(content, stored, len(content) // stored.itemsize)

    return take


def fill(target: NDArray[Any], take: Callable[[int], NDArray[Any]], workspace: Workspace | None) -> None:
    """Fill an array in C order with what is read, block by block.

    Args:
        target: Array of any shape and strides; values are cast to its dtype.
        take: Gives the next voxels, as many as asked for, shape ``(N,)``.
        workspace: Where ``target`` lies.

    Raises:
        EOFError: If the voxels end early.
    """
    flat = target.reshape(-1) if target.flags.c_contiguous else target.flat
    step = max(1, BLOCK_BYTES // target.itemsize)
    for start in range(0, target.size, step):
        count = min(step, target.size - start)
        with np.errstate(over="ignore", invalid="ignore"):  # becomes infinity or NaN, which is reported
            values = take(count)
            if len(values) < count:
                raise EOFError(f"{start + len(values)} of {target.size} voxels are there")
            flat[start : start + count] = values
        release(workspace)


def finish(stream: Readable) -> None:
    """Read to the end, where a compressed stream keeps its checksum.

    Raises:
        ValueError: If more follows than padding: the header then belongs to another scan, or is damaged.
    """
    if len(stream.read(_PADDING_BYTES + 1)) > _PADDING_BYTES:
        raise ValueError("it holds more voxels than its header says")


def spans(values: NDArray[Any], limit: int) -> Iterator[tuple[slice, ...]]:
    """Cut an array of any shape into index expressions that each touch about ``limit`` bytes of its memory.

    Examples:
        >>> values = np.zeros((2, 4, 3), np.uint8).T  # the last axis is the slowest in memory
        >>> [values[place].shape for place in spans(values, 6)]
        [(3, 2, 1), (3, 2, 1), (3, 2, 1), (3, 2, 1)]
    """
    reach = [abs(stride) for stride in values.strides]
    steps = [max(1, size) for size in values.shape]
    for axis in sorted(range(values.ndim), key=lambda axis: -reach[axis]):
        steps[axis] = max(1, limit // max(1, reach[axis]))
        if reach[axis] <= limit:
            break
    for corner in product(*(range(0, size, step) for size, step in zip(values.shape, steps, strict=True))):
        yield tuple(slice(start, start + step) for start, step in zip(corner, steps, strict=True))


def copy(target: NDArray[Any], source: NDArray[Any], workspace: Workspace | None) -> None:
    """Copy an array of any shape into another of the same shape, in the order in which the source lies in memory."""
    for place in spans(source, BLOCK_BYTES):
        target[place] = source[place]
        release(workspace)


def c_order(array: NDArray[Any]) -> NDArray[Any]:
    """Give an array of any shape in C order, itself if it is so: several times as fast as numpy across its planes.

    Examples:
        >>> c_order(np.zeros((2, 3, 4)).T).strides
        (48, 16, 8)
    """
    if array.flags.c_contiguous:
        return array
    ordered = np.empty(array.shape, array.dtype)
    copy(ordered, array, None)
    return ordered


def stack(arrays: Sequence[NDArray[Any]], workspace: Workspace | None) -> NDArray[Any]:
    """Join arrays of shapes ``(C_i, *S)`` along their channels, shape ``(sum of C_i, *S)``, without a second copy."""
    channels, dtype = sum(len(array) for array in arrays), np.result_type(*arrays)
    shape = arrays[0].shape[1:]
    volume = len(shape) == 3
    joined = empty_volume(channels, shape, dtype, workspace) if volume else zeros((channels, *shape), dtype, workspace)
    first = 0
    for array in arrays:
        copy(joined[first : first + len(array)], array, workspace)
        first += len(array)
    return joined


def file_blocks(values: NDArray[Any], dtype: DTypeLike, workspace: Workspace | None) -> Iterator[memoryview]:
    """Give an array in C order, block by block.

    Args:
        values: At least two axes, slowest in the file first, shape ``(..., K, J, I)``; a view of any strides.
        dtype: Of the file.
        workspace: Where ``values`` lies.

    Yields:
        Memory whose bytes follow each other in the file; the next block takes its place.
    """
    if values.ndim > 3:
        for part in values:
            yield from file_blocks(part, dtype, workspace)
        return
    plane = np.dtype(dtype).itemsize * math.prod(values.shape[1:])
    along = abs(values.strides[0]) == max(abs(stride) for stride in values.strides)
    step = max(1, BLOCK_BYTES * (1 if along else _ACROSS) // max(1, plane))
    buffer = np.empty((min(step, len(values)), *values.shape[1:]), dtype)
    for start in range(0, len(values), step):
        part = values[start : start + step]
        block = buffer[: len(part)]
        copy(block, part, workspace)
        yield block.data


def gzip_writer(stream: BinaryIO, dtype: DTypeLike) -> gzip.GzipFile:
    """Open a gzip stream onto a file; the same voxels always give the same bytes.

    Label maps shrink to half the size at level 6 of what they take at level 1. Probabilities hardly shrink at any.
    """
    level = 1 if np.dtype(dtype).kind == "f" else 6
    return gzip.GzipFile(filename="", mode="wb", compresslevel=level, fileobj=stream, mtime=0)

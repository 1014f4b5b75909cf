"""Room for large arrays: in memory while a budget lasts, beyond it in temporary files that leave nothing behind.

A file's pages that were touched count as memory of the process until :meth:`Workspace.release` lets them go. Whoever
walks through an array slab by slab and releases after each one therefore stays within the budget, however large the
array is.
"""

import math
import mmap
import os
import tempfile
import threading
import weakref
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from segmentation import SkipSegError

SLAB_BYTES = 1 << 23
"""Bytes of arrays in files that are walked through before their pages are let go."""


class Workspace:
    """Gives out zero-filled arrays, and takes their room back when nobody uses them any more.

    Args:
        limit: Bytes of arrays that may lie in memory at a time; ``None`` sets no limit.
        folder: Where the temporary files lie; ``None`` is the system's folder. The files have no name, so that
            even a killed process leaves none.
        strict: Somebody asked for this limit.

    Examples:
        >>> space = Workspace(limit=1000)
        >>> small, large = space.zeros((10, 10), np.uint8), space.zeros((100, 100), np.uint8)
        >>> large[3] = 7
        >>> space.release()
        >>> int(large.sum()), space.spilled
        (700, 1)
    """

    def __init__(self, limit: int | None = None, folder: Path | None = None, strict: bool = False) -> None:
        self.limit = limit
        self.strict = strict
        self.folder = folder
        self.spilled = 0
        """Arrays that went into files so far."""
        self._used = 0
        self._walked = 0
        self._maps: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()
        self._lock = threading.RLock()  # reentrant: the collector may give room back while it is held

    def zeros(self, shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
        """Give an array of zeros in C order, shape ``shape``.

        Raises:
            OSError: If the array belongs in a file and the disk is full.
        """
        size = math.prod(shape) * np.dtype(dtype).itemsize
        with self._lock:
            fits = size == 0 or self.limit is None or self._used + size <= self.limit
            self._used += size if fits else 0
        if not fits:
            return self._in_file(shape, dtype, size)
        array = np.zeros(shape, dtype)
        weakref.finalize(array, self._give_back, size)
        return array

    @contextmanager
    def reserved(self, size: int) -> Generator[None]:
        """Give out ``size`` bytes less, for arrays that are not asked for here; those given out already stay.

        Raises:
            SkipSegError: If the limit is strict, and smaller.
        """
        if self.strict and self.limit is not None and size > self.limit:
            short = -(-(size - self.limit) // 2**20)
            raise SkipSegError(f"its planes take {short} MiB more memory than there is; give more")
        with self._lock:
            self._used += size
        try:
            yield
        finally:
            with self._lock:
                self._used -= size

    def release(self) -> None:
        """Let the pages of the arrays in files leave the process's memory; their values stay."""
        with self._lock:
            for region in self._maps:
                region.madvise(mmap.MADV_DONTNEED)

    def walked(self, part: NDArray[Any]) -> None:
        """Count a part of an array, of any shape, that was read or written; every 8 MiB of pages, :meth:`release`."""
        if not self.spilled:
            return
        with self._lock:
            self._walked += touched_bytes(part)
            if self._walked >= SLAB_BYTES:
                self._walked = 0
                self.release()

    def _in_file(self, shape: Sequence[int], dtype: DTypeLike, size: int) -> NDArray[Any]:
        """An array in a nameless file; its blocks are reserved now, since a full disk would later be a crash."""
        with tempfile.TemporaryFile(dir=self.folder) as stream:
            _reserve(stream.fileno(), size)
            region = mmap.mmap(stream.fileno(), size)
        with self._lock:
            self._maps.add(region)
            self.spilled += 1
        return np.frombuffer(region, dtype).reshape(shape)

    def _give_back(self, size: int) -> None:
        with self._lock:
            self._used -= size


def touched_bytes(part: NDArray[Any]) -> int:
    """Bytes of the pages that a part of an array of any shape lies in: a short row still takes a whole page.

    Examples:
        >>> whole = np.zeros((64, 512, 512), np.float32)
        >>> touched_bytes(whole) == whole.nbytes, touched_bytes(whole[3, :64, :64]) // 64
        (True, 2048)
    """
    if part.size == 0:
        return 0
    (stride, length), *outer = sorted((abs(step), size) for step, size in zip(part.strides, part.shape, strict=True))
    row = stride * length
    return part.size // length * max(row, min(outer[0][0], mmap.PAGESIZE) if outer else row)


def _reserve(descriptor: int, size: int) -> None:
    """Make a file ``size`` bytes long with blocks of its own."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:
        os.ftruncate(descriptor, size)

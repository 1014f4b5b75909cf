"""One process at a time in a folder: two that train into the same files would spoil each other's."""

import fcntl
import os
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from segmentation import SkipSegError


@contextmanager
def locked(folder: Path) -> Generator[None]:
    """Hold ``folder`` for this process while the block runs.

    The lock is the kernel's, on the folder itself: no file is left behind, and a process that is killed gives
    it back. On a network disk that knows no such locks there is none.

    Args:
        folder: Created if it does not exist.

    Raises:
        SkipSegError: If another process holds it.

    Examples:
        >>> import tempfile
        >>> with locked(Path(tempfile.mkdtemp())):
        ...     print("alone")
        alone
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        free = _take(descriptor)
        if not free:
            time.sleep(0.05)  # is_locked holds a folder for an instant, to find out
            free = _take(descriptor)
        if not free:
            raise SkipSegError(f"{folder} is in use by another process; wait for it, or end it first")
        yield
    finally:
        os.close(descriptor)


def is_locked(folder: Path) -> bool:
    """Tell whether a process holds ``folder`` by :func:`locked`.

    Examples:
        >>> is_locked(Path("nowhere"))
        False
    """
    if not folder.is_dir():
        return False
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        return not _take(descriptor)
    finally:
        os.close(descriptor)


def _take(descriptor: int) -> bool:
    """Take the lock unless another process has it; a disk without locks gives it to everyone."""
    with suppress(OSError):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True

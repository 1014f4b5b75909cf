"""What a disk asks for: one program at a time in a folder, and one line where it is full or cannot be written."""

import errno
import fcntl
import logging
import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from segmentation import SkipSegError

log = logging.getLogger(__name__)

_UNWRITABLE = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EEXIST,  # a file where a folder shall be
)


@contextmanager
def writing(target: Path) -> Generator[None, None, None]:
    """Turn an error of the disk in this block into one about ``target``.

    Raises:
        SkipSegError: If the disk is full or ``target`` may not be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        reason = os.strerror(error.errno)
        raise SkipSegError(
            f"{target} cannot be written ({reason}); nothing was kept, make room or choose another folder"
        ) from None


@contextmanager
def alone(folder: Path) -> Generator[None, None, None]:
    """Wait until no other program prepares a dataset in ``folder``, and keep others waiting while the block runs.

    The lock is the kernel's, on the folder itself: no file is left behind, and a process that is killed gives it back.
    The folder is created first: a lock on one above it would keep nobody out once the block creates it. An empty one
    stays: were it removed, one program might hold the lock of the old folder and another that of a new one.

    Raises:
        SkipSegError: If ``folder`` cannot be created.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a disk that knows no locks
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                log.warning("another program prepares a dataset and works in %s; waiting for its end", folder)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)

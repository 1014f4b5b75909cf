"""Say in one line that the disk is full or a folder cannot be written."""

import errno
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from segmentation import SkipSegError

_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR)


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

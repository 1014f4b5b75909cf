"""Run a command and wait for all that it leaves behind, so that its processor time holds that of its servers, too.

A server that outlives the process that started it would otherwise be handed to the system, and its time to nobody.
Arguments: the command.
"""

import ctypes
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress

_SET_CHILD_SUBREAPER = 36
"""Of Linux's prctl: orphans among the descendants become children of this process."""


def reap(command: Sequence[str]) -> int:
    """Exit status of a command, once it and all that it started have ended."""
    ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1)
    status = subprocess.run(command, check=False).returncode
    with suppress(ChildProcessError):
        while True:
            os.wait()
    return status


if __name__ == "__main__":
    sys.exit(reap(sys.argv[1:]))

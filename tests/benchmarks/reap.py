"""Run a command and wait for all that it leaves behind, so that its processor time holds that of its servers, too.

A server that outlives the process that started it would otherwise be handed to the system, and its time to nobody.
Arguments: a file for the seconds until the command itself has ended, which is what its user waits for; the command.
"""

import ctypes
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

_SET_CHILD_SUBREAPER = 36
"""Of Linux's prctl: orphans among the descendants become children of this process."""


def reap(seconds: Path, command: Sequence[str]) -> int:
    """Exit status of a command, once it and all that it started have ended."""
    ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1)
    begun = time.perf_counter()
    status = subprocess.run(command, check=False).returncode
    seconds.write_text(f"{time.perf_counter() - begun}")
    with suppress(ChildProcessError):
        while True:
            os.wait()
    return status


if __name__ == "__main__":
    sys.exit(reap(Path(sys.argv[1]), sys.argv[2:]))

"""One worker at a time on a run, whatever machine it works on.

The kernel's lock (:mod:`segmentation.training.lock`) ends at the machine. A study on a cluster also needs to know
whether a worker on another machine is still there: its node may have died, or only the connection to it. So a worker
holds a lease, a numbered file in the run folder, and writes into it again and again. A lease that stays as it is for
``SILENT_SECONDS`` is over, by the clock of who waits for it, so clocks need not agree. The next worker creates the next
number, which only one can, and a worker that finds its own lease replaced ends itself at once.
"""

import errno
import json
import os
import random
import re
import socket
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

BEAT_SECONDS = 10.0
"""Time between two signs of life."""

SILENT_SECONDS = 60.0
"""Without one for so long, a worker counts as dead."""


PAUSE = (0.1, 0.3)
"""Seconds between two looks of a worker that waits, drawn anew each time so that no two keep meeting."""


def leases(folder: Path) -> list[Path]:
    """Leases that stand in ``folder``, oldest first; usually none or one."""
    found = [path for path in folder.glob(".lease-*") if re.fullmatch(r"\.lease-\d+", path.name)]
    return sorted(found, key=_number)


def is_leased(folder: Path) -> bool:
    """Tell whether a worker on any machine has shown life in ``folder`` of late; for what is shown, clocks suffice."""
    for path in leases(folder)[-1:]:
        with suppress(FileNotFoundError):
            return not _is_dead(path.read_bytes()) and time.time() - path.stat().st_mtime < SILENT_SECONDS
    return False


@contextmanager
def leased(folder: Path) -> Generator[None]:
    """Hold the run in ``folder`` against every machine that shares its disk, once no other worker does.

    Examples:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with leased(folder):
        ...     [path.name for path in leases(folder)]
        ['.lease-1']
        >>> leases(folder)
        []
    """
    path, descriptor = _take(folder)
    over = threading.Event()
    threading.Thread(target=_beat, args=(path, descriptor, over), daemon=True).start()
    try:
        yield
    finally:
        over.set()
        with suppress(OSError):  # a disk that does not answer; the lease is known as dead by its process
            if _is_mine(path, descriptor):
                path.unlink(missing_ok=True)
        os.close(descriptor)


def remove_leases(folder: Path) -> None:
    """Remove what workers left in a finished run that were killed before they could do so."""
    for path in leases(folder):
        path.unlink(missing_ok=True)


def _number(lease: Path) -> int:
    """Number of a lease."""
    return int(lease.name.rpartition("-")[2])


def _take(folder: Path) -> tuple[Path, int]:
    """Wait until the last lease is over, and create the next one; give its path and the open file."""
    seen: dict[Path, bytes] = {}
    since = time.monotonic()
    while True:
        now = _read(folder)
        if now != seen:
            seen, since = now, time.monotonic()
        last = max(seen, key=_number, default=None)
        if last is None or _is_dead(seen[last]) or time.monotonic() - since > SILENT_SECONDS:
            path = folder / f".lease-{_number(last) + 1 if last else 1}"
            with suppress(FileExistsError):  # another worker was faster
                descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
                _sign(descriptor, 0)
                if _is_alone(path, seen):
                    for old in seen:
                        old.unlink(missing_ok=True)
                    return path, descriptor
                path.unlink(missing_ok=True)
                os.close(descriptor)
        time.sleep(random.uniform(*PAUSE))


def _read(folder: Path) -> dict[Path, bytes]:
    """Each lease in ``folder`` with its content."""
    found: dict[Path, bytes] = {}
    for path in leases(folder):
        with suppress(FileNotFoundError):  # it ended while we looked at it
            found[path] = path.read_bytes()
    return found


def _is_alone(path: Path, judged: dict[Path, bytes]) -> bool:
    """Tell whether every other lease is one of ``judged``, unchanged.

    Numbers come back once a lease has ended. So between judging and creating, others may have come and gone, and a
    new one may stand under an old number; then both step back.
    """
    others = {other: content for other, content in _read(path.parent).items() if other != path}
    return all(judged.get(other) == content for other, content in others.items())


def _place() -> str:
    """Name of this machine, or of the container that has process numbers of its own."""
    with suppress(OSError):
        return f"{socket.gethostname()} {Path('/proc/self/ns/pid').readlink()}"
    return socket.gethostname()


def _sign(descriptor: int, beat: int) -> None:
    """Write who works here, and a number that changes."""
    born = psutil.Process().create_time()
    line = json.dumps({"place": _place(), "process": os.getpid(), "born": born, "beat": f"{beat:012}"})
    os.pwrite(descriptor, line.encode() + b"\n", 0)
    os.fsync(descriptor)


def _is_dead(content: bytes) -> bool:
    """Tell whether the worker that wrote ``content`` ran on this machine and is gone."""
    try:
        holder = json.loads(content)
        if holder["place"] != _place():
            return False
        process = psutil.Process(holder["process"])
        return process.create_time() != holder["born"] or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    except ValueError:  # it has not been written yet
        return False


def _is_mine(path: Path, descriptor: int) -> bool:
    """Tell whether ``path`` is still the file that is open, and no later lease stands."""
    try:
        return path.stat().st_ino == os.fstat(descriptor).st_ino and leases(path.parent)[-1] == path
    except IndexError:
        return False
    except OSError as error:  # a disk that does not answer says nothing; whoever took over stands there when it does
        return error.errno not in (errno.ENOENT, errno.ESTALE)


def _beat(path: Path, descriptor: int, over: threading.Event) -> None:
    """Show life until it is over; end the process if the run has been given to another worker."""
    beat = 0
    while not over.wait(BEAT_SECONDS):
        beat += 1
        with suppress(OSError):  # a disk that cannot be written for a moment
            _sign(descriptor, beat)
        if _is_mine(path, descriptor) or over.wait(1):  # another may have created a lease, and be stepping back
            continue
        if not _is_mine(path, descriptor):
            print(f"skipseg: another worker took over {path.parent}; this one ends", file=sys.stderr, flush=True)
            os._exit(1)

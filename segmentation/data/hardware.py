"""What hardware there is, how much memory is free and was used, and how it is given back, without loading PyTorch."""

import ctypes
import os
import re
import resource
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import psutil

Hardware = Literal["cpu", "cuda"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
"""Names of parameters of ``mallopt(3)`` of glibc."""
_LARGE_BLOCK = 4 << 20


def hardware_of(device: str) -> Hardware:
    """Kind of hardware that ``device`` stands for: what is asked for, and for ``"auto"`` what this machine has."""
    if device == "auto":
        return "cuda" if built_for_cuda() and cuda_devices() else "cpu"
    return "cuda" if device == "cuda" else "cpu"


@cache
def built_for_cuda() -> bool:
    """Whether the installed PyTorch can compute on an NVIDIA GPU; read from its files."""
    spec = find_spec("torch")
    source = Path(spec.origin).with_name("version.py") if spec and spec.origin else None
    return bool(source and source.is_file() and re.search(r"^cuda\b.*=\s*['\"]", source.read_text(), re.MULTILINE))


@cache
def cuda_devices() -> int:
    """How many GPUs the NVIDIA driver lets this process use; ``CUDA_VISIBLE_DEVICES`` counts."""
    count = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        found = driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
    except OSError:  # no driver
        return 0
    return count.value if found else 0


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def peak_memory() -> int:
    """Largest resident memory of this process so far, in bytes.

    Linux tells it of the program that runs; getrusage would count the program that started this one as well.
    """
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text()) if status.exists() else None
    if found:
        return int(found[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def free_memory(groups: Path = Path("/proc/self/cgroup"), top: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that this process may still take: what the machine has free, or less within a container or a job.

    Args:
        groups: Where Linux says which control groups this process is in.
        top: Where it shows them.
    """
    return max(0, min([psutil.virtual_memory().available, *_rooms(groups, top)]))


def _rooms(groups: Path, top: Path) -> Iterator[int]:
    """What each control group that limits memory leaves; files that were read and can be dropped do not count."""
    for line in groups.read_text().splitlines() if groups.exists() else []:
        _, controllers, name = line.split(":", 2)
        if not controllers:
            root, limit, taken, droppable = top, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            root, limit, taken = top / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            droppable = "total_inactive_file"
        else:
            continue
        group = root / name.lstrip("/")
        while group.is_relative_to(root):  # the groups above limit it, too; in a container only the last may be shown
            with suppress(OSError, ValueError):  # without a limit the file says "max"
                stat = dict(each.split() for each in (group / "memory.stat").read_text().splitlines())
                used = int((group / taken).read_text()) - int(stat.get(droppable, 0))
                yield int((group / limit).read_text()) - used
            group = group.parent


def memory_now() -> int:
    """Resident memory of this process, in bytes."""
    return psutil.Process().memory_info().rss


def return_freed_memory() -> None:
    """Let the C library give every large block back to the system once it is free, in this process from now on.

    Otherwise glibc keeps blocks of up to 32 MiB for later, and what PyTorch takes for windows grows from one to the
    next, by a quarter within a scan. Without glibc this does nothing.
    """
    if library := _glibc():
        library.mallopt(_MMAP_THRESHOLD, _LARGE_BLOCK)


@contextmanager
def kept_memory() -> Generator[None]:
    """Let the C library keep freed memory within the block, for the maps of the next step, and return it at the end.

    Otherwise glibc returns every large map to the system, and the next of its size is mapped anew and filled with
    zeros, page by page. Without glibc this does nothing.

    Examples:
        >>> with kept_memory():
        ...     b'ab'
        b'ab'
    """
    library = _glibc()
    if library is None:
        yield
        return
    library.mallopt(_MMAP_MAX, 0)
    library.mallopt(_TRIM_THRESHOLD, -1)
    try:
        yield
    finally:  # to glibc's defaults
        library.mallopt(_MMAP_MAX, 65536)
        library.mallopt(_TRIM_THRESHOLD, 128 * 1024)
        library.malloc_trim(0)


def _glibc() -> Any:
    """The C library, if it is glibc."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    return library if hasattr(library, "mallopt") else None

"""What hardware there is and how much memory was used, found without loading PyTorch."""

import ctypes
import re
import resource
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

Hardware = Literal["cpu", "cuda"]


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

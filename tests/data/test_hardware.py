"""Which hardware is planned for, found without PyTorch and in agreement with it."""

import subprocess
import sys

import pytest
import torch

from segmentation.data import hardware
from segmentation.data.hardware import built_for_cuda, cuda_devices, hardware_of


def test_what_is_asked_for_is_planned_for():
    assert (hardware_of("cpu"), hardware_of("cuda")) == ("cpu", "cuda")


@pytest.mark.parametrize(("built", "devices", "found"), [(True, 1, "cuda"), (True, 0, "cpu"), (False, 1, "cpu")])
def test_auto_needs_a_gpu_and_a_pytorch_that_can_use_it(monkeypatch, built, devices, found):
    monkeypatch.setattr(hardware, "built_for_cuda", lambda: built)
    monkeypatch.setattr(hardware, "cuda_devices", lambda: devices)
    assert hardware_of("auto") == found


def test_pytorch_sees_the_same():
    assert built_for_cuda() == (torch.version.cuda is not None)
    assert (built_for_cuda() and cuda_devices() > 0) == torch.cuda.is_available()


@pytest.mark.parametrize(
    ("line", "built"), [("cuda: Optional[str] = '12.8'", True), ('cuda = "12.8"', True), ("cuda: str = None", False)]
)
def test_build_is_read_from_the_files_of_pytorch(tmp_path, monkeypatch, line, built):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").touch()
    (tmp_path / "torch" / "version.py").write_text(f"__version__ = '2'\n{line}\nhip = '6'\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torch")
    built_for_cuda.cache_clear()
    assert built_for_cuda() == built
    built_for_cuda.cache_clear()


@pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process is read from Linux")
@pytest.mark.parametrize(("held", "wanted"), [("nullcontext", "<"), ("kept_memory", ">")])
def test_freed_memory_is_kept_for_a_while_where_that_is_asked_for(held, wanted):
    """Blocks of 64 MiB, which glibc otherwise gives back at once; other C libraries do as they like."""
    script = f"""
from contextlib import nullcontext
import re
import numpy as np
from segmentation.data.hardware import _glibc, kept_memory
def resident():
    return int(re.search(r"VmRSS:\\s*(\\d+)", open("/proc/self/status").read())[1]) >> 10
before = resident()
with {held}():
    for _ in range(3):
        np.full(64 << 20, 1, np.uint8)
    during = resident() - before
after = resident() - before
assert _glibc() is None or during {wanted} 32, during
assert after < 32, after
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

"""Which hardware is planned for, found without PyTorch and in agreement with it."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

from segmentation.data import hardware
from segmentation.data.hardware import built_for_cuda, cuda_devices, free_memory, hardware_of


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


def group(folder: Path, **files: object) -> None:
    """A control group with files of such content."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(f"{content}\n")


@pytest.mark.parametrize(
    ("listed", "free"),
    [
        ("0::/job/step\n", 700),
        ("0::/elsewhere\n", 900),  # as a container is told of its place on the host
        ("4:cpu,memory:/job\n0::/gone\n", 300),
        ("4:cpuset:/job\n", None),
        ("", None),
    ],
)
def test_memory_is_free_within_the_limits_of_a_container_or_a_job(tmp_path, monkeypatch, listed, free):
    top = tmp_path / "cgroup"
    group(top, memory__max=1000, memory__current=200, memory__stat="anon 5\ninactive_file 100")
    group(top / "job", memory__max=800, memory__current=100, memory__stat="inactive_file 0")
    group(top / "job" / "step", memory__max="max", memory__current=50, memory__stat="inactive_file 0")
    group(
        top / "memory" / "job", memory__limit_in_bytes=400, memory__usage_in_bytes=150,
        memory__stat="inactive_file 1\ntotal_inactive_file 50",
    )  # fmt: skip
    (tmp_path / "groups").write_text(listed)
    machine = psutil.virtual_memory()._replace(available=5000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: machine)
    assert free_memory(tmp_path / "groups", top) == (free or 5000)


def test_memory_beyond_a_limit_is_none(tmp_path):
    group(tmp_path, memory__max=10, memory__current=20, memory__stat="inactive_file 1", groups="0::/")
    assert free_memory(tmp_path / "groups", tmp_path) == 0
    assert 0 < free_memory() <= psutil.virtual_memory().total

"""Which hardware is planned for, found without PyTorch and in agreement with it."""

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

"""``skipseg doctor``: the machine in words, unhealthy only when something needed is missing."""

import tomllib
from collections.abc import Callable
from importlib import metadata
from types import SimpleNamespace

import pytest
import torch
from packaging.requirements import Requirement

from segmentation import __version__, doctor
from segmentation.terminal import as_text

DECLARED = ["torch>=2.8", "numpy>=2.0", 'onnx>=1.18; extra == "export"', 'tomli>=1; python_version < "3"']


@pytest.fixture
def declare(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make the installed package declare these requirements."""

    def _declare(*texts: str) -> None:
        monkeypatch.setattr(metadata, "requires", lambda name: list(texts))

    return _declare


def diagnosis() -> tuple[bool, str]:
    """Whether the machine is healthy, and what is printed."""
    findings = doctor.diagnose()
    return not any(finding.needed for finding in findings), as_text(doctor.as_parts(findings))


def test_reports_versions_and_resources(declare):
    declare(*DECLARED)
    healthy, text = diagnosis()
    assert healthy
    topics = [line.split()[0] for line in text.splitlines() if line]
    assert topics[:6] == ["SkipSeg", "Packages", "CPU", "GPU", "Memory", "Disk"]
    assert __version__ in text
    assert f"torch {torch.__version__}" in text
    assert text.endswith("Everything needed is there.")


def test_missing_package_is_unhealthy(declare):
    declare(*DECLARED, "no-such-package>=1")
    healthy, text = diagnosis()
    assert not healthy
    assert "no-such-package is missing; in the source folder run: " in text
    assert "1 needed thing(s) missing" in text


def test_wrong_version_is_unhealthy(declare):
    declare("numpy>=99")
    healthy, text = diagnosis()
    assert not healthy
    assert f"numpy {metadata.version('numpy')} is here, numpy>=99 is needed" in text


def test_source_tree_without_installation_is_unhealthy(monkeypatch):
    def refuse(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", refuse)
    healthy, text = diagnosis()
    assert not healthy
    assert "pip install" in text


def test_missing_extra_says_its_use_and_command(declare):
    declare('no-such-package>=1; extra == "export"')
    healthy, text = diagnosis()
    assert healthy
    line = next(line for line in text.splitlines() if "export" in line)
    assert "ONNX" in line
    assert line.endswith("-m pip install 'skipseg[export]'")


def test_extra_adds_only_its_own(declare):
    declare(*DECLARED)
    assert [item.name for item in doctor.requirements()] == ["torch", "numpy"]
    assert [item.name for item in doctor.requirements("export")] == ["onnx"]


def test_every_extra_but_dev_is_explained(root):
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(doctor.EXTRAS) == set(extras) - {"dev"}


def test_torchvision_is_warned_of(declare, monkeypatch):
    declare(*DECLARED)
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "0.28.0" if name == "torchvision" else real(name))
    healthy, text = diagnosis()
    assert healthy
    assert "pip uninstall torchvision" in text


@pytest.mark.parametrize("cuda", ["12.8", None])
def test_says_why_there_is_no_gpu(declare, monkeypatch, cuda):
    declare(*DECLARED)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    text = diagnosis()[1]
    line = next(line for line in text.splitlines() if line.startswith("GPU"))
    assert ("no NVIDIA driver" if cuda else "built for the CPU alone") in line


def test_names_the_gpu(declare, monkeypatch):
    declare(*DECLARED)
    card = SimpleNamespace(name="Some GPU", total_memory=80e9)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: card)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    lines = diagnosis()[1].splitlines()
    assert [line.split(maxsplit=1)[1] for line in lines if line.startswith("GPU")] == ["Some GPU, 80.0 GB, CUDA 12.8"]


def test_unwritable_cache_is_said(declare, monkeypatch):
    declare(*DECLARED)
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: False)
    healthy, text = diagnosis()
    assert healthy
    assert "cannot be written" in text


def test_development_version_satisfies_a_bound():
    assert doctor.unmet(Requirement(f"numpy>={metadata.version('numpy')}.dev0")) is None

"""``skipseg doctor``: what this machine offers SkipSeg and what it lacks, in plain words.

What is needed, and in which versions, is read from the installed package's own metadata, so it is written once:
in pyproject.toml.
"""

import os
import platform
import shutil
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import psutil
from packaging.requirements import Requirement

from segmentation import __version__
from segmentation.data.hardware import free_memory
from segmentation.terminal import Part, Table

EXTRAS = {
    "dicom": "masks as DICOM SEG, and compressed DICOM series",
    "export": "prediction on a CPU several times as fast, and models as ONNX and OpenVINO files",
    "cluster": "studies on several machines, by Ray",
    "ui": "a web page that segments scans, by `skipseg serve`",
    "track": "training curves in TensorBoard, by `skipseg train --track tensorboard`",
}
"""Optional extra to what it is for."""

SHOWN = ("torch", "pytorch-lightning", "monai", "numpy", "scipy", "nibabel", "pydicom", "albumentations", "blosc2")
"""Packages whose version is worth a word in a bug report."""


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis.

    Attributes:
        topic: Its first column.
        text: What was found and, if something is wrong, what to do.
        needed: True if SkipSeg cannot work until it is mended.
    """

    topic: str
    text: str
    needed: bool = False


def diagnose() -> list[Finding]:
    """Examine this machine.

    Examples:
        >>> diagnose()[0].topic
        'SkipSeg'
    """
    findings = [Finding("SkipSeg", f"{__version__} on Python {platform.python_version()}, {platform.platform()}")]
    findings += _packages()
    if not any(finding.needed for finding in findings):
        findings += [*_processors(), _memory(), _disk(), _cache()]
    return [*findings, *_extras()]


def as_parts(findings: Sequence[Finding]) -> list[Part]:
    """Lay out findings for a terminal, with the verdict last."""
    missing = [finding for finding in findings if finding.needed]
    verdict = f"{len(missing)} needed thing(s) missing: see above" if missing else "Everything needed is there."
    return [Table([[finding.topic, finding.text] for finding in findings], header=False), "", verdict]


def unmet(requirement: Requirement) -> str | None:
    """Say why ``requirement`` is not met here; ``None`` if it is.

    Examples:
        >>> unmet(Requirement("psutil>=6"))
        >>> unmet(Requirement("psutil>=99"))  # doctest: +ELLIPSIS
        'psutil ... is here, psutil>=99 is needed'
        >>> unmet(Requirement("no-such-package"))
        'no-such-package is missing'
    """
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return f"{requirement.name} is missing"
    if requirement.specifier.contains(version, prereleases=True):
        return None
    return f"{requirement.name} {version} is here, {requirement.name}{requirement.specifier} is needed"


def requirements(extra: str = "") -> list[Requirement]:
    """What SkipSeg needs on this Python, or what ``extra`` adds to it.

    Raises:
        importlib.metadata.PackageNotFoundError: If SkipSeg runs from its source without being installed.
    """
    declared = [Requirement(text) for text in metadata.requires("skipseg") or []]
    needed = [item for item in declared if item.marker is None or item.marker.evaluate({"extra": ""})]
    if not extra:
        return needed
    return [item for item in declared if item not in needed and item.marker and item.marker.evaluate({"extra": extra})]


def _packages() -> Iterator[Finding]:
    """Needed packages, and the one that must not be there."""
    try:
        needed = requirements()
    except metadata.PackageNotFoundError:
        command = "python -m pip install -c constraints.txt -e ."
        yield Finding("Packages", f"SkipSeg is not installed; in its source folder run: {command}", needed=True)
        return
    reasons = [reason for reason in map(unmet, needed) if reason]
    command = f"{sys.executable} -m pip install -c constraints.txt -e ."
    for reason in reasons:
        yield Finding("Packages", f"{reason}; in the source folder run: {command}", needed=True)
    if not reasons:
        versions = ", ".join(f"{name} {metadata.version(name)}" for name in SHOWN)
        yield Finding("Packages", f"all {len(needed)} needed ones are there: {versions}")
    if not unmet(Requirement("torchvision")):
        remedy = f"if imports fail with 'torchvision::nms', run: {sys.executable} -m pip uninstall torchvision"
        yield Finding("Packages", f"torchvision is here; a build for another torch breaks Lightning; {remedy}")


def _processors() -> Iterator[Finding]:
    """CPU and GPUs, as torch sees them."""
    import torch  # takes seconds, and doctor must also run where torch is missing

    yield Finding("CPU", f"{os.cpu_count()} cores; torch computes with {torch.get_num_threads()} threads")
    with warnings.catch_warnings(record=True) as said:  # torch warns of a driver it cannot use: we pass it on
        warnings.simplefilter("always")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for index in range(count):
        gpu = torch.cuda.get_device_properties(index)
        yield Finding("GPU", f"{gpu.name}, {_gigabytes(gpu.total_memory)}, CUDA {torch.version.cuda}")
    if not count and torch.version.cuda is None:
        yield Finding("GPU", f"none: torch {torch.__version__} is built for the CPU alone; training works, but slower")
    elif not count:
        reason = str(said[0].message).splitlines()[0] if said else "no NVIDIA driver or no visible GPU"
        yield Finding("GPU", f"none: torch is built for CUDA {torch.version.cuda}, but: {reason}")


def _memory() -> Finding:
    """Main memory."""
    return Finding("Memory", f"{_gigabytes(free_memory())} of {_gigabytes(psutil.virtual_memory().total)} free")


def _disk() -> Finding:
    """Room for results in the current folder."""
    return Finding("Disk", f"{_gigabytes(shutil.disk_usage(Path.cwd()).free)} free in the current folder")


def _cache() -> Finding:
    """The folder that holds prepared arrays and downloads."""
    from segmentation.runs import user_cache

    folder = user_cache()
    existing = next(parent for parent in [folder, *folder.parents] if parent.exists())
    if os.access(existing, os.W_OK | os.X_OK):
        return Finding("Cache", f"{folder} can be written; {_gigabytes(shutil.disk_usage(existing).free)} free")
    return Finding("Cache", f"{folder} cannot be written: make {existing} writable, or give each command --cache")


def _extras() -> Iterator[Finding]:
    """Optional packages, each with its use and the command that brings it."""
    try:
        needs = {extra: requirements(extra) for extra in EXTRAS}
    except metadata.PackageNotFoundError:
        return
    for extra, use in EXTRAS.items():
        reasons = [reason for reason in map(unmet, needs[extra]) if reason]
        if reasons:
            command = f"{sys.executable} -m pip install 'skipseg[{extra}]'"
            yield Finding("Optional", f"{extra} ({use}): {', '.join(reasons)}; to have it run: {command}")
        else:
            yield Finding("Optional", f"{extra} ({use}) is there")


def _gigabytes(count: int) -> str:
    """Bytes in words: ``16.0 GB``, of 10^9 bytes."""
    return f"{count / 1e9:.1f} GB"

"""Whether a fast runtime says the same as PyTorch; the verdict is kept, so that later runs need no PyTorch."""

import math
import platform
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segmentation.inference.backend import Array
from segmentation.runs import content_hash, write_json

TOLERANCE = 2e-3
"""Largest difference of a probability.

In fp32 runtimes differ by less than 1e-4 on windows of 96^3. On tiny images, where normalisations divide by little,
PyTorch itself is 9e-4 away from fp64. Weights in fp16 make 1e-2. A voxel can change its class only if its two best
classes are within twice the tolerance.
"""
CHANGED = 1e-4
"""Share of voxels that may change their class: those that are undecided to the last digits."""


@dataclass(frozen=True)
class Verdict:
    """How far two computations of the same images agree.

    Attributes:
        agrees: Within the tolerances.
        difference: Largest difference of a probability; infinite where one is not a number or shapes differ.
        changed: Share of voxels that change their class.
    """

    agrees: bool
    difference: float
    changed: float


def compare(found: Array, reference: Array) -> Verdict:
    """Compare probabilities with those of PyTorch.

    Args:
        found: Shape ``(B, K, *S)``.
        reference: Shape ``(B, K, *S)``.

    Returns:
        Agreement if no probability differs by more than 2e-3 and at most one voxel in 10 000, rounded up, changes
        its class.

    Examples:
        >>> reference = np.array([[[0.2, 0.5004], [0.8, 0.4996]]], np.float32)
        >>> compare(reference, reference)
        Verdict(agrees=True, difference=0.0, changed=0.0)
        >>> compare(reference[:, ::-1], reference).changed
        1.0
    """
    if found.shape != reference.shape or not np.isfinite(found).all():
        return Verdict(False, math.inf, 1.0)
    difference = float(np.abs(found - reference).max())
    changed = found.argmax(1) != reference.argmax(1)
    agrees = difference <= TOLERANCE and int(changed.sum()) <= math.ceil(CHANGED * changed.size)
    return Verdict(agrees, difference, float(changed.mean()))


def verdict_file(export: Path, runtime: str, version: str) -> Path:
    """File, beside an exported model, with the verdict on one version of a runtime on this processor."""
    about = {"export": export.stem, "runtime": runtime, "version": version, "cpu": processor()}
    return export.with_name(f"verdict-{content_hash(about)[:16]}.json")


def keep_verdict(file: Path, verdict: Verdict, **about: Any) -> None:
    """Write a verdict with what it is about; an infinite difference, as JSON has none, as ``None``."""
    plain = asdict(verdict) | {"difference": verdict.difference if math.isfinite(verdict.difference) else None}
    write_json(file, plain | about | {"cpu": processor()})


def processor() -> str:
    """Model and instruction sets of the processor, on which the order of sums depends; empty if it does not tell."""
    info = Path("/proc/cpuinfo")
    text = info.read_text(errors="replace") if info.exists() else ""
    model = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*: (.+)$", text, re.MULTILINE)
    sets = sorted(set(re.findall(r"\b(?:avx\w*|amx\w*|fma|asimd\w*|sve\w*)\b", flags[1]))) if flags else []
    return " ".join([platform.machine(), model[1] if model else platform.processor(), *sets]).strip()

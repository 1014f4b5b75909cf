"""Whether a fast runtime says the same as PyTorch, and what memory it takes.

Both are kept, so that later runs need no PyTorch, and no window ahead of the first.
"""

import math
import platform
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segmentation import SkipSegError
from segmentation.inference.backend import Array, Backend, WindowRefusedError
from segmentation.runs import content_hash

if TYPE_CHECKING:  # PyTorch takes seconds to import, and not every prediction needs it
    from segmentation.inference.backend_torch import TorchBackend

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

    def to_plain(self) -> dict[str, Any]:
        """Plain data; an infinite difference, as JSON has none, is ``None``."""
        return asdict(self) | {"difference": self.difference if math.isfinite(self.difference) else None}


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


def example_size(strides: Sequence[Sequence[int]], extra: int = 1) -> tuple[int, ...]:
    """A size for each axis, ``extra`` voxels more than twice what a step through all levels of a network divides.

    Further axes have further sizes.

    Examples:
        >>> [example_size([[2, 2], [2, 2]], extra) for extra in (1, 2, 3)]
        [(9, 11), (10, 12), (11, 13)]
    """
    totals = (math.prod(steps) for steps in zip(*strides, strict=True))
    return tuple(2 * (total + axis) + extra for axis, total in enumerate(totals))


def differences(candidates: Sequence[Backend], reference: "TorchBackend") -> float:
    """Compare with PyTorch on images of four sizes, so that the finest levels of the network leave every rest.

    Returns:
        The largest difference of a probability.

    Raises:
        SkipSegError: If one of the candidates does not agree, or cannot compute one of the sizes.
    """
    rng, found = np.random.default_rng(0), [0.0]
    architecture = reference.architecture
    for batch, extra in ((1, 0), (1, 1), (2, 2), (1, 3)):
        shape = (batch, architecture.in_channels, *example_size(architecture.strides, extra))
        images = rng.random(shape, np.float32)
        expected = reference(images)
        for candidate in candidates:
            try:
                verdict = compare(candidate(images), expected)
            except WindowRefusedError as error:
                raise SkipSegError(f"the export fails: {error}; it is not kept") from None
            if not verdict.agrees:
                how = f"by {verdict.difference:.2g} in {verdict.changed:.2%} of the voxels of an image of shape {shape}"
                raise SkipSegError(f"the export differs from PyTorch in {candidate.name} {how}; it is not kept")
            found.append(verdict.difference)
    return max(found)


def verdict_file(export: Path, runtime: str, version: str) -> Path:
    """File, beside an exported model, with the verdict on one version of a runtime on this processor."""
    return _beside(export, "verdict", runtime=runtime, version=version)


def memory_file(export: Path, runtime: str, version: str, threads: int, shape: Sequence[int]) -> Path:
    """File, beside an exported model, with the memory that images of shape ``(B, C, *S)`` take on this processor."""
    return _beside(export, "memory", runtime=runtime, version=version, threads=threads, shape=list(shape))


def _beside(export: Path, kind: str, **about: Any) -> Path:
    """Name a file by what it is about, export and processor included."""
    named = content_hash({"export": export.stem, "cpu": processor(), **about})
    return export.with_name(f"{kind}-{named[:16]}.json")


def processor() -> str:
    """Model and instruction sets of the processor, on which the order of sums depends; empty if it does not tell."""
    info = Path("/proc/cpuinfo")
    text = info.read_text(errors="replace") if info.exists() else ""
    model = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*: (.+)$", text, re.MULTILINE)
    sets = sorted(set(re.findall(r"\b(?:avx\w*|amx\w*|fma|asimd\w*|sve\w*)\b", flags[1]))) if flags else []
    return " ".join([platform.machine(), model[1] if model else platform.processor(), *sets]).strip()

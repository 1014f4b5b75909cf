"""What a backend is: prepared images in, class probabilities out. NumPy only; the libraries stand behind it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

RUNTIMES = ("openvino", "onnxruntime")
"""What computes on a CPU instead of PyTorch, the fastest first."""
Array = NDArray[np.float32]
Flips = Sequence[tuple[int, ...]]
"""Mirrored copies: the array axes that each mirrors, 2 being the first spatial one; ``()`` for the image as it is."""


class Backend(Protocol):
    """Computes what a network says about images."""

    @property
    def name(self) -> str:
        """``"torch"``, ``"openvino"`` or ``"onnxruntime"``."""
        ...

    def __call__(self, images: Array, flips: Flips = ((),)) -> Array:
        """Compute class probabilities of prepared images.

        Args:
            images: Intensities in [0, 1], shape ``(B, C, *S)`` with the C channels of the network.
            flips: Mirrored copies to average over.

        Returns:
            Probabilities, shape ``(B, K, *S)``, summing to 1 over the K classes.
        """
        ...

    def batch_room(self, window: Sequence[int]) -> int:
        """How many windows of spatial shape ``window`` are worth computing at a time."""
        ...


class WindowRefusedError(RuntimeError):
    """A runtime cannot compute images of this shape; PyTorch can."""


def mean_over_flips(compute: Callable[[Array], Array], images: Array, flips: Flips) -> Array:
    """Average what ``compute`` says of mirrored copies, each turned back.

    Args:
        compute: Maps shape ``(B, C, *S)`` to ``(B, K, *S)``; it may give the same memory each time.
        images: Shape ``(B, C, *S)``.
        flips: Array axes that each copy mirrors.

    Returns:
        Mean, shape ``(B, K, *S)``.

    Examples:
        >>> images = np.arange(3, dtype=np.float32).reshape(1, 1, 3)
        >>> mean_over_flips(lambda x: x * [10, 20, 30], images, [(), (2,)]).tolist()
        [[[0.0, 20.0, 40.0]]]
    """
    first, *others = flips
    found = np.flip(compute(np.ascontiguousarray(np.flip(images, first))), first)
    if not others:
        return np.ascontiguousarray(found)
    total = np.array(found, np.float32)
    for flip in others:
        total += np.flip(compute(np.ascontiguousarray(np.flip(images, flip))), flip)
    total /= len(flips)
    return total


def open_runtime(name: str, file: Path, threads: int = 0) -> Any:
    """Open an exported model in one of :data:`RUNTIMES`; each imports a library that need not be installed.

    Args:
        name: Of the runtime.
        file: ONNX file; for OpenVINO also its own .xml.
        threads: CPU threads; 0 takes all cores.
    """
    if name == "openvino":
        from segmentation.inference.backend_openvino import OpenVinoBackend

        return OpenVinoBackend(file, threads)
    from segmentation.inference.backend_onnx import OnnxBackend

    return OnnxBackend(file, threads)

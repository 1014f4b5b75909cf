"""Which backend computes: the fastest that is installed and agrees with PyTorch. PyTorch loads only where it must."""

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from segmentation import SkipSegError
from segmentation.inference.agreement import Verdict, compare, memory_file, processor, verdict_file
from segmentation.inference.backend import RUNTIMES, Array, Backend, Flips, WindowRefusedError, open_runtime
from segmentation.inference.export_cache import cached_export
from segmentation.model.folder import read_description
from segmentation.runs import peek_json, write_json

log = logging.getLogger(__name__)

_AS_IS: Flips = ((),)


def open_backend(
    folder: Path, *, backend: str = "auto", device: str = "cpu", threads: int = 0, compiled: bool = False
) -> Backend:
    """Open what computes the probabilities of a model.

    Args:
        folder: Model folder.
        backend: ``"torch"``, ``"openvino"``, ``"onnxruntime"``, or ``"auto"``: on a CPU the first of OpenVINO and
            onnxruntime that is installed and agrees with PyTorch, and PyTorch otherwise.
        device: ``"cpu"`` or ``"cuda"``.
        threads: CPU threads; 0 takes all cores.
        compiled: Let PyTorch compile the network first; ``"auto"`` is then PyTorch.

    Raises:
        SkipSegError: If the folder holds no readable model, or what is asked for is not installed, cannot compute
            this model, or, at its first window, does not agree with PyTorch.
    """
    if backend in RUNTIMES and device != "cpu":
        raise SkipSegError(f"backend {backend} computes on the CPU, but device {device} was asked for; choose one")
    if backend in RUNTIMES and find_spec(backend) is None:
        raise SkipSegError(f"backend {backend} is not installed; run: python -m pip install 'skipseg[export]'")
    installed = [runtime for runtime in RUNTIMES if find_spec(runtime)]
    fastest = installed[0] if installed and device == "cpu" and not compiled else "torch"
    chosen = fastest if backend == "auto" else backend
    if chosen == "torch":
        return _open_torch(folder, device, threads, compiled)
    try:
        return CheckedBackend(folder, chosen, threads, strict=backend != "auto")
    except SkipSegError as error:
        if backend != "auto":
            raise
        log.warning("PyTorch computes, not %s: %s", chosen, error)
        return _open_torch(folder, device, threads)


class CheckedBackend:
    """A runtime that must first show, on a window with something in it, that it agrees with PyTorch.

    The verdict is kept beside the exported model, for this version of the runtime and this processor. Without
    agreement PyTorch computes. It also computes windows that the runtime cannot.

    Args:
        folder: Model folder.
        runtime: ``"openvino"`` or ``"onnxruntime"``, installed.
        threads: CPU threads; 0 takes all cores.
        strict: Refuse to compute without agreement.

    Raises:
        SkipSegError: If the model cannot be written as ONNX, or did not agree and ``strict`` is set.
    """

    def __init__(self, folder: Path, runtime: str, threads: int = 0, strict: bool = False) -> None:
        description = read_description(folder)
        export = cached_export(folder, description, runtime)
        self._runtime = open_runtime(runtime, export, threads)
        version = self._runtime.version
        self._about = {"model": description["sha256"], "runtime": runtime, "version": version, "cpu": processor()}
        self._file = verdict_file(export, runtime, version)
        self._export, self._folder, self._threads, self._strict = export, folder, threads, strict
        self._torch: Backend | None = None
        found = peek_json(self._file).get("agrees")
        self._agrees = found if isinstance(found, bool) else None
        if self._agrees is False:
            self._reject("in an earlier run")

    @property
    def name(self) -> str:
        """Name of what computes now."""
        return "torch" if self._agrees is False else self._runtime.name

    def __call__(self, images: Array, flips: Flips = _AS_IS) -> Array:
        """Compute probabilities, shape ``(B, K, *S)``, of images of shape ``(B, C, *S)``, averaged over ``flips``.

        Raises:
            SkipSegError: If the runtime does not agree with PyTorch and it was asked for by name.
        """
        if self._agrees is None and not _is_empty(images[:1]):
            self._judge(images)
        if not self._agrees:
            return self._reference()(images, flips)
        try:
            return self._runtime(images, flips)
        except WindowRefusedError as error:
            log.debug("PyTorch computes this window: %s", error)
            return self._reference()(images, flips)

    def batch_room(self, window: Any) -> int:
        """One: more windows at a time only take more memory."""
        return 1

    def expect(self, shape: tuple[int, ...]) -> int | None:
        """Begin to compile for images of ``shape`` ``(B, C, *S)``, beside what follows, if what they take is known.

        Returns:
            Bytes that an earlier run measured, for this version of the runtime, this processor and these threads.
        """
        taken = peek_json(self._memory_file(shape)).get("bytes") if self._agrees else None
        if type(taken) is not int or taken < 1:
            return None
        thread = ThreadPoolExecutor(1)
        thread.submit(self._runtime.get_ready, shape)  # what goes wrong goes wrong again when it is needed
        thread.shutdown(wait=False)
        return taken

    def keep_memory(self, shape: tuple[int, ...], taken: int) -> None:
        """Keep what images of ``shape`` ``(B, C, *S)`` took, in bytes, unless PyTorch had to compute too."""
        if self._agrees and self._torch is None:
            self._keep(self._memory_file(shape), {"bytes": taken, "shape": list(shape)})

    def _keep(self, file: Path, found: dict[str, Any]) -> None:
        """Write what was found, with what it is about, for later runs."""
        try:
            write_json(file, found | self._about)
        except OSError as error:
            log.debug("what was found of %s cannot be kept: %s", self._runtime.name, error)

    def _memory_file(self, shape: tuple[int, ...]) -> Path:
        """Where the memory that images of ``shape`` take is kept."""
        threads = self._threads or os.cpu_count() or 1
        return memory_file(self._export, self._runtime.name, self._runtime.version, threads, shape)

    def _judge(self, images: Array) -> None:
        """Compare with PyTorch on images of shape ``(B, C, *S)``."""
        try:
            verdict = agrees(self._runtime, self._reference(), images)
        except WindowRefusedError:
            return
        self._agrees = verdict.agrees
        self._keep(self._file, verdict.to_plain() | {"shape": list(images.shape)})
        if verdict.agrees:
            self._torch = None  # lets its memory go
        else:
            self._reject(f"by {verdict.difference:.2g} in {verdict.changed:.2%} of the voxels")

    def _reject(self, how: str) -> None:
        """Say, or refuse to go on, that the runtime does not agree."""
        problem = f"{self._runtime.name} {self._runtime.version} differed from PyTorch {how}"
        if self._strict:
            raise SkipSegError(f"{problem}; choose --backend torch")
        log.warning("%s; PyTorch computes", problem)

    def _reference(self) -> Backend:
        """PyTorch."""
        if self._torch is None:
            self._torch = _open_torch(self._folder, "cpu", self._threads)
        return self._torch


def agrees(backend: Backend, reference: Backend, images: Array) -> Verdict:
    """Compare ``backend`` with ``reference`` on the first of the images, shape ``(B, C, *S)``."""
    return compare(backend(images[:1], _AS_IS), reference(images[:1], _AS_IS))


def _is_empty(image: Array) -> bool:
    """Whether each channel is constant; a normalisation enlarges the rounding of such an image at will."""
    flat = image.reshape(image.shape[1], -1)
    return bool((flat == flat[:, :1]).all())


def _open_torch(folder: Path, device: str, threads: int, compiled: bool = False) -> Backend:
    """Open PyTorch, which takes seconds to import."""
    from segmentation.inference.backend_torch import TorchBackend

    return TorchBackend.load(folder, device=device, threads=threads, compiled=compiled)

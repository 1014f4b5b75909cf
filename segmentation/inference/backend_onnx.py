"""onnxruntime as a backend: slower than OpenVINO, faster than PyTorch, and on every processor."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segmentation.inference.backend import Array, Flips, WindowRefusedError, mean_over_flips

# Its builds for Linux report their use to their maker and keep a number of this machine. The variables, of newer and
# older versions, must stand before it loads.
for _name in ("ORT_TELEMETRY_DISABLED", "ORT_DISABLE_TELEMETRY"):
    os.environ.setdefault(_name, "1")

import onnxruntime  # noqa: E402
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, RuntimeException  # noqa: E402

_ERRORS_ONLY = 3


class OnnxBackend:
    """Probabilities by onnxruntime on the CPU, in fp32.

    Args:
        model: ONNX file.
        threads: CPU threads; 0 takes all cores.

    Attributes:
        version: Of onnxruntime.
    """

    name = "onnxruntime"

    def __init__(self, model: Path, threads: int = 0) -> None:
        self.version = str(onnxruntime.__version__)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.enable_mem_pattern = False  # planned ahead, a window takes half as much memory again
        options.log_severity_level = _ERRORS_ONLY
        self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def __call__(self, images: Array, flips: Flips = ((),)) -> Array:
        """Compute probabilities, shape ``(B, K, *S)``, of images of shape ``(B, C, *S)``, averaged over ``flips``.

        Raises:
            WindowRefusedError: If onnxruntime cannot compute images of this size.
        """

        def compute(batch: Array) -> Array:
            try:
                return np.asarray(self._session.run(None, {self._input: batch})[0])
            except (Fail, InvalidArgument, RuntimeException) as error:
                reason = str(error).splitlines()[0]
                raise WindowRefusedError(f"onnxruntime cannot compute images of {batch.shape} ({reason})") from None

        return mean_over_flips(compute, images, flips)

    def get_ready(self, shape: tuple[int, ...]) -> None:
        """Nothing is compiled for one shape ``(B, C, *S)``."""

    def batch_room(self, window: Sequence[int]) -> int:
        """One: more windows at a time only take more memory."""
        return 1

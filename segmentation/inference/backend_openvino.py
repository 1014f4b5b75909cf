"""OpenVINO as a backend: the fastest on a CPU, and the one that starts soonest."""

import json
import sys
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from threading import Lock
from typing import Any, cast

import numpy as np

# OpenVINO tells a server of Google's of each conversion, by a process that it forks and that may hang with what it
# inherited. It does without where this package, which sends, cannot be imported.
cast(dict[str, Any], sys.modules)["openvino_telemetry"] = None

# Everything from here on is imported late for that reason alone.
import openvino  # noqa: E402
from openvino import opset13 as ops  # noqa: E402

from segmentation.inference.backend import Array, Flips, WindowRefusedError, mean_over_flips  # noqa: E402

_SHAPES = 2
"""Window shapes for which a compiled network is kept: the patch, and that of a scan smaller than it."""


class OpenVinoBackend:
    """Probabilities by OpenVINO on the CPU, in fp32.

    The network is compiled for one shape at a time: with a free shape OpenVINO takes a quarter more memory, and
    answers a window below its pooling with the numbers of the window before.

    Args:
        model: ONNX file, or .xml file of OpenVINO.
        threads: CPU threads; 0 takes all cores.

    Attributes:
        version: Of OpenVINO.
    """

    name = "openvino"

    def __init__(self, model: Path, threads: int = 0) -> None:
        self.version = str(openvino.get_version())
        self._core = openvino.Core()
        self._model = model
        self._options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1}
        if threads:
            self._options["INFERENCE_NUM_THREADS"] = threads
        self._compiled: OrderedDict[tuple[int, ...], Any] = OrderedDict()
        self._compiling = Lock()

    def __call__(self, images: Array, flips: Flips = ((),)) -> Array:
        """Compute probabilities, shape ``(B, K, *S)``, of images of shape ``(B, C, *S)``, averaged over ``flips``.

        Raises:
            WindowRefusedError: If the network's pooling needs larger images.
        """
        request = self._request(images.shape)

        def compute(batch: Array) -> Array:
            found = np.empty(request.get_output_tensor(0).shape, np.float32)
            request.set_output_tensor(openvino.Tensor(found, shared_memory=True))
            request.infer([batch], share_inputs=True)
            return found

        return mean_over_flips(compute, images, flips)

    def batch_room(self, window: Sequence[int]) -> int:
        """One: more windows at a time only take more memory."""
        return 1

    def get_ready(self, shape: tuple[int, ...]) -> None:
        """Compile the network for images of ``shape`` ``(B, C, *S)``; other threads that need it wait.

        Raises:
            WindowRefusedError: If the network's pooling needs larger images.
        """
        self._request(shape)

    def _request(self, shape: tuple[int, ...]) -> Any:
        """The network for images of ``shape``, compiled if it is not yet."""
        with self._compiling:
            if shape not in self._compiled:
                if len(self._compiled) == _SHAPES:
                    self._compiled.popitem(last=False)
                self._compiled[shape] = self._compile(shape).create_infer_request()
            self._compiled.move_to_end(shape)
            return self._compiled[shape]

    def _compile(self, shape: tuple[int, ...]) -> Any:
        """The network for images of ``shape``; the weights as they were read are let go."""
        model = self._core.read_model(self._model)
        try:
            model.reshape(list(shape))
            convolve_in_parts(model)
            sum_in_steps(model)
            return self._core.compile_model(model, "CPU", self._options)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise WindowRefusedError(f"OpenVINO cannot compute images of shape {shape} ({reason})") from None


def convolve_in_parts(model: Any) -> None:
    """Let a model convolve the parts of a concatenation one by one and add up, as W [a, b] = W1 a + W2 b.

    The concatenated map is then never written, which at the finest level is the largest of all: a window of 128^3
    with 8 channels there takes 64 MiB less of 430, in the same time.

    Args:
        model: An ``openvino.Model``, changed in place.
    """
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Convolution" or node.input_value(0).get_node().get_type_name() != "Concat":
            continue
        joined, weights = node.input_value(0).get_node(), node.input_value(1).get_node()
        if joined.get_attributes()["axis"] != 1 or weights.get_type_name() != "Constant":
            continue
        how = node.get_attributes()
        steps = [how[name] for name in ("strides", "pads_begin", "pads_end", "dilations", "auto_pad")]
        parts = [joined.input_value(index) for index in range(joined.get_input_size())]
        ends = np.cumsum([part.get_partial_shape()[1].get_length() for part in parts])
        kernels = np.split(weights.get_data(), ends[:-1], axis=1)
        convolved = [
            ops.convolution(part, np.ascontiguousarray(kernel), *steps)
            for part, kernel in zip(parts, kernels, strict=True)
        ]
        total = reduce(ops.add, convolved)
        for reader in node.output(0).get_target_inputs():
            reader.replace_source_output(total.output(0))
    model.validate_nodes_and_infer_types()


def sum_in_steps(model: Any) -> None:
    """Let a model add up along one axis at a time where it normalises a map.

    OpenVINO's own normalisation adds all voxels of a map in one fp32 number, and its error grows with them and with
    fewer threads: to 0.002 in the probabilities of an untrained network on a window of 128^3. In steps it is 0.00004,
    at a cost of a thirtieth of the time in 3-D.

    Args:
        model: An ``openvino.Model``, changed in place.
    """
    for node in model.get_ordered_ops():
        if node.get_type_name() == "MVN":
            x, axes = node.input_value(0), _axes(node)
            mean = _mean(x, axes)
            variance = ops.relu(ops.subtract(_mean_square(x, axes), ops.multiply(mean, mean)))
            epsilon = np.float32(node.get_attributes()["eps"])
            scale = ops.divide(np.float32(1), ops.sqrt(ops.add(variance, epsilon)))
            normed = ops.subtract(ops.multiply(x, scale), ops.multiply(mean, scale))
            for reader in node.output(0).get_target_inputs():
                reader.replace_source_output(normed.output(0))
    model.validate_nodes_and_infer_types()


def save_ir(onnx: Path, target: Path, smallest: Sequence[int], about: Mapping[str, Any]) -> None:
    """Turn an ONNX file into OpenVINO's own format, in fp32 and for any batch and size.

    Args:
        onnx: The file.
        target: .xml file to write; the weights go into a .bin file beside it.
        smallest: Fewest voxels along each axis; below them OpenVINO would give wrong numbers, and now refuses.
        about: Plain data to keep in the file, by name.
    """
    model = openvino.Core().read_model(onnx)
    channels = model.input(0).get_partial_shape()[1]
    space = [openvino.Dimension(size, -1) for size in smallest]
    model.reshape(openvino.PartialShape([openvino.Dimension(1, -1), channels, *space]))
    sum_in_steps(model)
    for name, content in about.items():
        model.set_rt_info(json.dumps(content), [name])
    openvino.save_model(model, target, compress_to_fp16=False)


def _axes(node: Any) -> list[int]:
    """Axes that an MVN normalises over, ascending."""
    rank = len(node.get_output_partial_shape(0))
    return sorted(int(axis) % rank for axis in node.input_value(1).get_node().get_data())


def _mean_square(x: Any, axes: Sequence[int]) -> Any:
    """Mean of the squares over ``axes``; the squares of the map itself are nowhere stored."""
    norm = ops.reduce_l2(x, np.array(axes[-1:]), keep_dims=True)
    count = ops.convert(ops.gather(ops.shape_of(x, "i32"), np.int32(axes[-1]), np.int32(0)), "f32")
    square = ops.divide(ops.multiply(norm, norm), count)
    return _mean(square.output(0), axes[:-1]) if axes[:-1] else square


def _mean(x: Any, axes: Sequence[int]) -> Any:
    """Mean over ``axes``, one at a time.

    OpenVINO joins two steps of one kind, so that means and sums take turns; the sums are divided in the end.
    """
    summed = list(axes)[::-2]
    count = ops.reduce_prod(ops.gather(ops.shape_of(x, "i32"), np.array(summed), np.int32(0)), np.int32(0))
    for index, axis in enumerate(reversed(axes)):
        step = ops.reduce_mean if index % 2 else ops.reduce_sum
        x = step(x, np.array([axis]), keep_dims=True)
    return ops.divide(x, ops.convert(count, "f32"))

"""The runtimes on small graphs written by hand: what they compute is known without PyTorch."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest
from onnx import TensorProto, helper

from segmentation.inference.backend import WindowRefusedError
from segmentation.inference.backend_onnx import OnnxBackend
from segmentation.inference.backend_openvino import OpenVinoBackend, convolve_in_parts, save_ir, sum_in_steps

RUNTIMES = [OnnxBackend, OpenVinoBackend]


def write_graph(path: Path, nodes: list[onnx.NodeProto], weights: dict[str, list[float]], dims: int) -> Path:
    """A graph of one channel from ``image`` to ``probabilities``, of any batch and size."""
    shape = ["batch", 1, *(f"s{axis}" for axis in range(dims))]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in ("image", "probabilities")]
    tensors = [helper.make_tensor(n, TensorProto.FLOAT, [len(v)], v) for n, v in weights.items()]
    graph = helper.make_graph(nodes, "graph", ends[:1], ends[1:], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


@pytest.fixture
def ramp(tmp_path: Path) -> Path:
    """Adds up along the first spatial axis, so that a mirrored copy gives another answer."""
    axis = helper.make_node("Constant", [], ["axis"], value=helper.make_tensor("axis", TensorProto.INT64, [], [2]))
    sums = helper.make_node("CumSum", ["image", "axis"], ["probabilities"])
    return write_graph(tmp_path / "ramp.onnx", [axis, sums], {}, 2)


@pytest.fixture
def norm(tmp_path: Path) -> Path:
    """Instance normalisation of a volume."""
    node = helper.make_node("InstanceNormalization", ["image", "scale", "shift"], ["probabilities"], epsilon=1e-5)
    return write_graph(tmp_path / "norm.onnx", [node], {"scale": [2.0], "shift": [0.5]}, 3)


def normalised(x: np.ndarray) -> np.ndarray:
    """The same in fp64."""
    exact = x.astype(np.float64)
    axes = tuple(range(2, x.ndim))
    mean, variance = exact.mean(axes, keepdims=True), exact.var(axes, keepdims=True)
    return 2 * (exact - mean) / np.sqrt(variance + 1e-5) + 0.5


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_it_averages_over_mirrored_copies(ramp: Path, runtime):
    x = np.random.default_rng(0).random((2, 1, 5, 7), np.float32)
    turned = x[:, :, ::-1].cumsum(2)[:, :, ::-1]
    backend = runtime(ramp, threads=1)
    np.testing.assert_allclose(backend(x), x.cumsum(2), rtol=1e-6)
    np.testing.assert_allclose(backend(x, [(), (2,), (3,)]), (2 * x.cumsum(2) + turned) / 3, rtol=1e-5)
    assert (backend.name, backend.batch_room((5, 7))) == (runtime.name, 1)
    assert backend.version


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_shapes_may_change_from_call_to_call(norm: Path, runtime):
    backend, rng = runtime(norm), np.random.default_rng(0)
    for shape in ((1, 1, 4, 5, 6), (2, 1, 9, 3, 2), (1, 1, 1, 1, 2), (1, 1, 4, 5, 6), (3, 1, 2, 2, 2)):
        x = rng.random(shape, np.float32)
        np.testing.assert_allclose(backend(x), normalised(x), atol=1e-4)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_result_stays_when_the_next_is_computed(ramp: Path, runtime):
    backend = runtime(ramp)
    first = backend(np.ones((1, 1, 2, 2), np.float32))
    backend(np.zeros((1, 1, 2, 2), np.float32))
    np.testing.assert_array_equal(first, [[[[1, 1], [2, 2]]]])


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_summing_in_steps_is_the_same_normalisation(tmp_path: Path, dims: int):
    node = helper.make_node("InstanceNormalization", ["image", "scale", "shift"], ["probabilities"], epsilon=1e-5)
    path = write_graph(tmp_path / "n.onnx", [node], {"scale": [2.0], "shift": [0.5]}, dims)
    x = np.random.default_rng(0).normal(3, 2, (2, 1, *(7, 5, 9)[:dims])).astype(np.float32)
    np.testing.assert_allclose(OpenVinoBackend(path)(x), normalised(x), atol=1e-5)


def test_summing_in_steps_keeps_a_large_map_exact(norm: Path):
    x = np.exp(1.5 * np.random.default_rng(0).normal(size=(1, 1, 128, 128, 96))).astype(np.float32)
    exact = normalised(x)

    def error(steps: bool) -> float:
        model = openvino.Core().read_model(norm)
        model.reshape(list(x.shape))
        if steps:
            sum_in_steps(model)
            assert "MVN" not in {node.get_type_name() for node in model.get_ops()}
        options = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
        found = openvino.Core().compile_model(model, "CPU", options)(x)[0]
        return float(np.abs(found - exact).max())

    assert error(steps=True) < 1e-4
    assert error(steps=False) > 10 * error(steps=True)


def test_openvino_convolves_the_parts_of_a_concatenation_without_joining_them(tmp_path: Path):
    kernel = np.random.default_rng(0).normal(size=(1, 2, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Neg", ["image"], ["minus"]),
        helper.make_node("Exp", ["minus"], ["small"]),
        helper.make_node("Concat", ["image", "small"], ["both"], axis=1),
        helper.make_node("Conv", ["both", "kernel"], ["probabilities"], pads=[1, 1, 1, 1]),
    ]
    path = write_graph(tmp_path / "joined.onnx", nodes, {}, 2)
    graph = onnx.load(path)
    graph.graph.initializer.append(onnx.numpy_helper.from_array(kernel, "kernel"))
    onnx.save(graph, path)
    core, x = openvino.Core(), np.random.default_rng(1).random((1, 1, 9, 7), dtype=np.float32)
    plain, parted = core.read_model(path), core.read_model(path)
    convolve_in_parts(parted)
    assert "Concat" in {node.get_type_name() for node in plain.get_ops()}
    assert "Concat" not in {node.get_type_name() for node in parted.get_ops()}
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    wanted, found = (core.compile_model(model, "CPU", options)(x)[0] for model in (plain, parted))
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_a_window_below_the_pooling_is_refused_by_openvino(tmp_path: Path):
    pool = helper.make_node("MaxPool", ["image"], ["low"], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
    size = helper.make_node("Shape", ["image"], ["size"])
    wide = helper.make_node("Resize", ["low", "", "", "size"], ["probabilities"], mode="nearest")
    path = write_graph(tmp_path / "pool.onnx", [pool, size, wide], {}, 2)
    backend = OpenVinoBackend(path)
    assert backend(np.ones((1, 1, 3, 3), np.float32)).shape == (1, 1, 3, 3)
    with pytest.raises(WindowRefusedError, match=r"shape \(1, 1, 1, 3\)"):
        backend(np.ones((1, 1, 1, 3), np.float32))
    assert OnnxBackend(path)(np.ones((1, 1, 1, 3), np.float32)).tolist() == [[[[1, 1, 1]]]]


def test_an_openvino_file_is_fp32_takes_any_size_and_refuses_too_small_ones(norm: Path, tmp_path: Path):
    save_ir(norm, tmp_path / "model.xml", [4, 2, 2], {"skipseg": {"labels": {"background": 0}}})
    core = openvino.Core()
    model = core.read_model(tmp_path / "model.xml")
    assert model.get_rt_info(["skipseg"]).astype(str) == '{"labels": {"background": 0}}'
    constants = {n.get_element_type().to_string() for n in model.get_ops() if n.get_type_name() == "Constant"}
    assert "f16" not in constants
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for shape in ((1, 1, 4, 2, 2), (2, 1, 7, 9, 5)):
        x = np.random.default_rng(0).random(shape, np.float32)
        np.testing.assert_allclose(compiled(x)[0], normalised(x), atol=1e-5)
        np.testing.assert_allclose(OpenVinoBackend(tmp_path / "model.xml")(x), normalised(x), atol=1e-5)
    with pytest.raises(RuntimeError):
        compiled(np.ones((1, 1, 3, 2, 2), np.float32))


def test_onnxruntime_neither_reports_nor_numbers_this_machine(ramp: Path, tmp_path: Path):
    program = (
        "from pathlib import Path; import numpy; from segmentation.inference.backend_onnx import OnnxBackend\n"
        f"OnnxBackend(Path({str(ramp)!r}))(numpy.ones((1, 1, 2, 2), numpy.float32))"
    )
    home = tmp_path / "home"
    home.mkdir()
    environment = {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "PATH": ""}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
    assert list(home.iterdir()) == []


def test_openvino_tells_nobody_of_its_use():
    """In a process of its own: here OpenVINO was loaded by something else."""
    load = "import segmentation.inference.backend_openvino; from openvino.tools.ovc.telemetry_utils import tm"
    told = subprocess.run([sys.executable, "-c", f"{load}; print(tm.__name__)"], capture_output=True, check=True)
    assert told.stdout.decode().split() == ["openvino.tools.ovc.telemetry_stub"]

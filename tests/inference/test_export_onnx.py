import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from segmentation import SkipSegError
from segmentation.config import NetworkSettings
from segmentation.data.preprocessing import Normalisation, Preprocessing
from segmentation.inference import export_onnx
from segmentation.inference.agreement import TOLERANCE
from segmentation.inference.backend_onnx import OnnxBackend
from segmentation.inference.backend_openvino import OpenVinoBackend
from segmentation.inference.backend_torch import Classifier, TorchBackend
from segmentation.inference.export_onnx import METADATA, OPSET, about_tensors, write_onnx
from segmentation.model.architecture import Architecture

ABOUT = {"labels": {"lesion": 2, "background": 0, "organ": 1}, "patch_size": [8, 8], "sha256": "5e"}
KINDS: dict[str, dict[str, Any]] = {
    **{kind: {"long_skip": kind} for kind in ("concat", "add", "mean", "mul", "max", "none")},
    "gated, short add": {"long_skip": "gated", "short_skip": "add", "norm": "batch"},
    "gated_scalar, short scaled_add": {"long_skip": "gated_scalar", "short_skip": "scaled_add", "norm": "group"},
    "se, short gated_add": {"long_skip": "se", "short_skip": "gated_add", "activation": "gelu"},
    "respath, short dense": {"long_skip": "respath", "short_skip": "dense", "downsample": "first_conv"},
    "nested, linear": {"long_skip": "nested", "upsample": "linear", "downsample": "stride"},
    "fullscale, nearest": {"long_skip": "fullscale", "upsample": "nearest", "norm": "layer"},
    "permuted, avgpool": {"long_skip_permute": [1, 0], "downsample": "avgpool", "input_skip": True},
    "decimate, pre-activation": {"downsample": "decimate", "order": "norm-act-conv", "block": "bottleneck"},
    "skip normed and scaled": {"long_skip_norm": "instance", "long_skip_scale_learned": True, "activation": "prelu"},
    "no norm, placebo zeros": {"norm": "none", "long_skip_placebo": "zeros", "activation": "silu"},
    "placebo dup": {"long_skip_placebo": "dup", "activation": "elu"},
}
SHAPES = [(1, 13, 7, 9), (3, 8, 16, 12), (2, 5, 21, 4), (1, 14, 10, 6), (1, 12, 11, 9)]
"""Batch and sizes: every rest that two steps of two can leave, in several pairs."""


def backend_of(dims: int, **settings: Any) -> TorchBackend:
    """A network of three classes whose normalisations have run on something."""
    network = NetworkSettings(**({"depth": 2, "width": 8} | settings))
    depth = len(network.channels()) - 1
    strides, kernels = [[2] * dims, [1, 2, 2][-dims:]][:depth], [[3] * dims] * (depth + 1)
    architecture = Architecture(network, dims, 2, 3, strides, kernels)
    normalisation = (Normalisation("zscore", mean=0.4, std=0.2), Normalisation("zscore", mean=0.6, std=0.3))
    built = architecture.build(seed=1)
    built(torch.rand(2, 2, *(12,) * dims))
    return TorchBackend(Classifier(built, Preprocessing(dims, (1.0,) * dims, None, 0, normalisation)), architecture)


@pytest.fixture(scope="module")
def concat(tmp_path_factory: pytest.TempPathFactory) -> tuple[TorchBackend, Path]:
    """One network with its file, the only one that the fast tests write."""
    backend, file = backend_of(2), tmp_path_factory.mktemp("onnx") / "model.onnx"
    write_onnx(backend, ABOUT, file)
    return backend, file


def check_parity(backend: TorchBackend, file: Path, dims: int) -> None:
    runtimes = [OnnxBackend(file, 1), OpenVinoBackend(file, 1)]
    for batch, *size in SHAPES:
        images = np.random.default_rng(0).random((batch, 2, *size[:dims]), np.float32)
        expected = backend(images)
        assert expected.std() > 0.003
        for runtime in runtimes:
            np.testing.assert_allclose(runtime(images), expected, atol=TOLERANCE, err_msg=runtime.name)


@pytest.mark.slow
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_an_export_computes_what_pytorch_does_at_any_size(kind: str, dims: int, tmp_path: Path):
    backend = backend_of(dims, **KINDS[kind])
    write_onnx(backend, ABOUT, tmp_path / "model.onnx")
    check_parity(backend, tmp_path / "model.onnx", dims)


def test_a_small_export_computes_what_pytorch_does(concat: tuple[TorchBackend, Path]):
    check_parity(*concat, 2)


def test_it_takes_an_image_of_one_voxel(concat: tuple[TorchBackend, Path]):
    backend, file = concat
    pixel = np.full((1, 2, 1, 1), 0.5, np.float32)
    np.testing.assert_allclose(OnnxBackend(file)(pixel), backend(pixel), atol=1e-5)


def test_one_file_names_everything(concat: tuple[TorchBackend, Path]):
    model = onnx.load(concat[1], load_external_data=False)
    assert {entry.domain: entry.version for entry in model.opset_import}[""] == OPSET
    assert not any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer)
    assert ([end.name for end in model.graph.input], [end.name for end in model.graph.output]) == (
        ["image"],
        ["probabilities"],
    )
    kept = json.loads({entry.key: entry.value for entry in model.metadata_props}[METADATA])
    assert {key: kept[key] for key in ABOUT} == ABOUT
    assert "background, organ, lesion" in kept["output"]["probabilities"]
    assert kept == about_tensors(ABOUT)


def test_the_file_holds_no_path_of_this_machine(concat: tuple[TorchBackend, Path], root: Path):
    content = concat[1].read_bytes()
    assert str(root).encode() not in content
    assert b"site-packages" not in content
    assert b".py" not in content


def test_a_network_too_large_for_one_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(export_onnx, "_LIMIT", 100)
    with pytest.raises(SkipSegError, match="at most 2 GiB"):
        write_onnx(backend_of(2), ABOUT, tmp_path / "model.onnx")


@pytest.mark.parametrize("placebo", ["noise", "shuffle"])
def test_a_placebo_that_no_graph_can_hold_is_refused(placebo: str, tmp_path: Path):
    with pytest.raises(SkipSegError, match=f"placebo {placebo} draws on"):
        write_onnx(backend_of(2, long_skip_placebo=placebo), ABOUT, tmp_path / "model.onnx")


def test_what_the_exporter_cannot_write_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: Any, **__: Any) -> None:
        raise torch.onnx.OnnxExporterError("Failed\nin many lines") from RuntimeError("no such operator\nfoo")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(
        SkipSegError, match=r"long_skip add, .*cannot be written as ONNX \(no such operator\)"
    ) as refused:
        write_onnx(backend_of(2, long_skip="add"), ABOUT, tmp_path / "model.onnx")
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_without_the_exporters_packages_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def missing(*_: Any, **__: Any) -> None:
        raise ModuleNotFoundError("No module named 'onnxscript'", name="onnxscript")

    monkeypatch.setattr(torch.onnx, "export", missing)
    with pytest.raises(SkipSegError, match=r"onnxscript is missing; run: .*skipseg\[export\]"):
        write_onnx(backend_of(2), ABOUT, tmp_path / "model.onnx")

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import nibabel as nib
import numpy as np
import openvino
import pytest
from safetensors.torch import load_file

from segmentation import SkipSegError
from segmentation.config import ExportSettings, NetworkSettings
from segmentation.data.preprocessing import Normalisation, Preprocessing
from segmentation.inference import export as stage
from segmentation.inference.agreement import differences
from segmentation.inference.backend import WindowRefusedError
from segmentation.inference.backend_openvino import OpenVinoBackend
from segmentation.inference.backend_torch import TorchBackend
from segmentation.inference.export import export
from segmentation.inference.export_card import UNKNOWN, model_card
from segmentation.inference.predictor import Predictor
from segmentation.model.architecture import Architecture
from segmentation.model.folder import read_description, released, write_description
from segmentation.model.storage import save_model
from segmentation.runs import write_json
from segmentation.scans import grid_difference, read_label_map, read_scan

ARCHITECTURE = Architecture(NetworkSettings(depth=2, width=4), 3, 1, 3, [[2] * 3] * 2, [[3] * 3] * 3)
CT = Normalisation("window", -100, 300, 0.4, 0.2)
ABOUT: dict[str, Any] = {
    "skipseg": "0.1.0",
    "preprocessing": Preprocessing(3, (0.8, 0.8, 2.5), None, 0, (CT,)).to_plain(),
    "channel_names": ["CT"],
    "labels": {"background": 0, "organ": 1, "lesion": 2},
    "patch_size": [16, 16, 8],
    "flip_axes": [0],
    "mirror": True,
    "keep_largest": True,
    "selected": "last",
    "dataset": {"name": "lung", "licence": "CC BY 4.0", "citation": "", "train_cases": ["Doe_Jane", "Roe_Jo"]},
}
SCORE = {"estimate": 0.8, "low": 0.71, "high": 0.89, "n": 4, "method": "95 % interval, Student's t"}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    save_model(folder, ARCHITECTURE, ARCHITECTURE.build(seed=4).state_dict(), ABOUT)
    return folder


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """ONNX files are not written in earnest, and agree; gives where they would be."""
    made: list[Path] = []

    def write(backend: Any, about: Any, target: Path) -> None:
        made.append(target)
        target.write_bytes(b"onnx")

    monkeypatch.setattr(stage, "write_onnx", write)
    monkeypatch.setattr(stage, "_runtimes", lambda file: [])
    return made


class Wrong:
    """Computes something else."""

    name = "wrong"

    def __init__(self, backend: TorchBackend) -> None:
        self.backend = backend

    def __call__(self, images: np.ndarray, flips: Any = ((),)) -> np.ndarray:
        return self.backend(images[:, :, ::-1].copy(), flips)

    def batch_room(self, window: Any) -> int:
        return 1


def test_an_exported_model_names_no_case(model: Path):
    assert "Doe_Jane" not in json.dumps(released(read_description(model)))
    assert released({"labels": {}}) == {"labels": {}, "dataset": {}}


def test_a_torch_export_is_a_model_folder_that_works_alone(model: Path, tmp_path: Path, caplog: Any):
    caplog.set_level(logging.INFO)
    out = export(ExportSettings(model, tmp_path / "deep" / "out", "torch"))
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "model.json", "model.safetensors"]
    about = read_description(out)
    assert about["dataset"]["train_cases"] == 2
    assert {k: v for k, v in about.items() if k not in ("dataset", "checksum")} == {
        k: v for k, v in read_description(model).items() if k not in ("dataset", "checksum")
    }
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (model, out))
    assert all((ours[name] == theirs[name]).all() for name in ours)
    assert "differ from PyTorch's by at most 0.0e+00" in caplog.text


def test_a_copy_that_computes_something_else_is_not_kept(model: Path, tmp_path: Path, quick: Any, monkeypatch: Any):
    monkeypatch.setattr(stage, "_runtimes", lambda file: [Wrong(TorchBackend.load(model))])
    with pytest.raises(SkipSegError, match=r"differs from PyTorch in wrong by .*not kept"):
        export(ExportSettings(model, tmp_path / "out" / "model.onnx"))
    assert list((tmp_path / "out").iterdir()) == []


def test_a_better_copy_takes_the_place_of_an_old_one(model: Path, tmp_path: Path, quick: Any):
    (tmp_path / "model.onnx").write_bytes(b"old")
    assert export(ExportSettings(model, tmp_path / "model.onnx")) == tmp_path / "model.onnx"
    assert (tmp_path / "model.onnx").read_bytes() == b"onnx"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "run"]
    assert len(quick) == 1


def test_differences_are_of_four_sizes_that_leave_every_rest(model: Path):
    reference, seen = TorchBackend.load(model), []

    class Near(Wrong):
        def __call__(self, images: np.ndarray, flips: Any = ((),)) -> np.ndarray:
            seen.append(images.shape)
            return self.backend(images, flips) + np.float32(5e-4)

    assert differences([Near(reference)], reference) == pytest.approx(5e-4, rel=1e-2)
    assert seen == [(1, 1, 8, 10, 12), (1, 1, 9, 11, 13), (2, 1, 10, 12, 14), (1, 1, 11, 13, 15)]


def test_a_copy_that_cannot_compute_every_size_is_not_kept(model: Path):
    reference = TorchBackend.load(model)

    class Picky(Wrong):
        def __call__(self, images: np.ndarray, flips: Any = ((),)) -> np.ndarray:
            if images.shape[2] % 2 == 0:
                raise WindowRefusedError("it cannot compute even sizes")
            return self.backend(images, flips)

    with pytest.raises(SkipSegError, match="the export fails: it cannot compute even sizes; it is not kept"):
        differences([Picky(reference)], reference)


@pytest.mark.parametrize("name", ["openvino", "torch", "bundle"])
def test_a_folder_with_something_in_it_is_left_alone(model: Path, tmp_path: Path, name: Any):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(SkipSegError, match="stands already"):
        export(ExportSettings(model, tmp_path / "out", name))
    with pytest.raises(SkipSegError, match="stands already"):
        export(ExportSettings(model, tmp_path / "out" / "thesis.txt", name))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def test_an_onnx_file_is_named_so(model: Path, tmp_path: Path):
    with pytest.raises(SkipSegError, match=r"ends in \.onnx"):
        export(ExportSettings(model, tmp_path / "model"))


def test_a_folder_without_a_model_is_refused(tmp_path: Path):
    with pytest.raises(SkipSegError, match=r"holds no model\.json"):
        export(ExportSettings(tmp_path, tmp_path / "out", "torch"))


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_a_missing_package_is_named(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: Any):
    monkeypatch.setattr(stage, "find_spec", lambda package: None)
    monkeypatch.setattr(stage, "write_onnx", lambda backend, about, target: target.write_bytes(b"onnx"))
    with pytest.raises(SkipSegError, match=r"is missing; run: .*skipseg\[export\]"):
        export(ExportSettings(model, tmp_path / f"out.{name}", name))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


# The card


def test_the_card_says_what_files_say_and_that_the_rest_is_not_stated(model: Path):
    summary = {"unit": "mm", "tolerance_mm": 2.0, "policy": "Empty masks: none.", "classes": {}}
    for name, estimate in (("organ", 0.8), ("lesion", None)):
        scores = {m: {"policy": {**SCORE, "estimate": estimate}} for m in ("dice", "nsd", "hd95_mm")}
        summary["classes"][name] = {"scores": scores}
    write_json(model / "evaluation" / "summary.json", summary)
    split = {"method": "stratified 5-fold", "fold": 0}
    write_json(model / "run.json", {"val_cases": ["a", "b", "c"], "patients": 5, "split": split})
    card = model_card(model, read_description(model), "Use it so.")
    for line in (
        "# Segmentation of organ, lesion",
        "| organ | 0.800 [0.710, 0.890] | 0.800 [0.710, 0.890] | 0.800 [0.710, 0.890] | 4 |",
        f"| lesion | {UNKNOWN} | {UNKNOWN} | {UNKNOWN} | 4 |",
        "| class | Dice | surface Dice at 2 mm | HD95 (mm) | patients |",
        "| Licence | CC BY 4.0 |",
        f"| Citation | {UNKNOWN} |",
        "| Cases learnt from | 2 |",
        "| Cases held out | 3 |",
        "| Patients in all | 5 |",
        "| Split | stratified 5-fold, fold 0 |",
        "| Channels | CT: values from -100 to 300 |",
        "| Spacing | 0.8 x 0.8 x 2.5 mm |",
        f"| SHA-256 of the weights | {read_description(model)['sha256']} |",
        "| Long skips | concat |",
        "Use it so.",
    ):
        assert line in card.splitlines(), line
    assert "Doe" not in card
    assert "Student's t" in card


def test_the_card_of_a_model_alone_has_no_scores(model: Path):
    card = model_card(model, {**read_description(model), "dataset": {}}, "")
    assert "No scores lie with the model." in card
    assert f"| Cases learnt from | {UNKNOWN} |" in card
    (model / "evaluation").mkdir()
    (model / "evaluation" / "summary.json").write_text('{"classes": [')
    assert "No scores lie with the model." in model_card(model, read_description(model), "")


def test_the_card_of_an_imported_model_says_in_what_it_departs(model: Path):
    about = {**read_description(model), "imported": {"configuration": "2d"}, "notes": ["resampled linearly"]}
    assert "* resampled linearly" in model_card(model, about, "").splitlines()


def test_a_name_cannot_break_the_cards_tables(model: Path):
    about = read_description(model) | {"dataset": {"name": "a | b\nc"}}
    assert "| Name | a \\| b c |" in model_card(model, about, "").splitlines()


# In earnest


@pytest.mark.slow
@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_an_export_in_earnest(model: Path, tmp_path: Path, name: Any, caplog: Any):
    caplog.set_level(logging.INFO)
    out = export(ExportSettings(model, tmp_path / "out" / f"model.{name}", name))
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    assert "differ from PyTorch's by at most" in caplog.text
    assert "Doe_Jane" not in "".join(p.read_bytes().decode("latin1") for p in [out, *out.glob("*")] if p.is_file())
    if name == "onnx":
        return
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "model.bin", "model.json", "model.xml"]
    compiled = openvino.Core().compile_model(out / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    reference = TorchBackend.load(model)
    for shape in ((1, 1, 7, 6, 9), (2, 1, 12, 5, 4)):
        images = np.random.default_rng(0).random(shape, np.float32)
        np.testing.assert_allclose(compiled(images)[0], reference(images), atol=1e-4)
        np.testing.assert_allclose(OpenVinoBackend(out / "model.xml")(images), reference(images), atol=1e-4)
    with pytest.raises(RuntimeError):
        compiled(np.ones((1, 1, 1, 6, 9), np.float32))


# The bundle


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Two volumes whose windows lie where MONAI's lie: one turned, one that must be resampled."""
    folder = tmp_path / "scans"
    folder.mkdir()
    rng = np.random.default_rng(0)
    turned = np.array([[-0.8, 0, 0, 10], [0, -0.8, 0, 20], [0, 0, 2.5, -5], [0, 0, 0, 1]])
    coarse = np.diag([1.6, 1.6, 2.5, 1])
    for name, affine, shape in (("turned", turned, (32, 24, 12)), ("coarse", coarse, (16, 12, 12))):
        smooth = np.kron(rng.normal(100, 120, [-(-size // 4) for size in shape]), np.ones((4, 4, 4)))
        nib.Nifti1Image(smooth[tuple(slice(size) for size in shape)].astype(np.float32), affine).to_filename(
            folder / f"{name}.nii.gz"
        )
    return folder


METADATA_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": [
        *("schema", "version", "monai_version", "pytorch_version", "numpy_version", "required_packages_version"),
        *("task", "description", "authors", "copyright", "network_data_format"),
    ],
    "properties": {
        "schema": {"type": "string", "format": "uri"},
        **{
            name: {"type": "string", "pattern": r"^\d+\.\d+(\.\d+)?$"}
            for name in ("version", "monai_version", "pytorch_version", "numpy_version")
        },
        "required_packages_version": {"type": "object", "additionalProperties": {"type": "string"}},
        "references": {"type": "array", "items": {"type": "string"}},
        "network_data_format": {
            "type": "object",
            "required": ["inputs", "outputs"],
            "additionalProperties": {
                "type": "object",
                "additionalProperties": {
                    "type": "object",
                    "required": ["type", "format", "num_channels", "spatial_shape", "dtype", "value_range"],
                    "properties": {
                        "num_channels": {"type": "integer"},
                        "spatial_shape": {"type": "array", "items": {"type": ["integer", "string"]}},
                        "value_range": {"type": "array", "items": {"type": "number"}},
                        "channel_def": {"type": "object", "additionalProperties": {"type": "string"}},
                        "is_patch_data": {"type": "boolean"},
                    },
                },
            },
        },
    },
}
"""Written after the field list of MONAI's schema of 25 July 2024."""


def test_a_bundle_has_its_parts_and_metadata_of_the_schema(model: Path, tmp_path: Path):
    out = export(ExportSettings(model, tmp_path / "bundle", "bundle"))
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()) == [
        "configs/inference.json",
        "configs/logging.conf",
        "configs/metadata.json",
        "docs/README.md",
        "docs/data_license.txt",
        "models/model.json",
        "models/model.safetensors",
    ]
    metadata = json.loads((out / "configs" / "metadata.json").read_text())
    jsonschema.validate(metadata, METADATA_SCHEMA)
    pred = metadata["network_data_format"]["outputs"]["pred"]
    assert pred["channel_def"] == {"0": "background", "1": "organ", "2": "lesion"}
    assert "Licence: CC BY 4.0" in (out / "docs" / "data_license.txt").read_text()


@pytest.mark.slow
def test_a_bundle_runs_in_monai_and_gives_the_masks_of_predict(model: Path, scans: Path, tmp_path: Path):
    about = read_description(model)
    write_description(model, {**about, "postprocess": {"steps": [{"kind": "fill_holes", "label": 1}]}})
    out = export(ExportSettings(model, tmp_path / "bundle", "bundle"))
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "configs/inference.json"]
    command += ["--bundle_root", ".", "--meta_file", "configs/metadata.json", "--logging_file", "configs/logging.conf"]
    subprocess.run([*command, "--dataset_dir", scans, "--output_dir", tmp_path / "masks"], check=True, cwd=out)
    predictor = Predictor.load(model)
    equal = {}
    for name in ("turned", "coarse"):
        scan = read_scan(scans / f"{name}.nii.gz")
        mask = read_label_map(tmp_path / "masks" / f"{name}.nii.gz")
        assert grid_difference(scan, mask) is None
        ours = predictor(scan)
        assert set(np.unique(ours)) == {0, 1, 2}
        equal[name] = (mask.array[0] == ours).mean()
    assert equal["turned"] > 0.999
    assert equal["coarse"] > 0.98  # MONAI does not smooth the probabilities where the scan's voxels are coarser


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spacing_mm": [1.0, 1.0]}, "segments pictures"),
        ({"context_slices": 1}, "reads neighbours"),
        ({"frame": "stored"}, "reads them as stored"),
    ],
)
def test_what_a_bundle_cannot_hold_is_refused(model: Path, tmp_path: Path, change: dict[str, Any], message: str):
    about = read_description(model)
    write_description(model, {**about, "preprocessing": about["preprocessing"] | change})
    with pytest.raises(SkipSegError, match=message):
        export(ExportSettings(model, tmp_path / "bundle", "bundle"))
    assert not (tmp_path / "bundle").exists()

import json
import logging
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segmentation import SkipSegError
from segmentation.config import NetworkSettings
from segmentation.data.preprocessing import Normalisation, Preprocessing
from segmentation.inference import backends, export_cache, export_onnx
from segmentation.inference.agreement import Verdict, compare, memory_file, processor, verdict_file
from segmentation.inference.backend import WindowRefusedError
from segmentation.inference.backends import CheckedBackend, open_backend
from segmentation.inference.export_cache import cached_export
from segmentation.model.architecture import Architecture
from segmentation.model.folder import read_description, write_description
from segmentation.model.storage import save_model
from segmentation.runs import file_hash

ARCHITECTURE = Architecture(NetworkSettings(depth=1, width=4), 2, 1, 2, [[2, 2]], [[3, 3]] * 2)
PREPARATION = Preprocessing(2, (1.0, 1.0), None, 0, (Normalisation("range", 0, 255, 0.4, 0.2),))
IMAGES = np.random.default_rng(0).random((1, 1, 12, 17), np.float32)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model folder, and a cache folder of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    about = {"preprocessing": PREPARATION.to_plain(), "labels": {"background": 0, "cell": 1}}
    save_model(tmp_path / "model", ARCHITECTURE, ARCHITECTURE.build(seed=2).state_dict(), about)
    return tmp_path / "model"


class Runtime:
    """A runtime that says what PyTorch says, plus an error."""

    name, version = "openvino", "1"

    def __init__(self, folder: Path, error: float = 0.0) -> None:
        self.torch = open_backend(folder, backend="torch")
        self.error = error
        self.calls = 0
        self.ready: list[tuple[int, ...]] = []

    def __call__(self, images: np.ndarray, flips: Any = ((),)) -> np.ndarray:
        self.calls += 1
        if images.shape[-1] < 2:
            raise WindowRefusedError("too small")
        return self.torch(images, flips) + np.array([self.error, -self.error], np.float32)[:, None, None]

    def batch_room(self, window: Any) -> int:
        return 1

    def get_ready(self, shape: tuple[int, ...]) -> None:
        self.ready.append(shape)


@pytest.fixture
def runtime(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Runtime:
    """Stands for OpenVINO; the export is not written."""
    fake = Runtime(folder)
    monkeypatch.setattr(backends, "find_spec", lambda name: name == "openvino")
    monkeypatch.setattr(backends, "open_runtime", lambda *_: fake)
    monkeypatch.setattr(backends, "cached_export", lambda folder, *_: folder.parent / "exports" / "abc.onnx")
    return fake


# Agreement


def test_agreement_allows_for_rounding_and_for_undecided_voxels():
    rng = np.random.default_rng(0)
    first = rng.uniform(0.6, 1, (1, 1, 200, 100)).astype(np.float32)
    reference = np.concatenate((first, 1 - first), 1)
    assert compare(reference + np.float32(1.9e-3), reference).agrees
    assert not compare(reference + np.float32(2.1e-3), reference).agrees
    tied = reference.copy()
    tied[0, :, 0, :3] = 0.5
    for voxels, agrees in ((2, True), (3, False)):  # of 20 000, two may change
        changed = tied.copy()
        changed[0, 1, 0, :voxels] += 1e-4
        assert compare(changed, tied).agrees == agrees


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_does_not_agree(value: float):
    reference = np.full((1, 2, 3, 3), 0.5, np.float32)
    found = reference.copy()
    found[0, 0, 0, 0] = value
    assert compare(found, reference) == Verdict(False, np.inf, 1.0)
    assert compare(reference[:, :1], reference) == Verdict(False, np.inf, 1.0)


def test_a_verdict_is_of_one_export_runtime_and_version():
    export = Path("x") / "aa.onnx"
    files = [verdict_file(*about) for about in ((export, "r", "1"), (export, "r", "2"), (export, "q", "1"))]
    files.append(verdict_file(Path("x") / "bb.onnx", "r", "1"))
    assert len(set(files)) == 4
    assert verdict_file(export, "r", "1") == files[0]


def test_memory_is_of_one_export_runtime_version_shape_and_count_of_threads():
    export = Path("x") / "aa.onnx"
    base = (export, "r", "1", 2, (1, 1, 8, 8))
    others = [(Path("x") / "bb.onnx", *base[1:]), (export, "q", *base[2:]), (export, "r", "2", *base[3:])]
    others += [(*base[:3], 1, base[4]), (*base[:4], (2, 1, 8, 8))]
    assert len({memory_file(*about) for about in [base, *others]}) == 6
    assert memory_file(*base) == memory_file(*base)


def test_a_verdict_is_json():
    assert Verdict(False, np.inf, 1.0).to_plain() == {"agrees": False, "difference": None, "changed": 1.0}


# Choice


def test_the_first_window_decides_and_the_verdict_stays(folder: Path, runtime: Runtime):
    backend = open_backend(folder)
    np.testing.assert_array_equal(backend(IMAGES), runtime.torch(IMAGES))
    assert backend.name == "openvino"
    assert runtime.calls == 2  # once to compare, once to answer
    (verdict,) = (folder.parent / "exports").iterdir()
    found = json.loads(verdict.read_text())
    assert found["agrees"]
    assert found["cpu"] == processor() != ""
    assert found["model"] == read_description(folder)["sha256"]
    again = open_backend(folder)
    again(IMAGES)
    assert runtime.calls == 3  # only to answer


def test_disagreement_warns_once_and_pytorch_computes(folder: Path, runtime: Runtime, caplog: Any):
    runtime.error = 0.01
    for runs in (1, 2):
        backend = open_backend(folder)
        for _ in range(2):
            np.testing.assert_array_equal(backend(IMAGES), runtime.torch(IMAGES))
        assert backend.name == "torch"
        warned = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert len(warned) == runs
    assert "differed from PyTorch by 0.01" in warned[0].message
    assert runtime.calls == 1


def test_disagreement_is_refused_if_the_runtime_was_asked_for(folder: Path, runtime: Runtime):
    runtime.error = 0.01
    backend = open_backend(folder, backend="openvino")
    with pytest.raises(SkipSegError, match=r"differed from PyTorch by .*choose --backend torch"):
        backend(IMAGES)
    with pytest.raises(SkipSegError, match="in an earlier run"):
        open_backend(folder, backend="openvino")


def test_an_empty_window_decides_nothing(folder: Path, runtime: Runtime):
    backend = open_backend(folder)
    empty = np.zeros_like(IMAGES)
    np.testing.assert_array_equal(backend(empty), runtime.torch(empty))
    assert runtime.calls == 0
    assert not (folder.parent / "exports").exists()


def test_pytorch_computes_a_window_that_the_runtime_refuses(folder: Path, runtime: Runtime):
    backend = open_backend(folder)
    for images in (IMAGES[..., :1], IMAGES, IMAGES[..., :1]):
        np.testing.assert_array_equal(backend(images), runtime.torch(images))
    assert backend.name == "openvino"
    assert backend.batch_room((8, 8)) == 1


@pytest.mark.parametrize("content", ["", "[]", '{"agrees": "yes"}', '{"agrees": null}'])
def test_an_unreadable_verdict_is_made_anew(folder: Path, runtime: Runtime, content: str):
    open_backend(folder)(IMAGES)
    (verdict,) = (folder.parent / "exports").iterdir()
    verdict.write_text(content)
    open_backend(folder)(IMAGES)
    assert json.loads(verdict.read_text())["agrees"] is True


def test_memory_that_was_measured_is_expected_of_the_same_shape(folder: Path, runtime: Runtime):
    shape = IMAGES.shape
    first = CheckedBackend(folder, "openvino")
    first.keep_memory(shape, 1)
    assert first.expect(shape) is None, "the runtime had not shown that it agrees"
    first(IMAGES)
    assert first.expect(shape) is None, "nothing was measured"
    second = CheckedBackend(folder, "openvino")
    second.keep_memory(shape, 2**20)
    assert [CheckedBackend(folder, "openvino").expect(each) for each in (shape, (1, 1, 8, 8))] == [2**20, None]
    assert CheckedBackend(folder, "openvino", threads=7).expect(shape) is None
    until = time.monotonic() + 5
    while not runtime.ready and time.monotonic() < until:
        time.sleep(0.01)
    assert runtime.ready == [shape]


@pytest.mark.parametrize("damaged", ['{"bytes": true}', '{"bytes": -5}', '{"bytes": 0}', '{"bytes": 1.5}', "[]", "{"])
def test_memory_that_is_no_number_of_bytes_is_not_expected(folder: Path, runtime: Runtime, damaged: str):
    backend = CheckedBackend(folder, "openvino")
    backend(IMAGES)
    backend.keep_memory(IMAGES.shape, 2**20)
    kept = [path for path in (folder.parent / "exports").iterdir() if '"bytes"' in path.read_text()]
    assert backend.expect(IMAGES.shape) == 2**20
    kept[0].write_text(damaged)
    assert backend.expect(IMAGES.shape) is None


def test_memory_that_pytorch_took_too_is_not_kept(folder: Path, runtime: Runtime):
    open_backend(folder)(IMAGES)
    backend = CheckedBackend(folder, "openvino")
    backend(IMAGES[..., :1])  # refused, so PyTorch computes
    backend.keep_memory(IMAGES.shape, 1)
    assert CheckedBackend(folder, "openvino").expect(IMAGES.shape) is None


def test_a_verdict_that_cannot_be_kept_is_no_obstacle(folder: Path, runtime: Runtime):
    (folder.parent / "exports").write_text("a file where the folder should be")
    np.testing.assert_array_equal(open_backend(folder)(IMAGES), runtime.torch(IMAGES))


def test_without_any_runtime_pytorch_computes(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    assert open_backend(folder).name == "torch"
    with pytest.raises(SkipSegError, match=r"onnxruntime is not installed; run: .*skipseg\[export\]"):
        open_backend(folder, backend="onnxruntime")


def test_a_network_that_cannot_be_written_is_left_to_pytorch(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
):
    def refuse(*_: Any) -> None:
        raise SkipSegError("this network cannot be written as ONNX")

    monkeypatch.setattr(export_onnx, "write_onnx", refuse)
    assert open_backend(folder).name == "torch"
    assert "PyTorch computes, not openvino: this network cannot" in caplog.text
    with pytest.raises(SkipSegError, match="cannot be written"):
        open_backend(folder, backend="onnxruntime")


def test_a_runtime_of_the_cpu_is_not_asked_for_on_a_gpu(folder: Path):
    with pytest.raises(SkipSegError, match="computes on the CPU"):
        open_backend(folder, backend="openvino", device="cuda")


# The file in the cache


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Exports that were made, each of a few bytes."""
    made: list[Path] = []

    def write(backend: Any, about: Any, target: Path) -> None:
        made.append(target)
        target.write_bytes(f"model {about['preprocessing']}".encode())

    monkeypatch.setattr(export_onnx, "write_onnx", write)
    monkeypatch.setattr(export_cache, "open_runtime", lambda *_: None)
    monkeypatch.setattr(export_cache, "differences", lambda *_: 0.0)
    return made


def test_an_export_is_made_once_and_named_by_its_hash(folder: Path, written: list[Path]):
    about = read_description(folder)
    file = cached_export(folder, about, "openvino")
    assert file.stem == file_hash(file)
    assert cached_export(folder, about, "openvino") == file
    assert len(written) == 1
    assert [path.name for path in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize("spoil", [lambda f: f.write_bytes(b"foreign"), lambda f: f.write_bytes(f.read_bytes()[:-1])])
def test_a_damaged_export_is_made_anew(folder: Path, written: list[Path], spoil: Any, caplog: Any):
    about = read_description(folder)
    file = cached_export(folder, about, "openvino")
    spoil(file)
    assert cached_export(folder, about, "openvino") == file
    assert file.stem == file_hash(file)
    assert len(written) == 2
    assert "damaged" in caplog.text


def test_an_export_that_computes_something_else_is_not_kept(folder: Path, written: list[Path], monkeypatch: Any):
    def differ(*_: Any) -> float:
        raise SkipSegError("the export differs")

    monkeypatch.setattr(export_cache, "differences", differ)
    with pytest.raises(SkipSegError, match="the export differs"):
        cached_export(folder, read_description(folder), "openvino")
    assert open_backend(folder).name == "torch"
    assert not list((folder.parent / "cache").rglob("*.onnx"))


def test_an_export_in_the_cache_names_no_case(folder: Path, written: list[Path], monkeypatch: Any):
    said: list[Any] = []
    monkeypatch.setattr(export_onnx, "write_onnx", lambda _, about, file: said.append(about) or file.write_bytes(b"x"))
    cached_export(
        folder, {**read_description(folder), "dataset": {"name": "lung", "train_cases": ["Doe_Jane"]}}, "openvino"
    )
    assert said[0]["dataset"] == {"name": "lung", "train_cases": 1}


def test_another_preprocessing_or_version_is_another_export(folder: Path, written: list[Path], monkeypatch: Any):
    about = read_description(folder)
    files = [cached_export(folder, about, "openvino")]
    changed = {**about, "preprocessing": {**about["preprocessing"], "context_slices": 1}}
    files.append(cached_export(folder, changed, "openvino"))
    files.append(cached_export(folder, {**about, "patch_size": [8, 8]}, "openvino"))
    monkeypatch.setattr(export_cache, "VERSION", 999)
    files.append(cached_export(folder, about, "openvino"))
    assert files[2] == files[0]
    assert len({file.parent for file in files}) == 3


def test_a_cache_that_cannot_be_written_is_named(folder: Path, written: list[Path]):
    cache = folder.parent / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    cache.write_text("a file where the folder should be")
    with pytest.raises(SkipSegError, match="set XDG_CACHE_HOME"):
        cached_export(folder, read_description(folder), "openvino")


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_later_runs_need_no_pytorch_and_leave_no_trace(folder: Path, runtime: str):
    program = (
        "import sys, numpy; from pathlib import Path; from segmentation.inference.backends import open_backend\n"
        f"backend = open_backend(Path({str(folder)!r}), backend={runtime!r})\n"
        "found = backend(numpy.random.default_rng(0).random((1, 1, 13, 22), numpy.float32))\n"
        "print(backend.name, 'torch' in sys.modules, found.sum())"
    )
    runs = [subprocess.run([sys.executable, "-c", program], capture_output=True, text=True) for _ in range(2)]
    assert [run.stderr for run in runs] == ["", ""]
    first, second = (run.stdout.split() for run in runs)
    assert (first[:2], second[:2]) == ([runtime, "True"], [runtime, "False"])
    assert first[2] == second[2]
    assert [path.name for path in (folder.parent / "cache").iterdir()] == ["skipseg"]


@pytest.mark.slow
def test_a_model_with_other_weights_gets_its_own_export(folder: Path, monkeypatch: pytest.MonkeyPatch):
    first = open_backend(folder)(IMAGES)
    about = dict(read_description(folder))
    save_model(
        folder,
        ARCHITECTURE,
        ARCHITECTURE.build(seed=3).state_dict(),
        {k: about[k] for k in ("preprocessing", "labels")},
    )
    backend = open_backend(folder)
    assert np.abs(backend(IMAGES) - first).max() > 0.01
    np.testing.assert_allclose(backend(IMAGES), open_backend(folder, backend="torch")(IMAGES), atol=1e-4)
    write_description(folder, {**read_description(folder), "note": "which changes nothing"})
    assert len(list((folder.parent / "cache" / "skipseg" / "exports").iterdir())) == 2

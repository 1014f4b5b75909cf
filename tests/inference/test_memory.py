"""Memory of ``skipseg predict``: what is asked for bounds the whole process, however large the scan is."""

import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from segmentation.config import NetworkSettings
from segmentation.data.preprocessing import Normalisation, Preprocessing
from segmentation.model.storage import Architecture, save_model

SCRIPT = """
import sys
from segmentation.cli import main
from segmentation.data.hardware import peak_memory
status = main(sys.argv[1:])
print(status, peak_memory())
"""


def write_model(folder: Path, spacing_mm: float) -> Path:
    """A small network in 3-D; its weights are random."""
    preprocessing = Preprocessing(3, (spacing_mm,) * 3, None, 0, (Normalisation("zscore"),))
    architecture = Architecture(NetworkSettings(depth=1, width=4), 3, 1, 3, [[2] * 3], [[3] * 3] * 2)
    description = {
        "preprocessing": preprocessing.to_plain(),
        "channel_names": ["CT"],
        "labels": {"background": 0, "bone": 1, "air": 2},
        "patch_size": [64] * 3,
        "flip_axes": [0],
        "mirror": False,
        "keep_largest": True,
    }
    save_model(folder, architecture, architecture.build(seed=3).state_dict(), description)
    return folder


def write_scan(path: Path, shape: tuple[int, int, int]) -> Path:
    """A bright rod in air, 16 bits a voxel."""
    voxels = np.zeros(shape, np.int16, order="F")
    middle = tuple(slice(size // 2 - 40, size // 2 + 40) for size in shape[:2])
    voxels[middle] = np.random.default_rng(0).integers(0, 1000, (80, 80, 1)) + np.arange(shape[2]) % 7
    nib.Nifti1Image(voxels, np.diag([0.8, 0.8, 1.0, 1.0])).to_filename(path)
    return path


def predict(model: Path, scan: Path, masks: Path, *options: str, backend: str = "torch") -> int:
    """Peak memory of the command, in bytes."""
    command = ["predict", "--model", str(model), "--input", str(scan), "--output", str(masks), "--backend", backend]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *command, *options], capture_output=True, text=True, check=False
    )
    status, peak = done.stdout.split()[-2:]
    assert status == "0", done.stderr
    return int(peak)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("spacing_mm", [1.0, 0.8])
def test_a_scan_of_a_thousand_slices_stays_within_a_gibibyte(tmp_path: Path, spacing_mm: float):
    model, scan = write_model(tmp_path / "model", spacing_mm), write_scan(tmp_path / "long.nii.gz", (512, 512, 1000))
    peak = predict(model, scan, tmp_path / "masks", "--memory", "1GiB", "--overlap", "0.25", "--probabilities", "true")
    assert peak < 2**30
    case = json.loads((tmp_path / "masks" / "manifest.json").read_text())["cases"]["long"]
    print(f"peak {peak / 2**20:.0f} MiB, seconds {case['seconds']}, windows {case['windows']}")
    assert nib.nifti1.load(tmp_path / "masks" / "long.nii.gz").shape == (512, 512, 1000)
    assert case["windows"]["known"] > case["windows"]["computed"], "air is computed once"


def test_less_than_the_network_takes_is_refused(tmp_path: Path):
    model, scan = write_model(tmp_path / "model", 1.0), write_scan(tmp_path / "short.nii.gz", (80, 80, 4))
    command = ["predict", "--model", str(model), "--input", str(scan), "--output", str(tmp_path / "masks")]
    done = subprocess.run(
        [sys.executable, "-m", "segmentation", *command, "--backend", "torch", "--memory", "64MiB"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "give at least" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_tight_limit_gives_the_same_mask_as_none(tmp_path: Path):
    model, scan = write_model(tmp_path / "model", 0.9), write_scan(tmp_path / "short.nii.gz", (90, 85, 70))
    peak = predict(model, scan, tmp_path / "free")
    predict(model, scan, tmp_path / "tight", "--memory", f"{peak // 2**20 + 100}MiB")
    first, second = (nib.nifti1.load(tmp_path / name / "short.nii.gz").get_fdata() for name in ("free", "tight"))
    np.testing.assert_array_equal(first, second)
    assert first.any()


@pytest.mark.slow
def test_memory_measured_in_an_earlier_run_bounds_later_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model, scan = write_model(tmp_path / "model", 0.9), write_scan(tmp_path / "long.nii.gz", (512, 512, 120))
    small = write_scan(tmp_path / "small.nii.gz", (90, 85, 70))
    predict(model, small, tmp_path / "first", backend="openvino")  # exports, and compares with PyTorch
    assert not list(tmp_path.rglob("memory-*.json"))
    peak = predict(model, small, tmp_path / "second", backend="openvino")
    (kept,) = tmp_path.rglob("memory-*.json")
    taken = json.loads(kept.read_text())["bytes"]
    assert 10 * 2**20 < taken < peak
    limit = f"{peak // 2**20 + 110}MiB"
    peaks = [predict(model, scan, tmp_path / "known", "--memory", limit, backend="openvino")]
    kept.unlink()
    peaks.append(predict(model, scan, tmp_path / "anew", "--memory", limit, backend="openvino"))
    print(f"limit {limit}, peaks {[each // 2**20 for each in peaks]}")
    assert max(peaks) < peak + 110 * 2**20
    masks = [(tmp_path / name / "long.nii.gz").read_bytes() for name in ("known", "anew")]
    assert masks[0] == masks[1]

"""Damaged files of every kind: each is refused in one line, or read exactly as another reader reads it."""

import gzip
import json
import shutil
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pydicom
import pytest
from PIL import Image

from segmentation import SkipSegError
from segmentation.config import PredictSettings
from segmentation.inference.predict import predict
from segmentation.inference.predictor import Predictor
from segmentation.scans import read_label_map, read_scan, write_label_map
from tests.inference.test_predictor import write_model, write_series, write_volume

VARIANTS = 24
"""Damaged copies of each kind of file; there are ten kinds."""


def damaged(content: bytes, other: bytes) -> Iterator[bytes]:
    """Yield copies of a file with flipped bits, cut ends, zeroed blocks, and the head of another file."""
    random = np.random.default_rng(len(content))
    for index in range(VARIANTS):
        broken = bytearray(content)
        kind = index % 6
        if kind < 2:  # in the header, or anywhere
            broken[random.integers(min(len(content), 352) if kind == 0 else len(content))] ^= 1 << random.integers(8)
        elif kind == 2:
            del broken[random.integers(len(content)) :]
        elif kind == 3:
            start = int(random.integers(len(content)))
            broken[start : start + 64] = bytes(len(broken[start : start + 64]))
        elif kind == 4:
            size = int(random.integers(4, min(len(content), len(other))))
            broken[:size] = other[:size]
        else:
            for place in random.integers(len(content), size=20):
                broken[place] ^= 255
        yield bytes(broken)


def of_nibabel(path: Path) -> np.ndarray:
    """Voxels of a NIfTI file by another reader."""
    return np.asarray(nib.nifti1.load(path).dataobj, np.float32)


def of_pynrrd(path: Path) -> np.ndarray:
    """Voxels of a NRRD file by another reader."""
    return nrrd.read(str(path))[0].astype(np.float32)


def of_pillow(path: Path) -> np.ndarray:
    """Pixels of a picture by another reader."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about metadata
        return np.asarray(Image.open(path).convert("L"), np.float32)


def as_format(folder: Path, ending: str, seed: int, shape: tuple[int, ...]) -> Path:
    """A scan file with ending ``ending``."""
    if ending in (".png", ".tif"):
        Image.fromarray(np.random.default_rng(seed).integers(0, 255, shape[:2]).astype(np.uint8)).save(
            folder / f"{seed}{ending}"
        )
        return folder / f"{seed}{ending}"
    path = write_volume(folder / f"{seed}.nii", seed, shape)
    if ending == ".nii.gz":
        (folder / f"{seed}.nii.gz").write_bytes(gzip.compress(path.read_bytes()))
    elif ending != ".nii":
        scan = read_scan(path)
        write_label_map(folder / f"{seed}{ending}", (scan.array[0] > 0).astype(np.uint8), scan)
    return folder / f"{seed}{ending}"


@pytest.mark.parametrize(
    ("ending", "another"),
    [
        (".nii", of_nibabel),
        (".nii.gz", of_nibabel),
        (".nrrd", of_pynrrd),
        (".mha", None),
        (".png", of_pillow),
        (".tif", of_pillow),
    ],
)
@pytest.mark.timeout(120)
def test_a_damaged_scan_is_refused_or_read_as_it_stands(tmp_path: Path, ending: str, another: Callable | None):
    model = write_model(tmp_path / "model", 2 if ending in (".png", ".tif") else 3)
    (tmp_path / "good").mkdir()
    good = [as_format(tmp_path / "good", ending, seed, shape) for seed, shape in ((1, (12, 11, 9)), (2, (9, 14, 10)))]
    scans = tmp_path / "scans"
    scans.mkdir()
    for index, broken in enumerate(damaged(*(path.read_bytes() for path in good))):
        (scans / f"{index:02d}{ending}").write_bytes(broken)
    shutil.copy(good[0], scans / f"whole{ending}")
    with pytest.raises(SkipSegError) as refused:
        list(predict(PredictSettings(model, scans, tmp_path / "masks", backend="torch")))
    assert "\n" not in str(refused.value)
    cases = json.loads((tmp_path / "masks" / "manifest.json").read_text())["cases"]
    assert cases["whole"]["state"] == "done", "damaged files never stop the sound one"
    assert len(cases) == VARIANTS + 1
    predictor = Predictor.load(model)
    for name, case in cases.items():
        masks = list((tmp_path / "masks").glob(f"{name}.*"))
        assert len(masks) == (case["state"] == "done"), name
        assert "internal error" not in case.get("error", ""), case
        if case["state"] == "done":
            scan = read_scan(scans / f"{name}{ending}")
            np.testing.assert_array_equal(read_label_map(masks[0], like=scan).array[0], predictor(scan))
            if another is not None:
                np.testing.assert_array_equal(scan.array[0], another(scans / f"{name}{ending}"))
    assert sum(case["state"] == "failed" for case in cases.values()) >= VARIANTS // 4


@pytest.mark.timeout(120)
def test_a_series_with_one_damaged_file_is_refused_or_read_as_it_stands(tmp_path: Path):
    whole, other = write_series(tmp_path / "whole"), write_series(tmp_path / "other", slices=6)
    content = (whole / "2.dcm").read_bytes()
    states = []
    for index, broken in enumerate(damaged(content, (other / "5.dcm").read_bytes())):
        folder = tmp_path / f"{index}"
        shutil.copytree(whole, folder)
        (folder / "2.dcm").write_bytes(broken)
        try:
            scan = read_scan(folder)
        except SkipSegError as error:
            states.append(f"refused: {error}")
            continue
        assert scan.array.shape == (1, 13, 17, 5)
        slices = [pydicom.dcmread(folder / f"{number}.dcm") for number in range(5)]
        expected = np.stack([s.pixel_array.T * float(s.RescaleSlope) + float(s.RescaleIntercept) for s in slices], -1)
        np.testing.assert_allclose(scan.array[0], expected)
        states.append("read")
    assert sum(state.startswith("refused") for state in states) >= VARIANTS // 4
    assert not [state for state in states if "\n" in state]


@pytest.mark.parametrize("name", ["model.safetensors", "model.json"])
def test_a_damaged_model_is_always_refused(tmp_path: Path, name: str):
    model, other = write_model(tmp_path / "model", 2), write_model(tmp_path / "other", 3)
    assert Predictor.load(model)(read_scan(as_format(tmp_path, ".png", 0, (20, 20)))).shape == (20, 20)
    content = (model / name).read_bytes()
    for broken in damaged(content, (other / name).read_bytes()):
        if broken == content or (name.endswith(".json") and _same_json(broken, content)):
            continue
        (model / name).write_bytes(broken)
        with pytest.raises(SkipSegError) as refused:
            Predictor.load(model)
        assert "\n" not in str(refused.value)


def _same_json(first: bytes, second: bytes) -> bool:
    """Whether two texts say the same: a flipped bit can turn one space into another."""
    try:
        return json.loads(first) == json.loads(second)
    except ValueError:
        return False


@pytest.mark.timeout(120)
def test_a_damaged_archive_is_refused_or_gives_what_was_packed(tmp_path: Path):
    model = write_model(tmp_path / "model", 3)
    scans = [write_volume(tmp_path / "scans" / f"{seed}.nii.gz", seed) for seed in range(2)]
    archives = []
    for number, chosen in enumerate((scans, scans[:1])):
        archives.append(tmp_path / f"{number}.zip")
        with zipfile.ZipFile(archives[-1], "w") as archive:
            for scan in chosen:
                archive.write(scan, f"folder/{scan.name}")
    predictor = Predictor.load(model)
    expected = {path.name: predictor(read_scan(path)) for path in scans}
    states = []
    for index, broken in enumerate(damaged(*(path.read_bytes() for path in archives))):
        archive, masks = tmp_path / f"broken{index}.zip", tmp_path / f"masks{index}"
        archive.write_bytes(broken)
        try:
            list(predict(PredictSettings(model, archive, masks, backend="torch")))
            states.append("read")
        except SkipSegError as error:
            states.append(f"refused: {error}")
        for mask in masks.rglob("*.nii.gz"):
            np.testing.assert_array_equal(read_label_map(mask).array[0], expected[mask.name])
        assert not list(tmp_path.rglob(".unpacked*"))
    assert sum(state.startswith("refused") for state in states) >= VARIANTS // 2
    assert not [state for state in states if "\n" in state]

"""``skipseg predict`` from files to files: what is written, what is not written twice, and what is refused."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from PIL import Image
from scipy import ndimage

from segmentation import SkipSegError
from segmentation.config import PredictSettings
from segmentation.evaluation.evaluate import CasePair, evaluate_folders
from segmentation.evaluation.pairs import read_pair
from segmentation.inference.manifest import Manifest
from segmentation.inference.predict import predict
from segmentation.inference.predictor import Predictor
from segmentation.model.folder import write_description
from segmentation.runs import is_draft, read_json
from segmentation.scans import read_label_map, read_scan, write_label_map
from segmentation.scans.dicom_seg import read_dicom_seg, write_dicom_seg
from segmentation.scans.series import SourceSlices
from tests.inference.test_predictor import ask, write_model, write_series, write_volume


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three networks of one kind with different weights."""
    return [write_model(tmp_path_factory.mktemp("model") / f"fold{seed}", 3, seed=seed) for seed in (3, 4, 5)]


def modified(folder: Path) -> dict[str, int]:
    """Files of masks with the times they were written."""
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != "manifest.json"}


def test_nothing_is_segmented_twice(models: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture):
    scans = [write_volume(tmp_path / "scans" / f"{seed}.nii.gz", seed) for seed in range(3)]
    assert len(ask(models[0], tmp_path / "scans", tmp_path / "masks")) == 3
    first = modified(tmp_path / "masks")
    assert ask(models[0], tmp_path / "scans", tmp_path / "masks") == []
    assert "3 of 3 scans were segmented before" in caplog.text
    assert modified(tmp_path / "masks") == first
    write_volume(scans[1], seed=9)
    write_volume(tmp_path / "scans" / "new.nii.gz", seed=7)
    assert [mask.name for mask in ask(models[0], tmp_path / "scans", tmp_path / "masks")] == ["1.nii.gz", "new.nii.gz"]
    assert len(ask(models[0], tmp_path / "scans", tmp_path / "masks", overwrite=True)) == 4
    assert len(ask(models[1], tmp_path / "scans", tmp_path / "masks")) == 4
    assert len(ask(models[1], tmp_path / "scans", tmp_path / "masks", overlap=0.25)) == 4


def test_a_killed_prediction_goes_on_where_it_stopped(models: list[Path], tmp_path: Path):
    for seed in range(12):
        write_volume(tmp_path / "scans" / f"{seed:02d}.nii.gz", seed, (34, 30, 12))
    options = ["--model", str(models[0]), "--input", str(tmp_path / "scans"), "--output", str(tmp_path / "masks")]
    arrays_in_files = "from segmentation.inference import predict; predict.room_for_arrays = lambda *_: 0"
    script = f"{arrays_in_files}; from segmentation.cli import main; main()"
    command = [sys.executable, "-c", script, "predict", *options, "--backend", "torch"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()  # one mask is written
        os.kill(process.pid, signal.SIGKILL)
    standing = {path.name for path in (tmp_path / "masks").iterdir() if not is_draft(path)}
    assert 2 <= len(standing) < 13
    written = {f"{seed:02d}.nii.gz" for seed in range(len(standing) - 1)}
    assert standing == {*written, "manifest.json"}, "what was spilled has no name"
    cases = read_json(tmp_path / "masks" / "manifest.json")["cases"]
    done = [name for name, case in cases.items() if case["state"] == "done"]
    rest = ask(models[0], tmp_path / "scans", tmp_path / "masks")
    assert len(rest) == 12 - len(done)
    predictor = Predictor.load(models[0])
    for seed in range(12):
        scan = read_scan(tmp_path / "scans" / f"{seed:02d}.nii.gz")
        mask = read_label_map(tmp_path / "masks" / f"{seed:02d}.nii.gz", like=scan)
        np.testing.assert_array_equal(mask.array[0], predictor(scan))


def test_several_models_are_averaged_and_say_where_they_differ(models: list[Path], tmp_path: Path):
    scan = write_volume(tmp_path / "a.nii.gz")
    settings = PredictSettings(
        models, scan, tmp_path / "out", backend="torch", probabilities=True, uncertainty=True, device="cpu"
    )
    assert [path.name for path in predict(settings)] == ["a.nii.gz"]
    names = ["a.nii.gz", "a_entropy.nii.gz", "a_probabilities.nii.gz", "a_variance.nii.gz", "manifest.json"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    affine = nib.nifti1.load(scan).affine
    alone = [
        Predictor.load(model).segment(read_scan(scan), ["probabilities"]).extras["probabilities"] for model in models
    ]
    stored = nib.nifti1.load(tmp_path / "out" / "a_probabilities.nii.gz")
    np.testing.assert_allclose(np.moveaxis(stored.get_fdata(), -1, 0), np.mean(alone, axis=0), atol=1e-5)
    np.testing.assert_allclose(stored.affine, affine)
    variance = nib.nifti1.load(tmp_path / "out" / "a_variance.nii.gz")
    np.testing.assert_allclose(variance.get_fdata(), np.var(alone, axis=0).mean(axis=0), atol=1e-5)
    assert read_json(tmp_path / "out" / "manifest.json")["models"][2]["name"] == "fold5"


def test_models_that_do_not_belong_together_are_refused(models: list[Path], tmp_path: Path):
    other = write_model(tmp_path / "slices", 2, slice_axis=2)
    with pytest.raises(SkipSegError, match=r"fold3 and .*slices cannot be averaged: they differ in patch_size"):
        Predictor.load([models[0], other])


def test_the_command_line_takes_several_models(models: list[Path], tmp_path: Path):
    scan = write_volume(tmp_path / "a.nii.gz")
    given = [part for model in models[:2] for part in ("--model", str(model))]
    command = ["predict", *given, "--input", str(scan), "--output", str(tmp_path / "out"), "--backend", "torch"]
    done = subprocess.run([sys.executable, "-m", "segmentation", *command], capture_output=True, text=True, check=True)
    assert done.stdout == f"{tmp_path / 'out' / 'a.nii.gz'}\n"
    assert len(read_json(tmp_path / "out" / "manifest.json")["models"]) == 2


def test_folders_are_mirrored(models: list[Path], tmp_path: Path):
    write_volume(tmp_path / "in" / "ward" / "one" / "a.nii.gz")
    write_series(tmp_path / "in" / "ward" / "two")
    written = ask(models[0], tmp_path / "in", tmp_path / "out")
    assert [path.relative_to(tmp_path / "out").as_posix() for path in written] == [
        "ward/one/a.nii.gz",
        "ward/two.nii.gz",
    ]


def test_without_an_output_masks_lie_beside_their_scans(models: list[Path], tmp_path: Path):
    scan = write_volume(tmp_path / "in" / "a.nii.gz")
    assert ask(models[0], tmp_path / "in", None) == [tmp_path / "in" / "a_mask.nii.gz"]
    assert ask(models[0], tmp_path / "in", None) == []
    assert ask(models[0], tmp_path / "in", None, overwrite=True) == [tmp_path / "in" / "a_mask.nii.gz"]
    foreign = scan.with_name("b_mask.nii.gz")
    foreign.write_bytes(b"drawn by hand")
    write_volume(tmp_path / "in" / "b.nii.gz")
    with pytest.raises(SkipSegError, match=r"b_mask.nii.gz stands beside the scan and is not ours"):
        ask(models[0], tmp_path / "in", None)
    assert foreign.read_bytes() == b"drawn by hand"


def test_an_archive_is_segmented_once(models: list[Path], tmp_path: Path):
    scan = write_volume(tmp_path / "a.nii.gz")
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as archive:
        archive.write(scan, "deep/er/a.nii.gz")
        for slice_file in write_series(tmp_path / "series").iterdir():
            archive.write(slice_file, f"ct/{slice_file.name}")
    written = ask(models[0], tmp_path / "study.zip", tmp_path / "out")
    assert [path.relative_to(tmp_path / "out").as_posix() for path in written] == ["ct.nii.gz", "deep/er/a.nii.gz"]
    assert ask(models[0], tmp_path / "study.zip", tmp_path / "out") == []
    np.testing.assert_array_equal(read_label_map(written[1]).array[0], Predictor.load(models[0])(read_scan(scan)))


def test_a_dicom_folder_of_several_series_is_never_guessed(models: list[Path], tmp_path: Path):
    for name in ("first", "second"):
        for file in write_series(tmp_path / name, slices=5 if name == "first" else 7).iterdir():
            (tmp_path / "in").mkdir(exist_ok=True)
            shutil.copy(file, tmp_path / "in" / f"{name}{file.name}")
    with pytest.raises(SkipSegError, match="2 series"):
        ask(models[0], tmp_path / "in", tmp_path / "out")
    assert len(ask(models[0], tmp_path / "in", tmp_path / "all", series="all")) == 2
    largest = ask(models[0], tmp_path / "in", tmp_path / "largest", series="largest")
    assert read_label_map(largest[0]).spatial_shape[2] == 7


@pytest.mark.parametrize("ending", ["dcm", "labelmap.dcm"])
def test_a_dicom_segmentation_lies_on_its_series(models: list[Path], tmp_path: Path, ending: str):
    study = write_series(tmp_path / "ct")
    written = ask(models[0], study, tmp_path / "out", format=ending)
    scan = read_scan(study)
    read, _ = read_dicom_seg(written[0], like=scan)
    expected = Predictor.load(models[0])(scan)
    assert expected.any()
    np.testing.assert_array_equal(read.array[0], expected)
    references = tmp_path / "references"
    write_label_map(references / "ct.nii.gz", expected, scan)
    for maps in ((tmp_path / "out", references), (references, tmp_path / "out")):
        scores = evaluate_folders(*maps, tmp_path / "scores", overlays=0)["all"]
        assert scores["dice"]["policy"]["estimate"] == 1, "either may be the segmentation"


def test_two_dicom_segmentations_are_compared_on_the_grid_of_their_scan(tmp_path: Path):
    study = write_series(tmp_path / "ct")
    scan = read_scan(study)
    maps = []
    for name, slices in (("prediction.dcm", slice(1, 2)), ("reference.dcm", slice(1, 4))):
        label_map = np.zeros(scan.spatial_shape, np.uint8)
        label_map[2:5, 2:5, slices] = 1
        assert isinstance(scan.header, SourceSlices)
        write_dicom_seg(
            tmp_path / name, label_map, scan.header.files, {"background": 0, "bright": 1},
            model_name="m", model_version="1",
        )  # fmt: skip
        maps.append(label_map)
    read = read_pair(CasePair("ct", "p", tmp_path / "prediction.dcm", tmp_path / "reference.dcm", [study]))
    for found, expected in zip(read, maps, strict=True):
        np.testing.assert_array_equal(found.array[0], expected)


def test_codes_of_the_dataset_reach_the_segmentation(tmp_path: Path):
    model = write_model(tmp_path / "model", 3)
    given = {"value": "68594002", "scheme": "SCT", "meaning": "Hippocampus", "category": "organ"}
    write_description(model, read_json(model / "model.json") | {"codes": {"bright": given}})
    written = ask(model, write_series(tmp_path / "ct"), tmp_path / "out", format="dcm")
    (segment,) = pydicom.dcmread(written[0]).SegmentSequence
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeValue == "68594002"


def test_steps_that_validation_cases_chose_can_be_left_out(tmp_path: Path):
    model, scan = write_model(tmp_path / "model", 2, seed=0), tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (31, 23)).astype(np.uint8)).save(scan)
    step = {"kind": "keep_largest", "label": 1}
    write_description(model, read_json(model / "model.json") | {"postprocess": {"steps": [step]}})
    (largest,) = ask(model, scan, tmp_path / "largest")
    (every,) = ask(model, scan, tmp_path / "every", postprocess=False)
    kept, whole = (np.asarray(Image.open(mask)) for mask in (largest, every))
    sizes = np.bincount(ndimage.label(whole, np.ones((3, 3)))[0].ravel())[1:]
    assert len(sizes) > 1
    assert (kept.sum(), whole.sum()) == (sizes.max(), sizes.sum())


@pytest.mark.parametrize(
    ("wanted", "problem"),
    [("dcm", "no DICOM series, to which a DICOM SEG would refer"), ("png", r"has 3 axes; write one of \.nii, ")],
)
def test_a_format_that_cannot_hold_the_mask_is_refused_before_anything_is_computed(
    models: list[Path], tmp_path: Path, wanted: str, problem: str
):
    with pytest.raises(SkipSegError, match=problem):
        ask(models[0], write_volume(tmp_path / "a.nii.gz"), tmp_path / "out", format=wanted)
    seconds = read_json(tmp_path / "out" / "manifest.json")["cases"]["a"]["seconds"]
    assert set(seconds) == {"read"}


def test_a_series_that_was_repaired_cannot_carry_a_segmentation_and_is_not_computed_for_one(
    models: list[Path], tmp_path: Path
):
    folder = write_series(tmp_path / "ct")
    slices = sorted(folder.iterdir())
    slices[len(slices) // 2].unlink()
    with pytest.raises(SkipSegError, match=r"a DICOM SEG lies on its source slices as they are"):
        ask(models[0], folder, tmp_path / "out", format="dcm", repair=["gaps"])
    (case,) = read_json(tmp_path / "out" / "manifest.json")["cases"].values()
    assert set(case["seconds"]) == {"read"}


def test_what_a_header_leaves_open_is_said(models: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture):
    image = nib.load(write_volume(tmp_path / "in" / "a.nii.gz"))
    image.header.set_xyzt_units("meter")
    nib.save(nib.Nifti1Image(image.get_fdata(), image.affine, image.header), tmp_path / "in" / "b.nii.gz")
    ask(models[0], tmp_path / "in", tmp_path / "out")
    assert any(said.startswith("b: the header gives lengths in ") for said in caplog.messages)


def test_masks_go_into_a_folder_not_a_file(models: list[Path], tmp_path: Path):
    with pytest.raises(SkipSegError, match=r"output is the folder that the masks go into, got .*mask\.nii\.gz"):
        ask(models[0], write_volume(tmp_path / "a.nii.gz"), tmp_path / "mask.nii.gz")


def test_scans_that_cannot_have_masks_beside_them_need_an_output(
    models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("segmentation.inference.manifest.write_json", refuse)
    with pytest.raises(SkipSegError, match=r"cannot be written to \(Read-only file system\); give .* --output"):
        ask(models[0], write_volume(tmp_path / "a.nii.gz"), None)


def test_only_pytorch_is_compiled(models: list[Path], tmp_path: Path):
    with pytest.raises(SkipSegError, match="compile is for backend torch, got backend openvino"):
        ask(models[0], tmp_path, tmp_path / "out", backend="openvino", compile=True)


def test_maps_of_a_picture_are_one_file_a_class(tmp_path: Path):
    model = write_model(tmp_path / "model", 2, channels=3)
    (tmp_path / "in").mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (31, 23, 3)).astype(np.uint8)).save(
        tmp_path / "in" / "a.png"
    )
    ask(model, tmp_path / "in", tmp_path / "out", probabilities=True, uncertainty=True)
    maps = ["a_entropy.tif", "a_probabilities_background.tif", "a_probabilities_bright.tif"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", *maps, "manifest.json"]
    background, bright = (np.asarray(Image.open(tmp_path / "out" / name)) for name in maps[1:])
    np.testing.assert_allclose(background + bright, 1, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / "a.png")), bright > background)


def test_maps_of_classes_whose_names_are_one_file_name_stand_side_by_side(tmp_path: Path, monkeypatch):
    model = write_model(tmp_path / "model", 2, channels=3)
    loaded = Predictor.load
    names = {"left lung": 0, "left/lung": 1}
    monkeypatch.setattr(Predictor, "load", lambda *given, **asked: replace(loaded(*given, **asked), labels=names))
    (tmp_path / "in").mkdir()
    Image.fromarray(np.zeros((31, 23, 3), np.uint8)).save(tmp_path / "in" / "a.png")
    ask(model, tmp_path / "in", tmp_path / "out", probabilities=True)
    maps = ["a_probabilities_0-left-lung.tif", "a_probabilities_1-left-lung.tif"]
    assert sorted(path.name for path in (tmp_path / "out").glob("*.tif")) == maps


def test_the_manifest_tells_volumes_times_and_failures_and_no_path(models: list[Path], tmp_path: Path):
    write_volume(tmp_path / "in" / "a.nii.gz")
    (tmp_path / "in" / "b.nii.gz").write_bytes(b"torn")
    with pytest.raises(SkipSegError, match="1 of 2 scans are segmented"):
        ask(models[0], tmp_path / "in", tmp_path / "out")
    text = (tmp_path / "out" / "manifest.json").read_text()
    assert str(tmp_path) not in text
    cases = json.loads(text)["cases"]
    mask = read_label_map(tmp_path / "out" / "a.nii.gz")
    assert cases["a"]["voxels"] == {"bright": int(mask.array.sum())}
    assert cases["a"]["volume_ml"]["bright"] == pytest.approx(
        mask.array.sum() * np.prod(mask.spacing_mm) / 1000, rel=1e-3
    )
    assert set(cases["a"]["seconds"]) == {"read", "compute", "write"}
    assert "cannot be read as NIfTI" in cases["b"]["error"]


def test_a_header_that_asks_for_a_huge_grid_is_refused(models: list[Path], tmp_path: Path):
    image = nib.Nifti1Image(np.zeros((20, 20, 20), np.float32), np.diag([5e3, 5e3, 5e3, 1]))
    image.to_filename(tmp_path / "a.nii.gz")
    before = time.perf_counter()
    with pytest.raises(SkipSegError, match="is its header right"):
        ask(models[0], tmp_path / "a.nii.gz", tmp_path / "out")
    assert time.perf_counter() - before < 20


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ZeroDivisionError("a bug"), "internal error, ZeroDivisionError: a bug"),
        (torch.OutOfMemoryError("CUDA out of memory"), "out of memory; close other programs"),
    ],
)
def test_a_fault_in_one_scan_does_not_stop_the_others(models: list[Path], tmp_path: Path, monkeypatch, error, said):
    for name in "ab":
        write_volume(tmp_path / "in" / f"{name}.nii.gz", seed=ord(name))
    segment = Predictor.segment

    def broken(self, scan, *rest):
        if scan.source == "a.nii.gz":
            raise error
        return segment(self, scan, *rest)

    monkeypatch.setattr(Predictor, "segment", broken)
    with pytest.raises(SkipSegError, match=f"not segmented: a: {said}"):
        ask(models[0], tmp_path / "in", tmp_path / "out")
    assert (tmp_path / "out" / "b.nii.gz").exists()


@pytest.mark.parametrize("wanted", ["nii.gz", "nrrd", "seg.nrrd", "mha"])
def test_results_beside_the_scans_are_never_taken_for_scans(models: list[Path], tmp_path: Path, wanted: str):
    write_volume(tmp_path / "in" / "a.nii.gz")
    ask(models[0], tmp_path / "in", None, format=wanted, probabilities=True, uncertainty=True)
    before = {path.name for path in (tmp_path / "in").iterdir()}
    assert len(before) == 5
    assert ask(models[0], tmp_path / "in", None, format=wanted, probabilities=True, uncertainty=True) == []
    assert {path.name for path in (tmp_path / "in").iterdir()} == before


def test_a_mask_that_was_corrected_by_hand_is_never_replaced_unasked(models: list[Path], tmp_path: Path):
    write_volume(tmp_path / "in" / "a.nii.gz")
    (mask,) = ask(models[0], tmp_path / "in", tmp_path / "out")
    mask.write_bytes(b"corrected")
    write_volume(tmp_path / "in" / "b.nii.gz", 1)
    assert [path.name for path in ask(models[0], tmp_path / "in", tmp_path / "out")] == ["b.nii.gz"]
    changed = r"1 of 2 scans are segmented; not segmented: a: a.nii.gz was changed after it was written"
    for _ in range(2):
        with pytest.raises(SkipSegError, match=changed):
            ask(models[1], tmp_path / "in", tmp_path / "out")
        assert mask.read_bytes() == b"corrected"
    assert ask(models[0], tmp_path / "in" / "a.nii.gz", tmp_path / "out") == [], "of the first model it is done"
    assert len(ask(models[1], tmp_path / "in", tmp_path / "out", overwrite=True)) == 2
    assert mask.read_bytes() != b"corrected"


def test_a_file_that_is_not_ours_is_never_replaced_unasked(models: list[Path], tmp_path: Path):
    write_volume(tmp_path / "images" / "a.nii.gz")
    write_volume(tmp_path / "images" / "b.nii.gz", 1)
    (tmp_path / "labels").mkdir()
    drawn = tmp_path / "labels" / "a.nii.gz"
    drawn.write_bytes(b"drawn by hand")
    for _ in range(2):
        with pytest.raises(SkipSegError, match=r"not segmented: a: a\.nii\.gz stands in the output and is not ours"):
            ask(models[0], tmp_path / "images", tmp_path / "labels")
        assert drawn.read_bytes() == b"drawn by hand"
        assert (tmp_path / "labels" / "b.nii.gz").exists()
    other, entropy = (tmp_path / "labels" / name for name in ("b.nrrd", "b_entropy.nii.gz"))
    for file, asked in ((other, {"format": "nrrd"}), (entropy, {"uncertainty": True})):
        file.write_bytes(b"not ours either")
        with pytest.raises(SkipSegError, match=f"b: {file.name} stands in the output and is not ours"):
            ask(models[0], tmp_path / "images" / "b.nii.gz", tmp_path / "labels", **asked)
        assert file.read_bytes() == b"not ours either"
    ask(models[0], tmp_path / "images", tmp_path / "labels", overwrite=True)
    assert drawn.read_bytes() != b"drawn by hand"


def test_another_model_that_was_interrupted_goes_on(models: list[Path], tmp_path: Path, monkeypatch):
    for seed in range(3):
        write_volume(tmp_path / "in" / f"{seed}.nii.gz", seed)
    ask(models[0], tmp_path / "in", tmp_path / "out")

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Manifest, "record", interrupt)
        with pytest.raises(KeyboardInterrupt):
            ask(models[1], tmp_path / "in", tmp_path / "out")
    corrected = tmp_path / "out" / "2.nii.gz"
    corrected.write_bytes(b"corrected since, where the second model had not come")
    with pytest.raises(SkipSegError, match=r"not segmented: 2: 2\.nii\.gz was changed after it was written"):
        ask(models[1], tmp_path / "in", tmp_path / "out")
    assert corrected.read_bytes().startswith(b"corrected")
    corrected.unlink()
    assert len(ask(models[1], tmp_path / "in", tmp_path / "out")) == 1


def test_maps_of_another_model_do_not_stay(models: list[Path], tmp_path: Path):
    write_volume(tmp_path / "in" / "a.nii.gz")
    ask(models[:2], tmp_path / "in", tmp_path / "out", uncertainty=True)
    ask(models[0], tmp_path / "in", tmp_path / "out", format="mha")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.mha", "manifest.json"]


def test_a_mask_without_its_maps_is_not_left_behind(models: list[Path], tmp_path: Path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device", "a_entropy.nii.gz")

    monkeypatch.setattr("segmentation.inference.predict.write_map", full)
    with pytest.raises(SkipSegError, match="No space left on device"):
        ask(models[0], write_volume(tmp_path / "a.nii.gz"), tmp_path / "out", uncertainty=True)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["manifest.json"]


def test_an_interrupt_between_mask_and_manifest_does_not_make_the_mask_a_strangers(
    models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    write_volume(tmp_path / "in" / "a.nii.gz")
    with monkeypatch.context() as patch:
        patch.setattr(Manifest, "record", interrupt)
        with pytest.raises(KeyboardInterrupt):
            ask(models[0], tmp_path / "in", None)
    assert (tmp_path / "in" / "a_mask.nii.gz").exists()
    assert [path.name for path in ask(models[0], tmp_path / "in", None)] == ["a_mask.nii.gz"]


def test_a_failed_repetition_keeps_what_stood(models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device", "a.nii.gz")

    scan = write_volume(tmp_path / "in" / "a.nii.gz")
    (mask,) = ask(models[0], tmp_path / "in", tmp_path / "out")
    before = mask.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("segmentation.inference.predict.write_label_map", full)
        with pytest.raises(SkipSegError, match="No space left on device"):
            ask(models[0], tmp_path / "in", tmp_path / "out", overwrite=True)
    assert mask.read_bytes() == before
    scan.write_bytes(b"torn")
    with pytest.raises(SkipSegError, match="cannot be read as NIfTI"):
        ask(models[0], tmp_path / "in", tmp_path / "out")
    assert mask.read_bytes() == before
    write_volume(scan, seed=5)
    assert len(ask(models[0], tmp_path / "in", tmp_path / "out", format="mha")) == 1, (
        "and its place is known to be ours"
    )
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.mha", "manifest.json"]

"""The whole way as a user walks it, on phantoms: prepare, check, plan, train, predict, evaluate, ablate, report."""

import itertools
import json
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pytest
import yaml
from PIL import Image

from segmentation.cli import main
from segmentation.runs import read_csv, read_json

TINY = {
    "folds": 2,
    "epochs": 2,
    "steps_per_epoch": 3,
    "threads": 1,
    "device": "cpu",
    "network": {"depth": 1, "width": 4},
}


def skipseg(*words: object) -> None:
    """Run a command that must succeed."""
    assert main([str(word) for word in words]) == 0


@pytest.mark.parametrize(("dims", "task", "label"), [(2, "lesion", "png"), (3, "blob", "nii.gz")])
def test_from_nothing_to_a_report(tmp_path, capsys, dims, task, label):
    dataset, run = tmp_path / "dataset", tmp_path / "run"
    skipseg("prepare", "phantom", "--out", dataset, "--phantom.task", task, "--phantom.spatial_dims", dims,
            "--phantom.cases", 4, "--phantom.size", 24)  # fmt: skip
    skipseg("check", dataset)
    skipseg("plan", dataset, "--device", "cpu", "--dims", dims)
    settings = tmp_path / "tiny.yaml"
    settings.write_text(yaml.safe_dump(TINY | {"data": {"patch_size": [16] * dims, "batch_size": 2}}))
    skipseg("train", dataset, "--out", run, "--config", settings)
    held_out = read_json(run / "run.json")["val_cases"]

    skipseg("predict", "--model", run, "--input", dataset / "imagesTr", "--output", tmp_path / "masks", "--threads", 1)
    masks = sorted(path.name for path in (tmp_path / "masks").iterdir() if path.name != "manifest.json")
    assert masks == sorted(f"{case}.{label}" for case in read_json(dataset / "dataset.json")["patients"])
    for case in held_out:
        name = f"{case}.{label}"
        assert (tmp_path / "masks" / name).read_bytes() == (run / "predictions" / name).read_bytes()

    skipseg("evaluate", "--predictions", tmp_path / "masks", "--references", dataset / "labelsTr",
            "--images", dataset / "imagesTr", "--out", tmp_path / "scores", "--overlays", 1,
            "--tolerance_mm", read_json(run / "plan.json")["settings"]["tolerance_mm"]["value"])  # fmt: skip
    assert len(list((tmp_path / "scores" / "overlays").iterdir())) == 1
    own = {(row["case"], row["class"]): row for row in read_csv(run / "evaluation" / "cases.csv")}
    again = {(row["case"], row["class"]): row for row in read_csv(tmp_path / "scores" / "cases.csv")}
    assert own
    assert {key: again[key] for key in own} == own, "a training scores its held-out cases as `evaluate` does"

    study = tmp_path / "study.yaml"
    skips = {kind: {"network.long_skip": kind} for kind in ("concat", "none")}
    base = {key: value for key, value in yaml.safe_load(settings.read_text()).items() if key != "threads"}
    plain = {"name": "tiny", "dataset": str(dataset), "base": base, "conditions": skips, "folds": [0]}
    study.write_text(yaml.safe_dump(plain))
    capsys.readouterr()
    skipseg("ablate", study, "--out", tmp_path / "study", "--workers", 1)
    told = capsys.readouterr()
    assert told.err == ""
    assert "concat - none (declared)" in told.out
    assert told.out.endswith(f"{tmp_path / 'study' / 'report.html'}\n")
    assert read_json(tmp_path / "study" / "results.json")["runs"] == {"planned": 2, "finished": 2}
    page = (tmp_path / "study" / "report.html").read_bytes()
    skipseg("report", tmp_path / "study")
    assert (tmp_path / "study" / "report.html").read_bytes() == page
    skipseg("report", run)
    assert str(tmp_path) not in (tmp_path / "study" / "report.html").read_text()


# Where masks come back


def orient(scan: nib.Nifti1Image, order: tuple[int, ...], signs: tuple[int, ...]) -> nib.Nifti1Image:
    """The same scan, stored with its axes in another order and direction."""
    turn = np.stack([order, signs], axis=1)
    return scan.as_reoriented(turn)


ORIENTATIONS = list(itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)))
QUICK = [((0, 1, 2), (1, 1, 1)), ((2, 0, 1), (1, -1, 1)), ((1, 0, 2), (-1, 1, -1))]


def check_orientation(tmp_path: Path, model: Path, scan_path: Path, order, signs) -> None:
    scan = nib.Nifti1Image.from_filename(scan_path)
    turned = orient(scan, order, signs)
    (tmp_path / "in").mkdir()
    scan.to_filename(tmp_path / "in" / "asis.nii.gz")
    turned.to_filename(tmp_path / "in" / "turned.nii.gz")
    skipseg("predict", "--model", model, "--input", tmp_path / "in", "--output", tmp_path / "out", "--threads", 1)
    asis, back = (nib.Nifti1Image.from_filename(tmp_path / "out" / f"{name}.nii.gz") for name in ("asis", "turned"))
    assert back.shape == turned.shape
    np.testing.assert_allclose(back.affine, turned.affine, atol=1e-5)
    expected = np.asarray(orient(asis, order, signs).dataobj)
    assert len(np.unique(expected)) > 1, "an empty mask would agree with anything"
    np.testing.assert_array_equal(np.asarray(back.dataobj), expected)


@pytest.mark.parametrize(("order", "signs"), QUICK)
def test_mask_comes_back_in_the_frame_of_the_scan(tmp_path, volume_model, volumes, order, signs):
    check_orientation(tmp_path, volume_model, volumes.cases[0].images[0], order, signs)


@pytest.mark.slow
@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_mask_comes_back_in_every_frame(tmp_path, volume_model, volumes, order, signs):
    check_orientation(tmp_path, volume_model, volumes.cases[1].images[0], order, signs)


# Formats


def as_nifti(path: Path, scan: nib.Nifti1Image) -> None:
    scan.to_filename(path)


def as_nrrd(path: Path, scan: nib.Nifti1Image) -> None:
    lps = np.diag([-1.0, -1, 1, 1]) @ scan.affine
    header = {"space": "left-posterior-superior", "space directions": lps[:3, :3].T, "space origin": lps[:3, 3]}
    nrrd.write(str(path), np.asarray(scan.dataobj), header | {"kinds": ["domain"] * 3})


def read_nrrd(path: Path) -> tuple[np.ndarray, np.ndarray]:
    voxels, header = nrrd.read(str(path))
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = header["space directions"].T, header["space origin"]
    flip = -1 if header["space"].startswith("left-posterior") else 1
    return voxels, np.diag([flip, flip, 1, 1]) @ affine


def test_nrrd_comes_back_as_nrrd_with_the_same_mask(tmp_path, volume_model, volumes):
    scan = nib.Nifti1Image.from_filename(volumes.cases[0].images[0])
    (tmp_path / "in").mkdir()
    as_nrrd(tmp_path / "in" / "scan.nrrd", scan)
    as_nifti(tmp_path / "in" / "other.nii", scan)
    skipseg(
        "predict", "--model", volume_model, "--input", tmp_path / "in", "--output", tmp_path / "out", "--threads", 1
    )
    voxels, affine = read_nrrd(tmp_path / "out" / "scan.nrrd")
    other = nib.Nifti1Image.from_filename(tmp_path / "out" / "other.nii.gz")
    np.testing.assert_allclose(affine, scan.affine, atol=1e-4)
    np.testing.assert_array_equal(voxels, np.asarray(other.dataobj))
    assert voxels.max() > 0


def test_dicom_series_gives_the_mask_of_the_same_volume(tmp_path, volume_model, volumes, write_series):
    voxels = np.asarray(nib.Nifti1Image.from_filename(volumes.cases[0].images[0]).dataobj)
    heights = [7 + 2.5 * index for index in range(voxels.shape[2])]
    write_series(tmp_path / "series", voxels, heights)
    affine = np.array([[-0.9, 0, 0, 12.0], [0, -0.9, 0, -30.5], [0, 0, 2.5, 7.0], [0, 0, 0, 1]])
    nib.Nifti1Image(voxels, affine).to_filename(tmp_path / "volume.nii.gz")
    for name in ("series", "volume.nii.gz"):
        skipseg(
            "predict", "--model", volume_model, "--input", tmp_path / name, "--output", tmp_path / "out", "--threads", 1
        )
    of_series, of_volume = (
        nib.Nifti1Image.from_filename(tmp_path / "out" / f"{name}.nii.gz") for name in ("series", "volume")
    )
    np.testing.assert_allclose(of_series.affine, affine, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(of_series.dataobj), np.asarray(of_volume.dataobj))
    assert np.asarray(of_series.dataobj).max() > 0
    assert b"Doe" not in (tmp_path / "out" / "series.nii.gz").read_bytes()


@pytest.mark.parametrize("wanted", ["nrrd", "nii.gz"])
def test_format_of_the_mask_can_be_chosen(tmp_path, volume_model, volumes, wanted):
    skipseg("predict", "--model", volume_model, "--input", volumes.cases[0].images[0], "--output", tmp_path / "out",
            "--format", wanted, "--threads", 1)  # fmt: skip
    (mask,) = (tmp_path / "out").glob("case*")
    assert mask.name.endswith(f".{wanted}")


def test_pictures_of_every_kind_give_the_same_mask(tmp_path, pictures):
    (tmp_path / "in").mkdir()
    picture = Image.open(pictures.cases[0].images[0])
    for ending in ("png", "tif", "bmp"):
        picture.save(tmp_path / "in" / f"as_{ending}.{ending}")
    settings = TINY | {"folds": 0, "data": {"patch_size": [16, 16], "batch_size": 2}}
    (tmp_path / "tiny.yaml").write_text(json.dumps(settings))
    skipseg("train", pictures.root, "--out", tmp_path / "run", "--config", tmp_path / "tiny.yaml")
    skipseg(
        "predict", "--model", tmp_path / "run", "--input", tmp_path / "in", "--output", tmp_path / "out", "--threads", 1
    )
    masks = {path.name: np.array(Image.open(path)) for path in (tmp_path / "out").glob("as_*")}
    assert sorted(masks) == ["as_bmp.png", "as_png.png", "as_tif.tif"]
    first, *others = masks.values()
    assert first.shape == np.array(picture).shape
    assert all(np.array_equal(first, other) for other in others)
    assert first.max() > 0

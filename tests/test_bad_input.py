"""Bad input as a user meets it: one clear line, a status that is not zero, and nothing half-written."""

import gzip
import json
import resource
import shutil
import subprocess
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml

from segmentation.cli import main
from segmentation.data.manifest import Dataset

TINY = ["--folds", "0", "--epochs", "2", "--steps_per_epoch", "2", "--threads", "1", "--device", "cpu"]
TINY += ["--network.depth", "1", "--network.width", "4", "--data.patch_size", "[16,16,16]", "--data.batch_size", "2"]
SHAPE = (25, 29, 13)


def assert_no_mask(folder: Path) -> None:
    """Nothing was written but, at most, what went wrong."""
    assert {path.name for path in folder.rglob("*")} <= {"manifest.json"}


@pytest.fixture
def refused(capsys) -> Callable[..., str]:
    """Function of a command line: runs it, checks that it fails in one line, and gives that line."""

    def run(*arguments: object, status: int = 1) -> str:
        assert main([str(argument) for argument in arguments]) == status
        *notice, error = capsys.readouterr().err.splitlines()
        assert arguments[0] == "prepare" or not notice  # which says the licence first
        assert error.startswith("skipseg: ")
        assert "internal error" not in error
        return error

    return run


@pytest.fixture
def dataset(tmp_path, make_dataset) -> Dataset:
    """Volumes that a test may spoil."""
    return make_dataset(tmp_path / "dataset", dims=3)


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# Ways to spoil a NIfTI file


def rewrite(path: Path, change: Callable[[np.ndarray], np.ndarray], affine: np.ndarray | None = None) -> None:
    image = nib.Nifti1Image.from_filename(path)
    array = change(np.asarray(image.dataobj))
    nib.Nifti1Image(array, image.affine if affine is None else affine).to_filename(path)


def truncate(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def spoil_magic(path: Path) -> None:
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[344:348] = b"nope"
    path.write_bytes(gzip.compress(bytes(content)))


def put_nan(path: Path) -> None:
    rewrite(path, lambda array: np.where(array == array.max(), np.nan, array.astype(np.float32)))


def stack_four(path: Path) -> None:
    rewrite(path, lambda array: np.stack([array, array], axis=-1))


def shift_affine(path: Path) -> None:
    image = nib.Nifti1Image.from_filename(path)
    moved = image.affine.copy()
    moved[0, 3] += 5
    rewrite(path, lambda array: array, moved)


IMAGE = {
    "truncated": (truncate, "cannot be read as NIfTI"),
    "wrong magic": (spoil_magic, "cannot be read as NIfTI"),
    "not gzip": (lambda path: path.write_bytes(b"hello"), "cannot be read as NIfTI"),
    "empty file": (lambda path: path.write_bytes(b""), "cannot be read as NIfTI"),
    "4-D": (stack_four, "4-D where 3-D is expected"),
    "NaN": (put_nan, "NaN or infinit"),
}
LABEL = {
    "truncated label": (truncate, "cannot be read as NIfTI"),
    "shape mismatch": (lambda path: rewrite(path, lambda array: array[:-1]), "differ in"),
    "affine mismatch": (shift_affine, "differ in"),
    "label 255": (lambda path: rewrite(path, lambda array: array * 255), "label values 255, 510 are none of"),
    "float labels": (lambda path: rewrite(path, lambda array: array * np.float32(0.4)), "whole numbers"),
    "negative labels": (lambda path: rewrite(path, lambda array: -array), "labels start at 0"),
    "NaN label": (put_nan, "NaN"),
}


@pytest.mark.parametrize("fault", [*IMAGE, *LABEL])
def test_spoilt_case_stops_training(dataset, tmp_path, refused, capsys, fault):
    spoil, said = (IMAGE | LABEL)[fault]
    spoil(dataset.cases[1].images[0] if fault in IMAGE else dataset.cases[1].label)
    before = tree(dataset.root)
    error = refused("train", dataset.root, "--out", tmp_path / "run", *TINY)
    assert "case_01" in error
    assert said in error
    assert not (tmp_path / "run").exists()
    assert main(["check", str(dataset.root)]) == 1
    findings = [line for line in capsys.readouterr().out.splitlines() if line.startswith("ERROR")]
    assert len(findings) == 1
    assert said in findings[0]
    assert main(["plan", str(dataset.root)]) == 1
    assert tree(dataset.root) == before


def test_all_background_stops_training(dataset, tmp_path, refused):
    for case in dataset.cases:
        rewrite(case.label, np.zeros_like)
    assert "every label map is all background" in refused("train", dataset.root, "--out", tmp_path / "run", *TINY)
    assert not (tmp_path / "run").exists()


def test_one_all_background_label_is_a_healthy_case(dataset, capsys):
    rewrite(dataset.cases[0].label, np.zeros_like)
    assert main(["check", str(dataset.root)]) == 0
    assert "no class is marked; fine for a healthy case" in capsys.readouterr().out


# Datasets and folders


def make_nothing(root: Path) -> None:
    shutil.rmtree(root)


def make_empty(root: Path) -> None:
    make_nothing(root)
    root.mkdir()


def make_file(root: Path) -> None:
    make_nothing(root)
    root.write_text("a file")


def change_json(root: Path, **changes: object) -> None:
    path = root / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def block_images(root: Path) -> None:
    """Root may read any folder, so the unreadable one is a file."""
    shutil.rmtree(root / "imagesTr")
    (root / "imagesTr").write_text("a file")


DATASETS = {
    "missing": (make_nothing, "is no dataset"),
    "empty folder": (make_empty, "has no dataset.json"),
    "a file": (make_file, "is no dataset"),
    "unreadable folder": (block_images, "imagesTr cannot be read"),
    "broken json": (lambda root: (root / "dataset.json").write_text("{"), "is not valid JSON"),
    "json of something else": (lambda root: (root / "dataset.json").write_text("[]"), "must hold a JSON object"),
    "no images": (lambda root: make_empty(root / "imagesTr"), "without an image"),
    "labels with gaps": (lambda root: change_json(root, labels={"background": 0, "a": 2}), "without gaps"),
    "unknown channel": (lambda root: change_json(root, channel_names={"0": "a", "1": "b"}), "image has 1 channel"),
}


@pytest.mark.parametrize("fault", DATASETS)
@pytest.mark.parametrize("command", ["check", "plan", "train"])
def test_spoilt_dataset(dataset, tmp_path, capsys, command, fault):
    spoil, said = DATASETS[fault]
    spoil(dataset.root)
    extra = ["--out", str(tmp_path / "run"), *TINY] if command == "train" else []
    assert main([command, str(dataset.root), *extra]) == 1
    out, error = capsys.readouterr()
    assert said in out + error
    if "ERROR" not in out:
        assert (out, error.count("\n"), error.startswith("skipseg: ")) == ("", 1, True)
    assert not (tmp_path / "run").exists()


# Scans to predict


def one_file(folder: Path, spoil: Callable[[Path], object]) -> None:
    path = folder / "scan.nii.gz"
    nib.Nifti1Image(np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE), np.diag([0.9, 0.9, 2.5, 1])).to_filename(
        path
    )
    spoil(path)


@pytest.mark.parametrize("fault", IMAGE)
def test_spoilt_scan_is_not_predicted(tmp_path, volume_model, refused, fault):
    spoil, said = IMAGE[fault]
    (tmp_path / "in").mkdir()
    one_file(tmp_path / "in", spoil)
    error = refused("predict", "--model", volume_model, "--input", tmp_path / "in", "--output", tmp_path / "out")
    assert said in error
    assert "scan" in error
    assert_no_mask(tmp_path / "out")


HEIGHTS = [2.5 * index for index in range(SHAPE[2])]
SERIES = {
    "missing slice": ([*HEIGHTS[:4], *HEIGHTS[5:]], None, "missing"),
    "duplicate slice": ([*HEIGHTS[:5], *HEIGHTS[4:]], None, "lie at one position: copies"),
    "uneven slices": ([0.0, 2.5, 4.0, 7.5, 9.1], None, "spac"),
    "two series": (HEIGHTS, HEIGHTS[:5], "2 series"),
}


@pytest.mark.parametrize("fault", SERIES)
def test_faulty_dicom_series_is_not_predicted(tmp_path, volume_model, write_series, refused, fault):
    heights, second, said = SERIES[fault]
    volume = np.random.default_rng(0).integers(50, 200, (*SHAPE[:2], len(heights)))
    write_series(tmp_path / "in", volume, heights)
    if second:
        write_series(tmp_path / "in", volume, second, series="1.2.4")
    error = refused("predict", "--model", volume_model, "--input", tmp_path / "in", "--output", tmp_path / "out")
    assert said in error
    assert "Doe" not in error
    assert_no_mask(tmp_path / "out")


def test_truncated_dicom_file_is_not_predicted(tmp_path, volume_model, write_series, refused):
    write_series(tmp_path / "in", np.ones(SHAPE), HEIGHTS)
    truncate(tmp_path / "in" / "1.2.3-003.dcm")
    error = refused("predict", "--model", volume_model, "--input", tmp_path / "in", "--output", tmp_path / "out")
    assert "1.2.3-003.dcm" in error
    assert_no_mask(tmp_path / "out")


def test_one_bad_scan_does_not_stop_the_others(tmp_path, volume_model, volumes, refused):
    (tmp_path / "in").mkdir()
    one_file(tmp_path / "in", truncate)
    shutil.copy(volumes.cases[0].images[0], tmp_path / "in" / "good.nii.gz")
    error = refused("predict", "--model", volume_model, "--input", tmp_path / "in", "--output", tmp_path / "out")
    assert "1 of 2 scans are segmented; not segmented: scan: " in error
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["good.nii.gz", "manifest.json"]


def test_a_picture_is_nothing_for_a_model_of_volumes(tmp_path, volume_model, pictures, refused):
    error = refused(
        "predict", "--model", volume_model, "--input", pictures.root / "imagesTr", "--output", tmp_path / "out"
    )
    assert "is a picture, but this model segments a volume" in error
    assert_no_mask(tmp_path / "out")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [(make_nothing, "does not exist"), (make_empty, "holds no scans"), (make_file, "unknown format")],
    ids=["missing", "empty folder", "a file of another kind"],
)
def test_nothing_to_predict(tmp_path, volume_model, refused, spoil, said):
    (tmp_path / "in").mkdir()
    spoil(tmp_path / "in")
    error = refused("predict", "--model", volume_model, "--input", tmp_path / "in", "--output", tmp_path / "out")
    assert str(tmp_path / "in") in error or "in: " in error
    assert said in error
    assert_no_mask(tmp_path / "out")


def damage_weights(model: Path) -> None:
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")


def make_nnunet_model(model: Path) -> None:
    make_empty(model)
    (model / "plans.json").write_text("{}")


def make_unfinished(model: Path) -> None:
    (model / "model.json").unlink()
    (model / "config.yaml").write_text("fold: 0")


MODELS = {
    "empty folder": (make_empty, "holds no model.json; give the folder of a finished training run"),
    "nothing": (make_nothing, "does not exist"),
    "a file": (make_file, "is a file"),
    "nnU-Net's": (make_nnunet_model, "skipseg import"),
    "unfinished": (make_unfinished, "its training has not ended"),
    "damaged weights": (damage_weights, "is not the file that model.json describes"),
    "no weights": (lambda model: (model / "model.safetensors").unlink(), "is missing"),
    "broken json": (lambda model: (model / "model.json").write_text("{"), "is not valid JSON"),
}


@pytest.mark.parametrize("fault", MODELS)
def test_spoilt_model(tmp_path, volume_model, volumes, refused, fault):
    spoil, said = MODELS[fault]
    shutil.copytree(volume_model, tmp_path / "model")
    spoil(tmp_path / "model")
    scans = volumes.root / "imagesTr"
    assert said in refused("predict", "--model", tmp_path / "model", "--input", scans, "--output", tmp_path / "out")
    assert_no_mask(tmp_path / "out")


# Masks to score

MASKS = {name: LABEL[name] for name in ("truncated label", "shape mismatch", "affine mismatch", "float labels")}


@pytest.mark.parametrize("fault", MASKS)
def test_spoilt_mask_is_not_scored(dataset, tmp_path, refused, fault):
    spoil, _ = MASKS[fault]
    references = dataset.root / "labelsTr"
    shutil.copytree(references, tmp_path / "masks")
    spoil(tmp_path / "masks" / "case_01.nii.gz")
    assert "case_01" in refused(
        "evaluate", "--predictions", tmp_path / "masks", "--references", references, "--out", tmp_path / "out"
    )
    assert_no_mask(tmp_path / "out")


def test_nothing_to_score(dataset, tmp_path, refused):
    (tmp_path / "masks").mkdir()
    references = dataset.root / "labelsTr"
    refused("evaluate", "--predictions", tmp_path / "masks", "--references", references, "--out", tmp_path / "out")
    assert_no_mask(tmp_path / "out")


# Other commands


def test_unknown_source(tmp_path, refused):
    assert "unknown source 'phantoms'" in refused("prepare", "phantoms", "--out", tmp_path / "out", status=2)
    assert_no_mask(tmp_path / "out")


def test_prepare_into_something_else(tmp_path, refused):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    assert "is not a dataset" in refused("prepare", "phantom", "--out", tmp_path / "out")
    assert tree(tmp_path / "out") == {"thesis.txt": b"mine"}


def test_nothing_to_report(tmp_path, refused):
    assert "holds neither study.json nor run.json" in refused("report", tmp_path)
    assert tree(tmp_path) == {}


def test_missing_study(tmp_path, refused):
    assert "does not exist" in refused("ablate", tmp_path / "study.yaml", "--out", tmp_path / "out", status=2)


def test_unknown_suite_and_kind(tmp_path, refused):
    assert "there is no suite 's99'" in refused("suite", "s99", "--out", tmp_path / "out", status=2)
    assert "the kinds are" in refused("probe", tmp_path, "--kind", "colour", status=2)


@pytest.mark.parametrize(
    ("content", "said"),
    [({"colour": 1}, "colour"), ({"conditions": {"a": {"network.long_skip": "conat"}}}, "one of concat, add, mean")],
)
def test_wrong_study(tmp_path, volumes, refused, content, said):
    plain = {"name": "wrong", "dataset": str(volumes.root), "conditions": {"a": {}}, "base": {"folds": 0}}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(plain | content))
    assert said in refused("ablate", tmp_path / "study.yaml", "--out", tmp_path / "out", status=2)
    assert_no_mask(tmp_path / "out")


# Full disk


@contextmanager
def file_size_limit(size: int) -> Generator[None]:
    """Let no file grow beyond ``size`` bytes: what a user without rights can do to meet an error while writing."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


@pytest.fixture
def small_disk(tmp_path) -> Generator[Path]:
    """A disk of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a disk; the file size limit stands in for it")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(disk: Path, leave: int) -> None:
    """Write a file that leaves ``leave`` bytes of a disk."""
    (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - leave))


@pytest.mark.parametrize("dims", [2, 3])
def test_full_disk_while_preparing(small_disk, refused, dims):
    fill(small_disk, leave=40_000)
    command = ["prepare", "phantom", "--out", small_disk / "out", "--phantom.size", 64, "--phantom.spatial_dims", dims]
    assert "No space left on device" in refused(*command)
    assert [path.name for path in small_disk.iterdir()] == ["filler"]


def test_full_disk_while_training(small_disk, tmp_path, volumes, refused):
    command = ["train", volumes.root, "--out", small_disk / "run", *TINY]
    fill(small_disk, leave=50_000)
    assert "No space left on device" in refused(*command)
    assert json.loads((small_disk / "run" / "run.json").read_text())["state"] == "running"
    assert not list((small_disk / "run").glob(".*"))
    (small_disk / "filler").unlink()
    assert main([str(word) for word in command]) == 0
    whole = tmp_path / "whole"
    assert main(["train", str(volumes.root), "--out", str(whole), *TINY]) == 0
    assert (small_disk / "run" / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert (small_disk / "run" / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()


def test_full_disk_while_caching(small_disk, tmp_path, volumes, refused):
    fill(small_disk, leave=20_000)
    command = ["train", volumes.root, "--out", tmp_path / "run", "--cache", small_disk / "cache", *TINY]
    assert "No space left on device" in refused(*command)
    (small_disk / "filler").unlink()
    assert main([str(word) for word in command]) == 0


def test_full_disk_while_predicting(small_disk, volume_model, volumes, refused):
    fill(small_disk, leave=0)
    scans = volumes.root / "imagesTr"
    error = refused("predict", "--model", volume_model, "--input", scans, "--output", small_disk / "out")
    assert "No space left on device" in error
    assert not list((small_disk / "out").rglob("*"))


def test_file_too_large_while_preparing(tmp_path, refused):
    command = ["prepare", "phantom", "--out", tmp_path / "out", "--phantom.size", 128]
    with file_size_limit(4096):
        assert "too large" in refused(*command)
    assert list(tmp_path.iterdir()) == []


def test_file_too_large_while_training(tmp_path, volumes, refused):
    command = ["train", volumes.root, "--out", tmp_path / "run", *TINY]
    with file_size_limit(30_000):
        assert "too large" in refused(*command)
    assert not list((tmp_path / "run").glob(".*"))
    assert main([str(word) for word in command]) == 0


def test_file_too_large_while_predicting(tmp_path, volume_model, volumes, refused):
    with file_size_limit(64):
        error = refused(
            "predict", "--model", volume_model, "--input", volumes.root / "imagesTr", "--output", tmp_path / "out"
        )
    assert "too large" in error
    assert not list((tmp_path / "out").rglob("*"))

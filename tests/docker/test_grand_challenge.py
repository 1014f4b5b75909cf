import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from segmentation import SkipSegError
from segmentation.scans import Scan, write_label_map

PROGRAM = Path(__file__).parents[2] / "docker" / "grand-challenge" / "algorithm.py"


class Command:
    """Stands for the command line: keeps what it was asked, and writes the case's mask."""

    def __init__(self, status: int = 0) -> None:
        self.asked: list[str] = []
        self.linked: dict[str, Path] = {}
        self.status = status

    def __call__(self, words: list[str]) -> int:
        self.asked = words
        options = dict(word.removeprefix("--").split("=", 1) for word in words if "=" in word)
        case = Path(options["input"])
        self.linked = {path.name: path.resolve() for path in case.iterdir()}
        Path(options["output"]).mkdir()
        (Path(options["output"]) / "case.mha").write_bytes(b"the mask")
        (Path(options["output"]) / "case_entropy.mha").write_bytes(b"a map")
        return self.status


@pytest.fixture
def algorithm() -> ModuleType:
    spec = importlib.util.spec_from_file_location("algorithm", PROGRAM)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A case with one CT, and a place for models."""
    image(tmp_path, "ct", "9a7e.mha")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.json").write_text("{}")
    (tmp_path / "output").mkdir()
    return tmp_path


def image(root: Path, slug: str, name: str) -> Path:
    path = root / "input" / "images" / slug / name
    path.parent.mkdir(parents=True, exist_ok=True)
    write_label_map(path, np.zeros((2, 3, 4), np.uint8), Scan(np.zeros((1, 2, 3, 4)), np.eye(4), name))
    return path


def settings(root: Path, **changes: str) -> dict[str, str]:
    return {"SKIPSEG_OUTPUT": "organ", "SKIPSEG_MODEL": str(root / "model")} | changes


def test_the_mask_lies_under_its_slug_with_the_name_of_the_image(algorithm, root, monkeypatch):
    monkeypatch.setattr(algorithm, "skipseg", command := Command())
    assert algorithm.run(["--no-mirror"], settings(root), root) == 0
    assert (root / "output" / "images" / "organ" / "9a7e.mha").read_bytes() == b"the mask"
    assert [path for path in (root / "output").rglob("*") if path.is_file()] == [
        root / "output" / "images" / "organ" / "9a7e.mha"
    ]
    assert (command.asked[0], command.asked[1], command.asked[-1]) == (
        "predict", f"--model={root / 'model'}", "--no-mirror",
    )  # fmt: skip
    assert command.linked == {"case_0000.mha": root / "input" / "images" / "ct" / "9a7e.mha"}


def test_channels_follow_the_order_of_the_slugs(algorithm, root, monkeypatch):
    monkeypatch.setattr(algorithm, "skipseg", command := Command())
    flair = image(root, "flair", "01.mha")
    ct = root / "input" / "images" / "ct" / "9a7e.mha"
    algorithm.run([], settings(root, SKIPSEG_INPUTS="flair ct"), root)
    assert command.linked == {"case_0000.mha": flair, "case_0001.mha": ct}
    assert (root / "output" / "images" / "organ" / "01.mha").is_file()


def test_all_models_of_a_tarball_are_averaged(algorithm, root, monkeypatch):
    monkeypatch.setattr(algorithm, "skipseg", command := Command())
    (root / "model" / "model.json").unlink()
    for fold in ("fold1", "fold0"):
        (root / "model" / fold).mkdir()
        (root / "model" / fold / "model.json").write_text("{}")
    algorithm.run([], settings(root), root)
    models = [word for word in command.asked if word.startswith("--model=")]
    assert models == [f"--model={root / 'model' / fold}" for fold in ("fold0", "fold1")]


def test_a_case_that_fails_leaves_no_mask(algorithm, root, monkeypatch):
    monkeypatch.setattr(algorithm, "skipseg", Command(status=1))
    assert algorithm.run([], settings(root), root) == 1
    assert list((root / "output").iterdir()) == []


@pytest.mark.parametrize(
    ("spoil", "changes", "words"),
    [
        (lambda root: image(root, "flair", "01.mha"), {}, "holds ct, flair; name the slugs"),
        (lambda root: image(root, "ct", "01.mha"), {}, "holds 2 images where one is expected: 01.mha, 9a7e.mha"),
        (lambda root: None, {"SKIPSEG_INPUTS": "mr"}, "mr cannot be read"),
        (lambda root: None, {"SKIPSEG_OUTPUT": " "}, "SKIPSEG_OUTPUT is empty"),
        (lambda root: (root / "model" / "model.json").unlink(), {}, "holds no model.json"),
    ],
    ids=["slugs", "images", "missing", "output", "model"],
)
def test_what_is_not_clear_is_refused(algorithm, root, monkeypatch, spoil, changes, words):
    monkeypatch.setattr(algorithm, "skipseg", command := Command())
    spoil(root)
    with pytest.raises(SkipSegError, match=words):
        algorithm.run([], settings(root, **changes), root)
    assert command.asked == []


def test_a_case_without_images_is_refused(algorithm, tmp_path):
    with pytest.raises(SkipSegError, match="holds no folder"):
        algorithm.run([], settings(tmp_path), tmp_path)


@pytest.mark.parametrize("option", ["--format=nii.gz", "--output", "--model=x"])
def test_what_is_settled_here_cannot_be_changed(algorithm, root, monkeypatch, option):
    monkeypatch.setattr(algorithm, "skipseg", Command())
    with pytest.raises(SkipSegError, match="are settled here; leave them out"):
        algorithm.run([option, "x"], settings(root), root)
    assert list((root / "output").iterdir()) == []

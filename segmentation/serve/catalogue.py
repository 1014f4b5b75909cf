"""The models that the server offers, read from their folders whenever those have changed."""

import math
import os
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segmentation import SkipSegError
from segmentation.figures import CLASS_COLOURS
from segmentation.model.folder import DESCRIPTION, INTENDED_USE, WEIGHTS, read_description
from segmentation.runs import read_json

_DEEPEST = 6
_MEASURES = ("dice", "nsd", "hd95_mm")


@dataclass(frozen=True)
class Label:
    """A class of a model: its name, its value in a mask and the colour to show it in."""

    name: str
    value: int
    colour: str


@dataclass(frozen=True)
class Model:
    """A model as the page shows it.

    Attributes:
        name: Its folder below the folder of models.
        dims: Spatial axes of its scans.
        channels: What each channel of its scans is.
        labels: Its classes without the background.
        licence: Of the data that it learnt from, which may bind it; None if nothing is said.
        notice: What to know about these data.
        intended_use: What it is for.
        scores: Class to measure to estimate, interval and number of the patients left out; None if it has none.
        spacing_mm: Distance of the voxels that it sees.
    """

    name: str
    dims: int
    channels: list[str]
    labels: list[Label]
    licence: str | None
    notice: str | None
    intended_use: str
    scores: dict[str, dict[str, dict[str, float | None]]] | None
    spacing_mm: list[float]


class Catalogue:
    """The models below a folder; damaged ones are left out.

    Args:
        folder: A model folder, or one below which models lie.
        fresh_s: Seconds for which a look at the folder is not repeated.
    """

    def __init__(self, folder: Path, fresh_s: float = 1.0) -> None:
        self.folder = folder
        self.fresh_s = fresh_s
        self._looked = -math.inf
        self._known: dict[Path, tuple[Any, Model | None]] = {}
        self._lock = threading.Lock()

    def models(self) -> list[Model]:
        """All models in the order of their names."""
        with self._lock:
            if time.monotonic() - self._looked >= self.fresh_s:
                self._known = {path: self._read(path) for path in _model_folders(self.folder)}
                self._looked = time.monotonic()
            found = [model for _, model in self._known.values() if model]
        return sorted(found, key=lambda model: model.name)

    def find(self, name: str) -> tuple[Model, Path] | None:
        """A model by its name, with its folder."""
        models = {model.name: model for model in self.models()}
        return (models[name], self._path(name)) if name in models else None

    def _read(self, path: Path) -> tuple[Any, Model | None]:
        """Read a model unless it is known and unchanged; the state of its files, and the model if it is whole."""
        state = [_state(path / name) for name in (DESCRIPTION, WEIGHTS, "evaluation/summary.json")]
        if path in self._known and self._known[path][0] == state:
            return self._known[path]
        try:
            return state, _model(self._name(path), path)
        except (SkipSegError, OSError):  # damaged, or not for this user to read
            return state, None

    def _name(self, path: Path) -> str:
        """Name of the model in a folder."""
        return path.name if path == self.folder else path.relative_to(self.folder).as_posix()

    def _path(self, name: str) -> Path:
        """Folder of a model that is known."""
        return next(path for path in self._known if self._name(path) == name)


def _model_folders(top: Path) -> Iterator[Path]:
    """Folders that hold a model, without looking into hidden ones."""
    for place, folders, files in os.walk(top):
        path = Path(place)
        deep = len(path.relative_to(top).parts) >= _DEEPEST
        folders[:] = [] if deep else [name for name in folders if not name.startswith(".")]
        if DESCRIPTION in files:
            yield path


def _state(file: Path) -> tuple[int, int] | None:
    """What changes when a file does."""
    try:
        about = file.stat()
    except OSError:
        return None
    return about.st_mtime_ns, about.st_size


def _model(name: str, path: Path) -> Model:
    """Read a model.

    Raises:
        SkipSegError: If the folder is damaged.
    """
    about = read_description(path)
    try:
        classes = sorted((value, label) for label, value in about["labels"].items() if value)
        data = about.get("dataset") or {}
        return Model(
            name,
            len(about["preprocessing"]["spacing_mm"]),
            list(about["channel_names"]),
            [Label(label, value, CLASS_COLOURS[n % len(CLASS_COLOURS)]) for n, (value, label) in enumerate(classes)],
            data.get("licence"),
            data.get("notice"),
            " ".join(INTENDED_USE.split()),
            _scores(path / "evaluation" / "summary.json"),
            list(about["preprocessing"]["spacing_mm"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise SkipSegError(f"{path}/model.json does not say {error}; train anew") from None


def _scores(source: Path) -> dict[str, dict[str, dict[str, float | None]]] | None:
    """Scores on the patients left out, if the folder is of a run."""
    try:
        classes = read_json(source)["classes"]
        return {
            name: {measure: _estimate(found["scores"][measure]["policy"]) for measure in _MEASURES}
            for name, found in classes.items()
        }
    except (SkipSegError, OSError, KeyError, TypeError, AttributeError):
        return None


def _estimate(score: Mapping[str, Any]) -> dict[str, float | None]:
    """A mean with its interval and the number of patients."""
    return {key: score[key] for key in ("estimate", "low", "high", "n")}

"""Studies and runs as their folders say, at the moment they are asked for: also of trainings that are under way."""

import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from fastapi import APIRouter, HTTPException

from segmentation import SkipSegError
from segmentation.ablation.ledger import read_ledger, state_of
from segmentation.plain import flatten
from segmentation.runs import content_hash, peek_json, read_csv, read_json
from segmentation.serve.views import Refusal

_DEEPEST = 5
_SHOWN = ("dataset", "patients", "parameters")


@dataclass(frozen=True)
class RunView:
    """A run in the list of its study.

    Attributes:
        id: By which it is asked for.
        name: Of its folder.
        condition, fold, seed: Its place in the study.
        state: ``"waiting"``, ``"running"``, ``"finished"`` or ``"failed"``.
        epoch: Epochs done.
        epochs: Epochs planned.
        val_dice: Of the last epoch that was validated.
        error: Why the last attempt failed.
    """

    id: str
    name: str
    condition: str
    fold: int
    seed: int
    state: str
    epoch: int
    epochs: int | None
    val_dice: float | None
    error: str | None = None


@dataclass(frozen=True)
class StudyView:
    """A study, or a run of its own."""

    id: str
    name: str
    question: str | None
    runs: list[RunView]


@dataclass(frozen=True)
class RunDetails(RunView):
    """A run, with what else is known of it.

    Attributes:
        study: Name of its study.
        dataset: Name of its data.
        patients: In the data.
        parameters: Of its network.
        train_seconds: That its training took, once it is done; None if it was resumed.
        settings: Dotted name to value.
    """

    study: str = ""
    dataset: str | None = None
    patients: int | None = None
    parameters: int | None = None
    train_seconds: float | None = None
    settings: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class CurvesView:
    """A table of what happened in each epoch; None where there is no value."""

    columns: list[str]
    rows: list[list[float | None]]


def routes(top: Path | None) -> APIRouter:
    """Make the routes of the run browser over the folder ``top``; without one there are no studies."""
    router = APIRouter(prefix="/api")
    refusals: dict[int | str, dict[str, Any]] = {status: {"model": Refusal} for status in (401, 403, 404, 429)}

    @router.get("/studies", summary="Studies and runs, as their folders say")
    def studies() -> list[StudyView]:
        return list(_studies(top)) if top else []

    @router.get("/runs/{id}", summary="What is known of a run", responses=refusals)
    def run(id: str) -> RunDetails:
        study, view, folder = _find(top, id)
        return _details(study, view, folder)

    @router.get("/runs/{id}/curves", summary="Losses and scores of each epoch so far", responses=refusals)
    def curves(id: str) -> CurvesView:
        _, _, folder = _find(top, id)
        return _curves(folder)

    return router


def _find(top: Path | None, id: str) -> tuple[StudyView, RunView, Path]:
    """A run by its id, or a refusal."""
    for folder in _folders(top) if top else ():
        study = _study(folder, top or folder)
        for run in study.runs:
            if run.id == id:
                return study, run, folder if folder.name == run.name else folder / "runs" / run.name
    raise HTTPException(404, "there is no such run")


def _studies(top: Path) -> Iterator[StudyView]:
    """All studies below a folder; one that cannot be read is left out."""
    for folder in _folders(top):
        yield _study(folder, top)


def _folders(top: Path) -> Iterator[Path]:
    """Folders of studies, and of runs that belong to none."""
    for place, folders, files in os.walk(top):
        path = Path(place)
        if "study.json" in files or "run.json" in files:
            folders[:] = []
            yield path
        elif len(path.relative_to(top).parts) >= _DEEPEST:
            folders[:] = []
        else:
            folders[:] = sorted(name for name in folders if not name.startswith("."))


def _study(folder: Path, top: Path) -> StudyView:
    """Read a study, or a run of its own."""
    place = folder.relative_to(top).as_posix()
    name = folder.resolve().name
    try:
        if not (folder / "study.json").is_file():
            return StudyView(_id(place), name, None, [_run(folder, place, name, 0, 0, state_of(folder), None)])
        header = read_json(folder / "study.json")
        runs = [
            _run(
                folder / "runs" / each.id, f"{place}/runs/{each.id}", each.condition, each.fold, each.seed, each.state,
                each.reasons[-1] if each.reasons and each.state == "failed" else None,
            )
            for each in read_ledger(folder)
        ]  # fmt: skip
        return StudyView(_id(place), str(header.get("name", name)), header.get("question"), runs)
    except (SkipSegError, KeyError, TypeError, AttributeError):
        return StudyView(_id(place), name, "study.json cannot be read", [])


def _run(folder: Path, place: str, condition: str, fold: int, seed: int, state: str, error: str | None) -> RunView:
    """Read how far a run is."""
    curves = _curves(folder)
    dice = curves.columns.index("val_dice") if "val_dice" in curves.columns else None
    scores = [row[dice] for row in curves.rows if row[dice] is not None] if dice is not None else []
    epochs = _settings(folder).get("epochs")
    return RunView(
        _id(place), folder.name, condition, fold, seed, state, len(curves.rows),
        epochs if isinstance(epochs, int) else None, scores[-1] if scores else None,
        _without_paths(error) if error else None,
    )  # fmt: skip


def _details(study: StudyView, run: RunView, folder: Path) -> RunDetails:
    """Read what else is known of a run."""
    record, timing = peek_json(folder / "run.json"), peek_json(folder / "timing.json")
    settings = {name: value for name, value in _settings(folder).items() if "/" not in str(value)}
    known: dict[str, Any] = {name: record.get(name) for name in _SHOWN}
    whole = None if timing.get("resumed") else timing.get("train_seconds")
    known |= {"train_seconds": whole, "settings": settings}
    return RunDetails(**vars(run), study=study.name, **known)


def _curves(folder: Path) -> CurvesView:
    """Read metrics.csv; empty before the first epoch is over."""
    try:
        about = (folder / "metrics.csv").stat()
        return _read_curves(folder / "metrics.csv", about.st_mtime_ns, about.st_size)
    except (OSError, SkipSegError):
        return CurvesView([], [])


@lru_cache(maxsize=1024)
def _read_curves(source: Path, changed: int, size: int) -> CurvesView:
    """Read metrics.csv as it stands since a moment, of a size."""
    lines = read_csv(source)
    columns = [name for name in lines[0] if name] if lines else []
    return CurvesView(columns, [[_number(line.get(name)) for name in columns] for line in lines])


def _number(text: str | None) -> float | None:
    """A finite number, or nothing."""
    try:
        value = float(text or "nan")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _settings(folder: Path) -> dict[str, Any]:
    """Settings of a run by their dotted names; empty where they cannot be read."""
    try:
        about = (folder / "config.yaml").stat()
        return _read_settings(folder / "config.yaml", about.st_mtime_ns)
    except (OSError, yaml.YAMLError, UnicodeDecodeError, AttributeError):
        return {}


@lru_cache(maxsize=1024)
def _read_settings(source: Path, changed: int) -> dict[str, Any]:
    """Read config.yaml as it stands since a moment."""
    return dict(flatten(yaml.safe_load(source.read_text(encoding="utf-8"))))


def _id(place: str) -> str:
    """Name of a folder by which it is asked for: its place is nobody's business."""
    return content_hash(place)[:16]


def _without_paths(text: str) -> str:
    """Say the same with the last part of each path only."""
    return re.sub(r"/(?:[^\s:;,/]*/)+", "", text)

"""Read a study folder, or a single run folder, as it stands: finished runs count, all others are named.

Nothing here computes. A run that cannot be read is left out with the reason in words, so that a study
which is still under way, or in which a training failed, can be reported at any moment.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from segmentation import SkipSegError
from segmentation.ablation.protocol import read_protocol, verify
from segmentation.model.folder import DESCRIPTION
from segmentation.plain import flatten
from segmentation.runs import read_csv, read_json

MEASURES = ("dice", "iou", "sensitivity", "precision", "hd95_mm", "assd_mm", "nsd", "volume_error_ml")
"""Columns of cases.csv that are scores: a mean over cases has a meaning."""

COUNTS = ("lesions_reference", "lesions_detected", "lesions_prediction", "lesions_false")
"""Columns of cases.csv that are counts: only their sums have a meaning."""

_NUMBERS = (*MEASURES, *COUNTS, "tolerance_mm", "volume_prediction_ml", "volume_reference_ml")

_OF_THE_RUN = {"fold", "seed", "out", "dataset", "cache", "plan", "threads", "track"}
"""Settings that name a run or a place on one machine, or who watches; they never tell conditions apart."""


@dataclass(frozen=True)
class Row:
    """The scores of one class in one case, one line of cases.csv.

    Attributes:
        patient: Independent unit of the statistics; the case itself where the table names none.
        case: Name of the case.
        class_name: Name of the class.
        state: ``"both"``, ``"missed"``, ``"false_alarm"`` or ``"both_empty"``.
        values: Column to number for :data:`MEASURES`, :data:`COUNTS`, ``tolerance_mm`` and the two volumes;
            a score without a value (nan) is not in it.
        note: Remark of the evaluation, such as ``"no prediction"``; mostly empty.
    """

    patient: str
    case: str
    class_name: str
    state: str
    values: Mapping[str, float]
    note: str = ""


@dataclass(frozen=True)
class Run:
    """One training of a study.

    Attributes:
        id: Name of its folder.
        condition, fold, seed: Its place in the study.
        folder: Where it lies.
        left_out: Why it does not count, in words; empty for a finished run.
        record: run.json, or empty.
        settings: Dotted name to value from config.yaml, without names of folders, fold and seed; of a run that is left
            out, too, as far as they can be read.
        rows: cases.csv.
        curves: metrics.csv as numbers; an empty field is not in its row.
        timing: timing.json, or empty.
    """

    id: str
    condition: str
    fold: int
    seed: int
    folder: Path
    left_out: str = ""
    record: Mapping[str, Any] = field(default_factory=dict[str, Any])
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    rows: Sequence[Row] = ()
    curves: Sequence[Mapping[str, float]] = ()
    timing: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def steps(self) -> int | None:
        """Optimiser steps of the training; None where its curves do not say."""
        return max((int(row["step"]) for row in self.curves if "step" in row), default=None)


@dataclass(frozen=True)
class Study:
    """A study, or a single run seen as a study of one condition.

    Attributes:
        header: study.json (for a single run: what stands in its place).
        conditions: Condition to its departures from the base settings, in the study's order.
        runs: All planned runs, in the study's order.
        single: Whether the folder was a run folder.
        protocol: protocol.json; empty for a single run.
    """

    header: Mapping[str, Any]
    conditions: Mapping[str, Mapping[str, Any]]
    runs: Sequence[Run]
    single: bool
    protocol: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def finished(self) -> list[Run]:
        """The runs that count."""
        return [run for run in self.runs if not run.left_out]

    @property
    def classes(self) -> list[str]:
        """Names of the scored classes, in the order of the tables."""
        return list(dict.fromkeys(row.class_name for run in self.finished for row in run.rows))

    @property
    def budgets(self) -> dict[str, dict[str, Any]]:
        """Condition to what its network costs and was matched to, as frozen; empty for a single run."""
        return {name: arm for name, arm in self.header.get("arms", {}).items() if name in self.conditions}

    def runs_of(self, condition: str) -> list[Run]:
        """The finished runs of ``condition``."""
        return [run for run in self.finished if run.condition == condition]


def read_study(folder: Path) -> Study:
    """Read a study folder (with study.json) or a run folder (with run.json).

    Raises:
        SkipSegError: If the folder holds neither file, or study.json was changed after registration or lacks
            something it must have.
    """
    if (folder / "study.json").is_file():
        header = _mapping(read_json(folder / "study.json"), folder / "study.json")
        verify(folder)
        conditions = {name: dict(overrides or {}) for name, overrides in header.get("conditions", {}).items()}
        runs = tuple(_read_run(folder / "runs", entry, conditions) for entry in header.get("runs", []))
        if not runs:
            raise SkipSegError(f"{folder / 'study.json'} lists no runs; write the study again with skipseg ablate")
        return Study(header, conditions, runs, single=False, protocol=read_protocol(folder)[0])
    if (folder / "run.json").is_file():
        name = folder.resolve().name
        run = _read_run(folder.resolve().parent, {"id": name, "condition": name}, {name: {}})
        if run.left_out:
            raise SkipSegError(f"{folder} cannot be reported: {run.left_out}")
        return Study(_header_of(run), {name: {}}, (run,), single=True)
    if not folder.is_dir():
        raise SkipSegError(f"{folder} is not a folder; give the folder of a study, a run or suites")
    raise SkipSegError(
        f"{folder} holds neither study.json nor run.json, nor result.json of a suite; "
        "give the folder of a study, a run or suites"
    )


def _header_of(run: Run) -> dict[str, Any]:
    """What stands in the place of study.json for a single run: its data and split, as it and its model say."""
    record, source = run.record, run.folder / DESCRIPTION
    model = _mapping(read_json(source), source) if source.is_file() else {}
    known = {
        "name": record.get("dataset"),
        "hash": record.get("dataset_hash", ""),
        "patients": record.get("patients"),
        "cases": len({*record.get("train_cases", ()), *record.get("val_cases", ())}),
        "labels": _mapping(model.get("labels", {}), source),
    }
    data = known | _mapping(model.get("dataset", {}), source) if known["name"] else {}
    return {"name": run.id, "dataset": data, "split": record.get("split", {})}


def _read_run(parent: Path, entry: Mapping[str, Any], conditions: Mapping[str, Any]) -> Run:
    """Read the run that ``entry`` of study.json names; whatever is wrong with it becomes its reason."""
    name, condition = str(entry.get("id", "")), str(entry.get("condition", ""))
    if not name or Path(name).name != name or name in {".", ".."} or condition not in conditions:
        raise SkipSegError(f"study.json names a run {name!r} of condition {condition!r}, which is not one of its own")
    run = Run(name, condition, int(entry.get("fold", 0)), int(entry.get("seed", 0)), parent / name)
    try:
        return _with_contents(run)
    except SkipSegError as error:
        with suppress(SkipSegError):
            run = replace(run, settings=_compared(_read_settings(run.folder / "config.yaml")))
        return replace(run, left_out=str(error).replace(f"{parent}/", ""))


def _with_contents(run: Run) -> Run:
    """Read the files of a finished run; an unfinished one is refused with its state."""
    folder = run.folder
    if not (folder / "run.json").is_file():
        raise SkipSegError("not started")
    record = _mapping(read_json(folder / "run.json"), folder / "run.json")
    if record.get("state") != "finished":
        detail = record.get("error") or record.get("reason")
        raise SkipSegError(f"{record.get('state', 'unfinished')}{f': {detail}' if detail else ''}")
    if not (folder / "evaluation" / "cases.csv").is_file():
        raise SkipSegError("trained, but not evaluated")
    rows = tuple(_read_rows(folder / "evaluation" / "cases.csv"))
    if not rows:
        raise SkipSegError("trained, but its evaluation holds no case")
    settings = _read_settings(folder / "config.yaml")
    return replace(
        run,
        fold=int(settings.get("fold", run.fold)),
        seed=int(settings.get("seed", run.seed)),
        record=record,
        settings=_compared(settings),
        rows=rows,
        curves=_read_curves(folder / "metrics.csv"),
        timing=_mapping(read_json(folder / "timing.json"), folder) if (folder / "timing.json").is_file() else {},
    )


def _read_settings(source: Path) -> dict[str, Any]:
    """Flatten config.yaml; empty when there is none."""
    if not source.is_file():
        return {}
    try:
        nested = yaml.safe_load(source.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        raise SkipSegError(f"{source} is not valid YAML") from None
    return dict(flatten(_mapping(nested, source)))


def _compared(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that can tell conditions apart."""
    return {key: value for key, value in settings.items() if key not in _OF_THE_RUN}


def _read_rows(source: Path) -> Iterator[Row]:
    """Read cases.csv; at least the columns case, class and dice are needed."""
    for line in read_csv(source):
        if not (line.get("case") and line.get("class") and "dice" in line):
            raise SkipSegError(f"{source} has no columns case, class and dice; evaluate the run again")
        if "inf" in [(line.get(name) or "").strip(" +-").lower()[:3] for name in MEASURES]:
            raise SkipSegError(f"{source} holds an infinite score, which no score here can be; evaluate the run again")
        values = {name: value for name in _NUMBERS if (value := _number(line.get(name), source)) is not None}
        patient = line.get("patient") or line["case"]
        yield Row(patient, line["case"], line["class"], line.get("state") or "", values, line.get("note") or "")


def _read_curves(source: Path) -> list[dict[str, float]]:
    """Read metrics.csv as numbers; empty when there is none."""
    if not source.is_file():
        return []
    return [
        {name: value for name, text in line.items() if name and (value := _number(text, source)) is not None}
        for line in read_csv(source)
    ]


def _number(text: str | None, source: Path) -> float | None:
    """Turn a field into a number; empty, nan and infinite ones are ``None``."""
    if not text or not text.strip():
        return None
    try:
        value = float(text)
    except ValueError:
        raise SkipSegError(f"{source} holds {text[:40]!r} where a number is expected") from None
    return value if math.isfinite(value) else None


def _mapping(content: Any, source: Path) -> dict[str, Any]:
    """Refuse a file that holds something else than named values."""
    if not isinstance(content, dict):
        raise SkipSegError(f"{source} does not hold named values; restore it or delete it and rerun")
    return content

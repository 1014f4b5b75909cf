"""A study: conditions that differ in named settings, run on the same folds and seeds, frozen before the first run.

study.json holds the question, the contrasts and every run. A run is named by the hash of all that decides its
result, so that adding a condition leaves finished runs as they are.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from segmentation import SkipSegError
from segmentation.config import TrainSettings, require
from segmentation.plain import flatten, from_plain, nest
from segmentation.runs import content_hash, is_draft, read_json, write_json
from segmentation.training.job import Job, make_job

Metric = Literal["dice", "iou", "sensitivity", "precision", "hd95_mm", "assd_mm", "nsd", "volume_error_ml"]
SET_BY_STUDY = frozenset({"dataset", "out", "fold", "seed", "cache", "threads"})
"""Settings of a training that the study decides for each run, so that no condition can."""


@dataclass(frozen=True)
class StudySettings:
    """What a study file may hold."""

    name: str
    """Short name, for titles."""
    dataset: Path
    """Dataset of all runs, relative to the working folder."""
    question: str = ""
    """What the study asks, in one sentence."""
    base: dict[str, Any] = field(default_factory=dict)
    """Training settings of all conditions."""
    conditions: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Condition name to the settings in which it departs from the base."""
    grid: dict[str, list[Any]] = field(default_factory=dict)
    """Instead of conditions: setting to its values; every combination is a condition."""
    contrasts: list[list[str]] = field(default_factory=list)
    """Pairs of conditions compared, decided in advance; by default the first with each other."""
    folds: list[int] | None = None
    """Folds to run; by default all."""
    seeds: list[int] = field(default_factory=lambda: [0])
    """Seeds; each condition runs with each."""
    primary_metric: Metric = "dice"
    """Metric of the contrasts."""
    alpha: float = 0.05
    """Accepted chance of a false positive."""
    margin: float = 0.02
    """Difference of the primary metric below which two conditions count as equivalent."""

    def __post_init__(self) -> None:
        """Check that the parts fit together."""
        require(bool(self.conditions) != bool(self.grid), "a study needs either conditions or a grid")
        cells = math.prod(map(len, self.grid.values()))
        require(cells >= 1, "each setting of a grid needs at least one value")
        require(cells == 1 or cells == len(self.all_conditions()), f"the grid names a value twice: {self.grid}")
        for name, settings in {"base": self.base, **self.all_conditions()}.items():
            taken = SET_BY_STUDY.intersection(key for key, _ in flatten(nest(settings)))
            require(not taken, f"{name} sets {', '.join(sorted(taken))}, which the study decides for each run")
        for pair in self.contrasts:
            unknown = [name for name in pair if name not in self.all_conditions()]
            fits = len(set(pair)) == len(pair) == 2 and not unknown
            require(fits, f"contrast {pair} must name two of {list(self.all_conditions())}")
        for name in ("folds", "seeds"):
            values = getattr(self, name)
            distinct = values is None or (values and len(set(values)) == len(values))
            require(bool(distinct), f"{name} must name each number once, and at least one, got {values}")
        require(0 < self.alpha < 1, f"alpha must be in (0, 1), got {self.alpha}")
        require(self.margin > 0, f"margin must be greater than 0, got {self.margin}")

    def all_conditions(self) -> dict[str, dict[str, Any]]:
        """Condition name to its settings, the grid written out.

        Examples:
            >>> study = StudySettings("s", Path("d"), grid={"network.long_skip": ["concat", "none"], "epochs": [9]})
            >>> study.all_conditions()["none-9"]
            {'network.long_skip': 'none', 'epochs': 9}
        """
        if self.conditions:
            return self.conditions
        cells = itertools.product(*self.grid.values())
        return {"-".join(map(str, cell)): dict(zip(self.grid, cell, strict=True)) for cell in cells}

    def all_contrasts(self) -> list[list[str]]:
        """The declared contrasts, or the first condition against each other one."""
        first, *others = self.all_conditions()
        return self.contrasts or [[first, other] for other in others]


@dataclass(frozen=True)
class Run:
    """One training of a study.

    Attributes:
        id: Folder name: condition, fold, seed and hash.
        condition: Its condition.
        job: Everything decided about it.
    """

    id: str
    condition: str
    job: Job

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self.job.settings.out


def read_study(path: Path, dataset: Path | None) -> StudySettings:
    """Read a study file.

    Args:
        path: YAML file.
        dataset: Replaces the study's own dataset.

    Raises:
        SkipSegError: If the file is missing, is not YAML, or holds an unknown or wrong setting.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SkipSegError(f"{path} does not exist") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SkipSegError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise SkipSegError(f"{path} holds no settings; see configs/ablation for examples")
    if dataset:
        content["dataset"] = str(dataset)
    try:
        return from_plain(StudySettings, content)
    except SkipSegError as error:
        raise SkipSegError(f"{path}: {error}") from None


def expand(study: StudySettings, out: Path, cache: Path | None) -> list[Run]:
    """Write a study out into runs, condition by condition within each fold and seed.

    Raises:
        SkipSegError: If a setting of a condition is unknown or wrong, or the dataset has errors.
    """
    first = _job(study, {}, out, cache, fold=0, seed=study.seeds[0])
    folds = range(len(first.splits.folds)) if study.folds is None else study.folds
    runs: list[Run] = []
    for seed, fold, (name, overrides) in itertools.product(study.seeds, folds, study.all_conditions().items()):
        job = _job(study, overrides, out, cache, fold, seed, name)
        if job.splits.hash != first.splits.hash:
            raise SkipSegError(f"condition {name!r} splits the patients otherwise; only runs on equal folds compare")
        runs.append(Run(job.settings.out.name, name, job))
    return runs


def _job(
    study: StudySettings,
    overrides: Mapping[str, Any],
    out: Path,
    cache: Path | None,
    fold: int,
    seed: int,
    condition: str = "base",
) -> Job:
    """Decide everything about one run, and name its folder by that."""
    fixed = {"dataset": str(study.dataset), "out": str(out), "fold": fold, "seed": seed, "cache": cache and str(cache)}
    plain = merge(merge(nest(study.base), nest(overrides)), {"threads": 1} | fixed)
    try:
        job = make_job(from_plain(TrainSettings, plain))
    except SkipSegError as error:
        raise SkipSegError(f"condition {condition!r}: {error}") from None
    safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in condition)
    folder = out / "runs" / f"{safe}-f{fold}-s{seed}-{job.identity[:8]}"
    return replace(job, settings=replace(job.settings, out=folder))


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Lay nested ``changes`` over ``base``.

    Examples:
        >>> merge({"network": {"depth": 3, "width": 8}}, {"network": {"depth": 4}})
        {'network': {'depth': 4, 'width': 8}}
    """
    merged = dict(base)
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def freeze(study: StudySettings, runs: Sequence[Run], out: Path) -> None:
    """Write study.json, or check that the one that stands there asks the same question.

    Conditions, folds and seeds may be added to a study; what was declared in advance may not change, and a
    contrast that is thought of later is not declared: the report calls it exploratory.

    Args:
        study: What to declare.
        runs: All of its runs.
        out: Study folder, which exists.

    Raises:
        SkipSegError: If the folder holds another study, or something else.
    """
    job = runs[0].job
    declared = {
        "name": study.name,
        "question": study.question,
        "dataset": describe_dataset(job),
        "primary_metric": study.primary_metric,
        "alpha": study.alpha,
        "margin": study.margin,
        "split": {"method": job.splits.method, "hash": job.splits.hash},
    }
    path = out / "study.json"
    contrasts = study.all_contrasts()
    if path.exists():
        known = read_json(path)
        changed = [key for key, value in declared.items() if known.get(key) != value]
        dropped = [pair for pair in known.get("contrasts", []) if pair not in contrasts]
        if changed or dropped:
            what = f"another {', '.join(changed)}" if changed else f"the contrast {' - '.join(dropped[0])}"
            raise SkipSegError(f"{out} holds a study with {what}; choose another folder")
        contrasts = known["contrasts"]
    elif any(not is_draft(item) for item in out.iterdir()):
        raise SkipSegError(f"{out} exists and is not a study; choose another folder")
    listed = [
        {"id": run.id, "condition": run.condition, "fold": run.job.settings.fold, "seed": run.job.settings.seed}
        for run in runs
    ]
    content = {
        **declared,
        "conditions": study.all_conditions(),
        "contrasts": contrasts,
        "seeds": sorted({run.job.settings.seed for run in runs}),
        "folds": sorted({run.job.settings.fold for run in runs}),
        "runs": listed,
    }
    write_json(path, content | {"hash": content_hash(content)})


def describe_dataset(job: Job) -> dict[str, Any]:
    """What the report says about the data."""
    dataset = job.dataset
    return {
        "name": dataset.name,
        "hash": job.dataset_hash,
        "licence": dataset.licence,
        "notice": dataset.notice,
        "citation": dataset.citation,
        "source": dataset.source,
        "patients": len({case.patient for case in dataset.cases}),
        "cases": len(dataset.cases),
        "labels": dict(dataset.labels),
    }

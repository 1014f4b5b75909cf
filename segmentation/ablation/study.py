"""A study: conditions that differ in named settings, run on the same folds and seeds, frozen before the first run.

study.json holds the question, the contrasts and every run. A run is named by the hash of all that decides its
result, so that adding a condition leaves finished runs as they are.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeGuard

import yaml

from segmentation import SettingsError, SkipSegError
from segmentation.config import AugmentSettings, DataSettings, TrainSettings, require
from segmentation.model.canonical import canonical
from segmentation.model.presets import with_preset
from segmentation.plain import flatten, from_plain, nest
from segmentation.training.job import Job, make_job, open_source

Metric = Literal["dice", "iou", "sensitivity", "precision", "hd95_mm", "assd_mm", "nsd", "volume_error_ml"]
Expected = Literal["greater", "less", "equivalent", "any"]
SET_BY_STUDY = frozenset({"dataset", "out", "fold", "seed", "cache", "threads", "track"})
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
    expected: list[Expected] = field(default_factory=list)
    """For each contrast, whether its first condition is expected to have the greater or the lesser value of the
    primary metric, an equivalent one, or any; by default any. The tests are two-sided all the same."""
    match_to: str | None = None
    """Condition whose budget those with network.budget_match meet; by default the first."""
    folds: list[int] | None = None
    """Folds to run; by default all. A fold fixes which patients are held out, for every condition and seed alike."""
    seeds: list[int] = field(default_factory=lambda: [0])
    """Seeds; each condition runs on each fold with each. A seed fixes the initial weights (equal for parameters of
    equal name and shape), the order of the patches, and their augmentation; the split has a seed of its own
    (split_seed, the same for all runs). So runs of one fold and seed differ in their condition alone, runs of one
    fold in the luck of the draw, and runs of one seed in who is held out."""
    rotate_folds: bool = False
    """Give each seed one fold, in turn, instead of every fold: with as many seeds as folds every patient is held out
    once and no two folds share their initial weights, for a fraction of the trainings. What a seed changes can then
    not be told from what a fold changes."""
    primary_metric: Metric = "dice"
    """Metric of the contrasts."""
    alpha: float = 0.05
    """Accepted chance of a false positive."""
    margin: float | None = None
    """Difference of the primary metric below which two conditions count as equivalent; by default 0.02 for a metric
    in [0, 1], while one in mm or ml needs to be given one."""

    def __post_init__(self) -> None:
        """Check that the parts fit together."""
        require(bool(self.conditions) != bool(self.grid), "a study needs either conditions or a grid")
        for name in self.conditions:
            fits = isinstance(name, str) and bool(name.strip())
            require(fits, f"a condition's name must be text, got {name!r}; put numbers in quotes")
        cells = math.prod(map(len, self.grid.values()))
        require(cells >= 1, "each setting of a grid needs at least one value")
        require(cells == 1 or cells == len(self.all_conditions()), f"the grid names a value twice: {self.grid}")
        for name, settings in {"base": self.base, **self.all_conditions()}.items():
            taken = SET_BY_STUDY.intersection(key for key, _ in flatten(nest(settings)))
            require(not taken, f"{name} sets {', '.join(sorted(taken))}, which the study decides for each run")
        fits = len(self.expected) in (0, len(self.contrasts))
        require(fits, f"expected needs one entry a contrast, got {len(self.expected)} for {len(self.contrasts)}")
        known = self.match_to is None or self.match_to in self.all_conditions()
        require(known, f"match_to must name one of {list(self.all_conditions())}, got {self.match_to!r}")
        for pair in self.contrasts:
            unknown = [name for name in pair if name not in self.all_conditions()]
            fits = len(set(pair)) == len(pair) == 2 and not unknown
            require(fits, f"contrast {pair} must name two of {list(self.all_conditions())}")
        for name in ("folds", "seeds"):
            values = getattr(self, name)
            distinct = values is None or (values and len(set(values)) == len(values))
            require(bool(distinct), f"{name} must name each number once, and at least one, got {values}")
        require(min(self.seeds) >= 0 and max(self.seeds) < 2**32, f"seeds must be in [0, 2**32), got {self.seeds}")
        require(0 < self.alpha < 0.5, f"alpha must be in (0, 0.5), got {self.alpha}")
        share = self.primary_metric in ("dice", "iou", "sensitivity", "precision", "nsd")
        unit = f"a margin, in {self.primary_metric.rpartition('_')[2]}, within which conditions count as equivalent"
        require(share or self.margin is not None, f"primary_metric {self.primary_metric} needs {unit}")
        most = 1.0 if share else math.inf
        fits = 0 < self.settled_margin < most
        require(fits, f"margin of {self.primary_metric} must be in (0, {most:g}), got {self.margin}")

    @property
    def settled_margin(self) -> float:
        """The margin, or its default."""
        return 0.02 if self.margin is None else self.margin

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

    def all_contrasts(self) -> list[tuple[list[str], Expected]]:
        """The declared contrasts, or the first condition against each other one, with what is expected of each."""
        first, *others = self.all_conditions()
        pairs = self.contrasts or [[first, other] for other in others]
        expected: list[Expected] = self.expected or ["any" for _ in pairs]
        return list(zip(pairs, expected, strict=True))


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
        SettingsError: If the file is missing, is not YAML, or holds an unknown or wrong setting.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(f"{path} does not exist") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise SettingsError(f"{path} holds no settings; see configs/ablation for examples")
    if dataset:
        content["dataset"] = str(dataset)
    try:
        return from_plain(StudySettings, content)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from None


def expand(study: StudySettings, out: Path, cache: Path | None, track: str = "none") -> list[Run]:
    """Write a study out into runs, condition by condition within each fold and seed.

    Each condition is decided once; its folds and seeds follow from that.

    Args:
        study: What to write out.
        out: Study folder.
        cache: Folder for prepared arrays; ``None`` for the user's.
        track: The tracker that each run reports to.

    Raises:
        SkipSegError: If a setting of a condition is unknown or wrong, two conditions are the same, a budget cannot
            be met, or the dataset has errors.
    """
    jobs = decide_conditions(study, out, cache, track)
    folds = list(range(len(jobs[next(iter(jobs))].splits.folds))) if study.folds is None else study.folds
    runs: list[Run] = []
    for (place, seed), fold, (name, job) in itertools.product(enumerate(study.seeds), folds, jobs.items()):
        if study.rotate_folds and fold != folds[place % len(folds)]:
            continue
        job = job.at(fold, seed, out)
        safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
        run = f"{safe}-f{fold}-s{seed}-{job.identity[:8]}"
        runs.append(Run(run, name, replace(job, settings=replace(job.settings, out=out / "runs" / run))))
    return runs


def decide_conditions(study: StudySettings, out: Path, cache: Path | None, track: str = "none") -> dict[str, Job]:
    """Decide everything about each condition but its fold and seed."""
    fixed = {"dataset": str(study.dataset), "out": str(out), "cache": cache and str(cache)}
    fixed |= {"threads": 1, "track": track}
    source = open_source(study.dataset, cache)
    first, *_ = conditions = study.all_conditions()
    reference = study.match_to or first
    jobs: dict[str, Job] = {}
    planned: DataSettings | None = None
    for name in sorted(conditions, key=lambda name: name != reference):
        try:
            settings = _settings(study, conditions[name], fixed)
            if name == reference:  # its own budget is what the others meet
                own = dict(flatten(nest(conditions[name]))).get("network.budget_match", "none")
                require(own == "none", "it is what the others are matched to; name another one by match_to")
                settings = replace(settings, network=replace(settings.network, budget_match="none"))
            jobs[name] = make_job(_at_one_spacing(settings, planned), source, jobs.get(reference))
            if name == reference and settings.data.spacing_mm is None:
                planned = jobs[name].settings.data
        except SkipSegError as error:
            raise type(error)(f"condition {name!r}: {error}") from None
        if jobs[name].splits.hash != jobs[reference].splits.hash:
            raise SettingsError(f"condition {name!r} splits the patients otherwise; only runs on equal folds compare")
    known: dict[str, str] = {}
    for name in conditions:
        same = known.setdefault(_effective(jobs[name]).identity, name)
        if same != name:
            raise SettingsError(
                f"conditions {same!r} and {name!r} are the same training: no setting in which they differ has an "
                "effect; let them differ, or drop one"
            )
    return {name: jobs[name] for name in conditions}


def _at_one_spacing(settings: TrainSettings, planned: DataSettings | None) -> TrainSettings:
    """Give a condition that names no spacing the one that was planned for the reference: patches must not change it."""
    data = settings.data
    if planned is None or data.spacing_mm is not None or data.dims not in (None, planned.dims):
        return settings
    return replace(settings, data=replace(data, spacing_mm=planned.spacing_mm))


def _effective(job: Job) -> Job:
    """The same training, with what has no effect at its default."""
    settings, seen = job.settings, job.preprocessing
    network = replace(canonical(settings.network), kernel=None)  # the architecture holds the kernels
    augment, usual = settings.augment, AugmentSettings()
    if augment.strength == 0:  # prediction mirrors along flip_axes all the same
        augment = replace(augment, rotate_degrees=usual.rotate_degrees, scale=usual.scale)
    data = replace(settings.data, context_slices=seen.context_slices)
    settings = replace(settings, network=network, augment=augment, data=data)
    return replace(job, settings=settings, architecture=replace(job.architecture, settings=network))


def _settings(study: StudySettings, overrides: Mapping[str, Any], fixed: Mapping[str, Any]) -> TrainSettings:
    """Lay the overrides of a condition over the base, and both over the preset that they name."""
    return from_plain(TrainSettings, with_preset(merge(nest(study.base), nest(overrides))) | dict(fixed))


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Lay nested ``changes`` over ``base``.

    Examples:
        >>> merge({"network": {"depth": 3, "width": 8}}, {"network": {"depth": 4}})
        {'network': {'depth': 4, 'width': 8}}
    """
    merged = dict(base)
    for key, value in changes.items():
        known = merged.get(key)
        merged[key] = merge(known, value) if _is_group(known) and _is_group(value) else value
    return merged


def _is_group(value: Any) -> TypeGuard[Mapping[str, Any]]:
    """Whether ``value`` is a group of settings; a mapping of levels, which are numbers, is a single value."""
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)

"""Everything that a training is made of, decided before anything is computed."""

from dataclasses import dataclass, replace

from segmentation import SkipSegError
from segmentation.config import DataSettings, TrainSettings
from segmentation.data.check import CheckReport
from segmentation.data.fingerprint import take_fingerprint
from segmentation.data.manifest import Case, Dataset
from segmentation.data.plan import Plan, checked_dataset, choose_strides, hardware_of, make_plan, plan_path
from segmentation.data.splits import Fold, Splits, make_splits
from segmentation.data.transforms import Preprocessing
from segmentation.model.storage import Architecture
from segmentation.plain import fill, flatten, to_plain
from segmentation.runs import content_hash

VOLATILE = ("out", "cache", "plan", "threads")
"""Settings that say where and how fast, not what: they are not part of a run's identity."""


@dataclass(frozen=True)
class Job:
    """Everything that a training is made of, decided before it starts.

    Attributes:
        settings: With every planned value filled in.
        dataset: The labelled cases.
        dataset_hash: Hash of their voxels, labels and patients.
        plan: Where the values come from.
        fold: The cases on each side.
        splits: All folds.
        preprocessing: How scans are prepared.
        architecture: The network.
    """

    settings: TrainSettings
    dataset: Dataset
    dataset_hash: str
    plan: Plan
    fold: Fold
    splits: Splits
    preprocessing: Preprocessing
    architecture: Architecture

    @property
    def identity(self) -> str:
        """Hash of all that decides the result: settings, dataset description, split and preparation."""
        plain = to_plain(self.settings)
        return content_hash(
            {
                "settings": {name: value for name, value in plain.items() if name not in (*VOLATILE, "dataset")},
                "dataset": self.dataset_hash,
                "split": self.splits.hash,
                "preprocessing": self.preprocessing.to_plain(),
                "architecture": self.architecture.to_plain(),
            }
        )

    def cases(self, side: tuple[str, ...]) -> list[Case]:
        """The cases named in ``side``, in that order."""
        named = {case.name: case for case in self.dataset.cases}
        return [named[name] for name in side]


def hash_dataset(dataset: Dataset, report: CheckReport) -> str:
    """Hash what a training can learn from: voxels, label values, their meaning, and patients."""
    patients = {case.name: case.patient for case in dataset.cases}
    cases = [(name, patients[name], facts.image_sha256, facts.label_sha256) for name, facts in report.facts.items()]
    return content_hash({"cases": cases, "labels": dict(dataset.labels), "channels": list(dataset.channel_names)})


def find_plan(dataset: Dataset, report: CheckReport, settings: TrainSettings) -> Plan:
    """Read the plan that ``settings`` name, or the dataset's own, or make one on the spot.

    Raises:
        SkipSegError: If the plan cannot be read, or was made for other data.
    """
    path = settings.plan or plan_path(settings.dataset)
    fingerprint = take_fingerprint(dataset, report)
    if settings.plan or path.is_file():
        plan = Plan.read(path)
        if plan.fingerprint != fingerprint:
            raise SkipSegError(
                f"{path} was made for other data than {settings.dataset} holds; run `skipseg plan` again"
            )
        if settings.data.dims in (None, plan.values["data.dims"]):
            return plan
    return make_plan(fingerprint, hardware_of(settings.device), settings.data.dims)


def make_job(settings: TrainSettings) -> Job:
    """Check, plan and split: decide everything before anything is computed.

    Raises:
        SkipSegError: If the dataset has errors, or settings and dataset do not fit together.
    """
    if settings.device == "cuda" and hardware_of("cuda") != "cuda":
        raise SkipSegError("device cuda was asked for, but PyTorch finds no CUDA device; run `skipseg doctor`")
    dataset, report = checked_dataset(settings.dataset, settings.cache)
    plan = find_plan(dataset, report, settings)
    values = plan.values
    if settings.data.patch_size:
        values.pop("network.depth", None)  # it was chosen for the planned patch
    settings = fill(settings, values)
    labelled = replace(dataset, cases=tuple(case for case in dataset.cases if case.label))
    folds = settings.folds or "leave-one-patient-out"
    volumes = {name: sum(facts.foreground.values()) for name, facts in report.facts.items()}
    splits = make_splits(labelled, folds, settings.split_seed, volumes)
    preprocessing = _preprocessing(settings.data, plan)
    settings, architecture = _architecture(settings, preprocessing, len(dataset.classes))
    unplanned = [name for name, value in flatten(to_plain(settings)) if value is None and name not in VOLATILE]
    if unplanned:
        raise SkipSegError(f"the plan of {settings.dataset} lacks {', '.join(unplanned)}; run `skipseg plan` again")
    fold = splits.select(settings.fold)
    return Job(settings, labelled, hash_dataset(dataset, report), plan, fold, splits, preprocessing, architecture)


def _preprocessing(data: DataSettings, plan: Plan) -> Preprocessing:
    """Describe how scans are prepared; refuse sizes with the wrong number of axes."""
    axes = plan.fingerprint.spatial_dims
    for name, values, wanted in (("spacing_mm", data.spacing_mm, axes), ("patch_size", data.patch_size, data.dims)):
        if values is None or len(values) != wanted:
            raise SkipSegError(f"data.{name} needs {wanted} values for this dataset, got {values}")
    return plan.preprocessing(data.dims or axes, data.spacing_mm or (), data.context_slices or 0)


def _architecture(
    settings: TrainSettings, preprocessing: Preprocessing, classes: int
) -> tuple[TrainSettings, Architecture]:
    """Fit strides and kernels to the patch; settings come back with the depth that follows."""
    dims, patch = preprocessing.dims, settings.data.patch_size or []
    strides, kernels = choose_strides(patch, preprocessing.array_spacing_mm[-dims:])
    depth = settings.network.depth or len(strides)
    strides = [*strides, *[[2] * dims] * depth][:depth]
    kernels = [*kernels, *[[3] * dims] * (depth + 1)][: depth + 1]
    network = replace(settings.network, depth=depth)
    settings = replace(settings, network=network)
    return settings, Architecture(network, dims, preprocessing.network_channels, classes, strides, kernels)

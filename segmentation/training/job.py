"""Everything that a training is made of, decided before anything is computed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from segmentation import SkipSegError
from segmentation.config import DataSettings, TrainSettings
from segmentation.data.check import CheckReport
from segmentation.data.fingerprint import Fingerprint, take_fingerprint
from segmentation.data.hardware import hardware_of
from segmentation.data.manifest import MOST_LABELS, Case, Dataset
from segmentation.data.patches import choose_strides
from segmentation.data.plan import Plan, checked_dataset, make_plan, plan_path
from segmentation.data.preprocessing import Preprocessing
from segmentation.data.splits import Fold, Splits, make_splits
from segmentation.model.architecture import Architecture
from segmentation.model.budget import TOLERANCE, default_reference, solve_widths
from segmentation.model.layers import TotalCost, total_cost
from segmentation.plain import fill, flatten, to_plain
from segmentation.runs import content_hash

VOLATILE = ("out", "cache", "plan", "threads", "track")
"""Settings that say where, how fast and who watches, not what: they are not part of a run's identity."""

OPTIONAL = ("plan", "cache", *(f"network.{name}" for name in ("preset", "widths", "kernel", "long_skip_permute")))
"""Settings that may stay open: no plan has to fill them."""


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
        cost: What it costs for one patch.
        matched: What its widths were solved to make equal: ``"params"``, ``"macs"`` or ``"none"``.
    """

    settings: TrainSettings
    dataset: Dataset
    dataset_hash: str
    plan: Plan
    fold: Fold
    splits: Splits
    preprocessing: Preprocessing
    architecture: Architecture
    cost: TotalCost
    matched: str = "none"

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

    def at(self, fold: int, seed: int, out: Path) -> "Job":
        """The same training on another fold, from another seed, in another folder.

        Raises:
            SkipSegError: If there is no such fold.
        """
        settings = replace(self.settings, fold=fold, seed=seed, out=out)
        return replace(self, settings=settings, fold=self.splits.select(fold))

    def cases(self, side: tuple[str, ...]) -> list[Case]:
        """The cases named in ``side``, in that order."""
        named = {case.name: case for case in self.dataset.cases}
        return [named[name] for name in side]


@dataclass(frozen=True, eq=False)
class Source:
    """A checked dataset: read once, however many runs are decided on it.

    Attributes:
        path: Where it lies.
        dataset: All cases.
        hash: Of :func:`hash_dataset`.
        fingerprint: What planning looks at.
        volumes: Case to its number of foreground voxels.
    """

    path: Path
    dataset: Dataset
    hash: str
    fingerprint: Fingerprint
    volumes: Mapping[str, int]

    @property
    def labelled(self) -> Dataset:
        """The cases that take part."""
        return replace(self.dataset, cases=tuple(case for case in self.dataset.cases if case.label))


def open_source(path: Path, cache: Path | None) -> Source:
    """Open and check a dataset; the scans are read only if they changed since the check in ``cache``.

    Raises:
        SkipSegError: If the dataset has errors, or more labels than a byte tells apart.
    """
    dataset, report = checked_dataset(path, cache)
    if len(dataset.labels) > MOST_LABELS:
        raise SkipSegError(f"{path} has {len(dataset.labels)} labels, {MOST_LABELS} can be learnt at most; merge some")
    volumes = {name: sum(facts.foreground.values()) for name, facts in report.facts.items()}
    return Source(path, dataset, hash_dataset(dataset, report), take_fingerprint(dataset, report), volumes)


def hash_dataset(dataset: Dataset, report: CheckReport) -> str:
    """Hash what a training can learn from: voxels and how they lie, label values, their meaning, and patients."""
    patients = {case.name: case.patient for case in dataset.cases}
    cases = [
        (name, patients[name], facts.image_sha256, facts.label_sha256, facts.spacing_mm, facts.orientation)
        for name, facts in report.facts.items()
    ]
    return content_hash({"cases": cases, "labels": dict(dataset.labels), "channels": list(dataset.channel_names)})


def find_plan(source: Source, settings: TrainSettings) -> Plan:
    """Read the plan that ``settings`` name, or the dataset's own, or make one on the spot.

    Raises:
        SkipSegError: If the plan cannot be read, was made for other data, or is asked for with other axes.
    """
    path = settings.plan or plan_path(source.path)
    if settings.plan or path.is_file():
        plan = Plan.read(path)
        if not plan.fingerprint.is_of(source.fingerprint):
            raise SkipSegError(f"{path} was made for other data than {source.path} holds; run `skipseg plan` again")
        dims, planned = settings.data.dims, plan.values.get("data.dims")
        if dims in (None, planned):
            return plan
        if settings.plan:
            raise SkipSegError(f"{path} plans a network of {planned} axes, but data.dims {dims} is asked for; drop one")
    data = settings.data
    return make_plan(source.fingerprint, hardware_of(settings.device), data.dims, coarsen=not data.patch_size)


def make_job(settings: TrainSettings, source: Source | None = None, reference: Job | None = None) -> Job:
    """Plan, split and size the network: decide everything before anything is computed.

    Args:
        settings: What is asked for.
        source: Its dataset, if it is open already.
        reference: Whose budget ``network.budget_match`` meets; by default that of the same network with
            concatenation and without short skips.

    Returns:
        The job. Its settings hold the widths that were solved, and no budget to match any more.

    Raises:
        SkipSegError: If the dataset has errors, settings and dataset do not fit together, or no widths come within
            1 % of the reference.
    """
    source = source or open_source(settings.dataset, settings.cache)
    plan = find_plan(source, settings)
    values = plan.values
    if settings.data.patch_size:
        values.pop("network.depth", None)  # it was chosen for the planned patch
    settings = fill(settings, values)
    splits = _splits(source, settings.folds, settings.split_seed)
    preprocessing = _preprocessing(settings.data, plan)
    if beyond := [axis for axis in settings.augment.flip_axes or [] if axis >= preprocessing.dims]:
        raise SkipSegError(f"augment.flip_axes must be below {preprocessing.dims} for this dataset, got {beyond}")
    architecture = _architecture(settings, preprocessing, len(source.dataset.classes))
    matched, patch = settings.network.budget_match, settings.data.patch_size or []
    if matched != "none":
        architecture = _match(architecture, patch, reference)
    settings = replace(settings, network=architecture.settings)
    unplanned = [name for name, value in flatten(to_plain(settings)) if value is None and name not in OPTIONAL]
    if unplanned:
        raise SkipSegError(f"the plan of {source.path} lacks {', '.join(unplanned)}; run `skipseg plan` again")
    fold, cost = splits.select(settings.fold), cost_of(architecture, patch)
    return Job(
        settings, source.labelled, source.hash, plan, fold, splits, preprocessing, architecture, cost, matched
    )  # fmt: skip


def cost_of(architecture: Architecture, patch: Sequence[int]) -> TotalCost:
    """What the network costs for one patch of that many voxels along each axis."""
    sizes = (architecture.strides, architecture.kernels, patch)
    return total_cost(architecture.settings, architecture.dims, architecture.in_channels, architecture.classes, *sizes)


@lru_cache(maxsize=4)
def _splits(source: Source, folds: int, seed: int) -> Splits:
    """Deal the cases out once, however many conditions share the folds."""
    return make_splits(source.labelled, folds or "leave-one-patient-out", seed, source.volumes)


def _preprocessing(data: DataSettings, plan: Plan) -> Preprocessing:
    """Describe how scans are prepared; refuse sizes with the wrong number of axes."""
    axes = plan.fingerprint.spatial_dims
    for name, values, wanted in (("spacing_mm", data.spacing_mm, axes), ("patch_size", data.patch_size, data.dims)):
        if values is None or len(values) != wanted:
            raise SkipSegError(f"data.{name} needs {wanted} values for this dataset, got {values}")
    return plan.preprocessing(data.dims or axes, data.spacing_mm or (), data.context_slices or 0)


def _architecture(settings: TrainSettings, preprocessing: Preprocessing, classes: int) -> Architecture:
    """Fit depth, strides and kernels to the patch."""
    dims, patch = preprocessing.dims, settings.data.patch_size or []
    strides, kernels = choose_strides(patch, preprocessing.array_spacing_mm[-dims:])
    depth = settings.network.depth or len(strides)
    strides = [*strides, *[[2] * dims] * depth][:depth]
    kernels = [*kernels, *[[3] * dims] * (depth + 1)][: depth + 1]
    if settings.network.kernel:
        kernels = [[settings.network.kernel] * dims] * (depth + 1)
    network = replace(settings.network, depth=depth)
    return Architecture(network, dims, preprocessing.network_channels, classes, strides, kernels)


def _match(architecture: Architecture, patch: Sequence[int], reference: Job | None) -> Architecture:
    """Solve the widths that meet the budget of ``reference``."""
    network, model = architecture.settings, reference.architecture if reference else architecture
    target = model.settings if reference else default_reference(network)
    shape = (architecture.dims, architecture.in_channels, architecture.classes, architecture.strides)
    if shape != (model.dims, model.in_channels, model.classes, model.strides):
        raise SkipSegError(
            f"budget_match {network.budget_match} needs the axes, channels and strides of the condition that it meets, "
            f"{shape} differs from {(model.dims, model.in_channels, model.classes, model.strides)}"
        )
    planned = model.kernels if network.kernel else architecture.kernels  # a kernel that is set goes before them
    solved = solve_widths(network, target, *shape, planned, patch)
    solved = replace(architecture, settings=replace(solved, budget_match="none"))
    quantity = "parameters" if network.budget_match == "params" else "macs"
    if reference:
        wanted, reached = (getattr(cost, quantity) for cost in (reference.cost, cost_of(solved, patch)))
        if abs(reached - wanted) > TOLERANCE * wanted:
            raise SkipSegError(
                f"budget_match {network.budget_match} reaches {reached:,} where {wanted:,} are wanted, for the "
                "patches differ; give both conditions one data.patch_size"
            )
    return solved

"""plan.json: every choice that a dataset and a machine suggest, each with the reason why.

The rules follow nnU-Net's (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z): spacing from the median,
patch from the median size, depth from the patch. What differs is the budget, which here may be a CPU. The file
is meant to be edited: a value changed by hand is used as it stands.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from segmentation import SkipSegError
from segmentation.config import PlanSettings, TrainSettings
from segmentation.data.budgets import BUDGETS, Budget
from segmentation.data.check import CheckReport, check_dataset
from segmentation.data.coarse import COARSENINGS, coarse_steps
from segmentation.data.fingerprint import Fingerprint, take_fingerprint
from segmentation.data.hardware import Hardware, hardware_of
from segmentation.data.layouts import open_dataset
from segmentation.data.manifest import Dataset
from segmentation.data.patches import choose_patch, choose_strides
from segmentation.data.preprocessing import Normalisation, Preprocessing
from segmentation.plain import from_plain
from segmentation.runs import read_json, user_cache, write_json

log = logging.getLogger(__name__)

KEPT = 0.95
"""Voxels may become coarser than the scans' as long as labels keep this Dice, and this share of their components."""


@dataclass(frozen=True)
class Choice:
    """One planned value and the reason for it."""

    value: Any
    why: str


@dataclass(frozen=True)
class Plan:
    """Planned values by dotted setting name, and how scans are prepared.

    Attributes:
        choices: Setting name, such as ``"network.depth"``, to value and reason.
        normalisation: One entry a channel, with the reason.
        slice_axis: Canonical axis across the slices, for 2-D networks on volumes.
        fingerprint: What the rules looked at.
    """

    choices: Mapping[str, Choice]
    normalisation: Sequence[Normalisation]
    normalisation_why: str
    slice_axis: int
    fingerprint: Fingerprint

    @property
    def values(self) -> dict[str, Any]:
        """Setting name to value, for :func:`segmentation.config.fill`."""
        return {name: choice.value for name, choice in self.choices.items()}

    def preprocessing(self, dims: int, spacing_mm: Sequence[float], context_slices: int) -> Preprocessing:
        """Describe the preparation of scans for a network of ``dims`` axes at ``spacing_mm``."""
        sliced = dims == 2 and self.fingerprint.spatial_dims == 3
        axis = self.slice_axis if sliced else None
        context = context_slices if sliced else 0
        return Preprocessing(dims, tuple(spacing_mm), axis, context, tuple(self.normalisation))

    def differing(self, other: "Plan") -> list[str]:
        """Names of all that another plan decides differently, whatever its reasons."""
        names = [name for name in {**self.values, **other.values} if self.values.get(name) != other.values.get(name)]
        if list(self.normalisation) != list(other.normalisation):
            names.append("normalisation")
        return names if self.slice_axis == other.slice_axis else [*names, "slice_axis"]

    def to_plain(self) -> dict[str, Any]:
        """Give the plan as plain data: the content of plan.json."""
        return {
            "settings": {name: {"value": choice.value, "why": choice.why} for name, choice in self.choices.items()},
            "normalisation": {"value": [vars(entry) for entry in self.normalisation], "why": self.normalisation_why},
            "slice_axis": self.slice_axis,
            "fingerprint": self.fingerprint.to_plain(),
        }

    def write(self, path: Path) -> None:
        """Write plan.json."""
        write_json(path, self.to_plain())

    @classmethod
    def read(cls, path: Path) -> "Plan":
        """Read plan.json.

        Raises:
            SkipSegError: If the file is missing or is not a plan, or a value edited by hand has the wrong type.
        """
        content = read_json(path)
        try:
            plan = cls(
                {name: Choice(entry["value"], entry["why"]) for name, entry in content["settings"].items()},
                [Normalisation(**entry) for entry in content["normalisation"]["value"]],
                content["normalisation"]["why"],
                content["slice_axis"],
                Fingerprint.from_plain(content["fingerprint"]),
            )
            from_plain(TrainSettings, {"dataset": ".", "out": ".", **plan.values})
        except SkipSegError as error:
            raise SkipSegError(f"{path}: {error}") from None
        except (AttributeError, KeyError, TypeError) as error:
            raise SkipSegError(f"{path} is not a plan ({error}); delete it and run `skipseg plan`") from None
        return plan


def plan_dataset(settings: PlanSettings) -> tuple[Path, Plan]:
    """Check a dataset, plan for it, and write the plan where ``train`` finds it.

    Raises:
        SkipSegError: If the dataset has errors, ``dims`` does not suit it, or the plan that stands there was
            edited by hand.
        OSError: If plan.json cannot be written.
    """
    dataset, report = checked_dataset(settings.dataset, settings.cache)
    plan = make_plan(take_fingerprint(dataset, report), hardware_of(settings.device), settings.dims)
    path = settings.out or plan_path(settings.dataset)
    if path.exists():
        known = Plan.read(path)
        edited = plan.differing(known)
        if known.fingerprint.is_of(plan.fingerprint) and edited:
            raise SkipSegError(f"{path} holds another {', '.join(edited)}; delete it, or write elsewhere with --out")
    plan.write(path)
    return path, plan


def checked_dataset(path: Path, cache: Path | None) -> tuple[Dataset, CheckReport]:
    """Open a dataset and check it; a dataset with errors goes no further, and warnings are said once a process.

    Raises:
        SkipSegError: If there is no dataset, or the check finds errors; the message names the first.
    """
    dataset = open_dataset(path)
    report = check_dataset(dataset, cache=(cache or user_cache()) / "checks")
    if report.errors:
        first, *others = report.errors
        more = f" (and {len(others)} more)" if others else ""
        raise SkipSegError(f"{path} cannot be trained on: {first.sentence}{more}; see `skipseg check`")
    for finding in report.findings:
        if finding.severity == "warning":
            _warn(f"{dataset.name}: {finding.sentence}")
    return dataset, report


@cache
def _warn(sentence: str) -> None:
    """Say a sentence, once however often the dataset is opened."""
    log.warning("%s", sentence)


def plan_path(dataset: Path) -> Path:
    """Where the plan of a dataset lies: in its folder, or beside its table."""
    if dataset.name == "dataset.json":
        return dataset.with_name("plan.json")
    return dataset / "plan.json" if dataset.is_dir() else dataset.with_suffix(".plan.json")


def make_plan(
    fingerprint: Fingerprint,
    hardware: Hardware,
    dims: int | None = None,
    budget: Budget | None = None,
    coarsen: bool = True,
) -> Plan:
    """Apply the rules.

    Args:
        fingerprint: Of the dataset.
        hardware: What to plan for.
        dims: Spatial axes of the network; chosen if not given.
        budget: What a training may cost; otherwise what is usual for the hardware.
        coarsen: Make voxels coarser where that lets a patch see more; not where somebody has settled the patch.

    Raises:
        SkipSegError: If ``dims`` is 3 for pictures.
    """
    budget = budget or BUDGETS[hardware]
    finest = fingerprint.target_spacing_mm
    slice_axis = max(range(len(finest)), key=lambda axis: (finest[axis], axis))
    dimension = choose_dims(fingerprint, fingerprint.shape_at(finest), budget, dims)
    network_axes = [axis for axis in range(len(finest)) if dimension.value == len(finest) or axis != slice_axis]
    resolution = choose_spacing(fingerprint, network_axes, BUDGETS[hardware] if coarsen else None)
    spacing = resolution.value
    shape = fingerprint.shape_at(spacing)
    fitting = choose_patch([shape[a] for a in network_axes], budget.voxels(dimension.value))
    patch_spacing = [spacing[a] for a in network_axes]
    strides, _ = choose_strides(fitting, patch_spacing)
    factors = [math.prod(axis) for axis in zip(*strides, strict=True)]
    planned = [math.ceil(size / factor) * factor for size, factor in zip(fitting, factors, strict=True)]
    flat = dimension.value == 2
    sliced = flat and fingerprint.spatial_dims == 3
    choices = {
        "data.dims": dimension,
        "data.spacing_mm": resolution,
        "data.patch_size": Choice(
            planned, f"the median scan has {shape} voxels at this spacing; cut to what {budget.name} can train, "
            f"in multiples of {factors}",
        ),
        "data.batch_size": Choice(
            budget.batch_2d if flat else budget.batch_3d, f"enough patches a step for {budget.name}"
        ),
        "data.context_slices": Choice(
            1 if sliced else 0, "a slice is easier to read between its neighbours" if sliced else "no slices to stack"
        ),
        "network.depth": Choice(len(strides), "halve until the bottleneck is about 4 voxels wide, 5 times at most"),
        "network.width": Choice(budget.width_2d if flat else budget.width_3d, f"usual for {budget.name}"),
        "augment.flip_axes": choose_flips(fingerprint, network_axes),
        "epochs": Choice(
            budget.epochs, f"{budget.epochs} x {budget.steps_per_epoch} steps are a fair length on {budget.name}"
        ),
        "steps_per_epoch": Choice(budget.steps_per_epoch, "an epoch is the unit of validation and of resuming"),
        "tolerance_mm": Choice(
            round(max(fingerprint.spacing_mm), 3), "the largest voxel spacing: finer differences are not in the data"
        ),
    }  # fmt: skip
    normalisation, why = fingerprint.normalisation()
    return Plan(choices, normalisation, why, slice_axis, fingerprint)


def choose_dims(fingerprint: Fingerprint, shape: Sequence[int], budget: Budget, dims: int | None) -> Choice:
    """Pictures and large volumes on a small budget are segmented in 2-D, everything else in 3-D."""
    if dims == 3 and fingerprint.spatial_dims == 2:
        raise SkipSegError("dims 3 was asked for, but the dataset holds pictures; use 2")
    if dims:
        return Choice(dims, "asked for")
    if fingerprint.spatial_dims == 2:
        return Choice(2, "the dataset holds pictures")
    voxels = math.prod(shape)
    if voxels > budget.volume_limit:
        return Choice(
            2, f"the median volume has {voxels} voxels: too many for 3-D training on {budget.name}, so slices"
        )
    return Choice(3, f"the median volume has {voxels} voxels, which {budget.name} can train in 3-D")


def choose_spacing(fingerprint: Fingerprint, network_axes: Sequence[int], budget: Budget | None) -> Choice:
    """Take the median spacing, or a coarser one where a patch would see too little and the labels keep their shape.

    Args:
        fingerprint: Of the dataset.
        network_axes: Canonical axes that the network looks along; others keep their spacing.
        budget: Most voxels of a patch, and the share of a scan that it should see; ``None`` takes the median.
    """
    median = fingerprint.target_spacing_mm
    why = "median of the dataset; across thick slices the finest tenth"

    def coarser(factor: int) -> list[float]:
        steps = dict(zip(network_axes, coarse_steps([median[axis] for axis in network_axes], factor), strict=True))
        return [round(size * steps.get(axis, 1), 4) for axis, size in enumerate(median)]

    def seen(factor: int) -> float:
        shape = fingerprint.shape_at(coarser(factor))
        scan = [shape[axis] for axis in network_axes]
        return math.prod(choose_patch(scan, voxels)) / math.prod(scan)

    kept = dict(zip(COARSENINGS, fingerprint.coarse_kept, strict=False))
    voxels = budget.voxels(len(network_axes)) if budget else 0
    if not (budget and kept) or (whole := seen(1)) >= budget.view:
        return Choice(list(median), why)
    sees = f"the usual patch of {voxels} voxels sees"
    factors = [factor for factor, share in kept.items() if share >= KEPT]
    if not factors:
        lost = f"in voxels twice as wide labels would keep {kept[COARSENINGS[0]]:.1%} (Dice, or parts)"
        return Choice(list(median), f"{why}: {sees} {whole:.0%} of a scan, but {lost}")
    factor = next((factor for factor in factors if seen(factor) >= budget.view), factors[-1])
    more = f"{sees} {seen(factor):.0%} of a scan, not {whole:.0%}, and labels keep {kept[factor]:.1%} (Dice, or parts)"
    return Choice(coarser(factor), f"{factor} times the finest of the median: {more}")


def choose_flips(fingerprint: Fingerprint, network_axes: Sequence[int]) -> Choice:
    """Mirror pictures along both axes, volumes left to right alone; nothing whose classes are named by their side."""
    if fingerprint.sided:
        return Choice([], "classes are told apart by left and right, which a mirror exchanges")
    if fingerprint.spatial_dims == 2:
        return Choice([0, 1], "a picture seen in a mirror is as likely as the picture itself")
    left_right = [index for index, axis in enumerate(network_axes) if axis == 0]
    return Choice(
        left_right, "bodies are about symmetric from left to right, and not from front to back or top to bottom"
    )

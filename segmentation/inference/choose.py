"""Which steps of post-processing a model takes: those that its held-out cases agree on.

A component is measured once, and what each step would do to Dice follows by adding up; only holes are filled in
earnest, after the components that go are gone. So the choice costs about as much as reading the masks twice.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmentation.inference.postprocess import Step, apply_steps, kept_components, voxel_volume
from segmentation.inference.regions import Mask, Regions, class_boxes, memory_order
from segmentation.metrics.overlap import Counts

MARGIN = 0.001
"""Rise of the mean Dice that a step must exceed."""
SIGNIFICANCE = 0.125
"""Largest p of an exact one-sided sign test over patients: 3 of 3 rise, 5 of 6, 7 of 9."""
FRACTIONS = (0.125, 0.25, 0.5, 1.0)
"""Least volumes that are tried, as shares of the smallest annotated component."""
RULE = (
    f"A step is taken if it raises the mean Dice over the held-out patients by more than {MARGIN}, and so many more "
    "patients rise than fall that an exact one-sided sign test gives p <= 1/8 (3 of 3, 5 of 6, 7 of 9); fewer than "
    "three patients choose nothing. A false alarm that goes counts as risen. "
    "keep_largest is tried for each class, then remove_small below 1/8, 1/4, 1/2 and 1 times the smallest annotated "
    "component of the class (the best of them is taken), then fill_holes, each after the steps taken before. Steps "
    "are chosen and measured on the same cases, so the gain is optimistic; the published scores are without them."
)
"""How steps are chosen, in words."""

LabelMap = NDArray[np.integer[Any]]
Maps = tuple[LabelMap, LabelMap, Sequence[float]]
"""Prediction and reference, both of shape ``(*S)``, and spacing_mm."""


@dataclass(frozen=True)
class HeldOut:
    """A case that a model did not learn from.

    Attributes:
        patient: Whom it comes from.
        read: Gives prediction, reference and spacing_mm; called twice.
    """

    patient: str
    read: Callable[[], Maps]


@dataclass(frozen=True)
class _Class:
    """One class in one case: the components of its prediction, and what they have in common with the reference."""

    voxel_mm3: float
    voxels: NDArray[np.int64]
    counted: NDArray[np.int64]
    """Voxels that are not to be ignored, of each component."""
    hit: NDArray[np.int64]
    reference: int
    smallest_mm3: float
    """The smallest component of the reference; infinite if there is none."""

    @property
    def dice(self) -> float:
        """Dice of the class as it is, nan if it is rightly absent."""
        hit = self.hit.sum()
        return float(Counts(hit, self.counted.sum() - hit, self.reference - hit).dice)

    def after(self, step: Step) -> "_Class":
        """The class when ``step`` has removed components."""
        kept = kept_components(step, self.voxels, self.voxel_mm3)
        return replace(self, voxels=self.voxels[kept], counted=self.counted[kept], hit=self.hit[kept])

    def filled(self, voxels: int, counted: int, hit: int) -> "_Class":
        """The class with voxels that were holes."""
        added = {"voxels": voxels, "counted": counted, "hit": hit}
        return replace(self, **{name: np.append(getattr(self, name), number) for name, number in added.items()})


def choose_steps(
    cases: Sequence[HeldOut], labels: Mapping[str, int], ignore_label: int | None = None
) -> dict[str, Any]:
    """Choose steps by :data:`RULE` and measure what they gain.

    Args:
        cases: Held-out cases with what the model predicted for them.
        labels: Name and value of every foreground class.
        ignore_label: Value in the references of voxels that are left out; None for none.

    Returns:
        Plain data for model.json: ``steps``; ``dice`` and ``dice_with_steps``, the mean over patients of the mean
        over classes, and their difference ``gain``, all None without a case that has a score; ``cases`` and
        ``patients``, how many there were; ``tried``, the number of steps tried; ``candidates``, those of them that
        change anything, with the ``gain`` of the class, the numbers of patients ``raised`` and ``lowered``, and
        whether it was ``taken``; and ``rule``.

    Examples:
        Three patients have a voxel predicted far from the organ:

        >>> reference = np.zeros((6, 9), np.uint8)
        >>> reference[:3, :3] = 1
        >>> prediction = reference.copy()
        >>> prediction[5, 8] = 1
        >>> found = choose_steps([HeldOut(p, lambda: (prediction, reference, (1, 1))) for p in "abc"], {"organ": 1})
        >>> found["steps"], found["dice"], found["dice_with_steps"]
        ([{'kind': 'keep_largest', 'label': 1, 'minimum_mm3': 0.0}], 0.947368, 1.0)
    """
    choice = _Choice(cases, labels, ignore_label)
    for value in labels.values():
        choice.take_best([Step("keep_largest", value)])
    for value in labels.values():
        choice.take_best([Step("remove_small", value, size) for size in choice.sizes(value)])
    filled = choice.filled()
    for value in labels.values():
        choice.take_best([Step("fill_holes", value)], {value: filled[value]})
    return choice.to_plain()


class _Choice:
    """The steps taken so far, and every class of every case after them."""

    def __init__(self, cases: Sequence[HeldOut], labels: Mapping[str, int], ignore_label: int | None) -> None:
        self.cases = cases
        self.ignore_label = ignore_label
        self.steps: list[Step] = []
        self.tried = 0
        self.candidates: list[dict[str, Any]] = []
        self.classes: dict[int, list[_Class]] = {value: [] for value in labels.values()}
        for case in cases:
            for value, found in _measure(*case.read(), list(self.classes), ignore_label).items():
                self.classes[value].append(found)
        self.dice = self._dice()

    def sizes(self, value: int) -> list[float]:
        """Least volumes to try for a class, in mm3."""
        smallest = min((found.smallest_mm3 for found in self.classes[value]), default=np.inf)
        return [fraction * smallest for fraction in FRACTIONS] if np.isfinite(smallest) else []

    def take_best(self, steps: Sequence[Step], filled: Mapping[int, list[_Class]] | None = None) -> None:
        """Try steps of one class; of those that pass, take the one that gains most, the first of equals."""
        best: tuple[float, Step, list[_Class], dict[str, Any]] | None = None
        for step in steps:
            before = self.classes[step.label]
            after = filled[step.label] if filled else [found.after(step) for found in before]
            gain, raised, lowered = self._compare([c.dice for c in before], [c.dice for c in after])
            self.tried += 1
            if not raised and not lowered:
                continue
            entry = {**step.to_plain(), "gain": _rounded(gain), "raised": raised, "lowered": lowered, "taken": False}
            self.candidates.append(entry)
            if gain > MARGIN and _chance(raised, lowered) <= SIGNIFICANCE and (best is None or gain > best[0]):
                best = gain, step, after, entry
        if best:
            _, step, self.classes[best[1].label], entry = best
            self.steps.append(step)
            entry["taken"] = True

    def filled(self) -> dict[int, list[_Class]]:
        """Every class of every case with its holes filled, after the steps taken so far."""
        filled: dict[int, list[_Class]] = {value: [] for value in self.classes}
        fill = [Step("fill_holes", value) for value in self.classes]
        for number, case in enumerate(self.cases):
            prediction, reference, spacing_mm = case.read()
            before = apply_steps(prediction.copy(order="K"), self.steps, spacing_mm)
            after = apply_steps(before.copy(order="K"), fill, spacing_mm)
            changed = before != after
            now, truth = after[changed], reference[changed]
            for value, classes in filled.items():
                of_class = now == value
                counted = of_class & (truth != self.ignore_label) if self.ignore_label is not None else of_class
                added = (int(np.count_nonzero(m)) for m in (of_class, counted, of_class & (truth == value)))
                classes.append(self.classes[value][number].filled(*added))
        return filled

    def to_plain(self) -> dict[str, Any]:
        """What stands in model.json."""
        before, after = self._mean(self.dice), self._mean(self._dice())
        return {
            "steps": [step.to_plain() for step in self.steps],
            "dice": _rounded(before),
            "dice_with_steps": _rounded(after),
            "gain": _rounded(after - before),
            "cases": len(self.cases),
            "patients": len({case.patient for case in self.cases}),
            "tried": self.tried,
            "candidates": self.candidates,
            "rule": RULE,
        }

    def _dice(self) -> list[float]:
        """Mean Dice over the classes of each case that have one, nan if none has."""
        return [_mean([c.dice for c in of_case]) for of_case in zip(*self.classes.values(), strict=True)]

    def _compare(self, before: Sequence[float], after: Sequence[float]) -> tuple[float, int, int]:
        """What a step does to the Dice of one class: gain, and how many patients rise and fall."""
        was, now = (self._by_patient([1.0 if d != d else d for d in dice]) for dice in (before, after))
        raised = sum(new > old for old, new in zip(was, now, strict=True))
        lowered = sum(new < old for old, new in zip(was, now, strict=True))
        return self._mean(after) - self._mean(before), raised, lowered

    def _mean(self, dice: Sequence[float]) -> float:
        """Mean over patients of the mean over their cases, as in summary.json; nan if no case has a score."""
        return _mean(self._by_patient(dice))

    def _by_patient(self, dice: Sequence[float]) -> list[float]:
        """Mean over the cases of each patient."""
        cases_of: defaultdict[str, list[float]] = defaultdict(list)
        for case, value in zip(self.cases, dice, strict=True):
            cases_of[case.patient].append(value)
        return [_mean(values) for values in cases_of.values()]


def _measure(
    prediction: LabelMap, reference: LabelMap, spacing_mm: Sequence[float], values: Sequence[int], ignore: int | None
) -> dict[int, _Class]:
    """Measure the classes in maps of shape ``(*S)``."""
    axes = memory_order(prediction)
    prediction, reference = prediction.transpose(axes), reference.transpose(axes)
    voxel_mm3 = voxel_volume(spacing_mm)
    predicted, annotated = (class_boxes(label_map, values) for label_map in (prediction, reference))
    empty = (slice(0, 0),) * prediction.ndim
    measured: dict[int, _Class] = {}
    for value in values:
        box = predicted.get(value, empty)
        voxels, counted, hit = _components(prediction[box], reference[box], value, ignore).counts
        inside = reference[annotated.get(value, empty)]
        sizes = _components(inside, inside, value, None).counts[0]
        smallest = float(sizes.min()) * voxel_mm3 if len(sizes) else np.inf
        measured[value] = _Class(voxel_mm3, voxels, counted, hit, int(sizes.sum()), smallest)
    return measured


def _components(label_map: LabelMap, reference: LabelMap, value: int, ignore: int | None) -> Regions:
    """Components of a class, with their voxels, those that are not to be ignored, and those annotated as the class."""

    def mask_at(part: slice) -> Mask:
        return label_map[part] == value

    def counted_at(part: slice) -> list[Mask]:
        mask, truth = mask_at(part), reference[part]
        return [mask, mask if ignore is None else mask & (truth != ignore), mask & (truth == value)]

    return Regions(label_map.shape, mask_at, counted_at, corners=True)


def _chance(raised: int, lowered: int) -> float:
    """Chance that at least ``raised`` of all patients that change would rise by the toss of a coin."""
    changed = raised + lowered
    return sum(math.comb(changed, k) for k in range(raised, changed + 1)) / 2**changed


def _mean(values: Sequence[float]) -> float:
    """Mean of the values that are not nan; nan if none is left."""
    known = [float(value) for value in values if value == value]
    return sum(known) / len(known) if known else np.nan


def _rounded(value: float) -> float | None:
    """Six digits, so that files do not depend on the processor; None for nan."""
    return round(value, 6) if value == value else None

"""Who trains and who is held out: folds in which no patient stands on both sides.

Slices, visits and eyes of one patient are not independent, so the patient is the unit that is dealt out.
A ``splits.json`` beside the data, fixed by the dataset's author, takes precedence over generated folds:

    {"method": "official", "grouping": "patient", "folds": [{"train": ["case", ...], "val": ["case", ...]}, ...]}
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from segmentation import SkipSegError
from segmentation.data.manifest import Case, Dataset, name_few
from segmentation.runs import content_hash, read_json

Grouping = Literal["patient", "case", "contiguous blocks"]
"""What is kept together: a patient; a case, where patients are not known; or a stretch of one patient's slices."""

_VOLUME_BINS = 4  # quartiles: enough to keep small lesions apart from large ones in a few dozen cases


@dataclass(frozen=True)
class Fold:
    """Case names of one training, in order: those learnt from, and those held out."""

    train: tuple[str, ...]
    val: tuple[str, ...]


@dataclass(frozen=True)
class Splits:
    """Folds, and how they came about.

    Attributes:
        method: ``"fixed"`` with the author's words, ``"leave-one-patient-out"`` or ``"stratified 5-fold"``.
        grouping: What stands on one side of a fold only.
        seed: Seed of the deal; ``None`` where nothing was left to chance.
        folds: The folds; fold 0 is first.
    """

    method: str
    grouping: Grouping
    seed: int | None
    folds: tuple[Fold, ...]

    @property
    def hash(self) -> str:
        """SHA-256 of who trains and who is held out, whatever method led there."""
        return content_hash([asdict(fold) for fold in self.folds])

    def select(self, fold: int) -> Fold:
        """Give one fold.

        Raises:
            SkipSegError: If there is no such fold.
        """
        if not 0 <= fold < len(self.folds):
            raise SkipSegError(f"fold {fold} does not exist; {self.method} has folds 0 to {len(self.folds) - 1}")
        return self.folds[fold]


def make_splits(
    dataset: Dataset,
    folds: int | Literal["leave-one-patient-out"],
    seed: int,
    foreground: Mapping[str, int] | None = None,
) -> Splits:
    """Deal the labelled cases out over folds, or read the folds that the dataset's author fixed.

    Every labelled case is held out once, together with its patient's other cases. Patients are dealt
    largest first, each to the fold where the squares of the fold's shares (of cases, of patients, of each
    stratum and of each quartile of foreground volume) grow least; equals are ordered by a hash of the seed,
    so that the folds depend on nothing but the arguments.

    Args:
        dataset: Its ``splits.json``, if there is one, wins over ``folds`` and ``seed``.
        folds: Number of folds, at least 2, or one fold a patient.
        seed: Changes which patients meet in a fold.
        foreground: Case name to its number of foreground voxels, to balance easy and hard cases over folds.

    Returns:
        The folds, verified.

    Raises:
        SkipSegError: If there are fewer patients than folds, or ``splits.json`` is not valid.

    Examples:
        >>> cases = tuple(Case(f"eye{i}", (), Path("mask.png"), patient=f"p{i // 2}") for i in range(6))
        >>> dataset = Dataset("eyes", Path("nowhere"), 2, ("red",), {"background": 0, "vessel": 1}, cases)
        >>> [fold.val for fold in make_splits(dataset, "leave-one-patient-out", seed=0).folds]
        [('eye0', 'eye1'), ('eye2', 'eye3'), ('eye4', 'eye5')]
    """
    fixed = read_fixed_splits(dataset)
    if fixed is not None:
        return fixed
    by_patient: dict[str, list[Case]] = {}
    for case in dataset.cases:
        if case.label is not None:
            by_patient.setdefault(case.patient, []).append(case)
    unit: Literal["patient", "case"] = "patient" if dataset.patients_known else "case"
    if len(by_patient) < 2:
        raise SkipSegError(
            f"{dataset.name} has labels of {len(by_patient)} {unit}, and a split needs 2; add a {unit}, or write "
            'splits.json with "grouping": "contiguous blocks"'
        )
    if isinstance(folds, str):
        held_out = [by_patient[patient] for patient in sorted(by_patient)]
        return _verified(Splits("leave-one-patient-out", unit, None, _complement(held_out)), dataset, dataset.root)
    if not 2 <= folds <= len(by_patient):
        raise SkipSegError(
            f"{len(by_patient)} {unit}s of {dataset.name} cannot fill {folds} folds; choose 2 to {len(by_patient)} "
            f"folds, or leave one {unit} out at a time (--folds 0)"
        )
    held_out = _deal(by_patient, folds, seed, foreground or {})
    return _verified(Splits(f"stratified {folds}-fold", unit, seed, _complement(held_out)), dataset, dataset.root)


def read_fixed_splits(dataset: Dataset) -> Splits | None:
    """Read and verify the folds in the dataset's ``splits.json``; ``None`` if there is no such file.

    Raises:
        SkipSegError: If the file is malformed, names a case that is unknown, unlabelled or on both sides of
            a fold, or has a patient on both sides without saying ``"grouping": "contiguous blocks"``.
    """
    source = dataset.root / "splits.json"
    if not source.exists():
        return None
    content: Any = read_json(source)
    entries = content.get("folds") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries or not all(_is_fold(entry) for entry in entries):
        raise SkipSegError(f'{source} must hold {{"folds": [{{"train": [case, ...], "val": [case, ...]}}, ...]}}')
    grouping = content.get("grouping", "patient")
    if grouping not in {"patient", "contiguous blocks"}:
        raise SkipSegError(f'{source}: "grouping" must be "patient" or "contiguous blocks", got {grouping!r}')
    if grouping == "patient" and not dataset.patients_known:
        grouping = "case"
    method = f"fixed: {content['method']}" if content.get("method") else "fixed"
    folds = tuple(Fold(tuple(sorted(entry["train"])), tuple(sorted(entry["val"]))) for entry in entries)
    return _verified(Splits(method, grouping, None, folds), dataset, source)


def _is_fold(entry: Any) -> bool:
    """Whether a JSON value has two lists of case names."""
    sides = [entry.get("train"), entry.get("val")] if isinstance(entry, dict) else [None]
    return all(isinstance(side, list) and all(isinstance(name, str) for name in side) for side in sides)


def _verified(splits: Splits, dataset: Dataset, source: Path) -> Splits:
    """Give ``splits`` back, or refuse what would make a held-out score a lie."""
    patients = {case.name: case.patient for case in dataset.cases if case.label is not None}
    for number, fold in enumerate(splits.folds):
        where = f"{source}: fold {number}"
        if not fold.train or not fold.val:
            raise SkipSegError(f"{where} has {len(fold.train)} training and {len(fold.val)} held-out cases; needs both")
        names = (*fold.train, *fold.val)
        unknown = sorted(set(names) - patients.keys())
        if unknown:
            raise SkipSegError(f"{where} names {name_few(unknown)}, no labelled case of {dataset.name}")
        twice = sorted(name for name, count in Counter(names).items() if count > 1)
        if twice:
            raise SkipSegError(f"{where} names {name_few(twice)} twice; a case trains or is held out, once")
        both = sorted({patients[name] for name in fold.train} & {patients[name] for name in fold.val})
        if both and splits.grouping != "contiguous blocks":
            raise SkipSegError(
                f"{where} trains on and holds out patient {name_few(both)}; move all cases of a patient to one side, "
                'or declare "grouping": "contiguous blocks" if that is meant'
            )
    return splits


def _complement(held_out: Sequence[Sequence[Case]]) -> tuple[Fold, ...]:
    """One fold for each held-out group, training on all others."""
    groups = [sorted(case.name for case in group) for group in held_out]
    everyone = sorted(name for group in groups for name in group)
    return tuple(Fold(tuple(name for name in everyone if name not in set(group)), tuple(group)) for group in groups)


def _deal(
    by_patient: Mapping[str, Sequence[Case]], folds: int, seed: int, foreground: Mapping[str, int]
) -> list[list[Case]]:
    """Deal whole patients over ``folds`` groups with like shares of every trait."""
    volume_bins = _volume_bins(by_patient, foreground)
    traits = {patient: _traits(cases, volume_bins) for patient, cases in by_patient.items()}
    totals = sum(traits.values(), Counter[str]())
    order = sorted(by_patient, key=lambda patient: (-len(by_patient[patient]), _shuffle_key(seed, patient)))
    groups: list[list[Case]] = [[] for _ in range(folds)]
    counts = [Counter[str]() for _ in range(folds)]
    for patient in order:
        own = traits[patient]
        growth = [sum(own[t] * (2 * count[t] + own[t]) / totals[t] ** 2 for t in sorted(own)) for count in counts]
        best = growth.index(min(growth))  # an empty fold grows least, so none stays empty
        groups[best].extend(by_patient[patient])
        counts[best] += own
    return groups


def _traits(cases: Sequence[Case], volume_bins: Mapping[str, int]) -> Counter[str]:
    """What a patient adds to a fold: a patient, cases, and cases of each stratum and volume."""
    traits = Counter({"patients": 1, "cases": len(cases)})
    traits.update(f"stratum {case.stratum}" for case in cases if case.stratum)
    traits.update(f"volume {volume_bins[case.name]}" for case in cases if case.name in volume_bins)
    return traits


def _volume_bins(by_patient: Mapping[str, Sequence[Case]], foreground: Mapping[str, int]) -> dict[str, int]:
    """Case name to the quartile of its foreground volume."""
    names = [case.name for cases in by_patient.values() for case in cases if case.name in foreground]
    ranked = sorted(names, key=lambda name: (foreground[name], name))
    return {name: rank * _VOLUME_BINS // len(ranked) for rank, name in enumerate(ranked)}


def _shuffle_key(seed: int, patient: str) -> str:
    """A random-looking sort key that no version of Python changes."""
    return hashlib.sha256(f"{seed}/{patient}".encode()).hexdigest()

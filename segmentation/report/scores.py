"""Collect the scores of runs and average them to one number per patient.

The patient is the unit. A score is averaged over the classes of a case, then over the cases of a patient, for each
seed; then over seeds. Intervals and tests see one number per patient and seed.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from statistics import fmean
from typing import Any

from segmentation.evaluation.summary import PERFECT, RANGES
from segmentation.report.read import Row, Run
from segmentation.statistics import crossed, hierarchical_ci, table_of

Key = tuple[Any, ...]
"""``(patient, case, class, fold and seed)``, or a beginning of it."""

Scores = Mapping[str, Mapping[str, Mapping[Key, float]]]
"""Condition, then measure, to its scores."""


def scores_of(runs: Iterable[Run], measure: str, convention: str = "policy") -> dict[Key, float]:
    """Collect every score of ``measure`` that has a value, by patient, case, class and (fold, seed).

    Args:
        runs: Finished runs.
        measure: Column of cases.csv.
        convention: How empty masks count, a key of :data:`segmentation.evaluation.summary.CONVENTIONS`.
    """
    return {
        (row.patient, row.case, row.class_name, (run.fold, run.seed)): value
        for run in runs
        for row in run.rows
        if (value := _counted(row, measure, convention)) is not None
    }


def collapse(scores: Mapping[Key, float], depth: int) -> dict[Key, float]:
    """Average scores one level of the key after the other, until keys have ``depth`` parts.

    Examples:
        Two cases of one patient weigh the same, whatever their number of classes:

        >>> collapse({("p", "a", "liver"): 0.25, ("p", "a", "tumour"): 0.75, ("p", "b", "liver"): 1.0}, depth=1)
        {('p',): 0.75}
    """
    while scores and len(next(iter(scores))) > depth:
        groups: defaultdict[Key, list[float]] = defaultdict(list)
        for key, value in scores.items():
            groups[key[:-1]].append(value)
        scores = {key: fmean(values) for key, values in groups.items()}
    return dict(scores)


def by_seed(scores: Mapping[Key, float]) -> dict[str, dict[int, float]]:
    """One mean per patient and seed, patients in a fixed order.

    Examples:
        >>> by_seed({("p", "a", "liver", (0, 7)): 0.5, ("p", "b", "liver", (0, 7)): 0.7})
        {'p': {7: 0.6}}
    """
    ordered = {(patient, run[1], case, name, run[0]): v for (patient, case, name, run), v in scores.items()}
    means: dict[str, dict[int, float]] = {}
    for (patient, seed), value in sorted(collapse(ordered, depth=2).items()):
        means.setdefault(patient, {})[seed] = value
    return means


def per_patient(scores: Mapping[Key, float]) -> dict[str, float]:
    """One mean per patient, in a fixed order."""
    return {patient: fmean(values.values()) for patient, values in by_seed(scores).items()}


def fold_of(scores: Mapping[Key, float]) -> dict[str, int]:
    """The fold that each patient was held out in: the lowest, should it be several."""
    folds: dict[str, int] = {}
    for patient, _, _, (fold, _) in scores:
        folds[patient] = min(fold, folds.get(patient, fold))
    return folds


def of_class(scores: Mapping[Key, float], class_name: str | None) -> dict[Key, float]:
    """The scores of one class, or of all."""
    return {key: value for key, value in scores.items() if class_name in (None, key[2])}


def interval_of(scores: Mapping[Key, float], measure: str) -> dict[str, Any]:
    """Mean of a measure over patients and seeds, with its confidence interval."""
    if not scores:
        return {"estimate": None, "low": None, "high": None, "n": 0, "method": "no patient has a value"}
    return asdict(hierarchical_ci(crossed(table_of(by_seed(scores)))).within(*RANGES[measure]))


def _counted(row: Row, measure: str, convention: str) -> float | None:
    """The value with which a row enters the mean, or ``None`` if it does not."""
    if row.state == "both_empty" and convention == "both_empty_perfect":
        return PERFECT[measure]
    if row.state == "false_alarm" and convention == "empty_reference_dropped":
        return None
    return row.values.get(measure)

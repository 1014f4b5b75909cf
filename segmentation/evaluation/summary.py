"""What the scores of all cases say together: means over patients with intervals, lesions, states."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

from segmentation.metrics import POLICY, RULE, Lesions
from segmentation.statistics import mean_ci

Row = Mapping[str, Any]
"""One class of one case, with the columns of cases.csv."""

PERFECT = {"dice": 1.0, "iou": 1.0, "nsd": 1.0, "hd95_mm": 0.0, "assd_mm": 0.0}
"""The scores that are summarised, and what other tools give a class that is rightly absent."""

RANGES = {
    **dict.fromkeys(("dice", "iou", "nsd", "sensitivity", "precision"), (0.0, 1.0)),
    **dict.fromkeys(("hd95_mm", "assd_mm"), (0.0, math.inf)),
    "volume_error_ml": (-math.inf, math.inf),
}
"""Least and largest value of each score of a case."""

CONVENTIONS = {
    "policy": "as the policy says: no score where both are empty",
    "both_empty_perfect": "a class rightly absent scores perfectly, as in several challenges",
    "empty_reference_dropped": "cases without the class in the reference are left out, as in MONAI's default",
}
"""Ways to count empty masks, in words; the first is ours, the others make numbers comparable."""

ALL_CLASSES = "all"
"""Name under which the mean over the classes of each case is summarised."""

STATES = ("both", "missed", "false_alarm", "both_empty")
LESION_COLUMNS = ("lesions_reference", "lesions_detected", "lesions_prediction", "lesions_false")
DIGITS = 6


def summarise(rows: Sequence[Row], tolerance_mm: float, unit: str) -> dict[str, Any]:
    """Summarise the rows of all cases.

    A score is averaged over the cases of a patient first, so that every patient weighs the same.

    Args:
        rows: Rows with ``case``, ``patient`` and the keys of :func:`segmentation.metrics.score_case`.
        tolerance_mm: Tolerance that the surface Dice was computed with.
        unit: Unit of distances, ``"mm"`` or ``"px"``.

    Returns:
        Plain data for summary.json: ``policy``, ``lesion_rule``, ``conventions``, ``tolerance_mm``, ``unit``,
        ``cases``, ``patients``; per class under ``classes`` the intervals of each score in each convention,
        states and lesions; and under ``all`` the same intervals for the mean over classes.

    Examples:
        >>> row = {"case": "a", "patient": "p", "class": "tumour", "state": "missed", "dice": 0.0, "iou": 0.0,
        ...        "nsd": 0.0, "hd95_mm": 50.0, "assd_mm": 50.0, "lesions_reference": 1, "lesions_detected": 0,
        ...        "lesions_prediction": 0, "lesions_false": 0}
        >>> summarise([row], tolerance_mm=1.0, unit="mm")["classes"]["tumour"]["lesions"]["missed"]
        1
    """
    names = list(dict.fromkeys(row["class"] for row in rows))
    by_class = {name: [row for row in rows if row["class"] == name] for name in names}
    return rounded(
        {
            "policy": POLICY,
            "lesion_rule": RULE,
            "conventions": CONVENTIONS,
            "tolerance_mm": tolerance_mm,
            "unit": unit,
            "cases": len({row["case"] for row in rows}),
            "patients": len({row["patient"] for row in rows}),
            ALL_CLASSES: _scores(rows),
            "classes": {name: _class_summary(of_class) for name, of_class in by_class.items()},
        }
    )


def case_dice(rows: Sequence[Row]) -> float | None:
    """Mean Dice over the classes of one case that have one; None if none has.

    Examples:
        >>> case_dice([{"dice": 0.5}, {"dice": float("nan")}, {"dice": 1.0}])
        0.75
    """
    values = [row["dice"] for row in rows if row["dice"] == row["dice"]]
    return fmean(values) if values else None


def rounded(value: Any) -> Any:
    """Round every float in plain data to six digits, so that files do not depend on the processor; nan is None.

    Examples:
        >>> rounded({"dice": [2 / 3, float("nan")], "cases": 2})
        {'dice': [0.666667, None], 'cases': 2}
    """
    match value:
        case float():
            return round(value, DIGITS) if value == value else None
        case Mapping():
            return {key: rounded(item) for key, item in value.items()}
        case list() | tuple():
            return [rounded(item) for item in value]
        case _:
            return value


def _class_summary(rows: Sequence[Row]) -> dict[str, Any]:
    """Intervals, states and lesions of one class."""
    states = Counter(row["state"] for row in rows)
    lesions = Lesions(*(sum(row[column] for row in rows) for column in LESION_COLUMNS))
    return {
        "cases": len(rows),
        "patients": len({row["patient"] for row in rows}),
        "states": {state: states[state] for state in STATES},
        "scores": _scores(rows),
        "lesions": {**asdict(lesions), "missed": lesions.reference - lesions.detected, "f1": lesions.f1},
    }


def _scores(rows: Sequence[Row]) -> dict[str, Any]:
    """Interval over patients of each score in each convention."""
    return {score: {convention: _interval(rows, score, convention) for convention in CONVENTIONS} for score in PERFECT}


def _interval(rows: Sequence[Row], score: str, convention: str) -> dict[str, Any]:
    """Mean over patients with its interval: over classes of a case, then over cases of a patient."""
    by_patient: defaultdict[str, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if (value := _counted(row, score, convention)) is not None:
            by_patient[row["patient"]][row["case"]].append(value)
    if not by_patient:
        return {"estimate": None, "low": None, "high": None, "n": 0, "method": "no case has a value"}
    cases_of = [by_patient[patient].values() for patient in sorted(by_patient)]
    interval = mean_ci([fmean(fmean(values) for values in cases) for cases in cases_of])
    return asdict(interval.within(*RANGES[score]))


def _counted(row: Row, score: str, convention: str) -> float | None:
    """The value with which a row enters the mean, or None if it does not."""
    if row["state"] == "both_empty":
        return PERFECT[score] if convention == "both_empty_perfect" else None
    if row["state"] == "false_alarm" and convention == "empty_reference_dropped":
        return None
    return row[score]

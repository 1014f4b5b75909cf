"""Turn the scores of a study into results.json: means with intervals, paired differences, counts.

The patient is the unit. A score is averaged over seeds, then over the classes of a case, then over the
cases of a patient; intervals and tests see one number per patient. Two conditions are compared only on
scores that both have: same fold, seed, case and class. The same study gives the same bytes.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from statistics import fmean
from typing import Any

from segmentation import SkipSegError, __version__
from segmentation.metrics.policy import POLICY
from segmentation.report.read import COUNTS, MEASURES, Row, Run, Study
from segmentation.statistics import fewest_patients, mean_ci, paired_difference

Key = tuple[Any, ...]
"""``(patient, case, class, fold and seed)``, or a beginning of it."""

Scores = Mapping[str, Mapping[str, Mapping[Key, float]]]
"""Condition, then measure, to its scores."""

_MOST_PAIRS_OF = 6
"""With more conditions than this, undeclared comparisons are made with the first condition only."""

_OF_THE_DATASET = ("name", "hash", "licence", "notice", "citation", "source", "patients", "cases", "labels")


def build_results(study: Study) -> dict[str, Any]:
    """Compute everything that the page and the terminal show, as plain data for JSON.

    Args:
        study: A study with any number of finished runs, none included.

    Returns:
        Plain data without times, dates or absolute paths: ``conditions`` (intervals per measure),
        ``contrasts`` (paired differences, declared first), ``patients``, ``cases`` (worst first),
        ``left_out`` (runs that do not count, with the reason) and what the study declared.

    Raises:
        SkipSegError: If a declared contrast names an unknown condition.
    """
    header = study.header
    primary = header.get("primary_metric", "dice")
    if primary not in MEASURES:
        raise SkipSegError(f"primary_metric must be one of {', '.join(MEASURES)}, got {primary!r}")
    declared = _declared(study)
    scores = {name: {m: scores_of(study.runs_of(name), m) for m in MEASURES} for name in study.conditions}
    rows = [row for run in study.finished for row in run.rows]
    return _rounded(
        {
            "written_by": f"skipseg {__version__}",
            "kind": "run" if study.single else "study",
            "name": header.get("name", ""),
            "question": header.get("question", ""),
            "dataset": {k: v for k, v in header.get("dataset", {}).items() if k in _OF_THE_DATASET},
            "primary_metric": primary,
            "alpha": header.get("alpha", 0.05),
            "margin": header.get("margin", 0.02),
            "policy": POLICY,
            "tolerance_mm": sorted({row.values["tolerance_mm"] for row in rows if "tolerance_mm" in row.values}),
            "length_unit": _length_unit(rows),
            "classes": _in_order(row.class_name for row in rows),
            "split": header.get("split", {}),
            "hash": header.get("hash", ""),
            "seeds": header.get("seeds", sorted({run.seed for run in study.runs})),
            "folds": header.get("folds", sorted({run.fold for run in study.runs})),
            "runs": {"planned": len(study.runs), "finished": len(study.finished)},
            "left_out": [_place(run) | {"reason": run.left_out} for run in study.runs if run.left_out],
            "conditions": {name: _condition(study, name, scores[name]) for name in study.conditions},
            "contrasts": _contrasts(study, declared, scores, primary),
            "patients": _patients(scores, primary),
            "cases": _cases(scores, primary),
            "notes": _notes(study),
        }
    )


def scores_of(runs: Iterable[Run], measure: str) -> dict[Key, float]:
    """Collect every score of ``measure`` with a value, by patient, case, class and (fold, seed)."""
    return {
        (row.patient, row.case, row.class_name, (run.fold, run.seed)): row.values[measure]
        for run in runs
        for row in run.rows
        if measure in row.values
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


def _per_patient(scores: Mapping[Key, float]) -> dict[str, float]:
    """One mean per patient, in a fixed order."""
    means = collapse(scores, depth=1)
    return {key[0]: means[key] for key in sorted(means)}


def _of_class(scores: Mapping[Key, float], class_name: str | None) -> dict[Key, float]:
    """The scores of one class, or of all."""
    return {key: value for key, value in scores.items() if class_name in (None, key[2])}


def _condition(study: Study, name: str, scores: Mapping[str, Mapping[Key, float]]) -> dict[str, Any]:
    """Parameters, runs, intervals and counts of one condition."""
    runs = study.runs_of(name)
    rows = [row for run in runs for row in run.rows]
    classes = _in_order(row.class_name for row in rows)
    return {
        "parameters": sorted({run.record["parameters"] for run in runs if "parameters" in run.record}),
        "settings": study.conditions[name],
        "runs_planned": sum(run.condition == name for run in study.runs),
        "runs": [_place(run) | {"hash": run.record.get("hash", "")} for run in runs],
        "cases": len({row.case for row in rows}),
        "scores": {measure: _interval(values) for measure, values in scores.items()},
        "scores_by_class": {
            c: {measure: _interval(_of_class(values, c)) for measure, values in scores.items()} for c in classes
        },
        "counts_by_class": {c: _counts([row for row in rows if row.class_name == c]) for c in classes},
    }


def _interval(scores: Mapping[Key, float]) -> dict[str, Any]:
    """Mean over patients with its confidence interval."""
    values = list(_per_patient(scores).values())
    if not values:
        return {"estimate": None, "low": None, "high": None, "n": 0, "method": "no patient has a value"}
    return asdict(mean_ci(values))


def _counts(rows: Sequence[Row]) -> dict[str, int]:
    """Sum lesions and states over cases and runs."""
    states = Counter(row.state for row in rows)
    counts = {state: states[state] for state in ("both", "missed", "false_alarm", "both_empty")}
    counts |= {column: int(sum(row.values.get(column, 0) for row in rows)) for column in COUNTS}
    return counts | {"no_prediction": sum(row.note == "no prediction" for row in rows)}


def _declared(study: Study) -> list[tuple[str, str]]:
    """The contrasts that were fixed before the study ran."""
    pairs = [tuple(pair) for pair in study.header.get("contrasts", [])]
    for pair in pairs:
        if len(pair) != 2 or not set(pair) <= set(study.conditions) or pair[0] == pair[1]:
            known = ", ".join(study.conditions)
            raise SkipSegError(f"a contrast must name two of the conditions {known}, got {list(pair)}")
    return [(a, b) for a, b in pairs]


def _contrasts(
    study: Study,
    declared: Sequence[tuple[str, str]],
    scores: Scores,
    primary: str,
) -> list[dict[str, Any]]:
    """Paired differences: declared pairs, then exploratory pairs, classes and measures of the declared ones.

    Declared contrasts share alpha equally (Bonferroni), so that the study as a whole keeps its error rate.
    """
    header = study.header
    alpha, margin = header.get("alpha", 0.05), header.get("margin", 0.02)
    known = {frozenset(pair) for pair in declared}
    pairs = [pair for pair in combinations(study.conditions, 2) if frozenset(pair) not in known]
    if len(study.conditions) > _MOST_PAIRS_OF:
        pairs = [pair for pair in pairs if pair[0] == next(iter(study.conditions))]
    shared = alpha / max(1, len(declared))
    settled = [(a, b, None, primary) for a, b in declared]
    classes = _in_order(row.class_name for run in study.finished for row in run.rows)
    wanted = [(a, b, None, primary) for a, b in pairs]
    wanted += [(a, b, c, primary) for a, b in declared for c in classes if len(classes) > 1]
    wanted += [(a, b, None, m) for a, b in declared or pairs for m in MEASURES if m != primary]
    plans = [(True, shared, plan) for plan in settled] + [(False, alpha, plan) for plan in wanted]
    return [
        {"declared": is_declared, "class": class_name, "metric": measure}
        | _difference((a, b), tuple(_of_class(scores[name][measure], class_name) for name in (a, b)), level, margin)
        | ({} if measure == primary else {"verdict": None, "sentence": ""})  # the margin is meant for the primary one
        for is_declared, level, (a, b, class_name, measure) in plans
    ]


def _difference(
    names: tuple[str, str], scores: tuple[Mapping[Key, float], ...], alpha: float, margin: float
) -> dict[str, Any]:
    """Compare two conditions on the scores that both have."""
    first, second = scores
    common = sorted(first.keys() & second.keys())
    pair = {"a": names[0], "b": names[1], "alpha": alpha, "pairs": len(common)}
    if not common:
        sentence = f"{names[0]} and {names[1]} have no scored case in common yet."
        return pair | {"n": 0, "verdict": "no result", "sentence": sentence, "patients": {}}
    in_a = _per_patient({key: first[key] for key in common})
    in_b = _per_patient({key: second[key] for key in common})
    differences = {patient: in_a[patient] - in_b[patient] for patient in in_a}
    return pair | asdict(paired_difference(in_a, in_b, alpha=alpha, margin=margin)) | {"patients": differences}


def _patients(scores: Scores, measure: str) -> dict[str, Any]:
    """Score of each patient per condition; ``None`` where it has no value."""
    means = {name: collapse(by_measure[measure], 1) for name, by_measure in scores.items()}
    keys = sorted({key for values in means.values() for key in values}, key=lambda key: _natural(key[0]))
    return {key[0]: {name: values.get(key) for name, values in means.items()} for key in keys}


def _cases(scores: Scores, measure: str) -> list[dict[str, Any]]:
    """Score of each case per condition, worst first; cases without any value are not listed."""
    whole = {name: collapse(by_measure[measure], 2) for name, by_measure in scores.items()}
    parts = {name: collapse(by_measure[measure], 3) for name, by_measure in scores.items()}
    keys = sorted({key for values in whole.values() for key in values})
    classes = _in_order(key[2] for values in parts.values() for key in sorted(values))
    cases = [
        {
            "case": case,
            "patient": patient,
            "score": {name: values.get((patient, case)) for name, values in whole.items()},
            "by_class": {c: {name: v.get((patient, case, c)) for name, v in parts.items()} for c in classes},
        }
        for patient, case in keys
    ]
    worst_is_high = measure.endswith("_mm") or measure == "volume_error_ml"
    return sorted(cases, key=lambda case: _badness([v for v in case["score"].values() if v is not None], worst_is_high))


def _badness(values: Sequence[float], worst_is_high: bool) -> float:
    """Sorting key by which the worst case comes first."""
    return -fmean(abs(value) for value in values) if worst_is_high else fmean(values)


def _notes(study: Study) -> list[str]:
    """What a reader must know before comparing numbers of this study."""
    notes: list[str] = []
    alpha = study.header.get("alpha", 0.05)
    patients = len({row.patient for run in study.finished for row in run.rows})
    if 0 < patients < fewest_patients(alpha):
        notes.append(
            f"{patients} patient{'s' if patients > 1 else ''}: enough to prove that the pipeline works from scan to "
            f"report, not how accurate it is. With fewer than {fewest_patients(alpha)} patients no difference can "
            f"reach p < {alpha:g}."
        )
    held_out = {name: frozenset((r.fold, r.seed) for r in study.runs_of(name)) for name in study.conditions}
    if len(set(held_out.values())) > 1:
        notes.append(
            "The conditions have not finished the same folds and seeds, so their means rest on different cases: "
            "compare them by the paired differences only."
        )
    if len({run.seed for run in study.finished}) == 1 and not study.single:
        notes.append("One seed: differences between conditions include the luck of a single training each.")
    if any(run.settings.get("select") == "best" for run in study.finished):
        notes.append("Weights were chosen on the held-out fold (select: best), so the scores are optimistic.")
    return notes


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorting key by which patient 2 comes before patient 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _length_unit(rows: Sequence[Row]) -> str:
    """Pictures have no volumes; their distances are in pixels."""
    return "mm" if any("volume_reference_ml" in row.values for row in rows) or not rows else "px"


def _place(run: Run) -> dict[str, Any]:
    """Where a run stands in the study."""
    return {"id": run.id, "condition": run.condition, "fold": run.fold, "seed": run.seed}


def _in_order(names: Iterable[str]) -> list[str]:
    """Names without repetition, in the order they come."""
    return list(dict.fromkeys(names))


def _rounded(value: Any) -> Any:
    """Round every float to six digits after the point, so that results do not depend on the processor."""
    if isinstance(value, float):
        return round(value, 6) if value == value else None
    if isinstance(value, Mapping):
        return {str(key): _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value

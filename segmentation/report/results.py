"""Turn a study into results.json: every number that the page shows.

The same study gives the same bytes, wherever it lies; how long it took stands under ``time`` and nowhere else.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import Any

from segmentation import SkipSegError, __version__
from segmentation.evaluation.summary import CONVENTIONS, PERFECT, rounded
from segmentation.metrics import POLICY, RULE
from segmentation.report.across import probes_of
from segmentation.report.contrasts import compare, declared_contrasts
from segmentation.report.cost import times_of
from segmentation.report.methods import methods_paragraphs
from segmentation.report.probes import single_probes
from segmentation.report.protocol import protocol_of, versions_of
from segmentation.report.read import COUNTS, MEASURES, Row, Run, Study
from segmentation.report.sample_size import sample_size
from segmentation.report.scores import (
    Key,
    Scores,
    by_seed,
    collapse,
    fold_of,
    interval_of,
    of_class,
    per_patient,
    scores_of,
)
from segmentation.report.settings import settings_of
from segmentation.report.training import convergence_of, curves_of
from segmentation.statistics import fewest_patients, table_of, variance_split
from segmentation.terminal import counted

_OF_THE_DATASET = ("name", "hash", "licence", "notice", "citation", "source", "patients", "cases", "labels")


def build_results(study: Study) -> dict[str, Any]:
    """Compute everything that the page and the terminal show, as plain data for JSON.

    Args:
        study: A study with any number of finished runs, none included.

    Returns:
        Plain data without dates or absolute paths, and with times under ``time`` only: ``conditions`` (intervals
        per measure), ``contrasts`` (paired differences, declared first), ``patients``, ``cases`` (worst first),
        ``left_out`` (runs that do not count, with the reason), ``curves``, ``probes``, ``methods`` and what the
        study declared.

    Raises:
        SkipSegError: If a declared contrast names an unknown condition.
    """
    header = study.header
    primary = header.get("primary_metric", "dice")
    if primary not in MEASURES:
        raise SkipSegError(f"primary_metric must be one of {', '.join(MEASURES)}, got {primary!r}")
    scores = {name: {m: scores_of(study.runs_of(name), m) for m in MEASURES} for name in study.conditions}
    rows = [row for run in study.finished for row in run.rows]
    contrasts = compare(study, declared_contrasts(study), scores, primary)
    results: dict[str, Any] = rounded(
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
            "lesion_rule": RULE,
            "conventions": CONVENTIONS if primary in PERFECT else {},
            "tolerance_mm": sorted({row.values["tolerance_mm"] for row in rows if "tolerance_mm" in row.values}),
            "length_unit": _length_unit(rows),
            "classes": study.classes,
            "split": header.get("split", {}),
            "rotate_folds": header.get("rotate_folds", False),
            "hash": header.get("hash", ""),
            "seeds": header.get("seeds", sorted({run.seed for run in study.runs})),
            "folds": header.get("folds", sorted({run.fold for run in study.runs})),
            "runs": {"planned": len(study.runs), "finished": len(study.finished)},
            "left_out": [_place(run) | {"reason": run.left_out} for run in study.runs if run.left_out],
            "conditions": {name: _condition(study, name, scores[name], primary) for name in study.conditions},
            "contrasts": contrasts,
            "sample_size": sample_size(contrasts, header.get("margin", 0.02), primary),
            "patients": _patients(scores, primary),
            "cases": _cases(scores, primary, study.classes),
            "structures": _structures(rows),
            "notes": _notes(study),
            "protocol": protocol_of(study),
            "settings": settings_of(study),
            "versions": versions_of(study),
            "time": times_of(study),
            "convergence": convergence_of(study),
        }
    )
    results |= {"curves": curves_of(study), "probes": single_probes(study) if study.single else probes_of(study)}
    return results | {"methods": methods_paragraphs(results)}


def _condition(study: Study, name: str, scores: Mapping[str, Mapping[Key, float]], primary: str) -> dict[str, Any]:
    """Parameters, runs, intervals and counts of one condition."""
    runs = study.runs_of(name)
    rows = [row for run in runs for row in run.rows]
    conventions = CONVENTIONS if primary in PERFECT else {}
    return {
        "parameters": sorted({run.record["parameters"] for run in runs if "parameters" in run.record}),
        "settings": study.conditions[name],
        "budget": _budget(study.budgets, name),
        "runs_planned": sum(run.condition == name for run in study.runs),
        "runs": [_place(run) | _facts(run) for run in runs],
        "cases": len({row.case for row in rows}),
        "scores": {measure: interval_of(values, measure) for measure, values in scores.items()},
        "scores_by_class": {
            c: {measure: interval_of(of_class(values, c), measure) for measure, values in scores.items()}
            for c in study.classes
        },
        "variance": _variance(scores[primary]),
        "by_convention": {c: interval_of(scores_of(runs, primary, c), primary) for c in conventions},
        "counts_by_class": {c: _counts([row for row in rows if row.class_name == c]) for c in study.classes},
    }


def _facts(run: Run) -> dict[str, Any]:
    """What the record of a run says."""
    counts = {name: len(run.record.get(name, ())) for name in ("train_cases", "val_cases")}
    known = {"hash": run.record.get("hash", ""), "parameters": run.record.get("parameters"), "steps": run.steps}
    return known | counts


def _structures(rows: Sequence[Row]) -> dict[str, Any]:
    """Median volume of each class in the references, and its range, in ml; nothing for pictures."""
    volumes: dict[str, dict[str, float]] = {}
    for row in rows:
        if (volume := row.values.get("volume_reference_ml")) is not None:
            volumes.setdefault(row.class_name, {})[row.case] = volume
    found = {name: [volume for volume in of.values() if volume > 0] for name, of in volumes.items()}
    return {
        name: {"cases": len(values), "median_ml": median(values), "low_ml": min(values), "high_ml": max(values)}
        for name, values in found.items()
        if values
    }


def _budget(arms: Mapping[str, Mapping[str, Any]], name: str) -> dict[str, Any] | None:
    """What the network of a condition costs, what it was matched to and how far off it is, in per cent."""
    if name not in arms:
        return None
    arm = {"matched": "none", "matched_to": None} | dict(arms[name])
    cost = {"params": "parameters", "macs": "macs"}.get(str(arm["matched"]))
    reference = arms.get(str(arm["matched_to"])) if arm["matched_to"] else None
    return arm | {"off_percent": 100 * (arm[cost] / reference[cost] - 1) if reference and cost else None}


def _variance(scores: Mapping[Key, float]) -> dict[str, Any] | None:
    """Standard deviations of a condition's scores by source, and their shares; None before the first run."""
    if not scores:
        return None
    means, folds = by_seed(scores), fold_of(scores)
    split = variance_split(table_of(means), [folds[patient] for patient in sorted(means)])
    sizes = {"patients": split.patients, "seeds": split.seeds, "folds": split.folds}
    return sizes | {"sd": split.sd, "shares": split.shares, "note": _inseparable(scores) if not split.sd else ""}


def _inseparable(scores: Mapping[Key, float]) -> str:
    """Why the sources of scatter cannot be told apart."""
    runs = {key[-1] for key in scores}
    if 1 < len(runs) == len({seed for _, seed in runs}):
        return "not separable: each seed has one fold"
    return "not separable: no seed has all patients and no patient has all seeds" if len(runs) > 1 else ""


def _counts(rows: Sequence[Row]) -> dict[str, int]:
    """Sum lesions and states over cases and runs."""
    states = Counter(row.state for row in rows)
    counts = {state: states[state] for state in ("both", "missed", "false_alarm", "both_empty")}
    counts |= {column: int(sum(row.values.get(column, 0) for row in rows)) for column in COUNTS}
    return counts | {"no_prediction": sum(row.note == "no prediction" for row in rows)}


def _patients(scores: Scores, measure: str) -> dict[str, Any]:
    """Score of each patient per condition; ``None`` where it has no value."""
    means = {name: per_patient(by_measure[measure]) for name, by_measure in scores.items()}
    patients = sorted({patient for values in means.values() for patient in values}, key=_natural)
    return {patient: {name: values.get(patient) for name, values in means.items()} for patient in patients}


def _cases(scores: Scores, measure: str, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Score of each case per condition, worst first; cases without any value are not listed."""
    whole = {name: collapse(by_measure[measure], 2) for name, by_measure in scores.items()}
    parts = {name: collapse(by_measure[measure], 3) for name, by_measure in scores.items()}
    keys = sorted({key for values in whole.values() for key in values})
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


_GROUPED = {
    "case": "Nothing says which cases come from one patient, so each counts as a patient of its own: if some do share "
    "a patient, the same one was learnt from and scored, scores are optimistic and intervals too narrow.",
    "contiguous blocks": "As declared, cases of one patient were learnt from and scored (contiguous blocks): scores "
    "say how well more of the same patients is segmented, not how well a new one is.",
}
"""What a split means that keeps no patient on one side."""


def _grouping(run: Run) -> str:
    """What stands on one side of a run's split only."""
    return run.record.get("split", {}).get("grouping", "patient")


def _notes(study: Study) -> list[str]:
    """What a reader must know before comparing numbers of this study."""
    notes: list[str] = []
    alpha = study.header.get("alpha", 0.05)
    patients = len({row.patient for run in study.finished for row in run.rows})
    if 0 < patients < fewest_patients(alpha):
        notes.append(
            f"{counted(patients, 'patient')}: enough to prove that the pipeline works from scan to "
            f"report, not how accurate it is. With fewer than {fewest_patients(alpha)} patients no difference can "
            f"reach p < {alpha:g}."
        )
    notes += [_GROUPED[by] for by in sorted({_grouping(run) for run in study.finished} & _GROUPED.keys())]
    held_out = {name: frozenset((r.fold, r.seed) for r in study.runs_of(name)) for name in study.conditions}
    if len(set(held_out.values())) > 1:
        notes.append(
            "The conditions have not finished the same folds and seeds, so their means rest on different cases: "
            "compare them by the paired differences only."
        )
    if len({run.seed for run in study.finished}) == 1 and not study.single:
        notes.append(
            "One seed: differences between conditions include the luck of a single training each, and intervals and "
            "p-values are those over patients only. How much another seed would change them is unknown."
        )
    if study.header.get("rotate_folds") and len({run.fold for run in study.finished}) > 1:
        notes.append(
            "Each seed ran one fold (rotate_folds), so seed and fold are confounded: what a seed changes cannot be "
            "told from what a fold changes. Intervals and p-values take the patients of one fold as a group that "
            "shares its training, and count groups."
        )
    if any(run.settings.get("select") == "best" for run in study.finished):
        notes.append("Weights were chosen on the held-out fold (select: best), so the scores are optimistic.")
    if any(run.settings.get("patience") for run in study.finished):
        steps = sorted({run.steps for run in study.finished if run.steps})
        lengths = f", after {steps[0]} to {steps[-1]} steps" if len(steps) > 1 else ""
        notes.append(
            f"Trainings could end early by the scores of the held-out fold (patience){lengths}: these are optimistic, "
            "and conditions may differ by their length."
        )
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

"""What a condition costs beside what it scores: parameters, multiplications, time and memory."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from segmentation.figures import Figure, Series
from segmentation.report.read import Run, Study

NOTE = "Times and memory depend on the machine; in results.json they stand apart, under time."


def times_of(study: Study) -> dict[str, Any]:
    """Collect what the runs took, for each and as means over the runs of a condition with their range."""
    seconds = [each for run in study.finished if (each := train_seconds(run)) is not None]
    return {
        "note": NOTE,
        "train_seconds": sum(seconds),
        "timed_runs": len(seconds),
        "conditions": {
            name: {measure: mean_and_range(map(read, study.runs_of(name))) for measure, read in _OF_A_RUN.items()}
            for name in study.conditions
        },
        "runs": {run.id: {measure: read(run) for measure, read in _OF_A_RUN.items()} for run in study.finished},
    }


def train_seconds(run: Run) -> float | None:
    """Time of a training that was not interrupted; of a resumed one only the end was timed."""
    return None if run.timing.get("resumed") else run.timing.get("train_seconds")


def _predict_seconds_per_case(run: Run) -> float | None:
    """Time to predict and write one held-out case."""
    seconds, cases = run.timing.get("predict_seconds"), len({row.case for row in run.rows})
    return seconds / cases if seconds is not None and cases else None


_OF_A_RUN: dict[str, Callable[[Run], float | None]] = {
    "train_seconds": train_seconds,
    "predict_seconds": lambda run: run.timing.get("predict_seconds"),
    "predict_seconds_per_case": _predict_seconds_per_case,
    "peak_memory_mb": lambda run: run.timing.get("peak_memory_mb"),
}


def mean_and_range(values: Iterable[float | None]) -> dict[str, float] | None:
    """Mean, lowest and highest value, and how many runs have one; None where no run knows."""
    known = [value for value in values if value is not None]
    return {"mean": fmean(known), "low": min(known), "high": max(known), "runs": len(known)} if known else None


def cost_figures(results: Mapping[str, Any], measure_name: str) -> list[Figure]:
    """Draw the primary score against each cost that is known of at least two conditions, and differs.

    Args:
        results: Content of results.json.
        measure_name: The primary measure in print.
    """
    conditions, times = results["conditions"], results["time"]["conditions"]
    costs: list[tuple[str, str, list[float | None]]] = [
        ("parameters", "thousand", [_scaled(c["parameters"], 1e3) for c in conditions.values()]),
        ("multiply-accumulates", "million a patch", [_scaled(_counted(c, "macs"), 1e6) for c in conditions.values()]),
        (
            "memory of maps",
            "MiB a patch",
            [_scaled(_counted(c, "activation_bytes"), 2**20) for c in conditions.values()],
        ),
        ("training time", "s a run", [_seconds(times[name]["train_seconds"]) for name in conditions]),
        ("prediction time", "s a case", [_seconds(times[name]["predict_seconds_per_case"]) for name in conditions]),
    ]
    found = [condition["scores"][results["primary_metric"]] for condition in conditions.values()]
    bounded = results["primary_metric"] in BOUNDED
    return [
        Figure(
            "lines",
            f"{measure_name} against {cost}",
            f"{cost}, {unit}",
            measure_name,
            series=[
                Series(name, [score["estimate"]], [x], *([_possible(score[end], bounded)] for end in ("low", "high")))
                for name, x, score in zip(conditions, places, found, strict=True)
            ],
            x=[0.0],
        )
        for cost, unit, places in costs
        if len({x for x in places if x is not None}) > 1
    ]


BOUNDED = ("dice", "iou", "sensitivity", "precision", "nsd")
"""Measures that lie in [0, 1]."""


def _possible(value: float | None, bounded: bool) -> float | None:
    """An end of an interval, cut where no score can lie: Student's t knows nothing of 0 and 1."""
    return min(1.0, max(0.0, value)) if bounded and value is not None else value


def _counted(condition: Mapping[str, Any], cost: str) -> list[float]:
    """What a condition's network costs, where the study counted it."""
    found = (condition["budget"] or {}).get(cost)
    return [] if found is None else [found]


def _scaled(values: Sequence[float], unit: float) -> float | None:
    """Mean in another unit; None without a value."""
    return fmean(values) / unit if values else None


def _seconds(found: Mapping[str, float] | None) -> float | None:
    """Mean seconds."""
    return None if found is None else found["mean"]

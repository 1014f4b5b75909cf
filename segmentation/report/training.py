"""The course of the trainings: points of every run for results.json, and one panel for each condition."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean, median
from typing import Any

import numpy as np

from segmentation.report import figures, tables
from segmentation.report.axes import axis_for
from segmentation.report.read import Run, Study

MOST_POINTS = 120
"""Points of one curve; longer ones are averaged over neighbouring points."""

_GROUPS = (("Loss", ("train_loss", "val_loss")), ("Dice of held-out cases", ("val_dice",)))

NEAR = 0.9
"""Share of the highest Dice at which a training counts as nearly done."""

_STEEP = 8
"""A loss that falls by this factor is drawn on a logarithmic axis."""


def curves_of(study: Study) -> dict[str, Any]:
    """Collect the curves of every finished run: run to measure to ``step`` and ``value``, six digits each."""
    columns = [column for _, group in _GROUPS for column in group]
    curves = {
        run.id: {column: points for column in columns if (points := _points(run, column))} for run in study.finished
    }
    return {run: found for run, found in curves.items() if found}


def _points(run: Run, column: str) -> dict[str, list[float]] | None:
    """Points of one run; counted in steps where they are recorded, else in epochs."""
    points = thin_out([(row.get("step", row.get("epoch", 0.0)), row[column]) for row in run.curves if column in row])
    digits = [[float(f"{value:.6g}") for value in each] for each in zip(*points, strict=True)]
    return dict(zip(("step", "value"), digits, strict=True)) if points else None


def convergence_of(study: Study) -> dict[str, Any]:
    """How soon each condition learns: steps to a Dice that is the same for all, and the area under the training loss.

    Returns:
        ``dice``, for each fold that all conditions have run, :data:`NEAR` of the highest mean over seeds that one ends
        with; and for each of the ``conditions`` its number of ``runs`` of these folds, how many ``reached`` that of
        their fold, the ``steps`` that the median of these took, and ``mean_loss``, the area under the loss divided by
        the steps. Empty without such folds, or where every run ends at 0.
    """
    ended: dict[int, dict[str, list[float]]] = {}
    for run in study.finished:
        if dice := _curve(run, "val_dice"):
            ended.setdefault(run.fold, {}).setdefault(run.condition, []).append(dice[-1][1])
    known = {condition for finals in ended.values() for condition in finals}
    near = {
        fold: NEAR * most
        for fold, finals in sorted(ended.items())
        if finals.keys() == known and (most := max(map(fmean, finals.values()))) > 0
    }
    conditions: dict[str, dict[str, Any]] = {}
    for name in filter(known.__contains__, study.conditions):
        runs = [run for run in study.runs_of(name) if run.fold in near and _curve(run, "val_dice")]
        steps = [_first(_curve(run, "val_dice"), near[run.fold]) for run in runs]
        reached = [step for step in steps if step is not None]
        areas = [_mean_over_steps(loss) for run in runs if len(loss := _curve(run, "train_loss")) > 1]
        conditions[name] = {
            "runs": len(runs),
            "reached": len(reached),
            "steps": median(reached) if reached else None,
            "mean_loss": fmean(areas) if areas else None,
        }
    return {"dice": near, "conditions": conditions} if near else {}


def _first(curve: Sequence[tuple[float, float]], least: float) -> float | None:
    """First step at which a curve is at least so high."""
    return next((step for step, value in curve if value >= least), None)


def _curve(run: Run, column: str) -> list[tuple[float, float]]:
    """Step and value of each point of a run's curve."""
    return [(row["step"], row[column]) for row in run.curves if "step" in row and column in row]


def _mean_over_steps(curve: Sequence[tuple[float, float]]) -> float:
    """Area under a curve of two points or more, divided by its length."""
    steps, values = zip(*curve, strict=True)
    return float(np.trapezoid(values, steps)) / (steps[-1] - steps[0])


def thin_out(curve: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Average neighbouring points until few enough remain to draw.

    Examples:
        >>> thin_out([(float(step), 1.0) for step in range(480)])[0]
        (1.5, 1.0)
    """
    bin_size = -(-len(curve) // MOST_POINTS) or 1
    groups = [curve[start : start + bin_size] for start in range(0, len(curve), bin_size)]
    return [(fmean(step for step, _ in group), fmean(value for _, value in group)) for group in groups]


def panels(results: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Draw the curves: one panel per measure and condition, with axes shared along a measure."""
    for title, columns in _GROUPS:
        lines = {
            (name, column): [
                list(zip(found["step"], found["value"], strict=True))
                for run in condition["runs"]
                if (found := results["curves"].get(run["id"], {}).get(column))
            ]
            for name, condition in results["conditions"].items()
            for column in columns
        }
        points = [point for curves in lines.values() for curve in curves for point in curve]
        if points:
            shown = [column for column in columns if any(lines[name, column] for name in results["conditions"])]
            yield {
                "title": title,
                "panels": _drawn(title, shown, lines, points, list(results["conditions"])),
                "columns": shown,
            }


def _drawn(
    title: str,
    columns: Sequence[str],
    lines: Mapping[tuple[str, str], Sequence[Sequence[tuple[float, float]]]],
    points: Sequence[tuple[float, float]],
    conditions: Sequence[str],
) -> list[dict[str, Any]]:
    """The panels of one measure."""
    steps, values = [step for step, _ in points], [value for _, value in points]
    x = axis_for(steps, include=[0.0])
    log = min(values) > 0 and max(values) > _STEEP * min(values) and "Dice" not in title
    y = axis_for(values, log=log) if "Dice" not in title else figures.unit_scale(values)
    drawn: list[dict[str, Any]] = []
    for slot, name in enumerate(conditions):
        layers = [(f"curve c{slot % 8} {column.split('_')[0]}", lines[name, column]) for column in columns]
        label = f"{title} of {tables.clean(name)} over optimiser steps"
        drawn.append({"name": name, "slot": slot, "figure": figures.curves_plot(layers, x, y, label)})
    return drawn

"""The figures of the report: interval rows, the paired plot, the forest rows and the training curves."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from textwrap import wrap
from typing import Any

from markupsafe import Markup

from segmentation.report.axes import tick_names
from segmentation.report.chart import stacked
from segmentation.report.svg import Scale, line, marker, picture, scale_for, tag, tick_text
from segmentation.report.tables import clean, number

ROW_HEIGHT = 58
"""Pixels of one row of an interval or forest figure: the mean with its interval above, the patients below."""

_MEAN_AT, _PATIENTS_AT = 22, 42
_PAIRED_HEIGHT, _CURVES_HEIGHT = 300, 150

_MOST_LABELS, _LABELS_OF_MANY = 12, 3
_MOST_BOLD = 40


def score_scale(results: Mapping[str, Any]) -> Scale:
    """The axis of the primary score over all patients, intervals included."""
    measure = results["primary_metric"]
    values = [v for scores in results["patients"].values() for v in scores.values() if v is not None]
    for condition in results["conditions"].values():
        found = condition["scores"][measure]
        values += [found[end] for end in ("low", "high") if found[end] is not None]
    return scale_for(values, include=[0.0]) if measure.endswith(("_mm", "_ml")) else unit_scale(values)


def unit_scale(values: Sequence[float]) -> Scale:
    """An axis for scores between 0 and 1, no longer than the values need; a t interval may reach beyond, it does not.

    Examples:
        >>> unit_scale([0.43, 0.81, 1.04]), unit_scale([])
        (Scale(low=0.4, high=1.0), Scale(low=0.0, high=1.0))
    """
    return scale_for([min(1.0, max(0.0, value)) for value in values])


def axis_row(scale: Scale, caption: str, ends: tuple[str, str] | None = None) -> Markup:
    """Draw the axis above the rows of a table figure; ``ends`` says what either side means."""
    parts: list[Markup] = [
        tag("text", tick_text(value), x=scale.percent(value), y=34, class_="tick middle") for value in scale.ticks()
    ]
    if ends is None:
        parts.append(tag("text", clean(caption), x="50%", y=14, class_="axis middle"))
    else:
        parts.append(tag("text", f"← {clean(ends[0])}", x="0%", y=14, class_="axis start"))
        parts.append(tag("text", f"{clean(ends[1])} →", x="100%", y=14, class_="axis end"))
    return picture(40, *parts, label=caption)


def interval_row(scale: Scale, found: Mapping[str, Any], patients: Sequence[float], slot: int) -> Markup:
    """Draw one condition: a faint dot per patient, the mean, and its confidence interval."""
    colour = f"c{slot % 8}"
    parts = [*_grid(scale), *_dots(scale, patients, colour)]
    if found["low"] is not None:
        parts.append(_whisker(scale, found["low"], found["high"], f"ci {colour}"))
    if found["estimate"] is not None:
        parts.append(marker(scale.percent(found["estimate"]), _MEAN_AT, slot, size=5.5))
    return picture(ROW_HEIGHT, *parts)


def forest_scale(contrasts: Sequence[Mapping[str, Any]], margin: float) -> Scale:
    """An axis around zero that holds every interval, every patient and the margin of equivalence."""
    ends = [c[end] for c in contrasts for end in ("mean", "low", "high") if c.get(end) is not None]
    patients = [value for c in contrasts for value in c["patients"].values()]
    return scale_for([*ends, *patients], include=[0.0, -1.5 * margin, 1.5 * margin])


def forest_row(scale: Scale, contrast: Mapping[str, Any], margin: float) -> Markup:
    """Draw one paired difference with its interval; filled if it was declared, hollow if exploratory."""
    left, right = scale.percent(-margin), scale.percent(margin)
    width = f"{100 * (scale.share(margin) - scale.share(-margin)):.2f}%"
    parts = [tag("rect", x=left, y=-8, width=width, height=ROW_HEIGHT + 16, class_="margin"), *_grid(scale)]
    parts += [line(edge, -8, edge, ROW_HEIGHT + 8, "margin-edge") for edge in (left, right)]
    parts.append(line(scale.percent(0), -8, scale.percent(0), ROW_HEIGHT + 8, "zero"))
    parts += _dots(scale, list(contrast["patients"].values()), "ink")
    if contrast.get("low") is not None:
        parts.append(_whisker(scale, contrast["low"], contrast["high"], "ci ink"))
    if contrast.get("mean") is not None:
        kind = "mark ink" if contrast["declared"] else "mark ink hollow"
        parts.append(tag("circle", cx=scale.percent(contrast["mean"]), cy=_MEAN_AT, r=6, class_=kind))
    return picture(ROW_HEIGHT, *parts)


def paired_plot(results: Mapping[str, Any]) -> Markup:
    """Draw one line per patient across the conditions, and the means on top."""
    names, measure = list(results["conditions"]), results["primary_metric"]
    scale = score_scale(results)
    parts = _rows_of_ticks(scale, _PAIRED_HEIGHT)
    places = {name: f"{(index + 0.5) / len(names) * 100:.2f}%" for index, name in enumerate(names)}
    for patient, scores in results["patients"].items():
        known = [(name, scores[name]) for name in names if scores[name] is not None]
        ends = [(places[name], scale.pixel(value, _PAIRED_HEIGHT)) for name, value in known]
        steps = [
            line(*a, *b, "pair" if len(results["patients"]) <= _MOST_BOLD else "pair faint") for a, b in pairwise(ends)
        ]
        dots = [
            tag("circle", cx=x, cy=y, r=3.5, class_=f"patient c{names.index(n) % 8}")
            for (n, _), (x, y) in zip(known, ends, strict=True)
        ]
        spoken = ", ".join(f"{clean(name)} {number(value, measure)}" for name, value in known)
        parts.append(tag("g", tag("title", f"{clean(patient)}: {spoken}"), *steps, *dots, class_="patient-line"))
    parts += _patient_labels(results["patients"], names[-1], scale, _PAIRED_HEIGHT, places[names[-1]])
    for slot, name in enumerate(names):
        mean = results["conditions"][name]["scores"][measure]["estimate"]
        if mean is not None:
            y = scale.pixel(mean, _PAIRED_HEIGHT)
            parts.append(marker(places[name], y, slot, size=7))
            parts.append(tag("text", number(mean, measure), x=places[name], y=y, dx=-12, dy=4, class_="value end"))
        parts.append(stacked(wrap(clip(name, 36), 12) or [""], places[name], _PAIRED_HEIGHT))
    label = f"Paired plot, one line per patient across {', '.join(map(clean, names))}; the table below has the numbers"
    return picture(_PAIRED_HEIGHT, *parts, label=label, kind="plot-area")


def curves_plot(
    layers: Sequence[tuple[str, Sequence[Sequence[tuple[float, float]]]]],
    x: Scale,
    y: Scale,
    label: str,
) -> Markup:
    """Draw one training curve per run over the optimiser steps.

    Args:
        layers: CSS classes of a kind of curve, which give its colour and dash, and for each run its
            points ``(step, value)``.
        x: Axis of the steps, shared by all panels.
        y: Axis of the values, shared by all panels of a measure.
        label: What the picture shows, to be read aloud.
    """
    parts = _rows_of_ticks(y, _CURVES_HEIGHT)
    parts += [
        tag("text", tick_text(v), x=x.percent(v), y=_CURVES_HEIGHT + 18, class_=f"tick {_anchor(x, v)}")
        for v in x.ticks(3)
    ]
    box = {"viewBox": "0 0 1000 1000", "preserveAspectRatio": "none", "width": "100%", "height": _CURVES_HEIGHT}
    for kind, curves in layers:
        lines = [
            tag(
                "polyline", points=" ".join(f"{1000 * x.share(a):.0f},{1000 - 1000 * y.share(b):.0f}" for a, b in curve)
            )
            for curve in curves
        ]
        parts.append(tag("svg", *lines, **box, class_=kind))
    return picture(_CURVES_HEIGHT, *parts, label=label, kind="plot-area")


def clip(text: str, longest: int) -> str:
    """Shorten a name for a label inside a figure; tables show it whole.

    Examples:
        >>> clip("a_rather_long_name", 10)
        'a_rather_…'
    """
    text = clean(text)
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _patient_labels(
    patients: Mapping[str, Mapping[str, float | None]], last: str, scale: Scale, height: int, x: str
) -> list[Markup]:
    """Name the lines at their right end, moved apart where they would overlap; the lowest if they are many."""
    ends = sorted((value, patient) for patient, scores in patients.items() if (value := scores[last]) is not None)
    rows: list[tuple[float, str]] = []
    above = height + 14.0
    for value, patient in ends if len(ends) <= _MOST_LABELS else ends[:_LABELS_OF_MANY]:
        above = min(scale.pixel(value, height), above - 14)
        rows.append((above, patient))
    return [tag("text", clip(patient, 14), x=x, y=y, dx=12, dy=4, class_="name start") for y, patient in rows]


def _whisker(scale: Scale, low: float, high: float, kind: str) -> Markup:
    """A thick horizontal line from low to high."""
    return line(scale.percent(low), _MEAN_AT, scale.percent(high), _MEAN_AT, kind)


def _dots(scale: Scale, values: Sequence[float], colour: str) -> list[Markup]:
    """One faint dot per patient."""
    kind = f"patient {colour}"
    return [tag("circle", cx=scale.percent(value), cy=_PATIENTS_AT, r=3.5, class_=kind) for value in values]


def _grid(scale: Scale) -> list[Markup]:
    """Faint vertical lines through a row, under each tick of the axis."""
    return [line(scale.percent(v), -8, scale.percent(v), ROW_HEIGHT + 8, "grid") for v in scale.ticks()]


def _rows_of_ticks(scale: Scale, height: int) -> list[Markup]:
    """Faint horizontal lines with their values on the left."""
    parts: list[Markup] = []
    for value, text in tick_names(scale, 4):
        y = scale.pixel(value, height)
        parts.append(line("0%", y, "100%", y, "grid"))
        parts.append(tag("text", text, x="0%", y=y, dx=-8, dy=4, class_="tick end"))
    return parts


def _anchor(scale: Scale, value: float) -> str:
    """Keep the first and last value of an axis inside its width."""
    share = scale.share(value)
    return "start" if share < 0.02 else "end" if share > 0.98 else "middle"

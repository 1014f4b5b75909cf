"""Write report.html, one file that opens anywhere without a network, and results.json beside it."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from segmentation.report import figures, gallery, tables
from segmentation.report.html import environment
from segmentation.report.probes import read_probes
from segmentation.report.read import MEASURES, Run, Study, read_study
from segmentation.report.results import build_results
from segmentation.report.svg import marker, scale_for
from segmentation.runs import write_json, write_text

MOST_CASE_ROWS = 300
"""Rows of the case table on the page, worst first; results.json holds all of them."""

_WORDS = {
    "different": "Different",
    "equivalent": "Equivalent",
    "inconclusive": "Inconclusive",
    "no result": "No result",
}

_CURVES = (("Loss", ("train_loss", "val_loss")), ("Dice of held-out cases", ("val_dice",)))


def write_report(folder: Path) -> Path:
    """Write ``results.json`` and ``report.html`` into a study folder or a run folder.

    Both are written whole or not at all. results.json depends on the scores only: the same study gives the
    same bytes, wherever it lies and however long it took.

    Args:
        folder: A folder with study.json (and runs/), or a run folder with run.json. A study may be partial.

    Returns:
        The path of report.html.

    Raises:
        SkipSegError: If the folder is neither, or what it declares contradicts itself.
    """
    study = read_study(folder)
    results = build_results(study)
    page = render(study, results)
    write_json(folder / "results.json", results)
    write_text(folder / "report.html", page)
    return folder / "report.html"


def render(study: Study, results: Mapping[str, Any]) -> str:
    """Fill the page; every name and number from a file is escaped."""
    pictures = gallery.collect(study, results)
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            written_by=results["written_by"],
            scripts=pictures.scripts,
            modules=bool(pictures.openable),
            probes=read_probes(study.runs[0].folder) if study.single else [],
            glyph=glyph,
            results=results,
            primary=tables.measure_label(results["primary_metric"], results),
            verdicts=_verdicts(results),
            conditions=_conditions(results),
            matched=any((c["budget"] or {}).get("matched_to") for c in results["conditions"].values()),
            axis=figures.axis_row(
                figures.score_scale(results), tables.measure_label(results["primary_metric"], results)
            ),
            paired=figures.paired_plot(results) if len(results["conditions"]) > 1 and results["patients"] else "",
            forest=_forest(results),
            most_cases=MOST_CASE_ROWS,
            measures=[(m, tables.measure_label(m, results)) for m in MEASURES if m != results["primary_metric"]],
            differences=[c for c in results["contrasts"] if c["metric"] != results["primary_metric"] and c["n"]],
            labels={measure: tables.measure_label(measure, results) for measure in MEASURES},
            curves=list(_curves(study)),
            gallery=pictures,
            differing=_differing(study),
            shared=_shared(study),
            other_conventions=any(_conventions_differ(c["by_convention"]) for c in results["conditions"].values()),
            runs=study.finished,
            total_seconds=sum(run.timing.get("train_seconds") or 0 for run in study.finished),
            versions=next((run.record["versions"] for run in study.finished if run.record.get("versions")), {}),
        )
    )


def glyph(slot: int) -> Markup:
    """Draw the marker of a condition for running text."""
    return Markup('<svg class="glyph" width="14" height="14" aria-hidden="true">{}</svg>').format(marker("7", 7, slot))


def _verdicts(results: Mapping[str, Any]) -> list[dict[str, str]]:
    """One word and one sentence for each declared contrast, or what can be said without one."""
    declared = [contrast for contrast in results["contrasts"] if contrast["declared"]]
    if declared:
        return [
            {"word": _WORDS[c["verdict"]], "pair": f"{c['a']} \N{MINUS SIGN} {c['b']}", "sentence": c["sentence"]}
            for c in declared
        ]
    if len(results["conditions"]) > 1:
        sentence = "No contrast was declared before the study ran, so every difference on this page is exploratory."
        return [{"word": "Exploratory", "pair": "", "sentence": sentence}]
    (condition,) = results["conditions"].values()
    found = condition["scores"][results["primary_metric"]]
    if found["estimate"] is None:
        return [{"word": "No result", "pair": "", "sentence": "No run of this folder has finished yet."}]
    name = tables.measure_label(results["primary_metric"], results)
    bounds = f", 95% confidence interval {tables.interval(found)}" if found["low"] is not None else ""
    patients = f"{found['n']} patient{'s' if found['n'] != 1 else ''}"
    sentence = (
        f"Mean {name} {tables.number(found['estimate'], results['primary_metric'])} over {patients}{bounds}. "
        "One condition alone cannot tell what its design choices contribute."
    )
    return [{"word": "Measured", "pair": "", "sentence": sentence}]


def _conditions(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the page shows of each condition, with its row of the interval figure."""
    scale, measure = figures.score_scale(results), results["primary_metric"]
    rows: list[dict[str, Any]] = []
    for slot, (name, condition) in enumerate(results["conditions"].items()):
        points = [scores[name] for scores in results["patients"].values() if scores[name] is not None]
        found = condition["scores"][measure]
        row = {"name": name, "slot": slot, "found": found, "figure": figures.interval_row(scale, found, points, slot)}
        rows.append(condition | row)
    return rows


def _conventions_differ(intervals: Mapping[str, Any]) -> bool:
    """Whether it matters for a condition how empty masks are counted."""
    return len({found["estimate"] for found in intervals.values()}) > 1


def _forest(results: Mapping[str, Any]) -> dict[str, Any]:
    """Paired differences of the primary score with their rows of the forest figure, declared ones first."""
    shown = [c for c in results["contrasts"] if c["metric"] == results["primary_metric"]]
    scale = figures.forest_scale(shown, results["margin"])
    pairs = {(c["a"], c["b"]) for c in shown}
    ends = (
        (f"{(pair := next(iter(pairs)))[1]} higher", f"{pair[0]} higher")
        if len(pairs) == 1
        else ("second higher", "first higher")
    )
    caption = "Paired difference, first minus second"
    return {
        "axis": figures.axis_row(scale, caption, ends),
        "rows": [(c, figures.forest_row(scale, c, results["margin"]) if c["n"] else "") for c in shown],
    }


def _curves(study: Study) -> Iterable[dict[str, Any]]:
    """Panels of training curves: one per measure and condition, with axes shared along a measure."""
    for title, columns in _CURVES:
        lines = {
            (name, column): [curve for run in study.runs_of(name) if (curve := _curve(run, column))]
            for name in study.conditions
            for column in columns
        }
        points = [point for curves in lines.values() for curve in curves for point in curve]
        if not points:
            continue
        x = scale_for([step for step, _ in points], include=[0.0])
        y = scale_for([value for _, value in points], unit_interval="Dice" in title)
        panels: list[dict[str, Any]] = []
        for slot, name in enumerate(study.conditions):
            layers = [(f"curve c{slot % 8} {column.split('_')[0]}", lines[name, column]) for column in columns]
            label = f"{title} of {tables.clean(name)} over optimiser steps"
            panels.append({"name": name, "slot": slot, "figure": figures.curves_plot(layers, x, y, label)})
        shown = [column for column in columns if any(lines[name, column] for name in study.conditions)]
        yield {"title": title, "panels": panels, "columns": shown}


def _curve(run: Run, column: str) -> list[tuple[float, float]]:
    """Points of one run; counted in steps where they are recorded, else in epochs."""
    return [(row.get("step", row.get("epoch", 0.0)), row[column]) for row in run.curves if column in row]


def _settings(study: Study) -> dict[str, Mapping[str, Any]]:
    """Resolved settings of each condition from its first finished run; its overrides where none has finished."""
    settings = {
        name: next((run.settings for run in study.runs_of(name) if run.settings), overrides)
        for name, overrides in study.conditions.items()
    }
    matched = {name: arm["matched"] for name, arm in study.budgets.items() if "matched" in arm}
    return {  # widths that were solved are frozen as such, so a run itself no longer says what they were solved for
        name: {**values, "network.budget_match": matched[name]} if name in matched else values
        for name, values in settings.items()
    }


def _differing(study: Study) -> list[tuple[str, list[str]]]:
    """Settings in which the conditions differ: dotted name, then one value per condition."""
    settings = list(_settings(study).values())
    keys = dict.fromkeys(key for values in settings for key in values)
    rows = [(key, [_plain(values.get(key)) for values in settings]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def _shared(study: Study) -> list[tuple[str, str]]:
    """Settings that all conditions have in common."""
    settings = list(_settings(study).values())
    keys = [key for key in settings[0] if all(key in values for values in settings)] if settings else []
    rows = [(key, {_plain(values[key]) for values in settings}) for key in keys]
    return [(key, values.pop()) for key, values in rows if len(values) == 1]


def _plain(value: Any) -> str:
    """A setting as it would stand in YAML; absent is a dash."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_plain(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(_plain(item) for item in value) + "]"
    return tables.ABSENT if value is None else str(value)

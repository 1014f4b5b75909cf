"""Write report.html, one file that opens anywhere without a network, and results.json beside it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from segmentation.figures import Figure
from segmentation.report import figures, gallery, plots, relief, tables, training
from segmentation.report.blocks import prose
from segmentation.report.cost import BOUNDED, cost_figures
from segmentation.report.html import environment, script
from segmentation.report.probes import read_probes
from segmentation.report.protocol import AS_PLANNED, expectation
from segmentation.report.read import MEASURES, Study, read_study
from segmentation.report.results import build_results
from segmentation.report.settings import in_yaml
from segmentation.report.svg import marker
from segmentation.report.verdicts import verdicts_of
from segmentation.runs import write_json, write_text

MOST_CASE_ROWS = 300
"""Rows of the case table on the page, worst first; results.json holds all of them."""


def write_report(folder: Path) -> Path:
    """Write ``results.json`` and ``report.html`` into a study folder or a run folder.

    Both are written whole or not at all. results.json holds every number of the page, and depends on what the
    runs hold only: the same study gives the same bytes, wherever it lies; times stand under ``time``.

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
    primary = tables.measure_label(results["primary_metric"], results)
    pictures = gallery.collect(study, results)
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            written_by=results["written_by"],
            scripts=[script("copy.js"), *pictures.scripts],
            modules=bool(pictures.openable),
            glyph=glyph,
            in_yaml=in_yaml,
            results=results,
            primary=primary,
            verdicts=verdicts_of(results),
            conditions=conditions_of(results),
            matched=any((c["budget"] or {}).get("matched_to") for c in results["conditions"].values()),
            axis=figures.axis_row(figures.score_scale(results), primary),
            paired=figures.paired_plot(results) if len(results["conditions"]) > 1 and results["patients"] else "",
            forest=_forest(results),
            most_cases=MOST_CASE_ROWS,
            bounded=results["primary_metric"] in BOUNDED,
            measures=[(m, tables.measure_label(m, results)) for m in MEASURES if m != results["primary_metric"]],
            differences=[c for c in results["contrasts"] if c["metric"] != results["primary_metric"] and c["n"]],
            labels={measure: tables.measure_label(measure, results) for measure in MEASURES},
            costs=[plots.render(figure) for figure in cost_figures(results, primary)],
            curves=list(training.panels(results)),
            gallery=pictures,
            probes=read_probes(study.runs[0].folder) if study.single else [],
            study_probes=[] if study.single else [_probe(entry) for entry in results["probes"]],
            as_planned=AS_PLANNED,
            other_conventions=any(_conventions_differ(c["by_convention"]) for c in results["conditions"].values()),
        )
    )


def glyph(slot: int) -> Markup:
    """Draw the marker of a condition for running text."""
    return Markup('<svg class="glyph" width="14" height="14" aria-hidden="true">{}</svg>').format(marker("7", 7, slot))


def _probe(entry: Mapping[str, Any]) -> dict[str, Any]:
    """One kind of probe over the conditions, drawn."""
    pictures: list[Markup] = []
    for plain in entry["figures"]:
        figure = Figure.from_plain(plain)
        pictures += [plots.render(figure), *([relief.render(figure)] if figure.kind == "surface" else [])]
    return dict(entry) | {"pictures": pictures, "definition": prose(entry["definition"])}


def conditions_of(results: Mapping[str, Any]) -> list[dict[str, Any]]:
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
    stated = {(each["a"], each["b"]): each["expected"] for each in results["protocol"].get("contrasts", [])}
    expected = [expectation(c, stated.get((c["a"], c["b"]), "any")) if c["declared"] else "" for c in shown]
    return {
        "axis": figures.axis_row(scale, caption, ends),
        "rows": [
            (c, figures.forest_row(scale, c, results["margin"]) if c["n"] else "", words)
            for c, words in zip(shown, expected, strict=True)
        ],
    }

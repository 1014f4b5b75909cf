"""Studies, runs, cases and figures as plain objects that show themselves in a notebook.

``open_study("runs/demo")`` as the last line of a cell shows verdict, conditions and patients; its ``runs``, ``cases``
and ``figures`` are mappings to objects that show themselves as well. Their numbers are plain data.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from markupsafe import Markup

from segmentation.figures import Figure
from segmentation.report import figures, gallery, plots, tables
from segmentation.report.cost import cost_figures, train_seconds
from segmentation.report.html import duration, environment
from segmentation.report.page import conditions_of, glyph
from segmentation.report.read import Row, Run, Study, read_study
from segmentation.report.results import build_results
from segmentation.report.training import panels
from segmentation.report.verdicts import verdicts_of


@dataclass(frozen=True)
class CaseView:
    """One case under each condition.

    Attributes:
        case, patient: Its names.
        score: Condition to primary score; ``None`` without a value.
        by_class: Class to condition to primary score.
        report: Where it belongs.
    """

    case: str
    patient: str
    score: Mapping[str, float | None]
    by_class: Mapping[str, Mapping[str, float | None]]
    report: "StudyView"

    def _repr_html_(self) -> str:
        """The overlays side by side."""
        alone = {"case": self.case, "patient": self.patient, "score": self.score, "by_class": self.by_class}
        found = gallery.collect(self.report.study, {**self.report.results, "cases": [alone]})
        return _html("case", self.report.results, case=self, pictures=[p for row in found.rows for p in row.pictures])


@dataclass(frozen=True)
class RunView:
    """One finished training.

    Attributes:
        run: What its folder holds.
        report: Where it belongs.
    """

    run: Run
    report: "StudyView"

    @property
    def rows(self) -> Sequence[Row]:
        """Scores of each case and class."""
        return self.run.rows

    @property
    def curves(self) -> Mapping[str, Any]:
        """Measure to ``step`` and ``value``."""
        return self.report.results["curves"].get(self.run.id, {})

    def _repr_html_(self) -> str:
        """Facts, curves and scores."""
        run, results = self.run, self.report.results
        parameters = tables.parameters([run.record["parameters"]] if run.record.get("parameters") else [])
        facts = [
            ("condition", run.condition), ("fold", run.fold), ("seed", run.seed), ("parameters", parameters),
            ("training", duration(train_seconds(run))),
        ]  # fmt: skip
        place = {"id": run.id, "condition": run.condition, "fold": run.fold, "seed": run.seed}
        alone = {"conditions": {run.condition: {"runs": [place]}}, "curves": results["curves"]}
        curves = [(group["title"], panel["figure"]) for group in panels(alone) for panel in group["panels"]]
        return _html("run", results, run=run, facts=facts, curves=curves, rows=run.rows)


@dataclass(frozen=True)
class FigureView:
    """A figure: its numbers, and its picture in a notebook."""

    figure: Figure

    def _repr_html_(self) -> str:
        """The picture."""
        return _html("figure", {}, figure=plots.render(self.figure))


@dataclass(frozen=True)
class StudyView:
    """A study, or a single run seen as a study of one condition.

    Attributes:
        study: What its folder holds.
    """

    study: Study

    @cached_property
    def results(self) -> dict[str, Any]:
        """Content of results.json, see :func:`segmentation.report.results.build_results`."""
        return build_results(self.study)

    @cached_property
    def runs(self) -> dict[str, RunView]:
        """Name of a finished run to the run."""
        return {run.id: RunView(run, self) for run in self.study.finished}

    @cached_property
    def cases(self) -> dict[str, CaseView]:
        """Name of a case to the case, worst first."""
        return {each["case"]: CaseView(**each, report=self) for each in self.results["cases"]}

    @cached_property
    def figures(self) -> dict[str, FigureView]:
        """Title to figure: cost against quality, and what was found inside the networks."""
        label = tables.measure_label(self.results["primary_metric"], self.results)
        plain = [each for probe in self.results["probes"] for each in probe.get("figures", [])]
        found = [*cost_figures(self.results, label), *map(Figure.from_plain, plain)]
        return {each.title: FigureView(each) for each in found}

    def _repr_html_(self) -> str:
        """Verdict, conditions and patients."""
        results = self.results
        primary = tables.measure_label(results["primary_metric"], results)
        return _html(
            "study",
            results,
            verdicts=verdicts_of(results),
            conditions=conditions_of(results),
            matched=any((c["budget"] or {}).get("matched_to") for c in results["conditions"].values()),
            axis=figures.axis_row(figures.score_scale(results), primary),
            paired=figures.paired_plot(results) if len(results["conditions"]) > 1 and results["patients"] else "",
        )


def open_study(folder: Path | str) -> StudyView:
    """Open a study folder, or a run folder, to look at it in a notebook; nothing is written.

    Args:
        folder: With study.json, or with run.json.

    Raises:
        SkipSegError: If the folder is neither, or what it declares contradicts itself.
    """
    return StudyView(read_study(Path(folder)))


@cache
def style() -> Markup:
    """The style sheets of the report, for one element of class ``skipseg``: nothing around it changes."""
    here = Path(__file__).parent
    sheets = "".join((here / name).read_text(encoding="utf-8") for name in ("report.css", "charts.css"))
    for page in (":root {", "body {"):
        sheets = sheets.replace(page, "& {")
    return Markup(".skipseg {\n" + sheets + "}\n.skipseg { padding: 0.8rem 1.2rem 1.2rem; }")


def _html(kind: str, results: Mapping[str, Any], **values: Any) -> str:
    """Fill the template of an output cell."""
    primary = tables.measure_label(results["primary_metric"], results) if results else ""
    kicker = f"SkipSeg {kind}"
    known = {"kind": kind, "kicker": kicker, "results": results, "primary": primary, "style": style(), "glyph": glyph}
    return environment().get_template("notebook.html.j2").render(**known, **values)

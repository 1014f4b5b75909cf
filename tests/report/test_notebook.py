"""Studies, runs, cases and figures as objects that show themselves in a notebook."""

import pytest

from segmentation import SkipSegError
from segmentation.figures import Figure
from segmentation.report.notebook import FigureView, open_study, style
from segmentation.report.results import build_results
from tests.report.probed import add_probes
from tests.report.test_page import Page


def fragment(shown):
    """What an object shows, checked to be whole."""
    text = shown._repr_html_()
    assert Page(text).open == []
    assert "<html" not in text
    assert "<script" not in text
    return text


@pytest.fixture
def report(study_writer, tmp_path):
    folder = study_writer(tmp_path / "study", folds=2)
    add_probes(folder)
    return open_study(folder)


def test_a_study_shows_verdict_conditions_and_patients(report):
    text = fragment(report)
    for wanted in (
        "Inconclusive",
        "Skip connections on lung tumours",
        "482 k",
        "Paired plot",
        report.results["policy"][:40],
    ):
        assert wanted in text, wanted
    assert report.results == build_results(report.study)


def test_a_run_shows_its_curves_and_scores(report):
    run = report.runs["c0-f0-s0"]
    text = fragment(run)
    for wanted in ("c0-f0-s0", "482 k", "12.6 min", "Dice of held-out cases", "pat_1_a", "tumour"):
        assert wanted in text, wanted
    assert run.rows[0].values["dice"] == run.run.rows[0].values["dice"]
    assert run.curves["val_dice"]["step"][0] == 25.0


def test_a_case_shows_its_overlays(report):
    assert list(report.cases) == [case["case"] for case in report.results["cases"]]
    case = next(iter(report.cases.values()))
    assert fragment(case).count("<img") == 2
    assert case.score == report.results["cases"][0]["score"]


def test_figures_are_found_by_title_and_keep_their_numbers(report):
    shown = report.figures["Dice against parameters"]
    assert isinstance(shown.figure, Figure)
    assert shown.figure.series[0].x == [482.113]
    assert "Dice against parameters" in fragment(shown)
    assert "RMS gradient in each block: after training" in report.figures


def test_a_single_run_and_a_single_figure_show_themselves(run_writer, tmp_path):
    run_writer(tmp_path / "run", {"case_7": "p7"})
    assert "Measured" in fragment(open_study(tmp_path / "run"))
    assert "No values." in fragment(FigureView(Figure("bars", "Empty")))


def test_names_stay_text(study_writer, tmp_path):
    evil = "<script>alert(1)</script>"
    assert evil not in fragment(open_study(study_writer(tmp_path / "study", (evil, "none"), folds=1, contrasts=())))


def test_the_style_touches_nothing_around_it():
    sheets = str(style())
    assert ":root" not in sheets
    assert "body {" not in sheets
    assert sheets.startswith(".skipseg {")
    assert sheets.count("{") == sheets.count("}")


def test_a_folder_that_holds_nothing_is_refused(tmp_path):
    with pytest.raises(SkipSegError, match="neither"):
        open_study(tmp_path)

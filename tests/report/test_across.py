"""Probes of a study: values side by side for each condition, on common axes, every number in results.json."""

import pytest

from segmentation.figures import Figure, Series
from segmentation.report.across import beside_each_other, in_order, probes_of
from segmentation.report.page import write_report
from segmentation.report.read import read_study
from segmentation.runs import read_json
from tests.report.probed import LAYERS, add_probes, write_probe


@pytest.fixture
def study(study_writer, tmp_path):
    folder = study_writer(tmp_path / "study", folds=2)
    add_probes(folder)
    return folder


def probe_of(folder, kind):
    (entry,) = [entry for entry in probes_of(read_study(folder)) if entry["kind"] == kind]
    return entry


def figures_of(folder, kind):
    return [Figure.from_plain(plain) for plain in probe_of(folder, kind)["figures"]]


def test_values_of_layers_are_averaged_over_the_runs_of_a_condition(study):
    start, after = figures_of(study, "gradients")
    assert (start.title, after.title) == (
        "RMS gradient in each block: at the start",
        "RMS gradient in each block: after training",
    )
    assert (start.kind, start.rows, start.ticks, start.log_y) == ("heatmap", ["concat", "none"], list(LAYERS), True)
    assert start.values[0] == pytest.approx([1.5e-2 * 10**-i for i in range(5)])  # folds 0 and 1: factors 1 and 2
    assert start.value_label == "G"


def test_a_condition_without_skips_has_no_row_of_levels(study):
    (levels,) = figures_of(study, "shapley")
    assert (levels.rows, levels.ticks, levels.reference) == (["concat"], ["L0", "L1", "L2"], 0.0)
    assert levels.values[0] == pytest.approx([0.15, -0.02, 0.01])
    assert levels.value_label == "change of Dice"


def test_single_numbers_are_means_over_runs_with_their_range(study):
    values = probe_of(study, "gradients")["values"]
    assert list(values) == ["start.V", "basin_radius"]
    assert values["start.V"]["concat"] == {"mean": -3.0, "low": -4.0, "high": -2.0, "runs": 2}
    assert values["basin_radius"]["none"] == {"mean": 1.5, "low": 1.0, "high": 2.0, "runs": 2}


def test_a_number_that_not_every_run_has_says_how_many_have_it(study, section_of):
    write_probe(study / "runs" / "c0-f0-s0", "gradients", [], values={"start": {"V": None}, "F": 0.5})
    for run in ("c1-f0-s0", "c1-f1-s0"):
        write_probe(study / "runs" / run, "gradients", [], values={"start": {"V": None}})
    values = probe_of(study, "gradients")["values"]
    assert values["start.V"] == {"concat": {"mean": -4.0, "low": -4.0, "high": -4.0, "runs": 1}, "none": None}
    assert values["F"] == {"concat": {"mean": 0.5, "low": 0.5, "high": 0.5, "runs": 1}, "none": None}
    section = section_of(write_report(study).read_text(), "probes")
    row = section.partition('<th scope="row">start.V</th>')[2].partition("</tr>")[0]
    assert row == ('<td class="n">\N{MINUS SIGN}4<br><small>1 of 2 runs</small></td><td class="n">\N{EN DASH}</td>')


def test_numbers_of_cases_lists_and_what_a_figure_shows_are_not_listed(study):
    run = study / "runs" / "c0-f0-s0"
    shares = Figure("bars", "Share", ticks=["L0"], series=[Series("", [0.5])])
    values = {
        "share": {"L0": 0.5}, "mean": {"L0": {"rms": 2.0}}, "dice": {"pat_1_a": 0.9, "all": 0.8}, "curve": [1.0, 2.0],
        "on": True, "optimizer": "sgd",
    }  # fmt: skip
    write_probe(run, "share", [shares], values=values)
    assert list(probe_of(study, "share")["values"]) == ["mean.L0.rms", "dice.all"]


def test_notes_stand_once_without_the_numbers_in_which_they_differ(study):
    assert probe_of(study, "gradients")["notes"] == ["V = \N{HORIZONTAL ELLIPSIS} decades; eps is 1e-8."]
    write_probe(study / "runs" / "c1-f0-s0", "gradients", [], note="A placebo.")
    write_probe(study / "runs" / "c1-f1-s0", "gradients", [], note="")
    gradients = "concat: V = \N{HORIZONTAL ELLIPSIS} decades; eps is 1e-8."
    assert probe_of(study, "gradients")["notes"] == [gradients, "none: A placebo."]


def test_a_long_table_of_numbers_is_folded(study, section_of):
    write_probe(study / "runs" / "c0-f0-s0", "gradients", [], values={f"v{i}": i for i in range(13)})
    section = section_of(write_report(study).read_text(), "probes")
    assert section.count("<summary>Values (") == 1
    assert "<summary>Values (15)</summary>" in section


@pytest.mark.parametrize("kind", ["updates", "landscape"])
def test_maps_are_shown_for_one_run_each_on_common_colours(study, kind):
    other = Figure("surface", "Loss in a plane of two directions", values=[[1, 90], [0, 2]], log_y=True)
    write_probe(study / "runs" / "c1-f0-s0", "landscape", [other])
    first, second = figures_of(study, kind)
    assert [first.title.partition(":")[0], second.title.partition(":")[0]] == ["concat", "none"]
    assert first.limits == second.limits
    values = [value for figure in (first, second) for row in figure.values for value in row if value > 0]
    assert list(first.limits) == [min(values), max(values)]


def test_curves_of_all_conditions_have_one_axis():
    lines = {
        "add": [[Figure("lines", "Loss", series=[Series("", [3.0, 1.0], [0.0, 5.0])])]],
        "none": [[Figure("lines", "Loss", series=[Series("", [2.0, 1.0, 0.5])])]],
    }
    assert [(list(each.x), list(each.limits)) for each in beside_each_other(lines)] == [([0.0, 5.0], [0.5, 3.0])] * 2


def test_kinds_stand_in_their_order_with_the_runs_they_come_from(study):
    write_probe(study / "runs" / "c0-f0-s0", "of_another_version", [])
    found = probes_of(read_study(study))
    assert [entry["kind"] for entry in found] == [
        "gradients", "updates", "landscape", "lesion", "shapley", "of_another_version",
    ]  # fmt: skip
    assert found[0]["runs"] == {"concat": ["c0-f0-s0", "c0-f1-s0"], "none": ["c1-f0-s0", "c1-f1-s0"]}
    assert found[3]["runs"] == {"concat": ["c0-f0-s0", "c0-f1-s0"]}


def test_a_probe_that_cannot_be_read_is_named_and_the_others_are_shown(study):
    (study / "runs" / "c0-f0-s0" / "probes" / "gradients.json").write_text("{")
    write_probe(study / "runs" / "c1-f0-s0", "gradients", [Figure("pie", "x")])
    entry = probes_of(read_study(study))[0]
    assert [problem.partition(":")[0] for problem in entry["problems"]] == ["c0-f0-s0", "c1-f0-s0"]
    assert entry["runs"] == {"concat": ["c0-f1-s0"], "none": ["c1-f1-s0"]}
    assert not any(str(study) in problem for problem in entry["problems"])


def test_names_are_merged_in_their_order():
    assert in_order([["a", "c"], ["a", "b", "c"], ["x", "a"]]) == ["x", "a", "b", "c"]
    assert in_order([]) == []


def test_a_gap_stays_a_gap():
    figure = Figure("bars", "Share", ticks=["L0", "L1"], series=[Series("", [0.5, None])])
    (found,) = beside_each_other({"add": [[figure]], "none": [[figure]]})
    assert found.values == [[0.5, None], [0.5, None]]


def test_the_page_of_a_study_shows_its_probes_and_results_hold_them(study, section_of):
    page = write_report(study).read_text()
    section = section_of(page, "probes")
    for wanted in (
        "RMS gradient in each block: after training",
        "concat: Loss in a plane of two directions",
        "as a relief",
        "Shapley value of each level&#39;s skip",
        "concat 2 runs, none 2 runs",
        "<p>V = \N{HORIZONTAL ELLIPSIS} decades; eps is 1e-8.</p>",
        '<th scope="row">start.V</th>',
        '<td class="n">\N{MINUS SIGN}3<br><small>\N{MINUS SIGN}4 to \N{MINUS SIGN}2</small></td>',
    ):
        assert wanted in section, wanted
    assert section.count("<figure") == 2 + 2 + 2 * 2 + 1 + 1
    assert read_json(study / "results.json")["probes"] == probes_of(read_study(study))
    assert '<a href="#probes">' in page


def test_a_study_without_probes_has_no_such_section(study_writer, tmp_path):
    assert 'href="#probes"' not in write_report(study_writer(tmp_path, folds=1)).read_text()

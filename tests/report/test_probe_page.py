"""The probes of a run on its page: figures, definition, values, and what went wrong."""

import json

import pytest

from segmentation import SkipSegError
from segmentation.figures import Figure, Series
from segmentation.report.blocks import MOST_ROWS, cell, data_table, prose
from segmentation.report.page import write_report
from segmentation.report.probes import read_probes, tables_of
from segmentation.report.tables import ABSENT

FIGURE = Figure("lines", "RMS gradient", "layer", "G", [Series("start", [1e-3, 1e-5])], ticks=["a", "b"], log_y=True)


@pytest.fixture
def run(run_writer, tmp_path):
    """A run folder with one probe."""
    run_writer(tmp_path / "run", {"case_7": "p7"})
    write_probe(tmp_path / "run")
    return tmp_path / "run"


def write_probe(run, kind="gradients", **changes):
    (run / "probes").mkdir(exist_ok=True)
    content = {
        "kind": kind,
        "definition": "See :func:`~segmentation.probes.gradients.profile`.\n\n    V = log10(G_1 / G_L)",
        "values": {"start": {"V": -2.0, "layers": [{"name": "a", "rms": 1e-3}, {"name": "b", "rms": None}]}},
        "figures": [FIGURE.to_plain()],
        "note": "V and C are read together.",
        "settings": {"batches": 4, "cases": 16, "seed": 3},
    }
    (run / "probes" / f"{kind}.json").write_text(json.dumps(content | changes))


def test_the_page_of_a_run_shows_its_probes(run, section_of):
    page = write_report(run).read_text()
    section = section_of(page, "probes")
    for wanted in (
        "<h3>Gradient in every layer, at the start and now</h3>",
        "<code>gradients</code>: 4 training batches, at most 16 held-out cases, seed 3<",
        'aria-label="RMS gradient. Lines over layer: start from 10⁻⁵ to 0.001."',
        "V and C are read together.",
        "<code>profile</code>",
        "<pre>V = log10(G_1 / G_L)</pre>",
        "start.V",
        "start.layers",
    ):
        assert wanted in section, wanted
    assert '<a href="#probes">' in page


def test_a_run_without_probes_has_no_such_section(run_writer, tmp_path):
    run_writer(tmp_path / "run", {"case_7": "p7"})
    assert read_probes(tmp_path / "run") == []
    assert "#probes" not in write_report(tmp_path / "run").read_text()


def test_a_probe_that_cannot_be_shown_says_why_and_spares_the_others(run):
    (run / "probes" / "broken.json").write_text("{")
    write_probe(run, "odd", values=[1])
    write_probe(run, "pie", figures=[{"kind": "pie", "title": "P"}])
    (run / "probes" / ".0123456789ab.partial.json").write_text("{")
    probes = {probe.kind: probe.problem for probe in read_probes(run)}
    assert list(probes) == ["broken", "gradients", "odd", "pie"]
    assert probes["gradients"] == ""
    assert "broken.json is not valid JSON" in probes["broken"]
    assert "odd.json is not what a probe writes" in probes["odd"]
    assert "has the kind 'pie'" in probes["pie"]
    page = write_report(run).read_text()
    assert "is not what a probe writes" in page
    assert str(run) not in page


def test_sections_that_were_measured_differently_say_so(run):
    write_probe(run, "lesion", settings={"batches": 4, "cases": 2, "seed": 0})
    write_probe(run, "odd", settings=None)
    measured = {probe.kind: probe.measured for probe in read_probes(run)}
    assert measured == {
        "gradients": "4 training batches, at most 16 held-out cases, seed 3",
        "lesion": "4 training batches, at most 2 held-out cases, seed 0",
        "odd": "",
    }


def test_headings_say_what_a_known_kind_measures(run):
    write_probe(run, "block_lesion")
    write_probe(run, "odd")
    assert {probe.kind: probe.title for probe in read_probes(run)} == {
        "block_lesion": "Change of Dice when a branch is bypassed",
        "gradients": "Gradient in every layer, at the start and now",
        "odd": "odd",
    }


def test_long_tables_are_folded(run):
    write_probe(run, values={"V": 1, "short": [{"n": i} for i in range(12)], "long": [{"n": i} for i in range(13)]})
    page = write_report(run).read_text()
    assert "<details><summary>long: 13 rows</summary>" in page
    assert "<summary>short" not in page


def test_hostile_probes_stay_text(run):
    evil = "<script>alert(1)</script>{{ 7 * 7 }}"
    write_probe(run, "evil", definition=evil, note=evil, values={evil: [{evil: evil}]})
    page = write_report(run).read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;{{ 7 * 7 }}" in page


def test_values_become_tables_and_long_lists_stay_in_the_file():
    values = {"V": 1.5, "per level": [0.1, 0.2], "plane": [[0.0] * 21] * 21, "curve": [1.0] * 300, "on": True}
    single, layers = tables_of(values | {"layers": [{"name": "a"}, {"name": "b", "rms": 2}]})
    assert single.rows == [
        ["V", "1.5"],
        ["per level", "0.1, 0.2"],
        ["plane", "21 \N{MULTIPLICATION SIGN} 21 values, in the file"],
        ["curve", "300 values, in the file"],
        ["on", "yes"],
    ]
    assert layers.columns == ["name", "rms"]
    assert layers.rows == [["a", ABSENT], ["b", "2"]]
    assert list(layers.numeric) == [False, True]
    assert tables_of({}) == []


def test_a_long_table_is_cut_and_says_so():
    table = data_table("Cases", ["n"], [[i] for i in range(MOST_ROWS + 5)])
    assert len(table.rows) == MOST_ROWS
    assert table.total == MOST_ROWS + 5


def test_a_row_that_does_not_fit_is_refused():
    with pytest.raises(SkipSegError, match="has 1 columns, but a row of 2 cells"):
        data_table("Dice", ["a"], [[1, 2]])


def test_plain_values_in_print():
    assert cell(None) == ABSENT
    assert cell([[1, 2], [3]]) == "(1, 2), (3)"
    assert cell(-2.5) == "\N{MINUS SIGN}2.5"


def test_definitions_keep_the_lines_of_formulas():
    text = "One\nline.\n\n    a = b\n      + c\n\nThe ``end`` <b>."
    assert prose(text) == ("<p>One line.</p><pre>a = b\n  + c</pre><p>The <code>end</code> &lt;b&gt;.</p>")

"""The page of suites: verdict first, contradictions shown, nothing in a file can act."""

import json
import re
from html.parser import HTMLParser

import pytest

from segmentation import SkipSegError
from segmentation.cli import main
from segmentation.figures import Figure, Series
from segmentation.report.suites import is_suite_folder, read_results, suite_table, write_suite_page
from segmentation.terminal import as_text

EVIL = "<script>alert(1)</script>\"'\x1b[2J{{ 7 * 7 }}"
CLAIM = "Sigmoid & tanh squash, so that gradients shrink layer by layer."


def table_of(folder):
    return as_text(suite_table([result for _, result in read_results(folder)]))


def hyphens(text):
    """Minus signs as they are typed."""
    return text.replace("\N{MINUS SIGN}", "-")


class Page(HTMLParser):
    """Collects elements, links, classes and text, and checks that elements are closed in order."""

    def __init__(self, path):
        super().__init__()
        self.open, self.tags, self.links, self.ids, self.classes, self.text = [], [], [], [], [], []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self.open == []
        assert len(self.ids) == len(set(self.ids))

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        fields = dict(attrs)
        assert not [name for name in fields if name.startswith("on")]
        self.links += [fields[name] for name in ("href", "src") if name in fields]
        self.ids += [fields["id"]] if "id" in fields else []
        self.classes.append(fields.get("class") or "")
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    @property
    def words(self):
        return hyphens(" ".join(" ".join(self.text).split()))


def readout(name, met, value=-0.87, decides=True):
    ends = {"low": value - 0.02, "high": value + 0.02} if value is not None else {"low": None, "high": None}
    return {"name": name, "expected": "below -0.5", "value": value, "met": met, "decides": decides} | ends


def write_result(folder, name="s01-vanish", **changes):
    """Write what a suite writes."""
    folder.mkdir(parents=True, exist_ok=True)
    result = {
        "suite": name,
        "title": "Vanishing gradients",
        "claim": CLAIM,
        "size": "cpu",
        "grid": {"depth": [4, 8], "optim": {"rate": 1e-4}},
        "pass_rule": "the slope of sigmoid is below -0.5",
        "readouts": [readout("slope of sigmoid", True)],
        "verdict": "pass",
        "reading": ["tanh with Xavier does not vanish."],
        "figures": [Figure("bars", "Slopes", ticks=["a"], series=[Series("plain", [-0.87])]).to_plain()],
        "tables": [{"title": "All slopes", "columns": ["norm", "slope"], "rows": [["none", -0.87], ["batch", None]]}],
        "cells": 216,
        "seconds": 118.4,
        "protocol": "ab" * 32,
        "versions": {"torch": "2.13.0"},
    }
    (folder / "result.json").write_text(json.dumps(result | changes))
    return folder


def test_the_page_of_one_suite_shows_claim_rule_expectation_and_finding(tmp_path):
    path = write_suite_page(write_result(tmp_path))
    assert path == tmp_path / "report.html"
    page = Page(path)
    wanted = [
        CLAIM,
        "Pass",
        "the slope of sigmoid is below -0.5",
        "slope of sigmoid",
        "-0.87 (-0.89 to -0.85)",
        "✓ met",
    ]
    wanted += ["tanh with Xavier does not vanish.", "All slopes", "216 at size cpu", "optim.rate 0.0001", "ab" * 32]
    for text in wanted:
        assert text in page.words, text
    assert page.words.index("Pass") < page.words.index(CLAIM) < page.words.index("Expected and found")


def test_the_page_is_whole_and_loads_nothing(tmp_path):
    for number in range(3):
        write_result(tmp_path / f"s0{number}", f"s0{number}")
    path = write_suite_page(tmp_path)
    page = Page(path)
    assert "script" not in page.tags
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)
    text = hyphens(path.read_text())
    assert "default-src 'none'" in text
    assert not re.search(r"https?:|@import|url\(", text)
    assert text.count('role="img" aria-label="Slopes. Bars: plain from -0.87 to -0.87."') == 3


def test_a_folder_of_suites_starts_with_a_table_of_verdicts(tmp_path):
    write_result(tmp_path / "b", "s04-kinds", verdict="fail", readouts=[readout("gain", False)])
    write_result(tmp_path / "a", "s05-levels", verdict="inconclusive", readouts=[readout("share", None)])
    write_result(tmp_path / "c", "s01-vanish")
    (tmp_path / "empty").mkdir()
    assert [result["suite"] for _, result in read_results(tmp_path)] == ["s01-vanish", "s04-kinds", "s05-levels"]
    words = Page(write_suite_page(tmp_path)).words
    assert "1 of 3 pass their rule 1 fail, 1 inconclusive" in words
    assert "Fail: s04-kinds" in words
    assert "Inconclusive: s05-levels" in words
    assert "✕ fail 0 of 1 118 s" in words
    assert "cells 648 processor time 5.9 min" in words


def test_a_contradicted_expectation_stands_beside_the_verdict(tmp_path):
    readouts = [
        readout("slope", False, -0.02),
        readout("aside", False, 3.0, decides=False),
        readout("late", None, None),
    ]
    page = Page(write_suite_page(write_result(tmp_path, verdict="fail", readouts=readouts)))
    assert "Contradicted: slope. Expected below -0.5, found -0.02 (-0.04 to 0)" in page.words
    assert "Contradicted, without weight in the verdict: aside" in page.words
    assert "✕ contradicted" in page.words
    assert "? open" in page.words
    assert page.classes.count("contradicted") == 2


def test_hostile_text_stays_text(tmp_path):
    figure = Figure("points", EVIL, EVIL, EVIL, [Series(EVIL, [1.0])], ticks=[EVIL], value_label=EVIL).to_plain()
    fields = dict.fromkeys(("title", "claim", "size", "pass_rule", "protocol"), EVIL)
    write_result(
        tmp_path,
        EVIL,
        **fields,
        readouts=[readout(EVIL, False)],
        reading=[EVIL],
        figures=[figure],
        tables=[{"title": EVIL, "columns": [EVIL], "rows": [[EVIL]]}],
        grid={EVIL: EVIL},
        versions={EVIL: EVIL},
    )
    path = write_suite_page(tmp_path)
    page = Page(path)
    assert "script" not in page.tags
    assert "<script>alert(1)</script>" in page.words
    assert "{{ 7 * 7 }}" in page.words
    assert "\x1b" not in path.read_text() + table_of(tmp_path)


def test_the_terminal_names_verdicts_and_contradictions(tmp_path):
    write_result(tmp_path / "a", verdict="fail", readouts=[readout("slope", False)])
    _, _, *lines = hyphens(table_of(tmp_path)).splitlines()
    assert lines[0].split() == ["s01-vanish", "fail", "Vanishing", "gradients"]
    assert lines[1].strip() == "slope: expected below -0.5, found -0.87 (-0.89 to -0.85)"


def test_report_recognises_a_folder_of_suites(tmp_path, capsys):
    write_result(tmp_path / "a")
    assert main(["report", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "report.html")


def test_a_folder_without_a_suite_is_none(tmp_path):
    assert not is_suite_folder(tmp_path)
    (tmp_path / "result.json").write_text("{")
    assert not is_suite_folder(tmp_path)
    with pytest.raises(SkipSegError, match=r"is not valid JSON"):
        write_suite_page(tmp_path)
    (tmp_path / "result.json").unlink()
    with pytest.raises(SkipSegError, match=r"holds no result\.json"):
        write_suite_page(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"verdict": "maybe"}, r"has the verdict 'maybe'"),
        ({"claim": None, "figures": {}}, r"it lacks claim, figures"),
        ({"readouts": [{"name": "x"}]}, r"a readout without name, expected or value"),
        ({"readouts": ["x"]}, r"a readout without name, expected or value"),
        ({"readouts": [readout("x", "perhaps")]}, r"'perhaps' where met"),
        ({"readouts": [readout("x", True) | {"value": "0.5"}]}, r"'0\.5' where a number"),
        ({"figures": [{"kind": "pie", "title": "P"}]}, r"result\.json: figure 'P' has the kind 'pie'"),
        ({"figures": [{"no": "figure"}]}, r"not the description of a figure"),
        ({"tables": [{"title": "T", "columns": ["a"], "rows": [[1, 2]]}]}, r"a row of 2 cells"),
        ({"tables": [{"title": "T"}]}, r"a table without title, columns or rows"),
    ],
)
def test_what_no_suite_writes_is_refused(tmp_path, changes, message):
    write_result(tmp_path, **changes)
    with pytest.raises(SkipSegError, match=message):
        write_suite_page(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_one_replicate_has_no_interval(tmp_path):
    lone = readout("slope", None, -0.3) | {"low": None, "high": None}
    series = Series("plain", [-0.87, -0.5], low=[-0.87, -0.5], high=[-0.87, -0.5])
    figures = [Figure(kind, "Slopes", ticks=["a", "b"], series=[series]).to_plain() for kind in ("bars", "lines")]
    words = Page(write_suite_page(write_result(tmp_path, readouts=[lone], figures=figures))).words
    assert "-0.3 one replicate: no interval" in words
    assert "(-0.87 to -0.87)" not in words
    assert "with intervals" not in words


@pytest.mark.parametrize("place", ["", "s01-vanish"])
def test_an_unfinished_suite_is_named(tmp_path, capsys, place):
    (tmp_path / place).mkdir(exist_ok=True)
    (tmp_path / place / "protocol.json").write_text(json.dumps({"suite": "s01-vanish"}))
    assert main(["report", str(tmp_path)]) != 0
    assert "a suite that is unfinished; run `skipseg suite` again" in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()


def test_the_same_results_give_the_same_page(tmp_path):
    assert (
        write_suite_page(write_result(tmp_path / "a")).read_bytes()
        == write_suite_page(write_result(tmp_path / "b")).read_bytes()
    )

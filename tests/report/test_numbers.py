"""results.json holds every number that the page shows, in a table, in a picture or in a sentence."""

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser

import pytest

from segmentation.report.page import write_report
from segmentation.runs import read_json
from tests.report.probed import add_probes

ARMS = {
    name: {"parameters": size, "macs": 1000 * size, "channels": [4, 8], "matched": "none", "matched_to": None}
    for name, size in (("concat", 482_113), ("none", 449_345))
}

WORDS = {"script", "style", "title", "code", "summary", "pre", "head", "h2", "h3", "h4", "b"}
"""Elements whose numbers are names, headings or counts of rows."""

AXES = {"tick", "axis", "caption", "policy", "kicker", "legend", "names", "x-label", "y-label", "bar-label", "aside"}
"""Classes of elements whose numbers belong to axes and explanations."""

SCALES = {"k": 1e3, "M": 1e6, "%": 1e-2, "min": 60.0, "h": 3600.0}
NUMBER = re.compile(r"(?<![\w.])([+\-]?\d+(?:\.\d+)?)(?:x10\^([+\-]?\d+))?(?:[ \xa0]?(k\b|M\b|%|min\b|h\b))?")
RAISED = str.maketrans("\N{MINUS SIGN}\N{MULTIPLICATION SIGN}\N{SUPERSCRIPT MINUS}⁰¹²³⁴⁵⁶⁷⁸⁹", "-x-0123456789")


class Shown(HTMLParser):
    """Text of the page outside of axes, names and explanations."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.hidden, self.open, self.text = 0, [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if tag not in {"meta", "br", "img", "link", "hr", "input"}:
            classes = set((dict(attrs).get("class") or "").split())
            self.open.append(tag in WORDS or bool(classes & AXES))
            self.hidden += self.open[-1]

    def handle_endtag(self, tag):
        self.hidden -= self.open.pop()

    def handle_data(self, data):
        if not self.hidden:
            self.text.append(data)


def shown_numbers(page: str) -> Iterator[tuple[str, float, float]]:
    """Every number of the page: as printed, its value, and half a unit of its last digit."""
    for text in Shown(page).text:
        raised = re.sub(r"10(-?[0-9]+)(?=\D|$)", r"10^\1", text.translate(RAISED)) if "⁻" in text else text
        for found in NUMBER.finditer(raised.translate(RAISED)):
            digits, power, unit = found.groups()
            scale = SCALES.get(unit or "", 1.0) * 10.0 ** int(power or 0)
            half = 0.5 * 10.0 ** -len(digits.partition(".")[2]) * scale
            yield found[0], float(digits) * scale, half


def stored_numbers(results) -> Iterator[float]:
    """Every number in results.json, those in its sentences and the sizes of its lists included."""
    match results:
        case bool() | None:
            return
        case int() | float():
            yield float(results)
        case str():
            yield from (float(text.translate(RAISED)) for text in re.findall(r"[+-]?\d+(?:\.\d+)?(?:e-?\d+)?", results))
        case list():
            yield float(len(results))
            yield from (number for each in results for number in stored_numbers(each))
        case dict():
            yield float(len(results))
            yield from (number for each in (*results, *results.values()) for number in stored_numbers(each))


def missing_numbers(page: str, results) -> set[str]:
    """Numbers that are shown and not stored."""
    stored = sorted(set(stored_numbers(results)))
    return {
        text
        for text, value, half in shown_numbers(page)
        if not any(abs(abs(value) - abs(each)) <= half * 1.001 + 1e-12 for each in stored)
        and not (text.endswith("%") and 100 * value in stored)
    }


@pytest.fixture
def study(study_writer, tmp_path):
    folder = study_writer(
        tmp_path / "study",
        patients=8,
        folds=2,
        seeds=(0, 1),
        classes=("organ", "lesion"),
        arms=ARMS,
        skip=("c1-f1-s1",),
    )
    add_probes(folder)
    return folder


def test_every_number_of_the_page_stands_in_results(study):
    page = write_report(study).read_text()
    assert len(list(shown_numbers(page))) > 500
    assert missing_numbers(page, read_json(study / "results.json")) == set()


def test_the_page_of_a_run_too(run_writer, tmp_path):
    run_writer(tmp_path / "run", {"case_7": "p7", "case_9": "p9"})
    page = write_report(tmp_path / "run").read_text()
    assert missing_numbers(page, read_json(tmp_path / "run" / "results.json")) == set()


def test_a_number_that_is_not_stored_is_found(study):
    page = write_report(study).read_text()
    results = read_json(study / "results.json")
    assert missing_numbers(page.replace("</main>", "<p>p = 0.98765</p></main>"), results) == {"0.98765"}
    assert missing_numbers(page, json.loads(json.dumps(results).replace("754.2", "1.5"))) >= {"12.6 min"}


def test_only_times_depend_on_how_long_it_took(study):
    write_report(study)
    before = read_json(study / "results.json")
    for timing in study.glob("runs/*/timing.json"):
        timing.write_text('{"train_seconds": 1.0, "predict_seconds": 2.0, "peak_memory_mb": 3.0}')
    write_report(study)
    after = read_json(study / "results.json")
    assert before.pop("time") != after.pop("time")
    assert before == after

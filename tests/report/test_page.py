"""report.html: one offline file that holds what it must and that no name can break."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from segmentation import SkipSegError
from segmentation.metrics.policy import POLICY
from segmentation.report.page import render, write_report
from segmentation.report.read import read_study
from segmentation.report.results import build_results
from segmentation.runs import read_json, write_json

VOID = {"meta", "br", "img", "link", "hr", "input"}


class Page(HTMLParser):
    """Collects elements and checks that they are closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.links, self.ids, self.text = [], [], [], set(), []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            assert not name.startswith("on"), f"<{tag}> has a script attribute {name}"
            if name in {"src", "href", "data", "action", "xlink:href"}:
                self.links.append(value)
            if name == "id":
                assert value not in self.ids, f"id {value} is used twice"
                self.ids.add(value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read_page(path):
    page = Page(path.read_text(encoding="utf-8"))
    assert page.open == []
    return page


@pytest.fixture
def page_of(study_writer, tmp_path):
    def make(**options):
        return write_report(study_writer(tmp_path / "study", **options))

    return make


def test_the_page_is_whole_and_loads_nothing(page_of):
    path = page_of()
    page = read_page(path)
    assert path.name == "report.html"
    assert page.tags.count("script") == 1
    assert all(link.startswith(("#", "data:image/webp;base64,")) for link in page.links)
    assert {link[1:] for link in page.links if link.startswith("#")} <= page.ids
    text = path.read_text()
    assert "default-src 'none'" in text
    assert not re.search(r"https?:|@import|url\(", text)
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{allowed}'" in text


def test_the_page_shows_what_the_study_is_about(page_of):
    text = " ".join(read_page(page_of()).text)
    for wanted in (
        "Skip connections on lung tumours",
        "Do concatenated long skip connections help on these scans?",
        "Inconclusive",
        "at least 6 are needed",
        "not how accurate it is",
        "482 k",
        "449 k",
        "Surface Dice at 2 mm",
        "HD95, mm",
        "declared",
        "CC BY-NC 3.0",
        "Keep this notice.",
        "Somebody et al. 2014",
        "cd" * 32,
        "leave one patient out",
        "network.long_skip",
        "12.6 min",
        "913 MB",
    ):
        assert wanted in text, wanted


def test_the_page_names_the_hash_of_the_study(study_writer, tmp_path):
    folder = study_writer(tmp_path / "study")
    assert read_json(folder / "study.json")["hash"] in read_page(write_report(folder)).text


def test_steps_are_those_of_the_curves(page_of):
    rows = [line for line in page_of().read_text().splitlines() if "c0-f0-s0</code>" in line]
    assert '<td class="n">1000</td>' in rows[0]  # 40 epochs of 25 steps


def test_a_matched_budget_is_shown_with_how_close_it_is(page_of):
    arms = {
        "concat": {"parameters": 1000, "macs": 5000, "channels": [4, 8], "matched": "none", "matched_to": None},
        "none": {"parameters": 1004, "macs": 7000, "channels": [5, 9], "matched": "params", "matched_to": "concat"},
    }
    path = page_of(arms=arms)
    text = " ".join(read_page(path).text)
    assert "parameters of concat, +0.40 %" in text
    differing = text[text.index("Settings in which") : text.index("Settings that all")]
    assert "network.budget_match" in differing
    budgets = {n: c["budget"] for n, c in read_json(path.with_name("results.json"))["conditions"].items()}
    assert budgets["none"] == arms["none"] | {"off_percent": pytest.approx(0.4)}
    assert budgets["concat"] == arms["concat"] | {"off_percent": None}


def test_without_a_matched_budget_there_is_no_such_column(page_of):
    assert 'data-name="budget"' not in page_of().read_text()


def test_rotated_folds_are_told_apart_from_nothing_and_said_so(page_of):
    path = page_of(patients=12, seeds=(0, 1, 2), folds=3, rotate_folds=True)
    text = " ".join(" ".join(read_page(path).text).split())
    results = read_json(path.with_name("results.json"))
    assert "seed and fold are confounded" in text
    assert "not separable: each seed has one fold" in text
    contrast = results["contrasts"][0]
    assert "3 groups of 12 patients" in contrast["method"]
    assert "seed and fold are confounded" in contrast["method"]
    assert (contrast["n"], contrast["seeds"], contrast["checks"]["spread"]) == (12, 3, None)
    assert contrast["checks"]["detectable"] > 0
    variance = results["conditions"]["none"]["variance"]
    assert (variance["patients"], variance["seeds"], variance["folds"], variance["sd"]) == (12, 3, 3, {})


def test_every_table_of_scores_carries_the_policy(page_of):
    text = page_of(conditions=("concat", "add", "none"), classes=("anterior", "posterior")).read_text()
    chapters = text.split("<section ")
    for name in ("result", "patients", "differences", "measures"):
        chapter = next(part for part in chapters if part.startswith(f'id="{name}"'))
        assert chapter.count("<table") == chapter.count(POLICY.replace("'", "&#39;")) > 0


def test_the_page_hides_where_the_study_lies(page_of, tmp_path):
    text = page_of(skip=("c1-f3-s0",)).read_text()
    assert str(tmp_path) not in text
    assert "/secret" not in text


def test_a_partial_study_lists_what_is_missing(page_of):
    text = " ".join(read_page(page_of(skip=("c1-f3-s0", "c1-f2-s0"))).text)
    assert "6 of 8 runs have finished" in text
    assert "c1-f3-s0" in text
    assert "not started" in text
    assert "rest on different cases" in text


def test_a_study_before_its_first_run_gives_a_page(page_of):
    runs = tuple(f"c{c}-f{f}-s0" for c in range(2) for f in range(4))
    text = " ".join(read_page(page_of(skip=runs)).text)
    assert "No result" in text
    assert "0 of 8 runs have finished" in text


def test_one_condition_alone_gives_a_page(page_of):
    text = " ".join(read_page(page_of(conditions=("none",), contrasts=())).text)
    assert "One condition alone" in text


def test_second_opinions_and_variance_stand_in_details(page_of):
    page = read_page(page_of(patients=8, seeds=(0, 1, 2)))
    text = " ".join(page.text)
    for wanted in ("Second opinions on these differences (1)", "(Holm)", "(95 %)", "P(A>B)", "10 seeds:", "residual"):
        assert wanted in text, wanted
    alone = " ".join(read_page(page_of(patients=8, seeds=(0,))).text)
    assert "Mixed model of concat \N{MINUS SIGN} none: not fitted: it needs two patients and two seeds" in alone
    assert text.index("Where the scores scatter") > text.index("Second opinions")


def test_without_a_declared_contrast_all_is_exploratory(page_of):
    text = " ".join(read_page(page_of(contrasts=())).text)
    assert "No contrast was declared" in text


def test_many_conditions_patients_seeds_and_classes_give_a_page(page_of):
    names = tuple(f"arm {i}" for i in range(9))
    path = page_of(
        conditions=names,
        patients=14,
        folds=2,
        seeds=(0, 7),
        classes=("a", "b", "c"),
        contrasts=(("arm 0", "arm 3"), ("arm 1", "arm 2")),
    )
    text = " ".join(read_page(path).text)
    assert "kept over 2 declared contrasts by Holm's procedure" in text


def test_a_run_folder_is_reported_alone(run_writer, tmp_path):
    run_writer(tmp_path / "run", {"case_7": "p7", "case_9": "p9"})
    path = write_report(tmp_path / "run")
    text = " ".join(read_page(path).text)
    assert "SkipSeg run report" in text
    assert "case_9" in text
    assert (tmp_path / "run" / "results.json").is_file()


def test_the_page_of_a_run_says_which_data_under_which_licence(run_writer, tmp_path, section_of):
    run = tmp_path / "run"
    run_writer(run, {"case_7": "p7", "case_9": "p9"})
    split = {"method": "stratified 5-fold", "hash": "ef" * 32, "fold": 0}
    known = {"dataset": "lung-ct", "patients": 4, "split": split, "versions": {"torch": "2.13"}}
    write_json(run / "run.json", read_json(run / "run.json") | known)
    dataset = {
        "licence": "CC BY-NC 3.0",
        "citation": "Somebody et al. 2014",
        "notice": "Keep it.",
        "train_cases": ["x"],
    }
    write_json(run / "model.json", {"dataset": {"name": "lung-ct"} | dataset, "labels": {"background": 0, "tumour": 1}})
    page = write_report(run).read_text()
    for section, wanted in (
        (
            "data",
            ("lung-ct", "<dd>4</dd>", "<dd>3</dd>", "1 tumour", "CC BY-NC 3.0", "Somebody et al. 2014", "Keep it."),
        ),
        ("reproduce", ("stratified 5-fold", "ef" * 32, "<dt>Run hash</dt><dd><code>" + "ab" * 32, "<dd>2.13</dd>")),
        ("methods", ("Data: lung-ct, 3 cases, 4 patients, labelled tumour, licence CC BY-NC 3.0.",)),
    ):
        assert [each for each in wanted if each not in section_of(page, section)] == []
    assert "does not say which data" not in page
    assert "train_cases" not in read_json(run / "results.json")["dataset"]


def test_a_run_that_names_no_data_says_so(run_writer, tmp_path, section_of):
    run_writer(tmp_path / "run", {"case_7": "p7"})
    page = write_report(tmp_path / "run").read_text()
    assert "does not say which data" in section_of(page, "data")
    assert "Split</dt>" not in page


HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7 * 7 }}",
    "'; --",
    "a\x1b[2J\u202eb",
    "&amp;",
]


def test_hostile_names_stay_text(study_writer, run_writer, tmp_path):
    evil = HOSTILE[0]
    folder = study_writer(
        tmp_path / "study",
        conditions=(evil, HOSTILE[1]),
        contrasts=((evil, HOSTILE[1]),),
        classes=(HOSTILE[2], HOSTILE[0]),
        name=evil + HOSTILE[4],
        question=HOSTILE[1],
        split={"method": evil, "hash": evil},
        dataset={"name": evil, "licence": HOSTILE[1], "notice": evil, "citation": HOSTILE[3], "labels": {evil: 1}},
    )
    cases = {name: name for name in HOSTILE if "\x1b" not in name}
    run_writer(folder / "runs" / "c0-f0-s0", cases, condition=evil, classes=(evil,))
    run_writer(folder / "runs" / "c1-f0-s0", cases, condition=HOSTILE[1], classes=(evil,))
    path = write_report(folder)
    page = read_page(path)
    text = path.read_text(encoding="utf-8")
    assert page.tags.count("script") == 1
    assert page.tags.count("img") == text.count("data:image/webp;base64,")
    assert evil in "".join(page.text)
    assert "{{ 7 * 7 }}" in "".join(page.text)
    assert not set("\x1b\u202e") & set(text)


def test_the_same_study_gives_the_same_page(study_writer, tmp_path):
    study = read_study(study_writer(tmp_path / "study"))
    assert render(study, build_results(study)) == render(study, build_results(study))


def test_a_folder_that_is_no_study_is_refused(tmp_path):
    with pytest.raises(SkipSegError, match=r"neither study\.json nor run\.json"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SkipSegError, match=r"gone is not a folder"):
        write_report(tmp_path / "gone")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("study.json", {"alpha": 0.2}, r"study\.json was changed after registration; restore it"),
        ("study.json", {"hash": None}, r"study\.json was changed after registration; restore it"),
        ("protocol.json", {"alpha": 0.2}, r"protocol\.json is not what .* registered with; restore it"),
    ],
)
def test_an_edited_study_is_not_reported(study_writer, tmp_path, name, change, message):
    folder = study_writer(tmp_path)
    write_json(folder / name, read_json(folder / name) | change)
    with pytest.raises(SkipSegError, match=message):
        write_report(folder)

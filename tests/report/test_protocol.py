"""The protocol on the page: what was promised, and every departure in a sentence."""

import pytest

from segmentation.ablation.protocol import register
from segmentation.report.page import write_report
from segmentation.report.protocol import AS_PLANNED, expectation, protocol_of
from segmentation.report.read import read_study
from segmentation.runs import content_hash, read_json, write_json

DECLARED = {
    "name": "s", "conditions": {"concat": {}, "none": {}}, "folds": [0], "seeds": [0],
    "contrasts": [["concat", "none", "greater"]], "runs": ["c0-f0-s0", "c1-f0-s0"],
}  # fmt: skip


@pytest.fixture
def amended(study_writer, tmp_path):
    """A study to which a condition and a contrast were added after two runs, by the code that registers studies."""
    folder = study_writer(tmp_path / "study", ("concat", "none", "add"), folds=1)
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    write_json(fresh / "study.json", register(fresh, DECLARED, finished=0))
    grown = DECLARED | {
        "conditions": DECLARED["conditions"] | {"add": {}},
        "contrasts": [*DECLARED["contrasts"], ["add", "none", "any"]],
        "runs": [*DECLARED["runs"], "c2-f0-s0"],
    }
    registered = register(fresh, grown, finished=2)
    study = {key: value for key, value in read_json(folder / "study.json").items() if key != "hash"}
    study |= registered | {"name": "s"}
    write_json(folder / "protocol.json", read_json(fresh / "protocol.json"))
    write_json(folder / "study.json", study | {"hash": content_hash(study)})
    return folder


def test_an_unchanged_study_has_no_deviation(study_writer, tmp_path):
    folder = study_writer(tmp_path, folds=1)
    found = protocol_of(read_study(folder))
    assert found["deviations"] == []
    assert found["hash"] == read_json(folder / "study.json")["protocol"]
    assert found["contrasts"] == [{"a": "concat", "b": "none", "expected": "any"}]
    assert AS_PLANNED in write_report(folder).read_text()


def test_what_was_added_after_runs_had_finished_is_said_and_exploratory(amended):
    found = protocol_of(read_study(amended))
    assert found["deviations"] == [
        "After 2 finished runs the study was extended by the contrast add \N{MINUS SIGN} none; the condition add; "
        "1 run. These contrasts are exploratory."
    ]
    assert found["contrasts"] == [{"a": "concat", "b": "none", "expected": "greater"}]
    page = write_report(amended).read_text()
    assert "expected greater" in page
    assert "sign-flip permutation of patients, two-sided" in page
    assert AS_PLANNED not in page


def test_what_was_expected_stands_beside_what_was_found(amended, section_of):
    differences = section_of(write_report(amended).read_text(), "differences")
    rows = differences.partition("<tbody>")[2].partition("</tbody>")[0].split("</tr>")
    assert "<small>expected greater, not decided</small>" in rows[0]
    assert "expected" not in "".join(rows[1:])  # what was added late was not expected beforehand


@pytest.mark.parametrize(
    ("verdict", "mean", "expected", "said"),
    [
        ("different", -0.1, "less", "expected less, found so"),
        ("different", -0.1, "greater", "expected greater, found less"),
        ("different", 0.1, "equivalent", "expected equivalent, found greater"),
        ("equivalent", 0.01, "equivalent", "expected equivalent, found so"),
        ("equivalent", 0.01, "greater", "expected greater, found equivalent"),
        ("inconclusive", 0.1, "greater", "expected greater, not decided"),
        ("different", 0.1, "any", ""),
    ],
)
def test_expectations_are_held_against_verdicts(verdict, mean, expected, said):
    assert expectation({"verdict": verdict, "mean": mean}, expected) == said


def test_missing_runs_and_other_versions_are_deviations(study_writer, tmp_path):
    folder = study_writer(tmp_path, folds=4, skip=("c1-f3-s0",))
    for run, version in (("c0-f0-s0", "2.12"), ("c1-f0-s0", "2.13")):
        record = folder / "runs" / run / "run.json"
        device = {"2.12": "cpu", "2.13": "NVIDIA H200"}[version]
        found = {"versions": {"torch": version, "numpy": "2.4"}, "device": device, "precision": "fp32"}
        write_json(record, read_json(record) | found)
    write_json(folder / "runs" / "c0-f1-s0" / "run.json", {"state": "failed", "error": "loss is nan at step 17"})
    assert protocol_of(read_study(folder))["deviations"] == [
        "2 of 8 planned runs are not in these numbers: 1 failed, 1 not started.",
        "The runs were made with different versions of torch: 2.12, 2.13.",
        "The runs were not computed alike: device was NVIDIA H200, cpu.",
    ]


def test_a_single_run_has_no_protocol(run_writer, tmp_path):
    run_writer(tmp_path / "run", {"case_7": "p7"})
    assert protocol_of(read_study(tmp_path / "run")) == {}
    assert 'id="protocol"' not in write_report(tmp_path / "run").read_text()

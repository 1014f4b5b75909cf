"""Paired differences: false alarms that stand alone, and distances, of which less is better."""

import pytest

from segmentation.report.page import write_report
from segmentation.report.read import read_study
from segmentation.report.results import build_results
from segmentation.report.verdicts import verdicts_of
from segmentation.runs import write_csv

COLUMNS = ["case", "patient", "class", "dice", "state"]


def set_rows(folder, run, rows):
    """Replace a run's cases.csv by rows of (case, dice, state), each case a patient."""
    lines = [dict(zip(COLUMNS, (case, case, "tumour", dice, state), strict=True)) for case, dice, state in rows]
    write_csv(folder / "runs" / run / "evaluation" / "cases.csv", lines, COLUMNS)


def test_a_false_alarm_that_stands_alone_is_counted_and_its_cost_is_told(study_writer, tmp_path):
    folder = study_writer(tmp_path, folds=1)
    both = [("a", 0.8), ("b", 0.7), ("c", 0.6)]
    healthy = [("d", None, "both_empty"), ("e", None, "both_empty")]
    set_rows(folder, "c0-f0-s0", [*((case, dice, "both") for case, dice in both), *healthy])
    alarms = [("d", 0.0, "false_alarm"), ("e", None, "both_empty")]
    set_rows(folder, "c1-f0-s0", [*((case, dice - 0.1, "both") for case, dice in both), *alarms])
    contrast = build_results(read_study(folder))["contrasts"][0]
    assert contrast["mean"] == pytest.approx(0.1)
    assert contrast["n"] == 3
    found = contrast["false_alarms"]
    assert (found["scores"], found["n"]) == (1, 5)
    assert found["mean"] == pytest.approx((0.1 * 3 + 1 + 0) / 5)
    assert "+0.260" in write_report(folder).read_text()
    assert "with false alarms</small>" in write_report(folder).read_text()


def test_the_false_alarms_of_one_patient_have_no_interval_and_of_nothing_else_no_other_result(study_writer, tmp_path):
    folder = study_writer(tmp_path, folds=1)
    set_rows(folder, "c0-f0-s0", [("d", None, "both_empty")])
    set_rows(folder, "c1-f0-s0", [("d", 0.0, "false_alarm")])
    contrast = build_results(read_study(folder))["contrasts"][0]
    assert (contrast["n"], contrast["verdict"]) == (0, "no result")
    assert (contrast["false_alarms"]["mean"], contrast["false_alarms"]["low"]) == (1, None)
    assert "with false alarms</small>" in write_report(folder).read_text()


def test_without_false_alarms_alone_nothing_is_told(study_writer, tmp_path):
    contrast = build_results(read_study(study_writer(tmp_path)))["contrasts"][0]
    assert contrast["false_alarms"] is None


@pytest.mark.parametrize(("metric", "said"), [("dice", "a scores higher than b"), ("hd95_mm", "a has larger")])
def test_of_distances_more_is_not_higher(metric, said):
    contrast = {"a": "a", "b": "b", "mean": 0.3, "low": 0.1, "high": 0.5, "level": 0.95, "n": 9, "seeds": 1}
    contrast |= {"p_holm": 0.01, "declared": True, "verdict": "different", "sentence": ""}
    results = {"contrasts": [contrast], "primary_metric": metric, "margin": 0.02, "length_unit": "mm"}
    assert verdicts_of(results)[0]["said"].startswith(said)

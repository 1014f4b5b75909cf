"""Cost beside quality: times of the runs, and figures only of costs that are known and differ."""

import pytest

from segmentation.report.cost import NOTE, cost_figures, times_of
from segmentation.report.page import write_report
from segmentation.report.read import read_study
from segmentation.report.results import build_results
from segmentation.runs import write_json

ARMS = {
    "concat": {
        "parameters": 482_113,
        "macs": 9_000_000,
        "activation_bytes": 2**22,
        "channels": [4, 8],
        "matched": "none",
        "matched_to": None,
    },
    "none": {
        "parameters": 449_345,
        "macs": 7_000_000,
        "activation_bytes": 2**21,
        "channels": [4, 8],
        "matched": "none",
        "matched_to": None,
    },
}


def test_times_are_means_over_runs_and_prediction_is_per_case(study_writer, tmp_path):
    folder = study_writer(tmp_path, folds=2)  # pat_1 and pat_3 held out together: 2 cases; pat_2 and pat_4: 4
    write_json(folder / "runs" / "c0-f0-s0" / "timing.json", {"train_seconds": 100.0, "predict_seconds": 10.0})
    write_json(folder / "runs" / "c0-f1-s0" / "timing.json", {"train_seconds": 300.0, "predict_seconds": 4.0})
    times = times_of(read_study(folder))
    concat = times["conditions"]["concat"]
    assert concat["train_seconds"] == {"mean": 200.0, "low": 100.0, "high": 300.0, "runs": 2}
    assert concat["predict_seconds_per_case"] == {"mean": 3.0, "low": 1.0, "high": 5.0, "runs": 2}
    assert concat["peak_memory_mb"] is None
    assert times["runs"]["c0-f0-s0"]["predict_seconds"] == 10.0
    assert times["train_seconds"] == pytest.approx(100 + 300 + 2 * 754.2)


def test_a_resumed_training_has_no_time_of_its_own(study_writer, tmp_path):
    folder = study_writer(tmp_path, folds=2)
    write_json(folder / "runs" / "c0-f0-s0" / "timing.json", {"train_seconds": 1.0, "resumed": True})
    write_json(folder / "runs" / "c0-f1-s0" / "timing.json", {"train_seconds": 300.0, "resumed": False})
    times = times_of(read_study(folder))
    assert times["conditions"]["concat"]["train_seconds"] == {"mean": 300.0, "low": 300.0, "high": 300.0, "runs": 1}
    assert times["train_seconds"] == pytest.approx(300 + 2 * 754.2)
    told = "30.1 min of training in 3 of 4 runs; of those that were resumed only the end was timed."
    assert told in write_report(folder).read_text()


def test_figures_hold_one_point_for_each_condition(study_writer, tmp_path):
    results = build_results(read_study(study_writer(tmp_path, folds=2, arms=ARMS)))
    parameters, macs, maps = cost_figures(results, "Dice")  # times of the fake runs are all the same
    assert [series.x for series in parameters.series] == [[482.113], [449.345]]
    assert [series.x for series in macs.series] == [[9.0], [7.0]]
    assert [series.x for series in maps.series] == [[4.0], [2.0]]
    found = results["conditions"]["none"]["scores"]["dice"]
    assert (parameters.series[1].name, parameters.series[1].y) == ("none", [found["estimate"]])
    assert (parameters.series[1].low, parameters.series[1].high) == ([found["low"]], [found["high"]])


def test_an_interval_is_cut_where_no_score_can_lie(study_writer, tmp_path):
    results = build_results(read_study(study_writer(tmp_path, folds=2, arms=ARMS)))
    results["conditions"]["none"]["scores"]["dice"] |= {"low": -0.2, "high": 1.1}
    none = cost_figures(results, "Dice")[0].series[1]
    assert (none.low, none.high) == ([0.0], [1.0])


def test_a_cost_that_nobody_knows_is_not_drawn(study_writer, run_writer, tmp_path):
    run_writer(tmp_path / "run", {"case_7": "p7"})
    assert cost_figures(build_results(read_study(tmp_path / "run")), "Dice") == []
    nothing = study_writer(tmp_path / "study", folds=1, skip=("c0-f0-s0", "c1-f0-s0"))
    assert cost_figures(build_results(read_study(nothing)), "Dice") == []


def test_the_page_shows_cost_and_says_what_times_depend_on(study_writer, section_of, tmp_path):
    page = write_report(study_writer(tmp_path, folds=1, arms=ARMS)).read_text()
    section = section_of(page, "cost")
    assert NOTE in section
    for wanted in (
        "Dice against parameters",
        "9.00 M",
        "449 k",
        "12.6 min",
        "914 MB" if "914 MB" in page else "913 MB",
    ):
        assert wanted in section, wanted

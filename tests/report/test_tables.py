"""The table for the terminal and the formats of numbers."""

from segmentation.report.read import read_study
from segmentation.report.results import build_results
from segmentation.report.tables import ABSENT, interval, number, parameters, terminal_table
from segmentation.terminal import as_text


def table_of(folder):
    return as_text(terminal_table(build_results(read_study(folder))))


def test_rows_are_patients_and_columns_conditions(study_writer, tmp_path):
    lines = table_of(study_writer(tmp_path)).splitlines()
    assert lines[2].split() == ["patient", "concat", "none"]
    assert [line.split()[0] for line in lines[4:8]] == ["pat_1", "pat_2", "pat_3", "pat_4"]
    assert lines[9].startswith("mean")
    assert lines[12].split() == ["parameters", "482", "k", "449", "k"]
    assert len({len(line) for line in lines[2:13]}) == 1


def test_verdict_missing_runs_and_policy_are_said(study_writer, tmp_path):
    text = table_of(study_writer(tmp_path, skip=("c1-f3-s0",)))
    assert "concat - none (declared): Mean difference" in text
    assert "1 of 8 runs are left out:\n  c1-f3-s0: not started" in text
    assert text.splitlines()[-1].startswith("Empty masks:")


def test_declared_contrasts_stand_in_a_table(study_writer, tmp_path):
    lines = table_of(study_writer(tmp_path, patients=12, seeds=(0, 1, 2))).splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("declared contrast"))
    assert lines[head].split("  ")[-1].strip() == "seeds"
    cells = lines[head + 2].split()
    assert cells[:4] == ["concat", "-", "none", "different"]
    assert "(95 %)" in lines[head + 2]
    assert cells[-5:] == ["p", "<", "0.001", "12", "3"]
    without = table_of(study_writer(tmp_path / "late", folds=1, skip=("c0-f0-s0", "c1-f0-s0")))
    assert "no result" in without


def test_many_patients_are_cut_short(study_writer, tmp_path):
    text = table_of(study_writer(tmp_path, patients=33, folds=2))
    assert "and 3 more" in text
    assert "pat_33" not in text


def test_names_cannot_act_on_the_terminal(study_writer, tmp_path):
    text = table_of(study_writer(tmp_path, conditions=("a\x1b[31m", "b\nc"), contrasts=(), name="\x07bell"))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "b\nc" not in text


def test_before_the_first_run_there_is_a_table(study_writer, tmp_path):
    text = table_of(study_writer(tmp_path, folds=1, skip=("c0-f0-s0", "c1-f0-s0")))
    assert ABSENT in text
    assert "no interval" in text


def test_numbers_without_value_and_below_zero():
    assert number(None) == ABSENT
    assert number(-0.02) == "\N{MINUS SIGN}0.020"
    assert number(12.345, "hd95_mm") == "12.3"
    assert interval({"low": -0.1, "high": 0.2}, signed=True) == "\N{MINUS SIGN}0.100 to +0.200"
    assert parameters([]) == ABSENT
    assert parameters([999_499, 999_500]) == "999 k to 1.00 M"

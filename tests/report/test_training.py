"""Training curves: the points of every run stand in results.json, and panels of a measure share their axes."""

import re

import pytest

from segmentation.report.page import write_report
from segmentation.report.read import read_study
from segmentation.report.results import build_results
from segmentation.report.training import MOST_POINTS, convergence_of, panels, thin_out
from segmentation.runs import read_csv, write_csv


@pytest.mark.parametrize("length", [0, 1, MOST_POINTS, MOST_POINTS + 1, 5003])
def test_long_curves_become_short_ones(length):
    thin = thin_out([(float(step), 2.0) for step in range(length)])
    assert len(thin) <= min(length, MOST_POINTS)
    assert all(value == 2.0 for _, value in thin)


def test_results_hold_the_points_of_every_run(study_writer, tmp_path):
    folder = study_writer(tmp_path, folds=1)
    curves = build_results(read_study(folder))["curves"]
    rows = read_csv(folder / "runs" / "c1-f0-s0" / "metrics.csv")
    assert set(curves) == {"c0-f0-s0", "c1-f0-s0"}
    assert curves["c1-f0-s0"]["train_loss"]["step"] == [25.0 * e for e in range(1, 41)]
    assert curves["c1-f0-s0"]["val_dice"]["value"] == pytest.approx(
        [float(row["val_dice"]) for row in rows if row["val_dice"]], rel=1e-5
    )


def test_panels_show_each_run_of_each_condition(study_writer, tmp_path):
    groups = list(panels(build_results(read_study(study_writer(tmp_path, folds=2, seeds=(0, 1))))))
    assert [group["title"] for group in groups] == ["Loss", "Dice of held-out cases"]
    loss = groups[0]["panels"]
    assert [panel["name"] for panel in loss] == ["concat", "none"]
    assert loss[0]["figure"].count("<polyline") == 4 * 2
    ticks = [re.findall(r'class="tick end">([^<]*)<', panel["figure"]) for panel in loss]
    assert ticks[0] == ticks[1] != []


def test_a_steep_loss_gets_a_logarithmic_axis(study_writer, tmp_path):
    folder = study_writer(tmp_path, folds=1)
    for run, first in (("c0-f0-s0", 800.0), ("c1-f0-s0", 0.4)):
        lines = [{"step": step, "train_loss": first / 2**step, "val_dice": 0.5} for step in range(8)]
        write_csv(folder / "runs" / run / "metrics.csv", lines, list(lines[0]))
    loss = next(panels(build_results(read_study(folder))))["panels"][0]["figure"]
    assert {"0.01", "1", "100"} <= set(re.findall(r'class="tick end">([^<]*)<', loss))


def test_convergence_is_told_by_a_dice_that_is_the_same_for_all(study_writer, tmp_path):
    folder = study_writer(tmp_path, folds=2)
    for run, dice in {
        "c0-f0-s0": [0.1, 0.6, 0.8], "c0-f1-s0": [0.1, 0.19, 0.2],
        "c1-f0-s0": [0.1, 0.3, 0.73], "c1-f1-s0": [0, 0.1, 0.15],
    }.items():  # fmt: skip
        lines = [{"step": 10 * (i + 1), "train_loss": 1 - i / 2, "val_dice": value} for i, value in enumerate(dice)]
        write_csv(folder / "runs" / run / "metrics.csv", lines, list(lines[0]))
    found = convergence_of(read_study(folder))
    assert found["dice"] == pytest.approx({0: 0.9 * 0.8, 1: 0.9 * 0.2})
    assert found["conditions"] == {
        "concat": {"runs": 2, "reached": 2, "steps": 25, "mean_loss": pytest.approx(0.5)},
        "none": {"runs": 2, "reached": 1, "steps": 30, "mean_loss": pytest.approx(0.5)},
    }
    assert "1 of 2" in write_report(folder).read_text()
    for run in ("c0-f1-s0", "c1-f1-s0"):  # nobody learns anything there
        lines = [{"step": 10, "train_loss": 1, "val_dice": 0}]
        write_csv(folder / "runs" / run / "metrics.csv", lines, list(lines[0]))
    found = convergence_of(read_study(folder))
    assert [found["conditions"][name]["runs"] for name in ("concat", "none")] == [1, 1]


def test_a_study_without_curves_has_no_panels(study_writer, tmp_path):
    folder = study_writer(tmp_path, folds=1)
    for file in folder.glob("runs/*/metrics.csv"):
        file.unlink()
    assert list(panels(build_results(read_study(folder)))) == []
    assert convergence_of(read_study(folder)) == {}
    assert 'href="#training"' not in write_report(folder).read_text()

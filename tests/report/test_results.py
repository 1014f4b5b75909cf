"""results.json: the numbers, checked by hand, and the same bytes for the same study."""

import json
import shutil
from dataclasses import replace
from math import comb

import pytest

from segmentation import SkipSegError
from segmentation.report.page import write_report
from segmentation.report.read import read_study
from segmentation.report.results import build_results, collapse
from segmentation.runs import read_json, write_csv, write_json
from segmentation.statistics import holm


def results_of(folder):
    return build_results(read_study(folder))


def set_scores(folder, run, rows):
    """Replace a run's cases.csv by rows of (case, patient, class, dice)."""
    lines = [dict(zip(("case", "patient", "class", "dice"), row, strict=True)) for row in rows]
    write_csv(folder / "runs" / run / "evaluation" / "cases.csv", lines, ["case", "patient", "class", "dice"])


def test_means_are_taken_over_patients_not_cases(study_writer, tmp_path):
    folder = study_writer(tmp_path, folds=1, seeds=(0, 1))
    for seed, shift in ((0, 0.0), (1, 0.2)):
        set_scores(folder, f"c0-f0-s{seed}", [("a", "p", "t", 0.1 + shift), ("b", "p", "t", 0.3), ("c", "q", "t", 0.7)])
        set_scores(folder, f"c1-f0-s{seed}", [("a", "p", "t", 0.1), ("b", "p", "t", 0.1), ("c", "q", "t", 0.4)])
    results = results_of(folder)
    # concat: p = mean(mean(.1, .3), .3) = .25, q = .7; none: p = .1, q = .4
    assert results["patients"] == {"p": {"concat": 0.25, "none": 0.1}, "q": {"concat": 0.7, "none": 0.4}}
    assert results["conditions"]["concat"]["scores"]["dice"]["estimate"] == pytest.approx(0.475)
    assert results["conditions"]["concat"]["scores"]["dice"]["n"] == 2
    contrast = results["contrasts"][0]
    assert contrast["declared"]
    assert contrast["mean"] == pytest.approx(0.225)
    assert contrast["patients"] == pytest.approx({"p": 0.15, "q": 0.3})


def test_a_pair_needs_the_same_fold_seed_case_and_class(study_writer, tmp_path):
    folder = study_writer(tmp_path, folds=1, seeds=(0, 1), skip=("c1-f0-s1",))
    set_scores(folder, "c0-f0-s0", [("a", "p", "t", 0.5), ("a", "p", "u", None), ("b", "q", "t", 0.6)])
    set_scores(folder, "c0-f0-s1", [("a", "p", "t", 0.9), ("b", "q", "t", 0.9)])
    set_scores(folder, "c1-f0-s0", [("a", "p", "t", 0.4), ("a", "p", "u", 0.0), ("b", "q", "t", "nan")])
    contrast = results_of(folder)["contrasts"][0]
    assert contrast["n"] == contrast["pairs"] == 1
    assert contrast["mean"] == pytest.approx(0.1)
    assert contrast["low"] is None


def test_a_score_without_value_is_left_out_and_a_zero_is_not(study_writer, tmp_path):
    folder = study_writer(tmp_path, folds=1)
    set_scores(folder, "c0-f0-s0", [("a", "p", "t", 0.0), ("b", "q", "t", None), ("c", "r", "t", 0.8)])
    results = results_of(folder)
    assert results["patients"]["p"]["concat"] == 0.0
    assert results["patients"].get("q", {"concat": None})["concat"] is None
    assert results["conditions"]["concat"]["scores"]["dice"]["n"] == 2
    assert results["conditions"]["concat"]["scores"]["dice"]["estimate"] == pytest.approx(0.4)


def test_results_do_not_depend_on_place_or_order(study_writer, tmp_path):
    first = study_writer(tmp_path / "here", classes=("a", "b"), seeds=(0, 1))
    second = tmp_path / "there" / "far"
    shutil.copytree(first, second)
    for folder in (first, second):
        write_report(folder)
    content = (first / "results.json").read_bytes()
    assert content == (second / "results.json").read_bytes()
    assert str(tmp_path) not in content.decode()
    write_report(first)  # a report of a reported folder changes nothing
    assert content == (first / "results.json").read_bytes()


def test_unfinished_failed_and_broken_runs_are_named_and_left_out(study_writer, run_writer, tmp_path):
    folder = study_writer(tmp_path, skip=("c0-f0-s0",))
    run_writer(folder / "runs" / "c0-f1-s0", {"x": "x"}, state="running")
    (folder / "runs" / "c0-f2-s0" / "run.json").write_text('{"state": "failed", "error": "loss is nan at step 17"}')
    (folder / "runs" / "c0-f3-s0" / "evaluation" / "cases.csv").unlink()
    (folder / "runs" / "c1-f0-s0" / "evaluation" / "cases.csv").write_text("case,class,dice\na,t,high\n")
    (folder / "runs" / "c1-f1-s0" / "run.json").write_text("{")
    (folder / "runs" / "c1-f2-s0" / "evaluation" / "cases.csv").write_text("case,class,dice\na,t,inf\n")
    results = results_of(folder)
    reasons = {run["id"]: run["reason"] for run in results["left_out"]}
    assert results["runs"] == {"planned": 8, "finished": 1}
    assert reasons["c0-f0-s0"] == "not started"
    assert reasons["c0-f1-s0"] == "running"
    assert reasons["c0-f2-s0"] == "failed: loss is nan at step 17"
    assert reasons["c0-f3-s0"] == "trained, but not evaluated"
    assert "'high' where a number is expected" in reasons["c1-f0-s0"]
    assert "not valid JSON" in reasons["c1-f1-s0"]
    assert "infinite score" in reasons["c1-f2-s0"]
    assert not any(str(tmp_path) in reason for reason in reasons.values())
    assert results["contrasts"][0]["verdict"] == "no result"
    json.dumps(results, allow_nan=False)


@pytest.mark.parametrize("count", [2, 3, 6])
def test_every_pair_is_compared_and_only_declared_ones_are_marked(study_writer, tmp_path, count):
    names = tuple(f"c{i}" for i in range(count))
    folder = study_writer(tmp_path, conditions=names, folds=1, contrasts=(("c1", "c0"),))
    primary = [c for c in results_of(folder)["contrasts"] if c["metric"] == "dice"]
    assert [c["declared"] for c in primary] == [True] + [False] * (comb(count, 2) - 1)
    assert (primary[0]["a"], primary[0]["b"]) == ("c1", "c0")
    assert len({frozenset((c["a"], c["b"])) for c in primary}) == comb(count, 2)


def test_a_contrast_that_was_added_late_is_compared_as_it_was_asked(study_writer, tmp_path):
    names = tuple(f"c{i}" for i in range(7))
    late = [{"finished": 3, "contrasts": [["c4", "c3", "greater"], ["c1", "c0", "any"]]}]
    folder = study_writer(tmp_path, conditions=names, contrasts=())
    study = read_study(folder)
    study = replace(study, header={**study.header, "amendments": late})
    pairs = [(c["a"], c["b"]) for c in build_results(study)["contrasts"] if c["metric"] == "dice"]
    assert pairs == [("c4", "c3"), ("c1", "c0"), *(("c0", name) for name in names[2:])]


def test_a_condition_without_a_finished_run_differs_by_what_its_runs_froze(study_writer, tmp_path):
    folder = study_writer(tmp_path, contrasts=())
    expected = build_results(read_study(folder))["settings"]
    for run in folder.glob("runs/c1-*"):
        write_json(run / "run.json", {"state": "failed", "error": "out of memory"})
    found = build_results(read_study(folder))["settings"]
    assert found == expected
    assert found["differing"] == {"network.long_skip": {"concat": "concat", "none": "none"}}
    for run in folder.glob("runs/c1-*"):
        (run / "config.yaml").unlink()
    found = build_results(read_study(folder))["settings"]
    assert found["differing"] == {}
    assert found["shared"].keys() > expected["shared"].keys() - {"network.long_skip"}


def test_who_watches_a_training_is_no_difference(study_writer, tmp_path):
    folder = study_writer(tmp_path)
    for run in folder.glob("runs/c1-*"):
        with (run / "config.yaml").open("a") as config:
            config.write("track: [tensorboard]\nthreads: 2\n")
    assert list(build_results(read_study(folder))["settings"]["differing"]) == ["network.long_skip"]


def test_declared_contrasts_are_judged_by_holm(study_writer, tmp_path):
    folder = study_writer(
        tmp_path,
        conditions=("concat", "add", "none"),
        patients=12,
        contrasts=(("concat", "none"), ("add", "concat"), ("add", "none")),
    )
    contrasts = results_of(folder)["contrasts"]
    declared = [c for c in contrasts if c["declared"]]
    expected = holm([c["p_value"] for c in declared])
    assert [c["p_holm"] for c in declared] == pytest.approx([each.p_value for each in expected], abs=1e-6)
    assert [c["alpha"] for c in declared] == pytest.approx([each.level for each in expected], abs=1e-6)
    assert [c["level"] for c in declared] == pytest.approx([1 - each.level for each in expected], abs=1e-6)
    assert all((c["p_holm"] <= 0.05) == (c["verdict"] == "different") for c in declared)
    assert "Over 3 declared contrasts p is" in declared[0]["sentence"]
    assert declared[0]["sentence"].endswith(f"(Holm), and this one is judged at {declared[0]['alpha']:.3g}.")
    assert {(c["alpha"], c["p_holm"]) for c in contrasts if not c["declared"]} == {(0.05, None)}


def test_a_declared_contrast_without_data_counts_in_the_family(study_writer, tmp_path):
    folder = study_writer(
        tmp_path,
        conditions=("concat", "add", "none"),
        contrasts=(("concat", "none"), ("add", "none")),
        folds=1,
        patients=8,
        skip=("c1-f0-s0",),
    )
    known, unknown = results_of(folder)["contrasts"][:2]
    assert known["p_holm"] == pytest.approx(2 * known["p_value"], abs=1e-5)
    assert (unknown["p_holm"], unknown["checks"], unknown["verdict"]) == (None, None, "no result")


def test_seeds_count_in_intervals_and_second_opinions(study_writer, tmp_path):
    folder = study_writer(tmp_path, patients=12, seeds=(0, 1, 2))
    results = results_of(folder)
    contrast = results["contrasts"][0]
    assert (contrast["n"], contrast["seeds"]) == (12, 3)
    assert "12 patients and 3 seeds" in contrast["method"]
    assert contrast["p_value"] == max(contrast["sign_flip_p"], contrast["checks"]["hierarchical_p"])
    check = contrast["checks"]
    assert check["superiority"]["estimate"] == 1.0
    assert check["mixed"]["converged"]
    assert check["mixed"]["estimate"] == pytest.approx(contrast["mean"], abs=1e-3)
    assert check["corrected_t"]["folds"] == 4
    assert set(check["cases_needed"]) == {"3", "5", "10"}
    assert check["detectable"] > 0
    assert "12 patients and 3 seeds" in results["conditions"]["none"]["scores"]["dice"]["method"]


def test_one_seed_says_that_its_share_is_unknown(study_writer, tmp_path):
    results = results_of(study_writer(tmp_path, patients=8))
    contrast = results["contrasts"][0]
    assert "one seed, so the share of seeds is unknown" in contrast["method"]
    assert contrast["checks"]["hierarchical_p"] is contrast["checks"]["spread"] is None
    assert any("How much another seed would change them is unknown" in note for note in results["notes"])


@pytest.mark.parametrize(
    ("grouping", "said"),
    [("case", "each counts as a patient of its own"), ("contiguous blocks", "not how well a new one is"), (None, None)],
)
def test_a_split_that_keeps_no_patient_together_is_said(study_writer, tmp_path, grouping, said):
    folder = study_writer(tmp_path, patients=8)
    for file in folder.glob("runs/*/run.json"):
        write_json(file, read_json(file) | ({"split": {"grouping": grouping}} if grouping else {}))
    notes = results_of(folder)["notes"]
    assert any("cases" in note and "patient" in note and (said or "") in note for note in notes) == (said is not None)


def test_only_declared_contrasts_get_a_mixed_model_and_only_the_primary_measure_checks(study_writer, tmp_path):
    results = results_of(study_writer(tmp_path, conditions=("concat", "add", "none"), patients=6, seeds=(0, 1)))
    for contrast in results["contrasts"]:
        if contrast["metric"] != "dice":
            assert "checks" not in contrast
        elif contrast["declared"]:
            assert contrast["checks"]["mixed"] is not None
        else:
            assert contrast["checks"]["mixed"] is None


def test_variance_is_split_by_source(study_writer, tmp_path):
    folder = study_writer(tmp_path, folds=1, patients=2, seeds=(0, 1))
    for seed, shift in ((0, 0.0), (1, 0.2)):
        set_scores(folder, f"c0-f0-s{seed}", [("a", "p", "t", 0.2 + shift), ("c", "q", "t", 0.6 + shift)])
    split = results_of(folder)["conditions"]["concat"]["variance"]
    assert split["sd"] == pytest.approx({"patient": 0.08**0.5, "seed": 0.02**0.5, "residual": 0.0}, abs=1e-6)
    assert split["shares"] == pytest.approx({"patient": 0.8, "seed": 0.2, "residual": 0.0}, abs=1e-6)
    assert (split["patients"], split["seeds"], split["folds"]) == (2, 2, 1)


def test_the_worst_case_comes_first(study_writer, tmp_path):
    cases = results_of(study_writer(tmp_path, patients=9, folds=3))["cases"]
    means = [sum(case["score"].values()) / 2 for case in cases]
    assert means == sorted(means)


def test_patients_stand_in_natural_order(study_writer, tmp_path):
    patients = list(results_of(study_writer(tmp_path, patients=11, folds=2))["patients"])
    assert patients == [f"pat_{i + 1}" for i in range(11)]


def test_counts_are_summed_over_cases(study_writer, tmp_path):
    counts = results_of(study_writer(tmp_path))["conditions"]["none"]["counts_by_class"]["tumour"]
    assert counts["both"] + counts["missed"] == counts["lesions_reference"] == 6
    assert counts["lesions_false"] == 6


def test_lengths_of_pictures_are_in_pixels(study_writer, tmp_path):
    folder = study_writer(tmp_path, folds=1)
    set_scores(folder, "c0-f0-s0", [("a", "p", "t", 0.5)])
    set_scores(folder, "c1-f0-s0", [("a", "p", "t", 0.5)])
    assert results_of(folder)["length_unit"] == "px"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"contrasts": [["concat", "nothing"]]}, "must name two of the conditions concat, none"),
        ({"contrasts": [["concat"]]}, "must name two"),
        ({"primary_metric": "beauty"}, "primary_metric must be one of dice"),
        ({"runs": []}, "lists no runs"),
        ({"runs": [{"id": "../elsewhere", "condition": "concat"}]}, "not one of its own"),
        ({"runs": [{"id": "x", "condition": "other"}]}, "not one of its own"),
    ],
)
def test_a_study_that_contradicts_itself_is_refused(study_writer, tmp_path, change, message):
    with pytest.raises(SkipSegError, match=message):
        results_of(study_writer(tmp_path, folds=1, **{"contrasts": ()} | change))


def test_study_json_that_is_no_study_is_refused(tmp_path):
    (tmp_path / "study.json").write_text("[1, 2]")
    with pytest.raises(SkipSegError, match="does not hold named values"):
        read_study(tmp_path)


def test_an_unfinished_run_folder_is_refused(run_writer, tmp_path):
    run_writer(tmp_path / "run", {"a": "a"}, state="running")
    with pytest.raises(SkipSegError, match="cannot be reported: running"):
        read_study(tmp_path / "run")


def test_collapse_weighs_each_level_equally():
    scores = {("p", "a", 0): 1.0, ("p", "a", 1): 0.0, ("p", "b", 0): 0.0, ("q", "c", 0): 0.2}
    assert collapse(scores, 1) == {("p",): 0.25, ("q",): 0.2}
    assert collapse({}, 1) == {}


def test_other_conventions_for_empty_masks_stand_beside_ours(study_writer, tmp_path):
    folder = study_writer(tmp_path, folds=1)
    lines = [
        {"case": "a", "class": "t", "dice": 0.4, "state": "both"},
        {"case": "b", "class": "t", "dice": 0.0, "state": "false_alarm"},
        {"case": "c", "class": "t", "dice": None, "state": "both_empty"},
    ]
    write_csv(folder / "runs" / "c0-f0-s0" / "evaluation" / "cases.csv", lines, list(lines[0]))
    means = {k: v["estimate"] for k, v in results_of(folder)["conditions"]["concat"]["by_convention"].items()}
    assert means["policy"] == pytest.approx(0.2)
    assert means["both_empty_perfect"] == pytest.approx(1.4 / 3)
    assert means["empty_reference_dropped"] == pytest.approx(0.4)
    assert "as other tools would count empty masks" in write_report(folder).read_text()

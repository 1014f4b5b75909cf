"""The sample-size statement says what the power of the comparison says."""

from segmentation.report.page import write_report
from segmentation.report.read import read_study
from segmentation.report.results import build_results
from segmentation.report.sample_size import sample_size


def contrast(find, exclude, detectable=0.1, seeds=1, declared=True, high=0.2):
    checks = {"cases_needed": find, "cases_to_exclude": exclude, "detectable": detectable}
    named = {"a": "x", "b": "y", "declared": declared, "n": 9, "seeds": seeds, "smallest_p": 0.004, "level": 0.95}
    return named | {"checks": checks, "low": 0.1, "high": high}


def sentence(*contrasts):
    (entry,) = sample_size(contrasts, 0.02, "dice")["contrasts"]
    return entry["sentence"]


def test_one_seed():
    assert sentence(contrast({"1": 80}, {"1": 90})) == (
        "9 patients and 1 seed find a true difference of 0.100 or more with probability 0.8. To find one of 0.02: "
        "about 80 patients with 1 seed; to rule one out where there is none: about 90 patients with 1 seed."
    )


def test_several_seeds_are_answered_for_those_at_hand():
    text = sentence(contrast({"3": 80, "5": None, "10": 40}, {"3": 1, "5": 70, "10": 50}, seeds=5))
    assert text.endswith(
        "To find one of 0.02: no number of patients suffices with 5 seeds; to rule one out where there is none: "
        "about 70 patients with 5 seeds."
    )


def test_rotated_folds_are_answered_by_the_seeds_that_are_needed():
    assert "about 96 patients with 12 seeds; " in sentence(contrast({"12": 96}, {"14": 112}, seeds=3))


def test_without_scatter_there_is_no_number():
    assert "this difference does not scatter" in sentence(contrast({}, {}, detectable=None, high=0.1))


def test_where_runs_are_missing_there_is_no_number():
    assert "too many runs are missing" in sentence(contrast({}, {}, detectable=None))


def test_too_few_patients_find_nothing_and_are_told_how_many_would():
    few = contrast({"1": 6}, {"1": 9}, detectable=None) | {"n": 4, "smallest_p": 0.125}
    assert sentence(few) == (
        "4 patients and 1 seed cannot show any difference, however large. To find one of 0.02: about 6 patients with 1 "
        "seed; to rule one out where there is none: about 9 patients with 1 seed."
    )


def test_declared_contrasts_come_alone_and_exploratory_ones_in_their_absence():
    first, second = contrast({"1": 80}, {"1": 90}), contrast({"1": 8}, {"1": 9}, declared=False)
    assert [each["declared"] for each in sample_size([first, second], 0.02, "dice")["contrasts"]] == [True]
    assert [each["declared"] for each in sample_size([second], 0.02, "dice")["contrasts"]] == [False]


def test_numbers_on_the_page_are_those_of_the_comparison(study_writer, section_of, tmp_path):
    folder = study_writer(tmp_path, patients=8)
    results = build_results(read_study(folder))
    checks = results["contrasts"][0]["checks"]
    (entry,) = results["sample_size"]["contrasts"]
    assert (entry["find"], entry["exclude"]) == (checks["cases_needed"], checks["cases_to_exclude"])
    page = write_report(folder).read_text()
    section = section_of(page, "sample")
    assert entry["sentence"] in section
    assert f"{entry['find']['1']} <small>with 1 seed" in section


def test_without_data_nothing_is_said(study_writer, tmp_path):
    folder = study_writer(tmp_path, folds=1, skip=("c0-f0-s0", "c1-f0-s0"))
    assert build_results(read_study(folder))["sample_size"]["contrasts"] == []
    assert 'id="sample"' not in write_report(folder).read_text()

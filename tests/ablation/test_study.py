"""From a study file to frozen runs."""

from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentation import SkipSegError
from segmentation.ablation.study import Metric, StudySettings, expand, freeze, merge, read_study
from segmentation.report.read import MEASURES
from segmentation.runs import read_json


def runs_of(path: Path, out: Path):
    return expand(read_study(path, None), out, None)


def frozen(path: Path, out: Path):
    study = read_study(path, None)
    runs = expand(study, out, None)
    out.mkdir(exist_ok=True)
    freeze(study, runs, out)
    return runs


values = st.lists(st.one_of(st.integers(), st.sampled_from(["concat", "add", "none"])), min_size=1, max_size=4)


@given(st.dictionaries(st.sampled_from(["network.width", "epochs", "optim.loss", "folds"]), values, min_size=1))
def test_grid_is_every_combination_once(grid):
    if any(len(set(entries)) < len(entries) for entries in grid.values()):
        with pytest.raises(SkipSegError, match="names a value twice"):
            StudySettings("s", Path("d"), grid=grid)
        return
    conditions = StudySettings("s", Path("d"), grid=grid).all_conditions()
    count = 1
    for entries in grid.values():
        count *= len(entries)
    assert len(conditions) == count
    assert len({tuple(settings.items()) for settings in conditions.values()}) == count
    assert all(settings[name] in grid[name] for settings in conditions.values() for name in grid)


def test_every_condition_runs_on_every_fold_and_seed(tmp_path, pictures, write_study):
    path = write_study(tmp_path, pictures, folds=None, seeds=[0, 7])
    runs = runs_of(path, tmp_path / "out")
    cells = [(run.condition, run.job.settings.fold, run.job.settings.seed) for run in runs]
    assert sorted(cells) == sorted((c, f, s) for c in ("concat", "none") for f in (0, 1, 2) for s in (0, 7))
    assert len({run.id for run in runs}) == 12
    assert {run.job.splits.hash for run in runs} == {runs[0].job.splits.hash}
    for run in runs:
        assert run.job.settings.network.long_skip == run.condition
        assert run.job.settings.threads == 1
        assert run.folder == tmp_path / "out" / "runs" / run.id
        assert run.id == f"{run.condition}-f{run.job.settings.fold}-s{run.job.settings.seed}-{run.job.identity[:8]}"


def test_runs_keep_their_names_when_conditions_folds_or_seeds_are_added(tmp_path, pictures, write_study):
    before = {run.id for run in runs_of(write_study(tmp_path, pictures), tmp_path / "out")}
    more = {
        "concat": {"network.long_skip": "concat"},
        "add": {"network.long_skip": "add"},
        "none": {"network.long_skip": "none"},
    }
    path = write_study(tmp_path, pictures, conditions=more, folds=[0, 1], seeds=[0, 1])
    assert before < {run.id for run in runs_of(path, tmp_path / "elsewhere")}


def test_condition_names_become_safe_folder_names(tmp_path, pictures, write_study):
    path = write_study(tmp_path, pictures, conditions={"../a b": {}, "ü": {"epochs": 3}})
    names = [run.id.rpartition("-f0")[0] for run in runs_of(path, tmp_path / "out")]
    assert names == [".._a_b", "ü"]
    assert all(run.folder.parent == tmp_path / "out" / "runs" for run in runs_of(path, tmp_path / "out"))


def test_dotted_and_nested_settings_mean_the_same(tmp_path, pictures, write_study):
    dotted = runs_of(write_study(tmp_path, pictures, conditions={"a": {"network.norm": "batch"}}), tmp_path / "out")
    nested = runs_of(
        write_study(tmp_path, pictures, conditions={"a": {"network": {"norm": "batch"}}}), tmp_path / "out"
    )
    assert [run.id for run in dotted] == [run.id for run in nested]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": "red"}, "colour"),
        ({"conditions": None}, "either conditions or a grid"),
        ({"grid": {"epochs": [1]}}, "either conditions or a grid"),
        ({"conditions": None, "grid": {"epochs": []}}, "at least one value"),
        ({"conditions": None, "grid": {"epochs": [1, 1]}}, "names a value twice"),
        ({"contrasts": [["concat", "conat"]]}, r"\['concat', 'conat'\] must name two of \['concat', 'none'\]"),
        ({"contrasts": [["concat", "concat"]]}, "must name two of"),
        ({"contrasts": [["concat"]]}, "must name two of"),
        ({"seeds": []}, "seeds must name each number once"),
        ({"seeds": [1, 1]}, "seeds must name each number once"),
        ({"folds": []}, "folds must name each number once"),
        ({"alpha": 1.0}, "alpha must be in"),
        ({"margin": 0.0}, "margin must be greater than 0"),
        ({"margin": "wide"}, "margin"),
        ({"primary_metric": "accuracy"}, "accuracy"),
        ({"conditions": {"a": {"seed": 3}}}, "a sets seed, which the study decides"),
        ({"base": {"threads": 4, "out": "here"}}, "base sets out, threads, which the study decides"),
        ({"conditions": {"a": None}}, "conditions"),
    ],
)
def test_wrong_study_is_refused(tmp_path, pictures, write_study, changes, message):
    path = write_study(tmp_path, pictures, **changes)
    if changes.get("conditions") == {"a": None}:
        path.write_text(path.read_text() + "conditions: {a: }\n")
    with pytest.raises(SkipSegError, match=message) as caught:
        read_study(path, None)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conditions": {"a": {"network.long_skp": "none"}}}, "condition 'a': .*long_skp"),
        ({"conditions": {"a": {"network.long_skip": "conat"}}}, "condition 'a': .*conat"),
        ({"base": {"epochs": 0}}, "condition 'base': .*epochs must be greater than 0"),
        ({"folds": [5]}, "fold 5 does not exist"),
        ({"conditions": {"a": {}, "b": {"folds": 2}}, "folds": [0]}, "condition 'b' splits the patients otherwise"),
    ],
)
def test_wrong_settings_of_a_condition_are_refused(tmp_path, pictures, write_study, changes, message):
    with pytest.raises(SkipSegError, match=message):
        runs_of(write_study(tmp_path, pictures, **changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "message"), [("- a\n", "holds no settings"), ("a: [", "is not YAML"), ("", "holds no settings")]
)
def test_not_a_study_file(tmp_path, content, message):
    (tmp_path / "study.yaml").write_text(content)
    with pytest.raises(SkipSegError, match=message):
        read_study(tmp_path / "study.yaml", None)


def test_missing_study_file(tmp_path):
    with pytest.raises(SkipSegError, match="does not exist"):
        read_study(tmp_path / "study.yaml", None)


def test_another_dataset_can_be_given(tmp_path, pictures, volumes, write_study):
    assert read_study(write_study(tmp_path, pictures), volumes.root).dataset == volumes.root


def test_metrics_are_those_of_the_report():
    assert get_args(Metric) == MEASURES


def test_default_contrasts_compare_with_the_first():
    study = StudySettings("s", Path("d"), conditions={"a": {}, "b": {}, "c": {}})
    assert study.all_contrasts() == [["a", "b"], ["a", "c"]]


def test_frozen_study_says_what_was_asked(tmp_path, pictures, write_study):
    runs = frozen(write_study(tmp_path, pictures, question="Why?"), tmp_path / "out")
    study = read_json(tmp_path / "out" / "study.json")
    assert (study["name"], study["question"], study["contrasts"]) == ("tiny", "Why?", [["concat", "none"]])
    assert (study["seeds"], study["folds"]) == ([0], [0])
    assert study["runs"] == [{"id": run.id, "condition": run.condition, "fold": 0, "seed": 0} for run in runs]
    assert (study["dataset"]["patients"], study["dataset"]["cases"]) == (3, 6)
    assert study["split"]["hash"] == runs[0].job.splits.hash


def test_freezing_twice_gives_the_same_bytes(tmp_path, pictures, write_study):
    path = write_study(tmp_path, pictures)
    frozen(path, tmp_path / "out")
    before = (tmp_path / "out" / "study.json").read_bytes()
    frozen(path, tmp_path / "out")
    assert (tmp_path / "out" / "study.json").read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"margin": 0.05}, "with another margin"),
        ({"alpha": 0.01, "question": "Why?"}, "with another question, alpha"),
        ({"primary_metric": "nsd"}, "with another primary_metric"),
        ({"contrasts": [["none", "concat"]]}, "with the contrast concat - none"),
    ],
)
def test_what_was_declared_cannot_change(tmp_path, pictures, write_study, changes, message):
    frozen(write_study(tmp_path, pictures), tmp_path / "out")
    before = (tmp_path / "out" / "study.json").read_bytes()
    with pytest.raises(SkipSegError, match=f"{message}; choose another folder"):
        frozen(write_study(tmp_path, pictures, **changes), tmp_path / "out")
    assert (tmp_path / "out" / "study.json").read_bytes() == before


def test_folder_of_something_else_is_refused(tmp_path, pictures, write_study):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(SkipSegError, match="exists and is not a study"):
        frozen(write_study(tmp_path, pictures), tmp_path / "out")


def test_killed_before_the_first_word_starts_over(tmp_path, pictures, write_study):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".0123456789ab.partial.json").write_text("{")
    frozen(write_study(tmp_path, pictures), tmp_path / "out")
    assert (tmp_path / "out" / "study.json").exists()


def test_merge_leaves_its_arguments_alone():
    base = {"network": {"depth": 3, "long_skip_levels": {0: "none"}}}
    assert merge(base, {"network": {"width": 8}})["network"] == base["network"] | {"width": 8}
    assert base == {"network": {"depth": 3, "long_skip_levels": {0: "none"}}}


def test_a_contrast_thought_of_later_is_not_declared(tmp_path, pictures, write_study):
    out = tmp_path / "out"
    frozen(write_study(tmp_path, pictures), out)
    more = {name: {"network.long_skip": name} for name in ("concat", "none", "add")}
    frozen(write_study(tmp_path, pictures, conditions=more), out)
    study = read_json(out / "study.json")
    assert study["contrasts"] == [["concat", "none"]]
    assert list(study["conditions"]) == ["concat", "none", "add"]

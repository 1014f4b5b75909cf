"""From a study file to frozen runs."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentation import SkipSegError
from segmentation.ablation import study as study_module
from segmentation.ablation.study import Metric, StudySettings, expand, merge, read_study
from segmentation.report.read import MEASURES
from segmentation.training.job import make_job, open_source
from segmentation.training.record import open_run, read_config


def runs_of(path: Path, out: Path):
    return expand(read_study(path, None), out, None)


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


def test_patches_do_not_change_the_spacing_of_a_condition(tmp_path, pictures, write_study, monkeypatch):
    def open_large(path, cache):
        source = open_source(path, cache)
        found = replace(source.fingerprint, shape=(316, 298), coarse_kept=(0.99, 0.98, 0.97, 0.96, 0.95))
        return replace(source, fingerprint=found)

    monkeypatch.setattr(study_module, "open_source", open_large)
    conditions = {"planned": {}, "small": {"data.patch_size": [64, 64]}, "own": {"data.spacing_mm": [5.0, 5.0]}}
    path = write_study(tmp_path, pictures, conditions=conditions, base={"folds": 0}, seeds=[0])
    spacings = {run.condition: run.job.settings.data.spacing_mm for run in runs_of(path, tmp_path / "out")}
    assert spacings == {"planned": [3.0, 3.0], "small": [3.0, 3.0], "own": [5.0, 5.0]}


def test_folds_take_turns_over_the_seeds(tmp_path, pictures, write_study):
    path = write_study(tmp_path, pictures, folds=None, seeds=[5, 6, 7, 8], rotate_folds=True)
    runs = runs_of(path, tmp_path / "out")
    places = {(run.job.settings.seed, run.job.settings.fold) for run in runs}
    assert places == {(5, 0), (6, 1), (7, 2), (8, 0)}
    assert len(runs) == 2 * len(places)


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
        ({"margin": 0.0}, "margin of dice must be in"),
        ({"margin": "wide"}, "margin"),
        ({"primary_metric": "accuracy"}, "accuracy"),
        ({"conditions": {"a": {"seed": 3}}}, "a sets seed, which the study decides"),
        ({"match_to": "add"}, r"match_to must name one of \['concat', 'none'\], got 'add'"),
        ({"expected": ["less"]}, "expected needs one entry a contrast, got 1 for 0"),
        ({"contrasts": [["concat", "none"]], "expected": ["better"]}, "better"),
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
        ({"base": {"epochs": 0}}, "condition 'concat': .*epochs must be greater than 0"),
        ({"conditions": {"a": {}, "b": {"network.long_skip": "concat"}}}, "'a' and 'b' are the same training"),
        (
            {"conditions": {"a": {}, "b": {"network.preset": "unet2051"}}},
            "'b': there is no preset 'unet2051'",
        ),
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
    assert study.all_contrasts() == [(["a", "b"], "any"), (["a", "c"], "any")]


def test_merge_leaves_its_arguments_alone():
    base = {"network": {"depth": 3, "long_skip_levels": {0: "none"}}}
    assert merge(base, {"network": {"width": 8}})["network"] == base["network"] | {"width": 8}
    assert base == {"network": {"depth": 3, "long_skip_levels": {0: "none"}}}


def test_merge_takes_levels_as_one_value():
    base = {"network": {"long_skip_levels": {0: "none"}}}
    assert merge(base, {"network": {"long_skip_levels": {1: "add"}}}) == {"network": {"long_skip_levels": {1: "add"}}}
    assert merge(base, {"network": {"long_skip_levels": {}}}) == {"network": {"long_skip_levels": {}}}


def test_a_grid_may_hold_levels_and_kinds(tmp_path, pictures, write_study):
    grid = {"network.long_skip_levels": [{}, {0: "none"}], "network.short_skip": ["none", "add"]}
    runs = runs_of(write_study(tmp_path, pictures, conditions=None, grid=grid), tmp_path / "out")
    networks = [run.job.settings.network for run in runs]
    assert [(network.long_skip_at(0), network.short_skip) for network in networks] == [
        ("concat", "none"), ("concat", "add"), ("none", "none"), ("none", "add")
    ]  # fmt: skip
    assert len({run.folder.name for run in runs}) == 4


def test_a_preset_is_departed_from_by_base_and_condition(tmp_path, pictures, write_study):
    base = {"folds": 0, "epochs": 2, "device": "cpu", "network": {"preset": "unet2015", "depth": 2, "width": 4}}
    conditions = {"unet": {}, "link": {"network.preset": "linknet"}, "wide": {"network.width": 6}}
    runs = runs_of(write_study(tmp_path, pictures, base=base, conditions=conditions), tmp_path / "out")
    unet, link, wide = (run.job.settings.network for run in runs)
    assert (unet.preset, unet.long_skip, unet.norm, unet.depth, unet.width) == ("unet2015", "concat", "none", 2, 4)
    assert (link.preset, link.long_skip, link.convs, link.depth, link.width) == ("linknet", "add", 4, 2, 4)
    assert (wide.norm, wide.width) == ("none", 6)


@pytest.fixture
def matched(tmp_path, pictures, write_study):
    """Function of changed entries: condition to the job of its run, arms without long skips matched in parameters."""

    def decide(**changes):
        network = {"depth": 2, "width": 16, "long_skip": "none", "budget_match": "params"}
        base = {"folds": 0, "epochs": 2, "device": "cpu", "network": network}
        conditions = {"concat": {"network.long_skip": "concat"}, "none": {}, "add": {"network.long_skip": "add"}}
        study = write_study(tmp_path, pictures, **{"base": base, "conditions": conditions, **changes})
        return {run.condition: run.job for run in runs_of(study, tmp_path / "out")}

    return decide


def test_arms_are_matched_to_the_first(matched):
    jobs = matched()
    concat, none, add = (jobs[name] for name in ("concat", "none", "add"))
    assert concat.settings.network.widths is None, "the reference keeps its widths"
    for job in (none, add):
        assert job.settings.network.widths == job.architecture.settings.channels()
        assert job.settings.network.channels()[0] > 16
        assert abs(job.cost.parameters / concat.cost.parameters - 1) <= 0.01
        built = sum(parameter.numel() for parameter in job.architecture.build().parameters())
        assert built == job.cost.parameters
    assert {job.settings.network.budget_match for job in jobs.values()} == {"none"}, "what is frozen is solved"
    assert (concat.matched, none.matched) == ("none", "params")


def test_multiplications_are_matched_to_a_named_condition(matched):
    base = {"folds": 0, "device": "cpu", "network": {"depth": 2, "width": 16, "budget_match": "macs"}}
    conditions = {"concat": {}, "none": {"network.long_skip": "none"}}
    jobs = matched(base=base, conditions=conditions, match_to="none")
    assert jobs["none"].settings.network.channels() == [16, 32, 64]
    assert jobs["concat"].settings.network.channels()[0] < 16
    assert abs(jobs["concat"].cost.macs / jobs["none"].cost.macs - 1) <= 0.01


def test_a_budget_that_cannot_be_met_is_refused(matched):
    base = {"folds": 0, "device": "cpu", "network": {"depth": 1, "width": 1, "budget_match": "params"}}
    with pytest.raises(SkipSegError, match="condition 'none': budget_match params finds no widths within 1%"):
        matched(base=base, conditions={"concat": {}, "none": {"network.long_skip": "none"}})


def test_a_budget_of_another_kind_of_network_is_refused(matched):
    conditions = {"concat": {}, "deep": {"network.depth": 3}}
    with pytest.raises(SkipSegError, match="condition 'deep': budget_match params needs the axes, channels and"):
        matched(conditions=conditions)


def test_a_budget_is_met_across_kernels(matched):
    jobs = matched(conditions={"concat": {}, "wide": {"network.kernel": 5}, "narrow": {"network.kernel": 1}})
    for name, kernel in (("wide", 5), ("narrow", 1)):
        assert jobs[name].architecture.kernels == [[kernel] * 2] * 3
        assert abs(jobs[name].cost.parameters / jobs["concat"].cost.parameters - 1) <= 0.01
    swapped = matched(conditions={"wide": {"network.kernel": 5}, "concat": {}})
    assert abs(swapped["concat"].cost.parameters / swapped["wide"].cost.parameters - 1) <= 0.01


def test_multiplications_of_other_patches_are_refused(matched):
    conditions = {"concat": {}, "none": {"network.long_skip": "none", "data.patch_size": [24, 24]}}
    base = {"folds": 0, "device": "cpu", "network": {"depth": 2, "width": 16, "budget_match": "macs"}}
    with pytest.raises(SkipSegError, match=r"condition 'none': budget_match macs reaches .* the patches differ"):
        matched(base=base | {"data": {"patch_size": [16, 16]}}, conditions=conditions)


def test_frozen_widths_are_not_solved_again(matched, tmp_path):
    job = matched()["none"]
    open_run(tmp_path / "run", job)
    again = make_job(read_config(tmp_path / "run" / "config.yaml"))
    assert (again.identity, again.cost) == (job.identity, job.cost)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conditions": {"a": {}, 1: {"epochs": 9}}}, "a condition's name must be text, got 1; put numbers in quotes"),
        ({"seeds": [-1]}, r"seeds must be in \[0, 2\*\*32\), got \[-1\]"),
        ({"margin": 5.0}, r"margin of dice must be in \(0, 1\), got 5.0"),
        ({"primary_metric": "hd95_mm"}, "primary_metric hd95_mm needs a margin, in mm, within which"),
        ({"alpha": 0.9}, r"alpha must be in \(0, 0.5\), got 0.9"),
    ],
)
def test_nonsense_is_refused_before_anything_is_registered(changes, message):
    given = {"name": "s", "dataset": Path("d"), "conditions": {"a": {}, "b": {"epochs": 9}}, **changes}
    with pytest.raises(SkipSegError, match=message):
        StudySettings(**given)


@pytest.mark.parametrize(
    ("one", "idle"),
    [
        ({"network.long_skip": "none"}, {"network.long_skip_placebo": "zeros"}),
        ({"augment.strength": 0}, {"augment.rotate_degrees": 5}),
        ({"data.context_slices": 0}, {"data.context_slices": 2}),
        ({"network.kernel": 3}, {"network.kernel": None}),
    ],
)
def test_conditions_that_differ_in_what_has_no_effect_are_refused(one, idle, tmp_path, pictures, write_study):
    path = write_study(tmp_path, pictures, conditions={"one": one, "other": one | idle})
    with pytest.raises(SkipSegError, match="'one' and 'other' are the same training: no setting in which they differ"):
        runs_of(path, tmp_path / "out")


def test_reference_of_a_budget_cannot_match_itself(tmp_path, pictures, write_study):
    none = {"network.long_skip": "none", "network.budget_match": "params"}
    path = write_study(tmp_path, pictures, conditions={"none": none, "concat": {}})
    with pytest.raises(SkipSegError, match="it is what the others are matched to; name another one by match_to"):
        runs_of(path, tmp_path / "out")


def test_infinite_settings_are_refused(tmp_path, pictures, write_study):
    path = write_study(tmp_path, pictures, conditions={"a": {}, "b": {"network.gain": float("inf")}})
    with pytest.raises(SkipSegError, match="gain must be a finite number, got inf"):
        runs_of(path, tmp_path / "out")

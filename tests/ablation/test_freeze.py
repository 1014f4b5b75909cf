"""Freezing a study: what is declared, what may be added, and what is refused."""

import subprocess
import sys
from pathlib import Path

import pytest

from segmentation import SkipSegError
from segmentation.ablation.freeze import freeze
from segmentation.ablation.protocol import read_protocol, verify
from segmentation.ablation.study import expand, read_study
from segmentation.runs import content_hash, read_json, write_json


def frozen(path: Path, out: Path):
    study = read_study(path, None)
    runs = expand(study, out, None)
    out.mkdir(exist_ok=True)
    freeze(study, runs, out)
    return runs


def finish(run) -> None:
    """Make a run look finished."""
    write_json(run.folder / "evaluation" / "summary.json", {})


def arms(*kinds: str) -> dict[str, dict[str, str]]:
    return {kind: {"network.long_skip": kind} for kind in kinds}


def test_frozen_study_says_what_was_asked(tmp_path, pictures, write_study):
    runs = frozen(write_study(tmp_path, pictures, question="Why?"), tmp_path / "out")
    study = read_json(tmp_path / "out" / "study.json")
    assert (study["name"], study["question"], study["contrasts"]) == ("tiny", "Why?", [["concat", "none"]])
    assert (study["seeds"], study["folds"]) == ([0], [0])
    assert study["runs"] == [{"id": run.id, "condition": run.condition, "fold": 0, "seed": 0} for run in runs]
    assert (study["dataset"]["patients"], study["dataset"]["cases"]) == (3, 6)
    assert study["split"]["hash"] == runs[0].job.splits.hash
    assert study["expected"] == ["any"]
    assert {name: arm["channels"] for name, arm in study["arms"].items()} == {"concat": [4, 8], "none": [4, 8]}
    for run in runs:
        assert study["arms"][run.condition]["parameters"] == run.job.cost.parameters
        assert read_json(run.folder / "run.json")["parameters"] == run.job.cost.parameters


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
        ({"contrasts": [["none", "concat"]]}, "with the contrast concat - none, which is missing"),
        (
            {"contrasts": [["concat", "none"]], "expected": ["less"]},
            "with the contrast concat - none, which is missing",
        ),
        ({"conditions": arms("concat", "add")}, "with the contrast concat - none, which is missing"),
        ({"seeds": [1]}, "with the seed 0, which is missing"),
        ({"folds": [1]}, "with the fold 0, which is missing"),
        ({"base": {"folds": 0, "epochs": 7, "network": {"depth": 1, "width": 4}}}, r"another .*epochs \(2, now 7\)"),
        ({"conditions": arms("concat") | {"none": {"network.long_skip": "add"}}}, r"long_skip \(none, now add\)"),
    ],
)
def test_what_was_declared_cannot_change(tmp_path, pictures, write_study, changes, message):
    frozen(write_study(tmp_path, pictures), tmp_path / "out")
    before = (tmp_path / "out" / "study.json").read_bytes()
    with pytest.raises(SkipSegError, match=f"{message}.*; choose another folder"):
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


def test_protocol_is_hashed_and_every_run_names_it(tmp_path, pictures, write_study):
    out = tmp_path / "out"
    runs = frozen(write_study(tmp_path, pictures, contrasts=[["concat", "none"]], expected=["greater"]), out)
    content = read_json(out / "protocol.json")
    written = content.pop("hash")
    assert written == content_hash(content) == read_json(out / "study.json")["protocol"]
    assert content["contrasts"] == [["concat", "none", "greater"]]
    assert content["runs"] == [run.id for run in runs]
    assert {"primary_metric", "alpha", "margin", "folds", "seeds", "conditions", "base", "methods"} <= set(content)
    for run in runs:
        record = read_json(run.folder / "run.json")
        assert (record["state"], record["protocol"]) == ("waiting", written)


def test_additions_are_amendments_and_the_protocol_stays(tmp_path, pictures, write_study):
    out = tmp_path / "out"
    frozen(write_study(tmp_path, pictures), out)
    before = (out / "protocol.json").read_bytes()
    more = {"conditions": arms("concat", "none", "add")}
    runs = frozen(write_study(tmp_path, pictures, **more), out)
    finish(runs[0])
    frozen(write_study(tmp_path, pictures, **more, seeds=[0, 1], folds=[0, 2]), out)
    study = read_json(out / "study.json")
    first, second = study["amendments"]
    assert (first["finished"], first["conditions"], first["contrasts"]) == (0, arms("add"), [["concat", "add", "any"]])
    assert first["runs"] == [runs[2].id]
    assert (second["finished"], second["seeds"], second["folds"], len(second["runs"])) == (1, [1], [2], 9)
    assert "conditions" not in second
    assert (out / "protocol.json").read_bytes() == before
    assert len(study["runs"]) == 12
    records = [read_json(out / "runs" / run["id"] / "run.json") for run in study["runs"]]
    assert {record["protocol"] for record in records} == {study["protocol"]}


def test_contrasts_count_as_declared_until_a_run_has_finished(tmp_path, pictures, write_study):
    out = tmp_path / "out"
    frozen(write_study(tmp_path, pictures), out)
    runs = frozen(write_study(tmp_path, pictures, conditions=arms("concat", "none", "add")), out)
    assert read_json(out / "study.json")["contrasts"] == [["concat", "none"], ["concat", "add"]]
    finish(runs[1])
    frozen(write_study(tmp_path, pictures, conditions=arms("concat", "none", "add", "mean")), out)
    study = read_json(out / "study.json")
    assert study["contrasts"] == [["concat", "none"], ["concat", "add"]]
    assert list(study["conditions"]) == ["concat", "none", "add", "mean"]
    assert study["amendments"][1]["contrasts"] == [["concat", "mean", "any"]]


@pytest.mark.parametrize("name", ["protocol.json", "study.json"])
def test_an_edited_protocol_is_refused(tmp_path, pictures, write_study, name):
    path, out = write_study(tmp_path, pictures), tmp_path / "out"
    frozen(path, out)
    key = "margin" if name == "protocol.json" else "protocol"
    write_json(out / name, read_json(out / name) | {key: 0.5})
    with pytest.raises(SkipSegError, match=r"is not what .* was registered with"):
        read_protocol(out)
    with pytest.raises(SkipSegError, match=r"is not what .* was registered with"):
        frozen(path, out)


def test_killed_between_protocol_and_study_starts_over(tmp_path, pictures, write_study):
    out = tmp_path / "out"
    frozen(write_study(tmp_path, pictures), tmp_path / "whole")
    out.mkdir()
    write_json(out / "protocol.json", {"margin": 1})
    frozen(write_study(tmp_path, pictures), out)
    assert (out / "protocol.json").read_bytes() == (tmp_path / "whole" / "protocol.json").read_bytes()


def test_killed_while_runs_were_frozen_goes_on(tmp_path, pictures, write_study):
    path, out = write_study(tmp_path, pictures), tmp_path / "out"
    runs = frozen(path, out)
    (runs[1].folder / "run.json").unlink()
    (runs[1].folder / "plan.json").unlink()
    frozen(path, out)
    assert read_json(runs[1].folder / "run.json")["protocol"] == read_json(out / "study.json")["protocol"]


FREEZE_WITHOUT_TORCH = """
import sys, time
for name in ("torch", "monai", "pytorch_lightning", "lightning"):
    sys.modules[name] = None  # importing it raises ImportError
from segmentation.cli import main
assert main(["ablate", sys.argv[1], "--out", sys.argv[2], "--launcher", "none"]) == 0
print(time.process_time())
"""


def test_two_hundred_runs_are_frozen_in_seconds_without_torch(tmp_path, pictures, write_study):
    kinds = {"network.long_skip": ["concat", "add", "mean", "mul", "none"], "network.short_skip": ["none", "add"]}
    path = write_study(tmp_path, pictures, conditions=None, grid=kinds, folds=None, seeds=list(range(7)))
    expand(read_study(path, None), tmp_path / "out", None)  # by now the scans are checked
    arguments = [sys.executable, "-c", FREEZE_WITHOUT_TORCH, str(path), str(tmp_path / "out")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    said, folder, seconds = done.stdout.splitlines()
    assert said == "210 runs: 10 conditions, 3 folds, 7 seeds; 210 waiting"
    assert folder == str(tmp_path / "out")
    assert float(seconds) < 5
    assert len(list((tmp_path / "out" / "runs").glob("*/config.yaml"))) == 210


def test_a_registered_study_is_verified_and_an_edited_one_refused(tmp_path, pictures, write_study):
    out = tmp_path / "out"
    frozen(write_study(tmp_path, pictures), out)
    verify(out)
    study = read_json(out / "study.json")
    kept = {key: value for key, value in study.items() if key != "hash"}
    rehashed = [kept | change for change in ({"margin": 0.2}, {"contrasts": []})]
    for edited in (study | {"seeds": [1]}, *(each | {"hash": content_hash(each)} for each in rehashed)):
        write_json(out / "study.json", edited)
        with pytest.raises(SkipSegError, match=r"study\.json was changed after registration; restore it"):
            verify(out)


def test_frozen_study_says_what_a_budget_was_matched_to(tmp_path, pictures, write_study):
    conditions = {"concat": {}, "none": {"network.long_skip": "none", "network.budget_match": "params"}}
    base = {"folds": 0, "epochs": 2, "steps_per_epoch": 2, "device": "cpu", "network": {"depth": 2, "width": 16}}
    frozen(write_study(tmp_path, pictures, base=base, conditions=conditions), tmp_path / "out")
    arms = read_json(tmp_path / "out" / "study.json")["arms"]
    matched = {name: (arm["matched"], arm["matched_to"]) for name, arm in arms.items()}
    assert matched == {"concat": ("none", None), "none": ("params", "concat")}

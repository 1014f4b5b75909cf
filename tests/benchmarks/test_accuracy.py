"""The benchmark of time to accuracy on a phantom, cut to a moment, without nnU-Net."""

import json
import sys

import pytest

from segmentation.data.layouts import open_dataset
from tests.benchmarks import accuracy
from tests.benchmarks.rows import Options


@pytest.fixture
def prepared(tmp_path) -> Options:
    return Options("small", 1, tmp_path / "none", tmp_path / "work")


def test_a_phantom_that_says_so_stands_in_for_missing_data(prepared, tmp_path):
    ((name, folder),) = accuracy.find_datasets(prepared, None, ()).items()
    assert name == "phantom-small"
    assert len(open_dataset(folder).cases) == 10
    assert accuracy.find_datasets(prepared, tmp_path, ()) == {name: folder}
    assert accuracy.find_datasets(prepared, None, [folder]) == {"phantom": folder}


def test_masks_of_any_program_are_scored_alike_and_missing_ones_count_nothing(prepared, tmp_path):
    ((_, folder),) = accuracy.find_datasets(prepared, None, ()).items()
    dataset = open_dataset(folder)
    names = [case.name for case in dataset.cases][:4]
    masks = tmp_path / "masks"
    masks.mkdir()
    for case in dataset.cases[:2]:
        (masks / case.label.name).write_bytes(case.label.read_bytes())
    assert accuracy.score(dataset, names[:2], masks, tmp_path / "all") == 1.0
    assert accuracy.score(dataset, names, masks, tmp_path / "half") == 0.5


def test_the_peer_gets_the_same_split_a_deadline_and_folders_of_its_own(prepared, tmp_path):
    ((_, folder),) = accuracy.find_datasets(prepared, None, ()).items()
    names = [case.name for case in open_dataset(folder).cases]
    stand_in = tmp_path / "python"
    stand_in.write_text(
        f"""#!{sys.executable}
import json, os, shutil, sys, time
script, dataset, configuration, deadline, split, out = sys.argv[1:]
assert configuration == "2d" and 0 < float(deadline) - time.time() <= 120
(given,) = json.load(open(split))
os.makedirs(out)
for name in given["val"]:
    shutil.copy(f"{{os.environ['nnUNet_raw']}}/{{dataset}}/labelsTr/{{name}}.png", out)
"""
    )
    stand_in.chmod(0o755)
    split = {"train": names[2:], "val": names[:2]}
    dice, wall = accuracy.theirs(stand_in, folder, 2, tmp_path / "run", split)
    assert dice == 1.0
    assert wall > 0


@pytest.mark.slow
def test_small_benchmark_runs_our_commands_from_raw_files_to_scores(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    folders = ["--work", str(tmp_path / "work"), "--peers", str(tmp_path / "none")]
    written = tmp_path / "rows.json"
    assert accuracy.main(["--size", "small", "--minutes", "10", *folders, "--json", str(written)]) == 0
    assert "phantom-small, held-out fold, 10 min, Dice" in capsys.readouterr().out
    dice, wall = json.loads(written.read_text())
    assert 0 <= dice["ours"] <= 1
    assert dice["better"] == "more"
    assert 1 < wall["ours"] < 600
    plan = json.loads((tmp_path / "work" / "accuracy" / "phantom-small-10" / "plan.json").read_text())
    assert "of the 10 minutes" in plan["settings"]["steps_per_epoch"]["why"]

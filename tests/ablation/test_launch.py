"""Studies in processes: what is finished is kept, what failed is named and tried again, a kill changes nothing."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from segmentation import SettingsError, SkipSegError
from segmentation.ablation import launch
from segmentation.ablation.launch import ablate
from segmentation.ablation.launch_local import _reason, launch_local
from segmentation.ablation.lease import leases
from segmentation.ablation.ledger import read_ledger
from segmentation.config import AblateSettings
from segmentation.report.page import write_report
from segmentation.runs import read_json, write_json
from segmentation.training import trackers
from segmentation.training.lock import locked
from segmentation.training.record import read_config


@pytest.fixture(scope="module")
def finished(tmp_path_factory, pictures, write_study) -> Path:
    """A finished study; copy it to change it."""
    folder = tmp_path_factory.mktemp("study")
    return ablate(AblateSettings(write_study(folder, pictures), folder / "out", workers=1))


def changed(folder: Path, before: dict[Path, int]) -> set[str]:
    """Runs of ``folder`` with a file that was not there or has changed."""
    return {path.relative_to(folder).parts[1] for path, at in stamps(folder).items() if before.get(path) != at}


def stamps(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("*") if path.is_file()}


def test_study_runs_every_condition(finished):
    runs = read_json(finished / "study.json")["runs"]
    assert [run["condition"] for run in runs] == ["concat", "none"]
    for run in runs:
        folder = finished / "runs" / run["id"]
        assert read_json(folder / "run.json")["state"] == "finished"
        assert (folder / "evaluation" / "cases.csv").exists()
        assert (folder / "log.txt").read_text() == "", "a run that goes well has nothing to say"


def test_a_tracked_study_is_the_same_study(tmp_path, pictures, write_study, finished):
    study = write_study(tmp_path, pictures)
    out = ablate(AblateSettings(study, tmp_path / "out", launcher="none", track="tensorboard"))
    assert read_json(out / "study.json") == read_json(finished / "study.json")
    for run in read_json(out / "study.json")["runs"]:
        assert read_config(out / "runs" / run["id"] / "config.yaml").track == "tensorboard"
        assert read_config(finished / "runs" / run["id"] / "config.yaml").track == "none"


def test_a_tracker_that_is_missing_is_said_before_anything_is_frozen(tmp_path, pictures, write_study, monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda package: None)
    with pytest.raises(SkipSegError, match="pip install wandb"):
        ablate(AblateSettings(write_study(tmp_path, pictures), tmp_path / "out", track="wandb"))
    assert not (tmp_path / "out").exists()


def test_no_condition_can_have_a_tracker_of_its_own(tmp_path, pictures, write_study):
    study = write_study(tmp_path, pictures, conditions={"a": {"track": "tensorboard"}, "b": {}})
    with pytest.raises(SettingsError, match="a sets track, which the study decides"):
        ablate(AblateSettings(study, tmp_path / "out"))


def test_conditions_share_split_and_differ_in_the_network(finished):
    concat, none = (
        read_json(finished / "runs" / run["id"] / "run.json") for run in read_json(finished / "study.json")["runs"]
    )
    assert concat["split"] == none["split"]
    assert concat["train_cases"] == none["train_cases"]
    assert concat["parameters"] > none["parameters"]


def test_lease_of_a_worker_that_was_killed_after_its_run_is_removed(finished):
    lease = next((finished / "runs").iterdir()) / ".lease-2"
    lease.write_text("{}")
    ablate(AblateSettings(finished.parent / "study.yaml", finished))
    assert not lease.exists()


def test_finished_study_starts_nothing(finished, monkeypatch):
    monkeypatch.setattr(launch, "find_launcher", lambda name: pytest.fail("a launcher was asked"))
    before = stamps(finished)
    assert ablate(AblateSettings(finished.parent / "study.yaml", finished)) == finished
    assert changed(finished, before) == set()


def test_long_runs_of_a_seed_are_launched_first_while_the_caller_does_something_else(
    tmp_path, pictures, write_study, monkeypatch
):
    conditions = {name: {"network.width": width} for name, width in (("narrow", 2), ("wide", 8), ("middle", 4))}
    study = write_study(tmp_path, pictures, conditions=conditions, seeds=[1, 0])
    launched, done = list[Path](), threading.Event()

    def record(folders, settings, total):
        launched.extend(folders)
        assert done.wait(10), "nothing else was done"
        return []

    monkeypatch.setattr(launch, "find_launcher", lambda name: record)
    out = ablate(AblateSettings(study, tmp_path / "out"), done.set)
    assert [path.name.rpartition("-")[0] for path in launched] == [
        f"{name}-f0-s{seed}" for seed in (1, 0) for name in ("wide", "middle", "narrow")
    ]
    assert [run["condition"] for run in read_json(out / "study.json")["runs"]] == [*conditions, *conditions]


def test_added_condition_starts_only_its_runs_and_failed_runs_are_tried_again(
    tmp_path, finished, pictures, write_study
):
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    conditions = {kind: {"network.long_skip": kind} for kind in ("concat", "none", "add")}
    conditions["huge"] = {"network.width": 5}
    study = write_study(tmp_path, pictures, conditions=conditions)
    runs = {run.condition: run for run in launch.expand(launch.read_study(study, None), out, None)}
    with locked(runs["add"].folder):
        launch.open_run(runs["add"].folder, runs["add"].job)
    (runs["add"].folder / "last.ckpt").write_bytes(b"damaged")
    before = stamps(out)
    with pytest.raises(SkipSegError, match="1 of 4 runs failed; rerun to try them again: add-f0-s0-") as caught:
        ablate(AblateSettings(study, out, workers=2))
    assert "last.ckpt cannot be resumed from" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert changed(out, before) == {runs["add"].id, runs["huge"].id}
    assert read_json(runs["huge"].folder / "run.json")["state"] == "finished"
    record = read_json(runs["add"].folder / "run.json")
    assert (record["state"], "delete it to start over" in record["error"]) == ("failed", True)
    assert "Traceback" in (runs["add"].folder / "log.txt").read_text()

    (runs["add"].folder / "last.ckpt").unlink()
    before = stamps(out)
    ablate(AblateSettings(study, out, workers=1))
    assert changed(out, before) == {runs["add"].id}
    record = read_json(runs["add"].folder / "run.json")
    assert (record["state"], "error" in record) == ("finished", False)
    assert "Traceback" in (runs["add"].folder / "log.txt").read_text(), "what the attempt before said stays"
    write_report(out)
    assert list(read_json(out / "results.json")["conditions"]) == list(conditions)


def test_changed_margin_is_refused_before_anything_runs(tmp_path, finished, pictures, write_study):
    before = stamps(finished)
    with pytest.raises(SkipSegError, match="holds a study with another margin"):
        ablate(AblateSettings(write_study(tmp_path, pictures, margin=0.1), finished))
    assert stamps(finished) == before


def test_second_process_in_one_study_is_refused(finished, monkeypatch):
    with locked(finished), pytest.raises(SkipSegError, match="in use by another process"):
        ablate(AblateSettings(finished.parent / "study.yaml", finished))


@pytest.mark.parametrize(
    ("code", "starts", "reason"),
    [
        (-9, 1, "killed, which usually means too little memory; see {}/log.txt"),
        (-11, 3, "ended by signal 11, 3 times; see {}/log.txt"),
        (1, 1, "see {}/log.txt"),
    ],
)
def test_reason_of_a_run_that_ended_without_a_word(tmp_path, code, starts, reason):
    write_json(tmp_path / "run.json", {"state": "running"})
    assert _reason(tmp_path, code, starts) == reason.format(tmp_path)
    assert read_json(tmp_path / "run.json")["state"] == ("failed" if code < 0 else "running")


def test_launcher_none_freezes_and_starts_nothing(tmp_path, pictures, write_study):
    out = ablate(AblateSettings(write_study(tmp_path, pictures), tmp_path / "out", launcher="none"))
    assert [entry.state for entry in read_ledger(out)] == ["waiting", "waiting"]


@pytest.mark.parametrize("name", ["local", "ray", "slurm"])
def test_every_launcher_is_found(name):
    assert launch.find_launcher(name).__name__ == f"launch_{name}"


def test_run_of_a_worker_elsewhere_is_left_to_it(tmp_path, pictures, write_study):
    settings = AblateSettings(write_study(tmp_path, pictures), tmp_path / "out", launcher="none")
    study = launch.read_study(settings.study, None)
    ours, theirs = launch.expand(study, ablate(settings), None)
    drafts = [run.folder / ".0123456789ab.partial.ckpt" for run in (ours, theirs)]
    for draft in drafts:
        draft.write_bytes(b"half")
    (theirs.folder / ".lease-1").write_text("{}")
    launch.prepare([ours, theirs], tmp_path / "cache")
    assert [draft.exists() for draft in drafts] == [False, True], "the other worker is writing it"


def command(study: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "segmentation", "ablate", str(study), "--out", str(out), "--workers", "2"]


@pytest.mark.slow
def test_killed_study_continues_to_the_same_bytes(tmp_path, pictures, write_study, results):
    study = write_study(tmp_path, pictures, folds=[0, 1])
    subprocess.run(command(study, tmp_path / "whole"), check=True, capture_output=True)
    for name, count in (("run.json", 4), ("last.ckpt", 1), ("summary.json", 1), ("last.ckpt", 3), ("summary.json", 3)):
        process = subprocess.Popen(command(study, tmp_path / "out"), stdout=subprocess.DEVNULL, start_new_session=True)
        while len(list((tmp_path / "out").rglob(name))) < count:
            assert process.poll() is None
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run(command(study, tmp_path / "out"), check=True, capture_output=True)
    assert results(tmp_path / "out") == results(tmp_path / "whole")
    assert {"study.json", "results.json"} <= set(results(tmp_path / "out"))


def children(process: int) -> list[int]:
    """Processes that ``process`` started, and those that they started."""
    found = subprocess.run(["ps", "-e", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    pairs = [tuple(map(int, line.split())) for line in found.splitlines()]
    own = [pid for pid, parent in pairs if parent == process]
    return own + [grandchild for child in own for grandchild in children(child)]


def is_running(process: int) -> bool:
    """Whether a process is there and not just waiting to be collected."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize(("retries", "killed", "state"), [(1, 1, "finished"), (1, 2, "failed")])
def test_killed_run_is_continued_as_often_as_asked(tmp_path, pictures, write_study, retries, killed, state):
    """A thread kills the process of the run in its first ``killed`` attempts."""
    base = {"folds": 0, "epochs": 60, "steps_per_epoch": 2, "device": "cpu", "network": {"depth": 1, "width": 4}}
    base["data"] = {"patch_size": [16, 16], "batch_size": 2}
    study = write_study(tmp_path, pictures, base=base)
    settings = AblateSettings(study, tmp_path / "out", workers=1, retries=retries)
    out = ablate(replace(settings, launcher="none"))
    folder = launch.expand(launch.read_study(study, None), out, None)[0].folder

    def kill() -> None:
        for number in range(1, killed + 1):
            note = folder / "attempts" / f"{number}.json"
            while not (note.exists() and (folder / "metrics.csv").exists()):
                time.sleep(0.02)
            os.kill(read_json(note)["process"], signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    failed = launch_local([folder], settings, total=2)
    killer.join(10)
    entry = read_ledger(out)[0]
    assert (entry.state, entry.attempts, len(failed)) == (state, 2, int(state == "failed"))
    assert not leases(folder) or failed
    if failed:
        assert failed[0].startswith(f"{folder.name}: killed, which usually means too little memory, 2 times; see ")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_ended_study_leaves_no_process_behind(tmp_path, pictures, write_study, how):
    study = write_study(tmp_path, pictures, base={"folds": 0, "epochs": 4000, "device": "cpu"})
    process = subprocess.Popen(command(study, tmp_path / "out"), stderr=subprocess.PIPE, text=True)
    while len(list((tmp_path / "out").rglob("last.ckpt"))) < 2:
        assert process.poll() is None
        time.sleep(0.1)
    started = children(process.pid)
    assert len(started) >= 3  # the server and two workers
    process.send_signal(how)
    _, error = process.communicate(timeout=60)
    deadline = time.monotonic() + 20
    while any(map(is_running, started)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(is_running, started))
    if how != signal.SIGKILL:
        again = "prepare, train, predict, probe, ablate and suite continue where they stopped"
        told = f"interrupted; give the same command again: {again}"
        assert (process.returncode, error) == (1, f"skipseg: {told}\n")

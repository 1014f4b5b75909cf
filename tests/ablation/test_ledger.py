"""The ledger says what the run folders say, whatever was killed; a study that is killed ends as one that was not."""

import os
import random
import signal
import time
from importlib import import_module
from pathlib import Path

import pytest

from segmentation import SkipSegError
from segmentation.ablation.apart import LIBRARIES
from segmentation.ablation.freeze import freeze
from segmentation.ablation.launch import ablate
from segmentation.ablation.ledger import attempt, fail, read_ledger, summarise
from segmentation.ablation.study import expand, read_study
from segmentation.ablation.work import work
from segmentation.config import AblateSettings
from segmentation.runs import read_json, write_json
from segmentation.training.lock import locked

KILLED = "ended without a word, as a killed process does"


@pytest.fixture
def frozen(tmp_path, pictures, write_study):
    """Function of changed entries and a folder name: folder and runs of a frozen study of four runs."""

    def make(name="out", **changes):
        out = tmp_path / name
        study = read_study(write_study(tmp_path, pictures, **{"folds": [0, 1], **changes}), None)
        runs = expand(study, out, None)
        out.mkdir(exist_ok=True)
        freeze(study, runs, out)
        return out, runs

    return make


def finish(run) -> None:
    """Make a run look finished."""
    write_json(run.folder / "evaluation" / "summary.json", {})


def standing(out: Path) -> list[tuple[str, int, tuple[str, ...]]]:
    return [(entry.state, entry.attempts, entry.reasons) for entry in read_ledger(out)]


def test_frozen_runs_wait(frozen):
    out, runs = frozen()
    entries = read_ledger(out)
    assert [(e.id, e.condition, e.fold, e.seed) for e in entries] == [
        (run.id, run.condition, run.job.settings.fold, 0) for run in runs
    ]
    assert standing(out) == [("waiting", 0, ())] * 4
    assert summarise(entries) == "4 runs: 2 conditions, 2 folds, 1 seed; 4 waiting"


def test_each_attempt_is_counted_and_each_reason_kept(frozen):
    out, (first, *_) = frozen()

    def work() -> None:
        with attempt(first.folder):
            assert standing(out)[0] == ("running", 1, ())
            raise ValueError("no\nmemory")

    with pytest.raises(ValueError, match="no"):
        work()
    assert standing(out)[0] == ("failed", 1, ("no memory",))
    assert summarise(read_ledger(out)).endswith(f"; 3 waiting, 1 failed\n{first.id}: no memory")
    with attempt(first.folder):
        assert standing(out)[0] == ("running", 2, ("no memory",))
        finish(first)
    assert standing(out)[0] == ("finished", 2, ("no memory",))


def test_a_reason_can_come_from_outside(frozen):
    out, (first, *_) = frozen()
    with attempt(first.folder):
        pass
    assert standing(out)[0] == ("waiting", 1, (KILLED,)), "it left no result and gave no reason"
    fail(first.folder, "killed, too little memory")
    assert standing(out)[0] == ("failed", 1, ("killed, too little memory",))
    record = read_json(first.folder / "run.json")
    assert (record["state"], record["error"]) == ("failed", "killed, too little memory")


def test_a_run_that_is_worked_on_is_not_begun_again(frozen):
    out, (first, *_) = frozen()
    with locked(first.folder / "attempts"):
        assert standing(out)[0] == ("running", 0, ())
        with pytest.raises(SkipSegError, match="in use by another process"), attempt(first.folder):
            pytest.fail("it was begun")


def test_what_a_killed_writer_left_is_no_attempt(frozen):
    out, (first, *_) = frozen()
    with attempt(first.folder):
        finish(first)
    (first.folder / "attempts" / ".0123456789ab.partial.json").write_text("{")
    assert standing(out)[0] == ("finished", 1, ())
    (first.folder / "attempts" / "notes.txt").write_text("mine")
    with pytest.raises(SkipSegError, match="holds something else than attempts"):
        read_ledger(out)


def test_added_runs_wait_beside_finished_ones(frozen):
    _, runs = frozen()
    for run in runs:
        finish(run)
    kinds = {kind: {"network.long_skip": kind} for kind in ("concat", "none", "add")}
    out, _ = frozen(conditions=kinds)
    assert summarise(read_ledger(out)) == "6 runs: 3 conditions, 2 folds, 1 seed; 2 waiting, 4 finished"


def test_no_study(tmp_path):
    with pytest.raises(SkipSegError, match=r"study\.json does not exist"):
        read_ledger(tmp_path)


@pytest.fixture
def study(tmp_path, monkeypatch, pictures, write_study):
    """Function of a folder name and entries: starts the study in a process group of its own, and gives its number.

    The process is forked, so that it has its libraries at once, and works through the runs itself.
    """

    for name in LIBRARIES:
        import_module(name)

    def launch(folders, settings, total):
        return [f"{folder}: {reason}" for folder in folders if (reason := work(folder))]

    monkeypatch.setattr("segmentation.ablation.launch.find_launcher", lambda name: launch)

    def start(name: str, **changes) -> int:
        settings = AblateSettings(write_study(tmp_path, pictures, **changes), tmp_path / name)
        process = os.fork()
        if process:
            return process
        status = 1
        try:
            os.setsid()
            with Path(os.devnull).open("w") as nowhere:
                os.dup2(nowhere.fileno(), 2)
            ablate(settings)
            status = 0
        finally:
            os._exit(status)

    return start


def end_well(process: int) -> float:
    """Wait for a study to end, and give its seconds."""
    started = time.perf_counter()
    assert os.waitpid(process, 0)[1] == 0
    return time.perf_counter() - started


def kill(process: int) -> bool:
    """Kill a study; tell whether it was still at work."""
    os.kill(process, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(process, 0)[1])


def finished(out: Path) -> dict[Path, int]:
    """Each finished run, with the times at which its model and its scores were written."""
    written = [*(out / "runs").glob("*/evaluation/*"), *(out / "runs").glob("*/model.safetensors")]
    done = {path.parents[1] for path in written if path.name == "summary.json"}
    return {path: path.stat().st_mtime_ns for path in written if {path.parent, path.parents[1]} & done}


# The forked process works with the one thread that it has.
FORKED = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")


@FORKED
def test_three_kills_change_no_result(study, results, tmp_path):
    check_kills(study, results, tmp_path, [0.0, 0.05, 0.1], at_work=True, folds=[0, 1])


@FORKED
@pytest.mark.slow
def test_twenty_kills_at_random_moments_change_no_result(study, results, tmp_path):
    moments = random.Random(0)
    check_kills(study, results, tmp_path, [moments.uniform(0, 0.08) for _ in range(20)], folds=None, seeds=[*range(5)])


def begun(out: Path) -> int:
    """How often runs were begun."""
    return len([*(out / "runs").glob("*/attempts/[!.]*")])


def check_kills(study, results, tmp_path, shares, at_work=False, **changes) -> None:
    """Kill a study after each share of the time that it takes undisturbed, and let it end.

    With ``at_work`` the time counts from when it begins a run.
    """
    seconds = end_well(study("whole", **changes))
    out, kills, done = tmp_path / "out", 0, dict[Path, int]()
    for share in shares:
        before, process = begun(out), study("out", **changes)
        until = time.monotonic() + 60
        while at_work and begun(out) == before and time.monotonic() < until:
            time.sleep(0.005)
        time.sleep(share * seconds)
        kills += kill(process)
        assert done.items() <= finished(out).items(), "a finished run is left alone"
        done = finished(out)
        if (out / "study.json").exists():
            assert "running" not in {entry.state for entry in read_ledger(out)}, "nothing was left at work"
    assert kills >= 0.7 * len(shares)
    end_well(study("out", **changes))
    assert done.items() <= finished(out).items()
    entries = read_ledger(out)
    assert {entry.state for entry in entries} == {"finished"}
    assert len(entries) < sum(entry.attempts for entry in entries) <= len(entries) + kills
    assert results(out) == results(tmp_path / "whole")

"""The benchmark of studies: what it runs, what it compares, and what counts as processor time."""

import sys

import pytest

from segmentation.ablation.study import expand, read_study
from segmentation.data.hardware import usable_cores
from segmentation.runs import read_json
from tests.benchmarks import study
from tests.benchmarks.measure import run_measured
from tests.benchmarks.rows import Options

ORPHAN = """
import os, time
if os.fork() == 0:
    os.setsid()
    while time.process_time() < 0.5:
        pass
"""


def test_study_has_the_runs_of_its_work(tmp_path):
    work = study.WORKS["full"]
    runs = expand(read_study(study.write_study(work, tmp_path), None), tmp_path / "out", tmp_path / "cache")
    assert len(runs) == len({run.id for run in runs}) == work.runs == 32
    assert len({run.condition for run in runs}) == 8
    assert {(run.job.settings.steps_per_epoch or 0) * (run.job.settings.epochs or 0) for run in runs} == {140}


def test_studies_are_compared_by_all_but_seconds_and_place(tmp_path):
    for name, seconds in (("loop", "1"), ("local", "2")):
        run = tmp_path / name / "out" / "runs" / "a"
        run.mkdir(parents=True)
        (run / "model.safetensors").write_bytes(b"weights")
        (run / "timing.json").write_text(seconds)
        (run / "config.yaml").write_text(f"out: {run}")
    found = {name: study.results(tmp_path / name) for name in ("loop", "local")}
    assert set(found["loop"]) == {"out/runs/a/model.safetensors", "out/runs/a/config.yaml"}
    study._check_equal(found)
    (run / "model.safetensors").write_bytes(b"other")
    with pytest.raises(SystemExit, match=r"local and the loop differ in \['out/runs/a/model.safetensors'\]"):
        study._check_equal(found | {"local": study.results(tmp_path / "local")})
    with pytest.raises(SystemExit, match="there are no models"):
        study._check_equal({"loop": {}, "local": {}})


def test_time_of_what_outlives_its_parent_counts(tmp_path):
    command = [sys.executable, "-c", ORPHAN]
    seconds = tmp_path / "seconds.txt"
    reap = [sys.executable, "-m", "tests.benchmarks.reap", str(seconds)]
    reaped = run_measured([*reap, *command], tmp_path / "log.txt", {})
    assert reaped.status == 0
    assert reaped.cpu_s > 0.5 > run_measured(command, tmp_path / "log.txt", {}).cpu_s
    assert 0 < float(seconds.read_text()) < reaped.wall_s - 0.4, (
        "who waits for the command does not wait for the orphan"
    )
    failed = [*reap, sys.executable, "-c", "raise SystemExit(3)"]
    assert run_measured(failed, tmp_path / "log.txt", {}).status == 3


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_small_benchmark_compares_launchers_with_the_loop(tmp_path):
    rows = study.rows(Options("small", 1, tmp_path / "none", tmp_path))
    speed_up, wall, processor = rows[:3]
    assert speed_up.name == "study of 4 runs, local: speed-up"
    assert (speed_up.peer, speed_up.target, speed_up.better) == (usable_cores(), 0.9, "more")
    assert speed_up.ours == pytest.approx(1 / wall.ratio)
    assert processor.ours > 1
    assert 0 < (speed_up.floor or 0) < 2 * usable_cores()
    apart = [
        read_json(path)["runs"] for path in sorted((tmp_path / "study-small" / "loops" / "out").glob("*/study.json"))
    ]
    assert len(apart) == usable_cores()
    finished = [path.parent.name for path in (tmp_path / "study-small" / "loops").glob("out/*/runs/*/timing.json")]
    assert sorted(finished) == sorted(run["id"] for run in apart[0]), "each run is worked on by one loop"

"""Processes forked from a server: each works where and with what it was told to, not as the server was started."""

import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

from segmentation.ablation import apart, launch_ray


@pytest.mark.parametrize(("reason", "status"), [(None, 0), ("no memory", 1)])
def test_run_has_the_folder_and_the_environment_of_who_started_it(tmp_path, monkeypatch, reason, status):
    seen = []
    monkeypatch.chdir(tmp_path.parent)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(
        apart, "work", lambda folder: seen.append((folder, Path.cwd(), os.environ["CUDA_VISIBLE_DEVICES"])) or reason
    )
    with pytest.raises(SystemExit) as ended:
        apart._work(tmp_path, {"CUDA_VISIBLE_DEVICES": "3"}, Path("run"))
    assert ended.value.code == status
    assert seen == [(Path("run"), tmp_path, "3")]


def test_run_that_is_killed_ends_rays_process_too_so_that_ray_starts_it_again(tmp_path, monkeypatch):
    killed = []
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").touch()
    monkeypatch.chdir(tmp_path.parent)
    monkeypatch.setattr(os, "kill", lambda *given: killed.append(given))
    process = SimpleNamespace(join=lambda: None, exitcode=-9)
    monkeypatch.setattr(launch_ray, "start_apart", lambda *given: process)
    monkeypatch.setattr(launch_ray, "failure", lambda folder: f"{folder} failed")
    launch_ray._work(tmp_path, Path("run"))
    assert killed == [(os.getpid(), signal.SIGKILL)]
    process.exitcode = 1
    assert launch_ray._work(tmp_path, Path("run")) == "run failed"
    process.exitcode = 0
    assert launch_ray._work(tmp_path, Path("run")) is None
    assert len(killed) == 1

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import psutil
import pytest

from segmentation.ablation.suites.cells import versions, work_through
from segmentation.runs import read_json, write_json

MODULE = "segmentation.ablation.suites.s00_scalar_chain"
CELLS = [{"weight": weight, "x": 1.0, "skip": False} for weight in (1.0, 0.5, 0.25)]


def test_cells_come_back_in_order_and_are_kept(tmp_path):
    found, _, used = work_through(MODULE, CELLS, tmp_path, 2, "test")
    assert [result["formula"][0] for _, result in found] == [1.0, 0.25, 0.0625]
    assert [cell for cell, _ in found] == CELLS
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again, *_ = work_through(MODULE, [*CELLS, {"weight": 2.0, "x": 1.0, "skip": True}], tmp_path, 1, "test")
    assert again[:3] == found
    assert {path: path.stat().st_mtime_ns for path in before} == before, "a finished cell was done again"
    assert len(list(tmp_path.iterdir())) == 4
    assert used == versions()


def test_cells_of_other_versions_are_told(tmp_path):
    work_through(MODULE, CELLS, tmp_path, 1, "test")
    first, second, _ = sorted(tmp_path.iterdir())
    record = read_json(first)
    write_json(first, record | {"versions": record["versions"] | {"torch": "1.0"}})
    write_json(second, {name: value for name, value in read_json(second).items() if name != "versions"})
    *_, used = work_through(MODULE, CELLS, tmp_path, 1, "test")
    assert used["torch"] == f"1.0, {versions()['torch']}, not recorded"
    assert used["numpy"] == f"{versions()['numpy']}, not recorded"


def test_an_error_in_a_cell_is_raised_and_finished_ones_are_kept(tmp_path):
    with pytest.raises(KeyError):
        work_through(MODULE, [*CELLS, {"weight": 1.0}], tmp_path, 1, "test")
    assert {read_json(path)["cell"]["weight"] for path in tmp_path.iterdir()} == {1.0, 0.5, 0.25}


def alive(group: int) -> list[int]:
    """Processes of a group that still run."""
    members: list[int] = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                members.append(process.pid)
    return members


@pytest.mark.slow
def test_killed_suite_goes_on_and_leaves_no_process(tmp_path):
    command = [
        sys.executable,
        "-m",
        "segmentation.cli",
        "suite",
        "s01",
        "--size",
        "smoke",
        "--out",
        str(tmp_path / "s"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    cells = tmp_path / "s" / "cells"
    deadline = time.time() + 120
    while not (cells.exists() and any(cells.glob("*.json"))):
        assert time.time() < deadline, "no cell was finished"
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    while alive(process.pid):
        assert time.time() < deadline, "a process was left behind"
        time.sleep(0.2)
    kept = {path: path.stat().st_mtime_ns for path in cells.glob("*.json")}
    assert subprocess.run(command, check=False).returncode == 0
    assert read_json(tmp_path / "s" / "result.json")["cells"] == 54
    assert {path: path.stat().st_mtime_ns for path in kept} == kept

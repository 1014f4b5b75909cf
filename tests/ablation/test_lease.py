"""Leases: one worker at a time on a run, though the kernel's lock ends at the machine."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from segmentation.ablation import lease
from segmentation.ablation.lease import leased, leases

HOLD = """
import sys, time
from pathlib import Path
from segmentation.ablation import lease
lease.BEAT_SECONDS = 0.1
with lease.leased(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def hold(tmp_path):
    """A process that holds the lease of ``tmp_path``."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


@pytest.fixture
def hasty(monkeypatch):
    """Seconds become tenths."""
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(lease, "SILENT_SECONDS", 1.0)


def elsewhere(folder: Path, number: int = 1) -> Path:
    """A lease of a worker on another machine."""
    path = folder / f".lease-{number}"
    path.write_text(json.dumps({"place": "node-b", "process": 1, "born": 0.0, "beat": "0"}))
    return path


def waits(folder: Path, seconds: float) -> bool:
    """Whether a lease is not to be had for so long."""
    taken = threading.Event()

    def take():
        with leased(folder):
            taken.set()

    threading.Thread(target=take, daemon=True).start()
    return not taken.wait(seconds)


def test_lease_ends_with_the_block_and_can_be_taken_again(tmp_path):
    for _ in range(2):
        with leased(tmp_path):
            assert [path.name for path in leases(tmp_path)] == [".lease-1"]
    assert list(tmp_path.iterdir()) == []


def test_lease_ends_with_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), leased(tmp_path):
        raise ZeroDivisionError
    assert leases(tmp_path) == []


def test_second_worker_waits_for_the_first(tmp_path):
    with leased(tmp_path):
        assert waits(tmp_path, 0.6)
    deadline = time.monotonic() + 5
    while leases(tmp_path):  # the waiting one takes it and gives it back
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_worker_that_was_killed_here_is_replaced_at_once(tmp_path, hold):
    assert waits(tmp_path, 0.5)
    hold.send_signal(signal.SIGKILL)
    hold.wait()
    started = time.monotonic()
    with leased(tmp_path):
        assert [path.name for path in leases(tmp_path)] == [".lease-2"], "the next number, for only one can create it"
    assert time.monotonic() - started < 5


def test_number_of_a_dead_process_that_another_one_has_now_means_nothing(tmp_path):
    content = {"place": lease._place(), "process": os.getpid(), "born": 0.0, "beat": "0"}
    (tmp_path / ".lease-7").write_text(json.dumps(content))
    with leased(tmp_path):
        assert [path.name for path in leases(tmp_path)] == [".lease-8"]


@pytest.mark.usefixtures("hasty")
def test_silent_worker_elsewhere_is_replaced_after_a_while(tmp_path):
    elsewhere(tmp_path)
    started = time.monotonic()
    with leased(tmp_path):
        assert 1.0 < time.monotonic() - started < 5
        assert [path.name for path in leases(tmp_path)] == [".lease-2"]


@pytest.mark.usefixtures("hasty")
def test_worker_elsewhere_that_shows_life_is_waited_for(tmp_path):
    path = elsewhere(tmp_path)
    over = threading.Event()

    def live():
        beat = 0
        while not over.wait(0.1):
            beat += 1
            path.write_text(json.dumps({"place": "node-b", "process": 1, "born": 0.0, "beat": str(beat)}))

    thread = threading.Thread(target=live)
    thread.start()
    try:
        assert waits(tmp_path, 3)
    finally:
        over.set()
        thread.join()


@pytest.mark.usefixtures("hasty")
def test_lease_that_was_created_and_never_written_is_replaced(tmp_path):
    (tmp_path / ".lease-1").touch()
    with leased(tmp_path):
        assert [path.name for path in leases(tmp_path)] == [".lease-2"]


def test_worker_that_was_taken_for_dead_ends_itself(tmp_path, hold):
    elsewhere(tmp_path, number=2)
    assert hold.wait(10) == 1
    assert hold.stderr
    assert "another worker took over" in hold.stderr.read()


def test_worker_whose_lease_was_removed_ends_itself(tmp_path, hold):
    (tmp_path / ".lease-1").unlink()
    assert hold.wait(10) == 1


@pytest.mark.usefixtures("hasty")
def test_of_many_workers_one_has_the_lease(tmp_path):
    elsewhere(tmp_path)
    inside, most = [], []

    def take():
        with leased(tmp_path):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.05)
            inside.pop()

    workers = [threading.Thread(target=take) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert most == [1] * 8
    assert leases(tmp_path) == []


@pytest.mark.parametrize(("code", "mine"), [(errno.EIO, True), (errno.ENOTCONN, True), (errno.ENOENT, False)])
def test_a_disk_that_does_not_answer_takes_no_lease_away(tmp_path, monkeypatch, code, mine):
    def fail(self: Path) -> None:
        raise OSError(code, "gone")

    with leased(tmp_path):
        (path,) = leases(tmp_path)
        descriptor = os.open(path, os.O_RDONLY)
        with monkeypatch.context() as patch:
            patch.setattr(Path, "stat", fail)
            assert lease._is_mine(path, descriptor) is mine
        os.close(descriptor)

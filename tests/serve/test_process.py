"""Worker processes: what they answer, what they may take, and that they end with their server."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from segmentation.serve.process import Limits, StoppedError, TaskError, Worker
from segmentation.serve.records import RAW
from tests.serve.conftest import until

GENEROUS = Limits(1 << 30, 60)


def program(folder: Path, body: str) -> list[str]:
    """A program that is started as a worker is, and does ``body`` once it has its task."""
    file = folder / "program.py"
    start = "import json, os, sys, time, subprocess\ntask = json.loads(sys.stdin.readline())\n"
    file.write_text(start + textwrap.dedent(body))
    return [sys.executable, str(file)]


def run(command: list[str], limits: Limits = GENEROUS, stopped: Any = lambda: False) -> Any:
    said: list[Any] = []
    worker = Worker("take_in", limits, command)
    try:
        return worker.run({"number": 7}, said.append, stopped), said
    finally:
        assert not psutil.pid_exists(worker._process.pid)


def test_it_answers_and_says_how_far_it_is(tmp_path: Path):
    body = """
        print('{"done": 1}\\n{"done": 2}', flush=True)
        print(json.dumps({"result": {"got": task["number"]}}), flush=True)
    """
    assert run(program(tmp_path, body)) == ({"got": 7}, [{"done": 1}, {"done": 2}])


def test_it_is_ended_when_it_takes_too_long(tmp_path: Path):
    began = time.monotonic()
    with pytest.raises(TaskError, match=r"more than the 0\.0\d+ minutes that the server allows"):
        run(program(tmp_path, "print('{}', flush=True)\ntime.sleep(60)"), Limits(1 << 30, 0.6))
    assert time.monotonic() - began < 10


def test_it_is_ended_when_it_takes_too_much_memory(tmp_path: Path):
    body = "held = bytearray(300_000_000)\nprint('{}', flush=True)\ntime.sleep(60)"
    with pytest.raises(TaskError, match="more memory than the server allows"):
        run(program(tmp_path, body), Limits(100_000_000, 60))


def test_memory_of_its_children_counts(tmp_path: Path):
    note = tmp_path / "pid"
    child = (
        f"import os, time; open({str(note)!r}, 'w').write(str(os.getpid())); held = b'x' * 300_000_000; time.sleep(60)"
    )
    body = f"subprocess.Popen([sys.executable, '-c', {child!r}])\nprint('{{}}', flush=True)\ntime.sleep(60)"
    with pytest.raises(TaskError, match="more memory than the server allows"):
        run(program(tmp_path, body), Limits(200_000_000, 60))
    left = int(note.read_text())
    until(lambda: not psutil.pid_exists(left) or psutil.Process(left).status() == "zombie", 10)


def test_it_may_break_off(tmp_path: Path):
    with pytest.raises(TaskError, match="broke off"):
        run(program(tmp_path, "os.kill(os.getpid(), 11)"))
    with pytest.raises(TaskError, match="broke off"):
        run([sys.executable, "-c", "raise SystemExit(3)"])


def test_it_can_be_stopped(tmp_path: Path):
    asked = threading.Event()
    threading.Timer(0.5, asked.set).start()
    with pytest.raises(StoppedError):
        run(program(tmp_path, "time.sleep(60)"), stopped=asked.is_set)


def test_a_fault_of_ours_is_told_by_its_place_alone(tmp_path: Path):
    worker = Worker("take_in", GENEROUS)
    with pytest.raises(TaskError) as caught:
        worker.run({"folder": str(tmp_path)}, lambda said: None, lambda: False)
    assert (caught.value.kind, str(caught.value)) == ("Internal", "internal error, KeyError")
    assert caught.value.where.startswith("intake.py:")


def test_one_request_of_too_much_memory_is_refused_by_the_system(tmp_path: Path):
    body = """
        import resource
        from segmentation.serve.worker import _limit, _outcome
        _limit(int(sys.argv[2]))
        said = _outcome(lambda task, tell: {"got": len(bytearray(3 << 30))}, task, print)
        print(json.dumps({"result": said | {"core": resource.getrlimit(resource.RLIMIT_CORE)[0]}}), flush=True)
    """
    said, _ = run(program(tmp_path, body))
    assert said == {"error": "it takes more memory than the server allows", "kind": "MemoryError", "core": 0}


def test_what_libraries_print_is_no_answer(tmp_path: Path):
    (tmp_path / RAW).write_bytes(b"Doe^Jane")
    worker = Worker("take_in", GENEROUS)
    with pytest.raises(TaskError) as caught:
        worker.run({"folder": str(tmp_path), "unpacked": 1000}, lambda said: None, lambda: False)
    assert caught.value.kind == "UnknownTypeError"
    assert "Doe" not in str(caught.value)


@pytest.mark.parametrize("begun", [True, False])
def test_it_ends_with_a_server_that_is_killed(tmp_path: Path, begun: bool):
    os.mkfifo(tmp_path / RAW)  # whoever opens it waits
    server = f"""
import sys, time
from segmentation.serve.process import Limits, Worker
worker = Worker("take_in", Limits(1 << 34, 600))
print(worker._process.pid, flush=True)
if {begun}:
    worker._process.stdout.readline()
    worker.run({{"folder": {str(tmp_path)!r}, "unpacked": 1}}, lambda said: None, lambda: False)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", server], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        worker = psutil.Process(int(process.stdout.readline()))
        time.sleep(0.5)
        os.kill(process.pid, signal.SIGKILL)
    until(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE, 10)

"""One process at a time in a folder."""

import os
import signal
import subprocess
import sys

import pytest

from segmentation import SkipSegError
from segmentation.training.lock import is_locked, locked

HOLD = "import sys; from pathlib import Path; from segmentation.training.lock import locked\n" + (
    "with locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
)


def test_a_folder_is_held_once_and_given_back(tmp_path):
    folder = tmp_path / "run"
    assert not is_locked(folder)
    with locked(folder):
        assert is_locked(folder)
        with pytest.raises(SkipSegError, match="run is in use by another process"), locked(folder):
            pytest.fail("it was held twice")
    assert not is_locked(folder)
    assert list(folder.iterdir()) == []


def test_a_killed_process_gives_it_back(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        assert is_locked(tmp_path)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert not is_locked(tmp_path)


def test_asking_does_not_take_it_away(tmp_path):
    assert [is_locked(tmp_path) for _ in range(3)] == [False] * 3
    with locked(tmp_path):
        pass

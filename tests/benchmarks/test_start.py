"""The measurement of starts: from outside, and up to the first step only."""

import sys

import pytest

from tests.benchmarks import start
from tests.benchmarks.rows import Options


@pytest.mark.slow
def test_help_and_first_step_are_timed(tmp_path):
    found = {row.name: row for row in start.rows(Options("small", 1, tmp_path, tmp_path))}
    assert list(found) == [
        "skipseg --help, wall time",
        "skipseg --help, CPU time",
        "train to its first step, wall time",
        "train to its first step, CPU time",
    ]
    assert all(row.floor and row.ours > row.floor / 2 for row in found.values())
    assert [row.target for row in found.values()] == [0.5, None, 6.0, None]
    stopped = tmp_path / "start" / "run"
    assert not (stopped / "model.safetensors").exists(), "it ended with its first step"
    assert (tmp_path / "start" / "first" / "model.safetensors").exists()


def test_a_command_is_measured_from_outside(tmp_path):
    spent = start.measure([sys.executable, "-c", "sum(range(10**6))"], tmp_path)
    assert 0 < spent["cpu_s"] < 60
    assert 0 < spent["wall_s"] < 60


def test_a_command_that_fails_is_shown(tmp_path):
    with pytest.raises(SystemExit, match="ended with status 1:\nno such thing"):
        start.measure([sys.executable, "-c", "raise SystemExit('no such thing')"], tmp_path)

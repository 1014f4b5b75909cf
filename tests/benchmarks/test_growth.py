"""The benchmark of growth: exponents of costs that are known, and all of it on scans that take a second."""

import json
import subprocess
import sys

import pytest

from tests.benchmarks import growth
from tests.benchmarks.growth_step import seconds
from tests.benchmarks.rows import Options


def test_costs_that_grow_faster_than_the_work_miss_the_target(tmp_path, capsys):
    def measure(factor: int, options: Options) -> growth.Cost:
        return {"s": 0.5 * factor**1.2, "MiB": 100 + factor}

    rows = growth._rows_of("square", measure, Options("small", 1, tmp_path, tmp_path))
    assert [row.name for row in rows] == [
        "square: time",
        "square: time, 4x to 8x",
        "square: memory",
        "square: memory, 4x to 8x",
    ]
    assert [row.met for row in rows] == [False, False, True, True]
    assert [row.ours for row in rows[:2]] == pytest.approx([1.2, 1.2])
    assert 0 < rows[2].ours < rows[3].ours < 0.1, "what does not grow weighs least in the largest"
    assert "square: 1x 0.5 s, 2x 1.15 s" in capsys.readouterr().out


@pytest.mark.parametrize("factor", growth.FACTORS)
def test_factors_scale_the_voxels_and_no_axis_more_than_another(factor):
    shape = growth.scaled((10, 20, 30), factor)
    assert shape[0] * shape[1] * shape[2] == factor * 6000
    assert all(shape[axis] in (size, 2 * size) for axis, size in enumerate((10, 20, 30)))


def test_step_is_timed_without_imports():
    command = [sys.executable, "-m", "tests.benchmarks.growth_step", "8,8,8", "2"]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["step_s"]
    assert 0 < told < 1
    assert 0 < seconds([8, 8, 8], 1) < 1


@pytest.mark.slow
def test_small_benchmark_fits_every_work(tmp_path):
    rows = growth.rows(Options("small", 1, tmp_path / "none", tmp_path))
    assert len(rows) == 20
    assert sum(row.name.startswith("predict --memory 1GiB") for row in rows) == 4
    assert all(row.target == 1.05 and -0.5 < row.ours < 1.5 for row in rows)

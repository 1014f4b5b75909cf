"""Rows, their table, and programs that measure in turn."""

import json
import sys
from pathlib import Path

import pytest

from tests.benchmarks.rows import Options, Row, run, table
from tests.benchmarks.worker import Worker, take_turns

ROOT = Path(__file__).parents[2]
FASTER = Row("a step", 4.0, "s", peer=5.0, peer_name="the other", target=0.9, floor=3.0, machine="here")
WORSE = Row("Dice", 0.8, "", peer=0.9, peer_name="the other", target=1.0, better="more", machine="here")


def test_more_is_better_where_a_row_says_so():
    assert FASTER.met
    assert not WORSE.met
    assert Row("Dice", 0.9, "", peer=0.8, target=1.0, better="more").met


def test_a_peer_that_finds_nothing_is_beaten_without_a_ratio():
    row = Row("Dice", 0.9, "", peer=0.0, target=1.0, better="more")
    assert row.met
    assert row.ratio is None


def test_a_row_without_target_is_neither_met_nor_missed():
    assert Row("CPU", 1.0, "s", peer=2.0).met is None


def test_the_table_shows_target_and_floor():
    _, first, second = table([FASTER, WORSE]).splitlines()
    assert " ".join(first.split()) == "a step 4 s 5 s 0.8 <=0.9 3 s met (the other)"
    assert " ".join(second.split()) == "Dice 0.8 0.9 0.889 >=1 missed (the other)"


def test_a_benchmark_is_a_command_that_writes_its_rows(tmp_path, capsys):
    seen: list[Options] = []

    def benchmark(options: Options) -> list[Row]:
        seen.append(options)
        return [FASTER]

    arguments = ["--size", "small", "--peers", str(tmp_path), "--json", str(tmp_path / "rows.json")]
    assert run(benchmark, arguments) == 0
    assert seen[0].size == "small"
    assert seen[0].nnunet is None
    assert "a step" in capsys.readouterr().out
    (row,) = json.loads((tmp_path / "rows.json").read_text())
    assert {"name", "ours", "peer", "ratio", "target", "met", "floor", "unit", "machine"} <= set(row)


def test_workers_take_turns(tmp_path):
    program = """
import sys, time
from tests.benchmarks.worker import claim_output, timed
answers = claim_output()
for number, _ in enumerate(sys.stdin):
    with timed(answers, count=2, number=number):
        print("chatter", flush=True)
        time.sleep(0.1)
"""
    with Worker([sys.executable, "-c", program], tmp_path / "log.txt", {"PYTHONPATH": str(ROOT)}) as worker:
        found = take_turns({"it": worker}, repeats=3)["it"]
    assert found["number"] == 2, "the median of 1, 2 and 3: the first round warms up"
    assert 0.05 <= found["wall_s"] < 2
    assert found["cpu_s"] < found["wall_s"]
    assert (tmp_path / "log.txt").read_text().count("chatter") == 4


def test_a_worker_that_ends_says_why(tmp_path):
    program = [sys.executable, "-c", "raise SystemExit('no such thing')"]
    with Worker(program, tmp_path / "log.txt") as worker, pytest.raises(SystemExit, match="no such thing"):
        worker()

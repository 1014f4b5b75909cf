"""The benchmark of predict on a scan that takes seconds, without nnU-Net; and what it measures with."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks import peers, predict
from tests.benchmarks.measure import run_measured
from tests.benchmarks.phantoms import CHANNELS, make_scan

TINY = predict.Work({"brain": (40, 36, 30), "ct": (36, 40, 24)}, 16, (4, 8), 40)

WITH_A_CHILD = """
import subprocess, sys
child = "import time; held = bytearray(80 * 2**20); held[::4096] = b'x' * len(held[::4096]); time.sleep(0.4)"
subprocess.run([sys.executable, "-c", child], check=True)
print("held")
"""


def options(tmp_path: Path, *more: str) -> list[str]:
    folders = [
        "--work",
        str(tmp_path / "work"),
        "--peers",
        str(tmp_path / "none"),
        "--json",
        str(tmp_path / "rows.json"),
    ]
    return [*folders, *more]


def test_children_count_in_memory_and_time(tmp_path):
    measured = run_measured([sys.executable, "-c", WITH_A_CHILD], tmp_path / "log.txt", {})
    assert measured.status == 0
    assert 80 < measured.peak_mib < 400
    assert measured.wall_s > 0.4
    assert measured.cpu_s > 0
    assert (tmp_path / "log.txt").read_text() == "held\n"


def test_what_takes_too_long_is_ended(tmp_path):
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    measured = run_measured(sleep, tmp_path / "log.txt", {}, timeout_s=0.2)
    assert measured.status < 0
    assert measured.wall_s < 30


@pytest.mark.parametrize("kind", ["brain", "ct"])
def test_scans_hold_all_classes_and_what_is_around_them(kind):
    scan, labels = make_scan(kind, (48, 44, 40))
    assert scan.shape[1:] == labels.shape == (48, 44, 40)
    assert len(scan) == len(CHANNELS[kind])
    assert np.bincount(labels.ravel()).min() > 50
    around = (scan == 0).all(axis=0) if kind == "brain" else scan[0] < -900
    assert 0.4 < around.mean() < 0.9
    assert not (around & (labels > 0)).any()


@pytest.mark.slow
def test_small_benchmark_measures_ours_and_says_what_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(predict.SIZES, "small", TINY)
    assert predict.main(options(tmp_path, "--scans", "brain", "--programs", "skipseg", "nnunet", "monai")) == 0
    printed = capsys.readouterr().out
    assert "nnunet        not installed" in printed
    rows = {row["name"]: row for row in json.loads((tmp_path / "rows.json").read_text())}
    wall = rows["predict brain small, wall time"]
    assert wall["peer_name"] == "monai"
    assert wall["ratio"] == pytest.approx(wall["ours"] / wall["peer"])
    assert rows["predict brain small, Dice with the exact mask"]["met"]
    exact = predict.read_mask(tmp_path / "work" / "brain-small" / "exact.nii.gz")
    assert exact.shape == (40, 36, 30)
    assert exact.any()
    assert not exact.all()


def test_a_program_that_fails_is_shown_with_its_last_words(tmp_path):
    command = [sys.executable, "-c", "raise SystemExit('no such model')"]
    with pytest.raises(SystemExit, match="no such model"):
        predict.run(command, tmp_path / "log.txt", tmp_path)


def test_environment_counts_as_built_only_with_the_versions_compared(tmp_path):
    assert not peers.is_built(tmp_path)
    (tmp_path / "built.txt").write_text("torch==2.13.0 nnunetv2==2.7.0\n")
    assert not peers.is_built(tmp_path)
    (tmp_path / "built.txt").write_text(f"{peers.TORCH} {peers.NNUNET}\n")
    peers.build(tmp_path)  # nothing to do: no environment is made
    assert [path.name for path in tmp_path.iterdir()] == ["built.txt"]

"""The benchmark of preparation on scans that take seconds, without nnU-Net."""

import sys

import pytest

from tests.benchmarks import prepare
from tests.benchmarks.rows import Options

WORK = prepare.Work("2 small volumes", "brain", 1, 2, (20, 24, 22), 3)


def test_a_dataset_is_made_once_and_anew_when_its_work_changes(tmp_path):
    dataset = prepare.make_dataset(WORK, tmp_path)
    scans = sorted(dataset.glob("imagesTr/*.nii.gz"))
    assert len(scans) == len(list(dataset.glob("labelsTr/*.nii.gz"))) == 2
    made = [scan.stat().st_mtime_ns for scan in scans]
    prepare.make_dataset(WORK, tmp_path)
    assert [scan.stat().st_mtime_ns for scan in scans] == made
    other = prepare.Work("one", "ct", 1, 1, (24, 24, 24))
    assert len(list(prepare.make_dataset(other, tmp_path).glob("imagesTr/*.nii.gz"))) == 1


def test_ours_is_measured_beside_what_the_disk_takes(tmp_path, monkeypatch):
    monkeypatch.setitem(prepare.WORKS, "small", [WORK])
    rows = prepare.rows(Options("small", 1, tmp_path / "none", tmp_path))
    time, memory = rows
    assert (time.name, memory.name) == ("prepare 2 small volumes: time", "prepare 2 small volumes: memory")
    assert time.peer is time.target is memory.met is None
    assert 0 < time.floor < time.ours
    assert 20 < memory.ours < 1000
    assert memory.floor is None


def test_a_program_that_fails_or_leaves_cases_out_is_no_time(tmp_path):
    with pytest.raises(SystemExit, match=r"(?s)status 1.*no such scan"):
        prepare._measured([sys.executable, "-c", "raise SystemExit('no such scan')"], tmp_path / "log.txt", {})
    with pytest.raises(SystemExit, match="prepared 1 cases of 2"):
        prepare._check_whole(1, 2, ["a program"])

from pathlib import Path

import pytest

from segmentation.training.snapshots import SnapshotRecorder, snapshot_files


@pytest.mark.parametrize(("epochs", "every"), [(1, 1), (20, 1), (21, 2), (250, 13)])
def test_at_most_twenty_are_kept(epochs: int, every: int, tmp_path: Path):
    recorder = SnapshotRecorder(tmp_path, epochs)
    assert recorder.every == every
    assert len(range(0, epochs, every)) <= 20


def test_order_is_that_of_training(tmp_path: Path):
    (tmp_path / "snapshots").mkdir()
    for epoch in (10, 2, 100):
        (tmp_path / "snapshots" / f"{epoch:04}.safetensors").touch()
    assert [file.stem for file in snapshot_files(tmp_path)] == ["0002", "0010", "0100"]

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from segmentation.training.snapshots import SnapshotRecorder, snapshot_files


@pytest.mark.parametrize(("epochs", "every"), [(1, 1), (20, 1), (21, 2), (250, 13)])
def test_at_most_twenty_are_kept(epochs: int, every: int, tmp_path: Path):
    recorder = SnapshotRecorder(tmp_path, epochs)
    assert recorder.every == every
    assert len(range(0, epochs, every)) <= 20


@pytest.mark.parametrize(("epochs", "kept"), [(3, range(3)), (21, range(0, 21, 2))])
def test_each_file_holds_the_weights_of_its_epoch(make_task, tmp_path, epochs, kept):
    task, recorder = make_task(), SnapshotRecorder(tmp_path, epochs)
    for epoch in range(epochs):
        for weight in task.network.parameters():
            weight.data.fill_(epoch)
        recorder.on_train_epoch_end(SimpleNamespace(current_epoch=epoch, is_global_zero=True), task)
    assert [file.name for file in snapshot_files(tmp_path)] == [f"{epoch:04}.safetensors" for epoch in kept]
    shapes = {name: weight.shape for name, weight in task.network.named_parameters()}
    for file in snapshot_files(tmp_path):
        weights = load_file(file)
        assert {name: weight.shape for name, weight in weights.items()} == shapes
        assert {weight.dtype for weight in weights.values()} == {torch.float16}
        assert all((weight == int(file.stem)).all() for weight in weights.values())


def test_one_process_of_several_writes(make_task, tmp_path):
    second = SimpleNamespace(current_epoch=0, is_global_zero=False)
    SnapshotRecorder(tmp_path, 1).on_train_epoch_end(second, make_task())
    assert not snapshot_files(tmp_path)


def test_order_is_that_of_training(tmp_path: Path):
    (tmp_path / "snapshots").mkdir()
    for epoch in (10, 2, 100):
        (tmp_path / "snapshots" / f"{epoch:04}.safetensors").touch()
    assert [file.stem for file in snapshot_files(tmp_path)] == ["0002", "0010", "0100"]

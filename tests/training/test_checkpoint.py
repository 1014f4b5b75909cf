"""Checkpoints: plain data, whole or not at all, and the state of every random number generator."""

import errno
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from segmentation import SkipSegError
from segmentation.training.checkpoint import SafeCheckpointIO, random_state, restore_random_state


def draw() -> list[float]:
    return [
        random.random(),
        random.gauss(0, 1),
        float(np.random.rand()),
        float(np.random.randn()),
        torch.rand(()).item(),
    ]


def test_random_numbers_continue_after_a_round_trip(tmp_path):
    random.gauss(0, 1), np.random.randn()  # each keeps half of a pair for the next call
    SafeCheckpointIO().save_checkpoint({"random_state": random_state()}, tmp_path / "last.ckpt")
    expected = draw()
    draw()
    restore_random_state(SafeCheckpointIO().load_checkpoint(tmp_path / "last.ckpt")["random_state"])
    assert draw() == expected


def test_the_random_numbers_of_the_own_device_continue_on_a_machine_with_fewer(monkeypatch):
    states = {}
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_rng_state", lambda: torch.tensor([3]))
    monkeypatch.setattr("torch.cuda.set_rng_state", lambda state: states.update(own=state))
    state = random_state()
    restore_random_state(state)
    assert states["own"].tolist() == [3]
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    restore_random_state(state)
    assert random_state()["cuda"] is None


def test_checkpoint_is_plain_data(tmp_path):
    SafeCheckpointIO().save_checkpoint({"weights": torch.ones(3), "rows": [{"epoch": 0}]}, tmp_path / "last.ckpt")
    loaded = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert torch.equal(loaded["weights"], torch.ones(3))
    assert loaded["rows"] == [{"epoch": 0}]
    SafeCheckpointIO().remove_checkpoint(tmp_path / "last.ckpt")
    SafeCheckpointIO().remove_checkpoint(tmp_path / "last.ckpt")
    assert list(tmp_path.iterdir()) == []


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("lightnings_choice", [None, False, True])
def test_code_in_a_checkpoint_is_not_run(tmp_path, lightnings_choice):
    torch.save({"state_dict": Trap(tmp_path / "sprung")}, tmp_path / "last.ckpt")
    with pytest.raises(SkipSegError, match=r"last\.ckpt cannot be resumed from"):
        SafeCheckpointIO().load_checkpoint(tmp_path / "last.ckpt", weights_only=lightnings_choice)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "pickle", "one bit"])
def test_damaged_checkpoint_is_one_line(tmp_path, damage):
    path = tmp_path / "last.ckpt"
    SafeCheckpointIO().save_checkpoint({"weights": torch.ones(300)}, path)
    whole = path.read_bytes()
    place = whole.index(torch.ones(9).numpy().tobytes())
    damaged = {
        "empty": b"",
        "cut": whole[: len(whole) // 2],
        "text": b"hello",
        "pickle": pickle.dumps({"a": 1})[:-1],
        "one bit": whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :],
    }
    path.write_bytes(damaged[damage])
    with pytest.raises(SkipSegError, match="delete it to start over") as caught:
        SafeCheckpointIO().load_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_failed_save_is_raised_and_keeps_the_one_before(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    SafeCheckpointIO().save_checkpoint({"epoch": 1}, path)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        SafeCheckpointIO().save_checkpoint({"epoch": 2}, path)
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["last.ckpt"]

"""metrics.csv, the best weights and early stopping."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from segmentation.runs import read_csv
from segmentation.training.history import History, ProgressBar, mean, nan_mean


def end_epoch(history, task, epoch, dice):
    """Close an epoch whose validation Dice of both classes is ``dice``; ``None`` for no validation."""
    optimizer = SimpleNamespace(param_groups=[{"lr": 0.123456789}])
    rank = {"is_global_zero": True, "should_stop": False}
    trainer = SimpleNamespace(current_epoch=epoch, global_step=2 * epoch + 2, optimizers=[optimizer], **rank)
    task.train_losses = [torch.tensor(1.0), torch.tensor(2.0)]
    task.val_losses = [] if dice is None else [torch.tensor(3.0)]
    task.validation_dice = lambda: [dice, dice]
    history.on_train_epoch_end(trainer, task)
    return trainer.should_stop


def test_table_has_a_row_an_epoch(tmp_path, make_task):
    history, task = History(tmp_path, ["organ", "lesion"], patience=0), make_task()
    for epoch, dice in enumerate([0.25, math.nan]):
        end_epoch(history, task, epoch, dice)
    first, second = read_csv(tmp_path / "metrics.csv")
    assert first == {
        "epoch": "0", "step": "2", "learning_rate": "0.123457", "train_loss": "1.5", "val_loss": "3.0",
        "val_dice": "0.25", "val_dice_organ": "0.25", "val_dice_lesion": "0.25",
    }  # fmt: skip
    assert (second["step"], second["val_dice"], second["val_dice_organ"]) == ("4", "", "")


def test_without_held_out_cases_there_is_no_best(tmp_path, make_task):
    history, task = History(tmp_path, ["organ", "lesion"], patience=1), make_task()
    assert not any(end_epoch(history, task, epoch, None) for epoch in range(3))
    assert list(read_csv(tmp_path / "metrics.csv")[0]) == ["epoch", "step", "learning_rate", "train_loss"]
    assert history.best_epoch == -1
    assert not (tmp_path / "best.safetensors").exists()


def test_best_weights_are_those_of_the_best_epoch(tmp_path, make_task):
    history, task = History(tmp_path, ["organ", "lesion"], patience=0), make_task()
    name = next(iter(task.network.state_dict()))
    for epoch, dice in enumerate([0.2, 0.5, 0.5, 0.4]):
        task.average = {name: torch.full((1,), float(epoch))}
        end_epoch(history, task, epoch, dice)
    assert (history.best_epoch, history.best_dice) == (1, 0.5)
    assert load_file(tmp_path / "best.safetensors")[name].item() == 1


@pytest.mark.parametrize(
    ("patience", "dice", "stops_after"),
    [(0, [0.5] * 6, None), (1, [0.5, 0.4], 2), (2, [0.5, 0.6, 0.6, 0.5], 4), (2, [math.nan] * 4, None)],
)
def test_early_stop(tmp_path, make_task, patience, dice, stops_after):
    history, task = History(tmp_path, ["organ", "lesion"], patience), make_task()
    stopped = [end_epoch(history, task, epoch, score) for epoch, score in enumerate(dice)]
    assert stopped == [epoch + 1 == stops_after for epoch in range(len(dice))]


def test_history_continues_from_its_state(tmp_path, make_task):
    task = make_task()
    whole = History(tmp_path / "a", ["organ", "lesion"], patience=2)
    for epoch, dice in enumerate([0.5, 0.4, 0.3]):
        end_epoch(whole, task, epoch, dice)
    first = History(tmp_path / "b", ["organ", "lesion"], patience=2)
    for epoch, dice in enumerate([0.5, 0.4]):
        end_epoch(first, task, epoch, dice)
    second = History(tmp_path / "b", ["organ", "lesion"], patience=2)
    second.load_state_dict(first.state_dict())
    end_epoch(second, task, 2, 0.3)
    assert second.state_dict() == whole.state_dict()
    assert (tmp_path / "a" / "metrics.csv").read_bytes() == (tmp_path / "b" / "metrics.csv").read_bytes()


def test_resumed_after_its_early_end_stops_at_once(tmp_path, make_task):
    history, task = History(tmp_path, ["organ", "lesion"], patience=1), make_task()
    for epoch, dice in enumerate([0.5, 0.4]):
        end_epoch(history, task, epoch, dice)
    resumed, trainer = History(tmp_path, ["organ", "lesion"], patience=1), SimpleNamespace(should_stop=False)
    resumed.load_state_dict(history.state_dict())
    resumed.on_train_start(trainer, task)
    assert trainer.should_stop


def test_progress_bar_starts_where_a_resumed_training_does(make_task, screen):
    bar, task = ProgressBar(steps_per_epoch=5), make_task()
    trainer = SimpleNamespace(max_epochs=4, global_step=10)
    bar.on_train_start(trainer, task)
    task.train_losses, task.val_losses = [torch.tensor(0.5)], [torch.ones(())]
    task.confusion = np.eye(3, dtype=np.int64)
    bar.on_train_batch_end(trainer, task, None, None, 0)
    bar.on_train_epoch_end(trainer, task)
    bar.close()
    assert "10/20 steps" in screen()
    last = screen().splitlines()[-1]
    assert "11/20 steps" in last
    assert "loss 0.500, Dice 1.000" in last


def test_a_bar_that_was_never_shown_can_be_closed():
    ProgressBar(steps_per_epoch=5).close()


def test_means():
    assert mean([torch.tensor(1.0), torch.tensor(2.0)]) == 1.5
    assert nan_mean([math.nan, 0.5]) == 0.5
    assert math.isnan(nan_mean([]))

"""What happened in each epoch: the table metrics.csv, the best weights, early stopping, the progress bar.

The history travels inside the checkpoint and metrics.csv is written anew from it after each epoch, so that an
interrupted epoch leaves no trace in the table.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from segmentation import SkipSegError
from segmentation.model.storage import save_weights
from segmentation.progress import Bar
from segmentation.runs import write_csv
from segmentation.training.task import SegmentationTask


class History(pl.Callback):
    """Record each epoch, keep the best weights, and stop when nothing improves any more.

    Args:
        folder: Run folder, for ``metrics.csv`` and ``best.safetensors``.
        class_names: Foreground classes, for the columns.
        patience: Epochs without improvement before stopping; 0 never stops.
    """

    def __init__(self, folder: Path, class_names: list[str], patience: int) -> None:
        self.folder = folder
        self.class_names = class_names
        self.patience = patience
        self.rows: list[dict[str, Any]] = []
        self.best_dice = -math.inf
        self.best_epoch = -1

    def state_dict(self) -> dict[str, Any]:
        """Plain data for the checkpoint."""
        return {"rows": self.rows, "best_dice": self.best_dice, "best_epoch": self.best_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self.rows = list(state_dict["rows"])
        self.best_dice = state_dict["best_dice"]
        self.best_epoch = state_dict["best_epoch"]

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the epoch down, keep its weights if they are the best, stop if it is time.

        Raises:
            SkipSegError: If the weights are not finite any more: nothing that follows would be worth its time.
        """
        assert isinstance(pl_module, SegmentationTask)
        if not all(bool(weight.isfinite().all()) for weight in pl_module.network.parameters()):
            raise SkipSegError(
                f"training diverged in epoch {trainer.current_epoch}: weights are not finite; train anew with a "
                "smaller optim.learning_rate, or with precision fp32"
            )
        row: dict[str, Any] = {
            "epoch": trainer.current_epoch,
            "step": trainer.global_step,
            "learning_rate": float(f"{trainer.optimizers[0].param_groups[0]['lr']:.6g}"),
            "train_loss": mean(pl_module.train_losses),
        }
        if pl_module.val_losses:
            scores = pl_module.validation_dice()
            row |= {"val_loss": mean(pl_module.val_losses), "val_dice": round(nan_mean(scores), 6)}
            row |= {f"val_dice_{name}": round(dice, 6) for name, dice in zip(self.class_names, scores, strict=True)}
            if row["val_dice"] > self.best_dice:
                self.best_dice, self.best_epoch = row["val_dice"], trainer.current_epoch
                if trainer.is_global_zero:
                    save_weights(self.folder / "best.safetensors", pl_module.final_weights())
        self.rows.append(row)
        if trainer.is_global_zero:
            write_csv(self.folder / "metrics.csv", self.rows, list(row))
        self._stop_if_time(trainer)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop at once when the training that is resumed had already come to its early end."""
        self._stop_if_time(trainer)

    def _stop_if_time(self, trainer: pl.Trainer) -> None:
        """Tell the trainer to stop after ``patience`` epochs without improvement."""
        trainer.should_stop = self.best_epoch >= 0 and 0 < self.patience < len(self.rows) - self.best_epoch


class ProgressBar(pl.Callback):
    """One bar over the whole training, with the time left, on a terminal only.

    Args:
        steps_per_epoch: Optimiser steps in an epoch.
    """

    def __init__(self, steps_per_epoch: int) -> None:
        self.steps_per_epoch = steps_per_epoch
        self.bar: Bar | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the bar, at the step that a resumed training has reached."""
        total = (trainer.max_epochs or 0) * self.steps_per_epoch
        self.bar = Bar("train", "steps", total, done=trainer.global_step)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Advance."""
        assert self.bar
        self.bar.advance()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the last losses and scores."""
        assert isinstance(pl_module, SegmentationTask)
        assert self.bar
        shown = f"loss {mean(pl_module.train_losses):.3f}"
        if pl_module.val_losses:
            shown += f", Dice {nan_mean(pl_module.validation_dice()):.3f}"
        self.bar.note(shown)

    def close(self) -> None:
        """Close the bar, however the training ended."""
        if self.bar:
            self.bar.close()


def mean(losses: list[torch.Tensor]) -> float:
    """Mean of losses, each of shape ``()``, to 6 digits, computed in one fixed order."""
    return float(f"{torch.stack(losses).double().mean().item():.6g}")


def nan_mean(scores: list[float]) -> float:
    """Mean of the scores that are defined; nan if none is.

    Examples:
        >>> nan_mean([0.5, float("nan"), 1.0]), nan_mean([float("nan")])
        (0.75, nan)
    """
    defined = [score for score in scores if not math.isnan(score)]
    return float(np.mean(defined)) if defined else math.nan

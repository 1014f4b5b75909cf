"""Exact resume: what a checkpoint holds, and how it reaches the disk.

A checkpoint is plain data and tensors, opened with ``weights_only=True``: model, optimiser, schedule, gradient
scaler, moving average, the history of the run and the state of every random number generator. The position in
the data is the epoch alone, because samples are numbered (:mod:`segmentation.data.sampling`). So a training
that is killed at any moment and started again ends with the bits of one that was never interrupted, on a CPU; on a GPU
as far as its operations give the same bits every time.
"""

import io
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import CheckpointIO

from segmentation import SkipSegError
from segmentation.runs import write_bytes
from segmentation.training.ranks import gather


def random_state() -> dict[str, Any]:
    """State of every random number generator, as plain data and tensors."""
    numpy_state = np.random.get_state(legacy=False)
    assert isinstance(numpy_state, dict)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,  # of the device of this process
        "numpy": {**numpy_state, "state": {**numpy_state["state"], "key": numpy_state["state"]["key"].tolist()}},
        "python": random.getstate(),
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Put back what :func:`random_state` took."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    inner = state["numpy"]["state"]
    np.random.set_state({**state["numpy"], "state": {**inner, "key": np.array(inner["key"], np.uint32)}})
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))


class SafeCheckpointIO(CheckpointIO):
    """Checkpoints on a local disk: written beside the target, flushed, renamed; read without unpickling code."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write ``checkpoint`` whole or not at all; any failure is raised, and the file before it stays."""
        # By way of memory: torch's own writer hides that the disk is full behind an error of its own.
        content = io.BytesIO()
        torch.save(checkpoint, content)
        write_bytes(Path(path), content.getvalue())

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = True) -> dict[str, Any]:
        """Read a checkpoint as plain data and tensors.

        Raises:
            SkipSegError: If the file is damaged or holds anything else.
        """
        try:
            with zipfile.ZipFile(path) as content:  # PyTorch itself does not look at the checksums
                if damaged := content.testzip():
                    raise zipfile.BadZipFile(damaged)
            return torch.load(path, map_location=map_location or "cpu", weights_only=True)
        except Exception as error:  # torch.load raises many kinds for a damaged file
            raise SkipSegError(
                f"{path} cannot be resumed from ({type(error).__name__}); delete it to start over"
            ) from None

    def remove_checkpoint(self, path: Any) -> None:
        """Delete a checkpoint."""
        Path(path).unlink(missing_ok=True)


class ExactResume(pl.Callback):
    """Save ``last.ckpt`` at the end of each epoch, after all other callbacks of that moment.

    Args:
        path: The checkpoint file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the random number generators of every process."""
        checkpoint["random_state"] = gather(random_state())

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Remember the random number generators; they are put back when training starts."""
        self.pending: dict[str, Any] | None = checkpoint["random_state"][trainer.global_rank]

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the random number generators back, after Lightning's own preparations may have drawn from them."""
        pending, self.pending = getattr(self, "pending", None), None
        if pending is not None:
            restore_random_state(pending)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save."""
        trainer.save_checkpoint(self.path)

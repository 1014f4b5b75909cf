"""Snapshots of the weights along a training with ``track_updates``: the path that the kind ``path`` of probes shows.

RUN/snapshots/0003.safetensors    weights after epoch 3, in float16, without anything else of the state
"""

from pathlib import Path

import pytorch_lightning as pl

from segmentation.model.storage import save_weights
from segmentation.training.task import SegmentationTask

MOST = 20
"""About this many are kept, evenly over the training, so that the disk does not fill."""


class SnapshotRecorder(pl.Callback):
    """Write the weights down after every so many epochs; a file of an epoch that runs again is written again.

    Args:
        folder: Run folder.
        epochs: Epochs of the whole training.
    """

    def __init__(self, folder: Path, epochs: int) -> None:
        self.folder = folder / "snapshots"
        self.every = -(-epochs // MOST)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the weights of this epoch, if it is its turn."""
        assert isinstance(pl_module, SegmentationTask)
        if trainer.is_global_zero and trainer.current_epoch % self.every == 0:
            weights = {name: value.detach().half().cpu() for name, value in pl_module.network.named_parameters()}
            save_weights(self.folder / f"{trainer.current_epoch:04}.safetensors", weights)


def snapshot_files(folder: Path) -> list[Path]:
    """Snapshots of the run in ``folder``, in the order of training."""
    return sorted((folder / "snapshots").glob("*.safetensors"))

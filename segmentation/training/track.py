"""Report a training to a tracker. metrics.csv stays the record: a tracker gets its rows, decides nothing, may fail.

RUN/tracking.json    for each tracker, what it calls this training and how many epochs it has

An epoch is reported once its checkpoint stands, so a training that is killed and resumed goes on in the same curves.
"""

import logging
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from segmentation.config import TrainSettings
from segmentation.plain import flatten, to_plain
from segmentation.runs import read_json, write_json
from segmentation.training.checkpoint import random_state, restore_random_state
from segmentation.training.history import History
from segmentation.training.job import VOLATILE
from segmentation.training.task import SegmentationTask
from segmentation.training.trackers import Tracker, open_tracker

PICTURES = 10
"""About so many are shown of a training, evenly over it."""

log = logging.getLogger(__name__)


class TrackRecorder(pl.Callback):
    """Report each epoch, and now and then a picture.

    Args:
        settings: Of the training, with every planned value filled in.
        history: Whose rows are reported.
    """

    def __init__(self, settings: TrainSettings, history: History) -> None:
        self.settings = settings
        self.history = history
        self.state_file = settings.out / "tracking.json"
        self.every = -(-(settings.epochs or 1) // PICTURES)
        self.tracker: Tracker | None = None
        self.reported = 0
        self.failed = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the tracker, and report what an interruption has kept from it."""
        self._try(self._open)
        self._try(self._report)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: tuple[Tensor, Tensor],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Show the first held-out patch: images of shape ``(B, C, *S)`` and labels of shape ``(B, *S)``."""
        assert isinstance(pl_module, SegmentationTask)
        if batch_idx == 0 and trainer.current_epoch % self.every == 0:
            self._try(lambda: self._show(trainer.global_step, pl_module, *batch))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report the epoch."""
        self._try(self._report)

    def close(self, finished: bool) -> None:
        """End the report."""
        if self.tracker:
            self._try(lambda: self.tracker and self.tracker.close(finished))

    def _try(self, act: Callable[[], Any]) -> None:
        """Do something with the tracker; whatever goes wrong is said once, and random numbers stay as they were."""
        if self.failed:
            return
        state = random_state()
        try:
            act()
        except Exception as error:  # whatever a library, a disk or a server lacks, the training can spare
            self.failed = True
            said = " ".join(f"{type(error).__name__}: {error}".split())
            log.warning("tracking by %s stops, the training goes on (%s)", self.settings.track, said)
        finally:
            restore_random_state(state)

    def _open(self) -> None:
        """Open the tracker where it ended, or anew if it knows epochs that this training has not had."""
        run, epochs = self._states().get(self.settings.track, (None, 0))
        if epochs > len(self.history.rows):
            run, epochs = None, 0
        hidden = (*VOLATILE, "dataset")  # paths of this machine
        about = {name: value for name, value in flatten(to_plain(self.settings)) if name not in hidden}
        self.tracker = open_tracker(self.settings.track, self.settings.out, about, run)
        self.reported = epochs

    def _report(self) -> None:
        """Report the epochs that the tracker does not have."""
        if not self.tracker:
            return
        for row in self.history.rows[self.reported :]:
            self.tracker.log(row["step"], named_curves(row))
        self.reported = len(self.history.rows)
        write_json(self.state_file, self._states() | {self.settings.track: [self.tracker.run, self.reported]})

    def _states(self) -> dict[str, Any]:
        """Content of tracking.json."""
        return read_json(self.state_file) if self.state_file.exists() else {}

    def _show(self, step: int, task: SegmentationTask, images: Tensor, labels: Tensor) -> None:
        """Send the first patch of a batch: images of shape ``(B, C, *S)`` and labels of shape ``(B, *S)``."""
        if self.tracker:
            with torch.no_grad():
                prediction = task(images[:1]).argmax(dim=1)
            image, reference, predicted = (part[0].cpu().numpy() for part in (images[:, 0].float(), labels, prediction))
            panels = side_by_side(image, reference, predicted, task.classes)
            self.tracker.picture(step, "image, reference, prediction", panels)


def named_curves(row: Mapping[str, Any]) -> dict[str, float]:
    """Names of the curves, grouped as trackers group them, and their values; what is not defined is left out.

    Examples:
        >>> named_curves({"epoch": 0, "step": 2, "train_loss": 1.5, "val_dice": 0.5, "val_dice_a": float("nan")})
        {'epoch': 0.0, 'loss/train': 1.5, 'dice/mean': 0.5}
    """
    names = {"train_loss": "loss/train", "val_loss": "loss/val", "val_dice": "dice/mean"}
    curves = {names.get(key, re.sub("^val_dice_", "dice/", key)): value for key, value in row.items() if key != "step"}
    return {name: float(value) for name, value in curves.items() if math.isfinite(value)}


def side_by_side(
    image: NDArray[np.floating], reference: NDArray[np.integer], prediction: NDArray[np.integer], classes: int
) -> NDArray[np.uint8]:
    """Lay three planes out side by side, in grey: of volumes the plane with the largest reference area.

    Args:
        image: Intensities in [0, 1], shape ``(*S)``.
        reference: Label map, same shape; a value of ``classes`` is ignored.
        prediction: Predicted label map, same shape.
        classes: Number of classes, background included.

    Returns:
        Pixels, shape ``(H, 3 * W)``.

    Examples:
        >>> side_by_side(np.ones((1, 2)), np.array([[0, 1]]), np.array([[1, 1]]), 2).tolist()
        [[255, 255, 0, 255, 255, 255]]
    """
    annotated = np.where(reference == classes, 0, reference)
    if image.ndim == 3:
        area = np.count_nonzero(annotated, axis=(1, 2))
        image, annotated, prediction = (array[int(area.argmax())] for array in (image, annotated, prediction))
    planes = [image.clip(0, 1), annotated / (classes - 1), prediction / (classes - 1)]
    return np.concatenate([np.round(255 * plane).astype(np.uint8) for plane in planes], axis=1)

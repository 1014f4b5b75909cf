"""The LightningModule: a thin layer between the network and the Trainer."""

import math
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from segmentation.config import OptimSettings
from segmentation.data.preprocessing import Preprocessing
from segmentation.data.transforms import standardise
from segmentation.metrics.overlap import Counts, confusion
from segmentation.model.channels_last import CHANNELS_LAST_NORMS, FORMAT, channels_last
from segmentation.model.unet import UNet
from segmentation.training.losses import build_loss, network_loss
from segmentation.training.ranks import gather


def learning_rate_factor(step: int, steps: int, optim: OptimSettings) -> float:
    """Share of the largest learning rate at ``step`` of ``steps``: linear warm-up, then the schedule.

    Examples:
        >>> optim = OptimSettings(schedule="cosine", warmup_share=0.1)
        >>> [round(learning_rate_factor(step, 100, optim), 2) for step in (0, 9, 55, 99)]
        [0.1, 1.0, 0.5, 0.0]
    """
    warmup = max(1, round(optim.warmup_share * steps))
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    match optim.schedule:
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * done))
        case "poly":
            return (1 - done) ** 0.9
        case "constant":
            return 1.0


class SegmentationTask(pl.LightningModule):
    """Train a network on patches, keep a moving average of its weights, and score that average.

    Args:
        network: The network; returns logits.
        optim: Optimisation settings.
        preprocessing: How images were prepared.
        classes: Number of classes K, background included.
        total_steps: Optimiser steps of the whole training, for the schedule.
    """

    def __init__(
        self, network: UNet, optim: OptimSettings, preprocessing: Preprocessing, classes: int, total_steps: int
    ) -> None:
        super().__init__()
        self.network = network
        self.optim = optim
        self.preprocessing = preprocessing
        self.classes = classes
        self.total_steps = total_steps
        self.loss = build_loss(optim.loss)
        self.average: dict[str, Tensor] = {}
        self.confusion = np.zeros((classes, classes), np.int64)
        self.train_losses: list[Tensor] = []
        self.val_losses: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        """Map images in [0, 1], shape ``(B, C, *S)``, to logits, shape ``(B, K, *S)``."""
        return self.network(self._ready(images))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        """Loss of one batch: images of shape ``(B, C, *S)`` in [0, 1] and labels of shape ``(B, *S)``."""
        images, labels = batch
        loss = network_loss(self.network, self.loss, self._ready(images), labels)
        self.train_losses.append(loss.detach())
        return loss

    def configure_model(self) -> None:
        """Give the weights the layout of the maps, else every step copies them; before anything is made of them."""
        if self._channels_last_on(self.trainer.strategy.root_device):
            # The overload of PyTorch's declarations that takes a layout alone knows no layout of volumes.
            self.network.to(memory_format=FORMAT[self.network.dims])  # pyright: ignore[reportCallIssue]

    def configure_optimizers(self) -> Any:
        """AdamW or SGD, with the learning rate set anew at each step."""
        o = self.optim
        if o.optimizer == "adamw":
            optimizer: torch.optim.Optimizer = torch.optim.AdamW(
                self.network.parameters(), o.learning_rate, weight_decay=o.weight_decay
            )
        else:
            optimizer = torch.optim.SGD(
                self.network.parameters(), o.learning_rate, momentum=0.99, nesterov=True, weight_decay=o.weight_decay
            )
        factor = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: learning_rate_factor(s, self.total_steps, o))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": factor, "interval": "step"}}

    def on_train_epoch_start(self) -> None:
        """Forget the losses of the epoch before."""
        self.train_losses = []

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Move the average towards the new weights, faster at first: decay min(d, (1 + t) / (10 + t))."""
        if not self.optim.ema_decay:
            return
        decay = min(self.optim.ema_decay, (1 + self.global_step) / (10 + self.global_step))
        for name, value in self.network.state_dict().items():
            if name not in self.average or not value.is_floating_point():
                self.average[name] = value.detach().clone()
            else:
                self.average[name].lerp_(value, 1 - decay)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the moving average."""
        checkpoint["average"] = self.average

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Continue the moving average."""
        self.average = checkpoint["average"]

    def on_train_start(self) -> None:
        """Bring a loaded average to where the network is by now."""
        self.average = {name: value.to(self.device) for name, value in self.average.items()}

    def final_weights(self) -> dict[str, Tensor]:
        """The weights to keep: the moving average if there is one, on the CPU."""
        weights = self.average or self.network.state_dict()
        return {name: value.detach().cpu().clone() for name, value in weights.items()}

    def on_validation_start(self) -> None:
        """Count anew, with the averaged weights in place."""
        self.confusion[:] = 0
        self.val_losses = []
        self._swap_average()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> None:
        """Add one batch, images of shape ``(B, C, *S)`` and labels of shape ``(B, *S)``, to the validation Dice."""
        images, labels = batch
        logits = self(images)
        self.val_losses.append(self.loss(logits, labels))
        prediction = logits.argmax(dim=1).cpu().numpy()
        self.confusion += confusion(prediction, labels.cpu().numpy(), self.classes, ignore=self.classes)

    def on_validation_end(self) -> None:
        """Put the training weights back, and bring together what every process of the training has counted."""
        self._swap_average()
        self.confusion = np.sum(gather(self.confusion), axis=0)
        self.val_losses = [loss for losses in gather([loss.cpu() for loss in self.val_losses]) for loss in losses]

    def validation_dice(self) -> list[float]:
        """Dice of each foreground class over all voxels of the validation patches; nan if absent from both."""
        return Counts.of_confusion(self.confusion).dice[1:].tolist()

    def _channels_last_on(self, device: torch.device) -> bool:
        """Whether the network is fastest on a device with the channels last in memory."""
        return device.type == "cpu" and self.network.settings.norm in CHANNELS_LAST_NORMS

    def _ready(self, images: Tensor) -> Tensor:
        """Standardised images, in the layout in which the network is fastest."""
        images = standardise(images, self.preprocessing)
        return channels_last(images) if self._channels_last_on(images.device) else images

    def _swap_average(self) -> None:
        """Exchange the network's weights and their average."""
        if self.average:
            current = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
            self.network.load_state_dict(self.average)
            self.average = current

"""How far each layer moves in each epoch: the table updates.csv of a run that is trained with ``track_updates``.

    epoch, layer     layers in the order in which the network computes them
    mean_update      mean over the steps of the epoch of mean |dW|, dW as it is stored: an update that rounding
                     swallows counts as none (the map of Drozdzal et al. 2016, arXiv:1608.04117)
    update_ratio     mean over the steps of ||dW|| / ||W||
    rms_gradient     mean over the steps of ||g|| / sqrt(n), before the gradient is clipped

The rows travel inside the checkpoint and the table is written anew from them after each epoch, so that an
interrupted epoch leaves no trace in it.
"""

import math
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from segmentation.model.order import layers_in_order, weight_of
from segmentation.runs import write_csv
from segmentation.training.task import SegmentationTask

MEASURES = ("mean_update", "update_ratio", "rms_gradient")
COLUMNS = ("epoch", "layer", *MEASURES)


class UpdateRecorder(pl.Callback):
    """Record the update and the gradient of every layer in every epoch.

    Args:
        folder: Run folder, for ``updates.csv``.
        example: An input that the network takes, shape ``(B, C, *S)``; it shows the order of the layers.
    """

    def __init__(self, folder: Path, example: Tensor) -> None:
        self.folder = folder
        self.example = example
        self.rows: list[dict[str, Any]] = []
        self.weights: dict[str, nn.Parameter] = {}
        self.before: list[Tensor] = []
        self.gradients: list[Tensor] = []
        self.steps: list[Tensor] = []

    def state_dict(self) -> dict[str, Any]:
        """Plain data for the checkpoint."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self.rows = list(state_dict["rows"])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Find the layers."""
        assert isinstance(pl_module, SegmentationTask)
        layers = layers_in_order(pl_module.network, self.example.to(pl_module.device))
        self.weights = {name: weight_of(layer) for name, layer in layers.items()}

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin a new mean."""
        self.steps = []

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Remember weights and gradients of this step."""
        self.before = [weight.detach().clone() for weight in self.weights.values()]
        self.gradients = [rms(_gradient(weight)) for weight in self.weights.values()]

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure the step; the numbers stay on the device until the epoch ends."""
        pairs = zip(self.weights.values(), self.before, strict=True)
        moved = [measure_update(weight.detach(), before) for weight, before in pairs]
        self.steps.append(torch.stack([torch.stack((*m, g)) for m, g in zip(moved, self.gradients, strict=True)]))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the epoch down."""
        means = torch.stack(self.steps).mean(dim=0).tolist()
        for name, values in zip(self.weights, means, strict=True):
            shown = [float(f"{value:.6g}") for value in values]
            self.rows.append({"epoch": trainer.current_epoch, "layer": name, **dict(zip(MEASURES, shown, strict=True))})
        if trainer.is_global_zero:
            write_csv(self.folder / "updates.csv", self.rows, COLUMNS)


def rms(values: Tensor) -> Tensor:
    """Root mean square of values of any shape, in float64, where the square of a tiny gradient is not yet zero.

    Examples:
        >>> rms(torch.tensor([3.0, -4.0, 0.0, 0.0])).item()
        2.5
    """
    return values.detach().double().norm() / math.sqrt(values.numel())


def measure_update(after: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
    """Mean |dW| and ||dW|| / ||W|| of a step, for weights of one shape ``(*N)``; the ratio of zero weights is nan.

    Examples:
        >>> mean, ratio = measure_update(torch.tensor([3.0, 4.5]), torch.tensor([3.0, 4.0]))
        >>> mean.item(), ratio.item()
        (0.25, 0.1)
    """
    update = after.double() - before.double()
    norm = before.double().norm()
    return update.abs().mean(), torch.where(norm > 0, update.norm() / norm, math.nan)


def _gradient(weight: nn.Parameter) -> Tensor:
    """Gradient of weights; zeros where nothing has reached them."""
    return torch.zeros_like(weight) if weight.grad is None else weight.grad

"""Settings of a training: data, augmentation, optimisation and all around them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from segmentation.config.checks import require, require_positive
from segmentation.config.network import NetworkSettings


@dataclass(frozen=True)
class DataSettings:
    """What the network is shown: resolution, patches and how they are drawn."""

    dims: Literal[2, 3] | None = None
    """2 trains on pictures or on slices of volumes, 3 on volumes."""
    spacing_mm: list[float] | None = None
    """Voxel spacing that every scan is resampled to, in mm, one value per spatial axis."""
    patch_size: list[int] | None = None
    """Voxels of a training patch and of the inference window, one value per network axis."""
    batch_size: int | None = None
    """Patches in a step."""
    context_slices: int | None = None
    """With dims 2 on volumes: neighbouring slices on each side, given as extra channels."""
    foreground_share: float = 0.5
    """Share of the patches of a case with foreground that are centred on it, in [0, 1]; its classes are as likely."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require_positive(self, "batch_size")
        require(0 <= self.foreground_share <= 1, f"foreground_share must be in [0, 1], got {self.foreground_share}")
        fits = self.context_slices is None or self.context_slices >= 0
        require(fits, f"context_slices must be at least 0, got {self.context_slices}")
        for name in ("spacing_mm", "patch_size"):
            values = getattr(self, name)
            require(values is None or all(v > 0 for v in values), f"{name} must hold values above 0, got {values}")


@dataclass(frozen=True)
class AugmentSettings:
    """Random changes of the training patches."""

    strength: float = 1.0
    """Scale of all ranges: 0 switches augmentation off, 1 is the default."""
    flip_axes: list[int] | None = None
    """Network axes that may be mirrored."""
    rotate_degrees: float = 20.0
    """Largest rotation."""
    scale: float = 0.2
    """Largest relative zoom."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require(0 <= self.strength <= 2, f"strength must be in [0, 2], got {self.strength}")
        for name in ("rotate_degrees", "scale"):
            require(getattr(self, name) >= 0, f"{name} must be at least 0, got {getattr(self, name)}")
        axes = self.flip_axes or []
        fits = len(set(axes)) == len(axes) and set(axes) <= {0, 1, 2}
        require(fits, f"flip_axes must name axes among 0, 1 and 2, each once, got {axes}")


@dataclass(frozen=True)
class OptimSettings:
    """How weights are learnt."""

    loss: Literal["dice_ce", "dice", "ce", "focal", "tversky", "dice_focal"] = "dice_ce"
    """Loss: soft Dice + cross-entropy, or an alternative."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """AdamW, or SGD with Nesterov momentum 0.99."""
    learning_rate: float = 2e-3
    """Largest learning rate."""
    weight_decay: float = 1e-4
    """Weight decay."""
    schedule: Literal["cosine", "poly", "constant"] = "cosine"
    """Course of the learning rate after the warm-up: to zero by half a cosine, by (1-t)^0.9, or not at all."""
    warmup_share: float = 0.05
    """Share of all steps with a linearly rising learning rate."""
    clip_norm: float = 12.0
    """Largest L2 norm of the gradient; 0 leaves it as it is."""
    ema_decay: float = 0.99
    """Decay a step of the moving average of the weights, which is what is validated and kept; 0 keeps none."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require_positive(self, "learning_rate")
        require(0 <= self.ema_decay < 1, f"ema_decay must be in [0, 1), got {self.ema_decay}")
        require(0 <= self.warmup_share < 1, f"warmup_share must be in [0, 1), got {self.warmup_share}")
        for name in ("clip_norm", "weight_decay"):
            require(getattr(self, name) >= 0, f"{name} must be at least 0, got {getattr(self, name)}")


@dataclass(frozen=True)
class TrainSettings:
    """Train one network on one fold of a dataset."""

    dataset: Path
    """Dataset folder (nnU-Net or MSD layout) or CSV of paths, read in place."""
    out: Path
    """Run folder to create, or to resume if it holds an unfinished run of the same settings."""
    fold: int = 0
    """Which fold is held out."""
    folds: int = 5
    """Number of folds by patient; 0 leaves one patient out at a time."""
    seed: int = 0
    """Seed of initial weights, patches and augmentation, never of the split."""
    split_seed: int = 0
    """Seed of the split, shared by all runs that are compared."""
    epochs: int | None = None
    """Epochs to train."""
    steps_per_epoch: int | None = None
    """Optimiser steps in an epoch."""
    network: NetworkSettings = field(default_factory=NetworkSettings)
    """The U-Net."""
    data: DataSettings = field(default_factory=DataSettings)
    """Resolution and patches."""
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    """Augmentation."""
    optim: OptimSettings = field(default_factory=OptimSettings)
    """Optimisation."""
    select: Literal["last", "best"] = "last"
    """Which weights become the model. With best, the held-out fold also chose them: its score is optimistic."""
    patience: int = 0
    """Stop after this many epochs without a better validation Dice; 0 never stops early."""
    mirror: bool = False
    """Average predictions over mirrored copies along the flip axes when the held-out cases are scored."""
    keep_largest: bool = False
    """Keep only the largest connected component of each class in predictions."""
    tolerance_mm: float | None = None
    """Tolerance of the normalised surface Dice; as planned: the largest voxel spacing."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic; auto is bf16 on a GPU that computes with it, fp16 on an older one, fp32 on a CPU."""
    deterministic: bool = True
    """Use operations that give the same bits every time, on a GPU as far as PyTorch has them (3-D pooling has none)."""
    devices: int = 1
    """Processes of one training on this machine, a GPU or a CPU process each (DDP); batch_size is for each."""
    nodes: int = 1
    """Machines of one training; started on each, as Lightning's DDP asks."""
    track: Literal["none", "tensorboard", "mlflow", "wandb"] = "none"
    """Also report the curves to TensorBoard (RUN/tensorboard), MLflow or Weights & Biases; changes no result."""
    track_updates: bool = False
    """Record the mean update and gradient of every layer in each epoch, for `skipseg probe`."""
    threads: int = 0
    """CPU threads of one training; 0 takes all cores."""
    plan: Path | None = None
    """plan.json to follow; otherwise the dataset's own, or one made on the spot."""
    cache: Path | None = None
    """Folder for prepared arrays; otherwise the user's cache folder."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require_positive(self, "epochs", "steps_per_epoch", "tolerance_mm", "devices", "nodes")
        require(self.folds == 0 or self.folds >= 2, f"folds must be 0 or at least 2, got {self.folds}")
        require(self.fold >= 0, f"fold must be at least 0, got {self.fold}")
        for name in ("seed", "split_seed"):
            require(0 <= getattr(self, name) < 2**32, f"{name} must be in [0, 2**32), got {getattr(self, name)}")
        alone = self.network.long_skip_placebo == "shuffle" and self.data.batch_size == 1
        require(not alone, "long_skip_placebo shuffle needs another image in the batch, got data.batch_size 1")
        require(self.threads >= 0, f"threads must be at least 0, got {self.threads}")

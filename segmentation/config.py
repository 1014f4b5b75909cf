"""Every setting of every command: one declaration each, with type, choices, default, meaning and check.

The command line, the YAML files and the run records are all read from these frozen dataclasses, so that a
wrong choice, type or key is refused before anything runs. Standard library only: ``--help`` never waits.
``None`` means "as planned": the value comes from plan.json, where it stands with its reason.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from segmentation import SkipSegError

LongSkip = Literal["concat", "add", "none"]
ShortSkip = Literal["none", "add", "dense"]
Activation = Literal["relu", "leaky_relu", "elu", "gelu", "silu", "tanh", "sigmoid"]
Norm = Literal["none", "batch", "instance", "group"]
Init = Literal["he", "xavier", "orthogonal", "torch"]
Settings = TypeVar("Settings")
Repair = Literal["gaps", "duplicates", "spacing", "tilt"]


def require(condition: bool, message: str) -> None:
    """Raise :class:`SkipSegError` with ``message`` unless ``condition`` holds."""
    if not condition:
        raise SkipSegError(message)


def require_positive(settings: Any, *names: str) -> None:
    """Refuse a setting among ``names`` that is zero or negative; ``None`` passes."""
    for name in names:
        value = getattr(settings, name)
        require(value is None or value > 0, f"{name} must be greater than 0, got {value}")


@dataclass(frozen=True)
class NetworkSettings:
    """The U-Net. Level 0 is the finest; a network of depth D has long skips at levels 0 to D-1."""

    long_skip: LongSkip = "concat"
    """Long skip connection from encoder to decoder: concat (U-Net), add (LinkNet), none (an autoencoder)."""
    long_skip_levels: dict[int, LongSkip] = field(default_factory=dict)
    """Levels that depart from long_skip, such as {0: none}."""
    short_skip: ShortSkip = "none"
    """Short skip connection inside a block: none, add (ResNet: y = x + F(x)), dense (DenseNet)."""
    short_skip_levels: dict[int, ShortSkip] = field(default_factory=dict)
    """Levels that depart from short_skip; level D is the bottleneck."""
    depth: int | None = None
    """Number of times the resolution is halved."""
    width: int | None = None
    """Channels at level 0; each level doubles them."""
    max_width: int = 320
    """Most channels at any level."""
    convs: int = 2
    """Convolutions in each block."""
    activation: Activation = "leaky_relu"
    """Non-linearity after each convolution."""
    norm: Norm = "instance"
    """Normalisation after each convolution."""
    init: Init = "he"
    """How weights are drawn: he, xavier, orthogonal, or torch (PyTorch's defaults)."""
    downsample: Literal["maxpool", "stride"] = "maxpool"
    """How the encoder halves the resolution: max pooling, or a strided convolution."""
    dropout: float = 0.0
    """Share of bottleneck channels dropped in training, in [0, 1)."""
    deep_supervision: bool = False
    """Also train outputs of the coarser decoder levels."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require_positive(self, "depth", "width", "max_width", "convs")
        require(0 <= self.dropout < 1, f"dropout must be in [0, 1), got {self.dropout}")
        if self.depth is not None:
            for name, last in (("long_skip_levels", self.depth - 1), ("short_skip_levels", self.depth)):
                wrong = [level for level in getattr(self, name) if not 0 <= level <= last]
                require(not wrong, f"{name} names level {wrong}, but this network has levels 0 to {last}")

    def long_skip_at(self, level: int) -> LongSkip:
        """Long skip connection at ``level``."""
        return self.long_skip_levels.get(level, self.long_skip)

    def short_skip_at(self, level: int) -> ShortSkip:
        """Short skip connection of the blocks at ``level``."""
        return self.short_skip_levels.get(level, self.short_skip)


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
    """Share of patches that are centred on a foreground voxel, in [0, 1]; classes take turns."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require_positive(self, "batch_size")
        require(0 <= self.foreground_share <= 1, f"foreground_share must be in [0, 1], got {self.foreground_share}")
        for name in ("spacing_mm", "patch_size"):
            values = getattr(self, name)
            require(values is None or all(v > 0 for v in values), f"{name} must hold values above 0, got {values}")


@dataclass(frozen=True)
class AugmentSettings:
    """Random changes of the training patches; the same for every condition of a study."""

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
        require(self.clip_norm >= 0, f"clip_norm must be at least 0, got {self.clip_norm}")


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
    """Arithmetic; auto is bf16 or fp16 on a GPU that has it, fp32 on a CPU."""
    deterministic: bool = True
    """Use only operations that give the same bits every time."""
    threads: int = 0
    """CPU threads of one training; 0 takes all cores."""
    plan: Path | None = None
    """plan.json to follow; otherwise the dataset's own, or one made on the spot."""
    cache: Path | None = None
    """Folder for prepared arrays; otherwise the user's cache folder."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require_positive(self, "epochs", "steps_per_epoch", "tolerance_mm")
        require(self.folds == 0 or self.folds >= 2, f"folds must be 0 or at least 2, got {self.folds}")
        require(self.fold >= 0, f"fold must be at least 0, got {self.fold}")
        require(self.threads >= 0, f"threads must be at least 0, got {self.threads}")


@dataclass(frozen=True)
class PhantomSettings:
    """Synthetic scans whose truth is known; used by ``skipseg prepare phantom`` alone."""

    task: Literal["blob", "thin", "texture", "lesion"] = "blob"
    """What is planted: compact blobs, thin curves, a texture, or lesions inside an organ."""
    spatial_dims: Literal[2, 3] = 2
    """Pictures or volumes."""
    cases: int = 24
    """How many."""
    size: int = 64
    """Voxels along each axis, about."""
    difficulty: float = 0.5
    """0 is easy, 1 is hard: less contrast, more noise."""
    oblique: bool = True
    """Give volumes a rotated, anisotropic affine."""
    seed: int = 0
    """Same seed, same bytes."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require_positive(self, "cases")
        require(self.size >= 16, f"size must be at least 16, got {self.size}")
        require(0 <= self.difficulty <= 1, f"difficulty must be in [0, 1], got {self.difficulty}")


@dataclass(frozen=True)
class PrepareSettings:
    """Turn a public source into a dataset folder."""

    name: str
    """lung-ct, phantom, msd-hippocampus, drive, isbi-em, busi or dsb2018."""
    out: Path
    """Dataset folder to create."""
    source: Path | None = None
    """A copy of the source at hand, instead of its official address."""
    phantom: PhantomSettings = field(default_factory=PhantomSettings)
    """What the synthetic source makes."""


@dataclass(frozen=True)
class CheckSettings:
    """Look for everything in a dataset that would spoil a training."""

    dataset: Path
    """Dataset folder (nnU-Net or MSD layout) or CSV of paths, read in place."""
    json: Path | None = None
    """Also write the findings to this file."""
    cache: Path | None = None
    """Folder for results of earlier checks; otherwise the user's cache folder."""


@dataclass(frozen=True)
class PlanSettings:
    """Choose resolution, patch, network size and training length for a dataset, each with its reason."""

    dataset: Path
    """Dataset folder (nnU-Net or MSD layout) or CSV of paths, read in place."""
    out: Path | None = None
    """plan.json to write; otherwise into the dataset folder, where train finds it."""
    dims: Literal[2, 3] | None = None
    """2 plans for slices or pictures, 3 for volumes; otherwise chosen."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Hardware to plan for."""
    cache: Path | None = None
    """Folder for results of earlier checks; otherwise the user's cache folder."""


@dataclass(frozen=True)
class PredictSettings:
    """Segment scans with a trained model; each mask comes back in its scan's own frame."""

    model: Path
    """Run or model folder: model.json and model.safetensors."""
    input: Path
    """A scan, a folder of scans, or a DICOM series folder."""
    output: Path
    """Folder for the masks."""
    format: Literal["same", "nii.gz", "nrrd", "png", "tif"] = "same"
    """File format of the masks; same follows each scan, DICOM gives nii.gz."""
    overlap: float = 0.5
    """Share by which neighbouring windows overlap, in [0, 1)."""
    mirror: bool | None = None
    """Average over mirrored copies; otherwise as the model was scored."""
    series: str | None = None
    """SeriesInstanceUID, when a DICOM folder holds several series."""
    repair: list[Repair] = field(default_factory=list)
    """Faults of a DICOM series to mend instead of refusing it."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""
    threads: int = 0
    """CPU threads; 0 takes all cores."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require(0 <= self.overlap < 1, f"overlap must be in [0, 1), got {self.overlap}")


@dataclass(frozen=True)
class EvaluateSettings:
    """Score a folder of masks, of any tool, against a folder of references."""

    predictions: Path
    """Folder of predicted masks."""
    references: Path
    """Folder of reference masks with the same case names."""
    out: Path
    """Folder for cases.csv, summary.json and overlays."""
    images: Path | None = None
    """Folder of the scans, for the overlays."""
    labels: dict[str, int] | None = None
    """Class name to label value; otherwise from the references' dataset.json, or the values found."""
    ignore_label: int | None = None
    """Label value whose voxels are left out."""
    tolerance_mm: float = 2.0
    """Tolerance of the normalised surface Dice, in mm (pixels for pictures)."""
    overlays: int = 12
    """How many overlays to draw, worst cases first."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require_positive(self, "tolerance_mm")
        require(self.overlays >= 0, f"overlays must be at least 0, got {self.overlays}")


@dataclass(frozen=True)
class AblateSettings:
    """Run a study: every condition on every fold and seed, from frozen files, then the paired comparison."""

    study: Path
    """YAML file: name, question, dataset, base settings, and conditions or a grid."""
    out: Path
    """Study folder to create or to continue; finished runs are kept."""
    dataset: Path | None = None
    """Dataset to use instead of the study's own."""
    workers: int = 0
    """Trainings at a time; 0 takes one per core, one thread each."""
    cache: Path | None = None
    """Folder for prepared arrays; otherwise the user's cache folder."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require(self.workers >= 0, f"workers must be at least 0, got {self.workers}")


@dataclass(frozen=True)
class ReportSettings:
    """Write report.html and results.json for a study or a run."""

    folder: Path
    """Study or run folder."""


def to_plain(settings: Any) -> Any:
    """Turn settings into plain data for YAML or JSON: paths become text, nothing else changes.

    Examples:
        >>> to_plain(CheckSettings(dataset=Path("data/lung")))["dataset"]
        'data/lung'
    """
    if is_dataclass(settings) and not isinstance(settings, type):
        return to_plain(asdict(settings))
    if isinstance(settings, Mapping):
        return {key: to_plain(value) for key, value in settings.items()}
    if isinstance(settings, list | tuple):
        return [to_plain(value) for value in settings]
    return settings.as_posix() if isinstance(settings, Path) else settings


def fill(settings: Any, planned: Mapping[str, Any]) -> Any:
    """Replace every ``None`` in ``settings`` by the planned value of its dotted name.

    Args:
        settings: A settings dataclass, with groups nested.
        planned: Dotted name, such as ``"network.depth"``, to value.

    Returns:
        Settings of the same type; values that were given stay as they are.

    Examples:
        >>> fill(DataSettings(dims=2), {"dims": 3, "batch_size": 8}).batch_size
        8
    """
    changes: dict[str, Any] = {}
    for item in fields(settings):
        value = getattr(settings, item.name)
        if is_dataclass(value):
            prefix = f"{item.name}."
            inner = {key.removeprefix(prefix): planned[key] for key in planned if key.startswith(prefix)}
            changes[item.name] = fill(value, inner)
        elif value is None and item.name in planned:
            changes[item.name] = planned[item.name]
    return replace(settings, **changes)


def flatten(nested: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Walk nested settings as dotted names and values; an empty mapping is a value.

    Examples:
        >>> dict(flatten({"network": {"depth": 3}, "seed": 0}))
        {'network.depth': 3, 'seed': 0}
    """
    for key, value in nested.items():
        if isinstance(value, Mapping) and value and all(isinstance(name, str) for name in value):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def from_plain(kind: type[Settings], plain: Mapping[str, Any]) -> Settings:
    """Build settings from plain data, such as a YAML file, with every type and choice checked.

    Args:
        kind: One of the settings classes.
        plain: Field name to value; groups nested, or written with dotted names.

    Raises:
        SkipSegError: If a name is unknown, a value has the wrong type or is not among the choices.

    Examples:
        >>> from_plain(NetworkSettings, {"long_skip": "add", "depth": 3}).long_skip
        'add'
    """
    # Only commands that read settings pay for the parser.
    from jsonargparse import ArgumentError, ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind)
    try:
        return kind(**vars(parser.instantiate(parser.parse_object(nest(plain)))))
    except (ArgumentError, TypeError) as error:
        raise SkipSegError(" ".join(str(error).split())) from None


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Turn dotted names into nested mappings; the inverse of :func:`flatten`.

    Examples:
        >>> nest({"network.depth": 3, "network": {"width": 8}, "seed": 0})
        {'network': {'depth': 3, 'width': 8}, 'seed': 0}
    """
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        *groups, last = str(name).split(".")
        inner = nested
        for group in groups:
            inner = inner.setdefault(group, {})
        if isinstance(value, Mapping) and isinstance(inner.get(last), dict):
            inner[last].update(value)
        else:
            inner[last] = value
    return nested

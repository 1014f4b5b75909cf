"""Every setting of every command: one declaration each, with type, choices, default, meaning and check.

The command line, the YAML files and the run records are all read from these frozen dataclasses, so that a
wrong choice, type or key is refused before anything runs. Standard library only: ``--help`` never waits.
``None`` means "as planned": the value comes from plan.json, where it stands with its reason.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from segmentation import SkipSegError

LongSkip = Literal[
    "concat",
    "add",
    "mean",
    "mul",
    "max",
    "gated",
    "gated_scalar",
    "se",
    "respath",
    "nested",
    "fullscale",
    "none",
]
ShortSkip = Literal["none", "add", "scaled_add", "gated_add", "dense"]
Gradient = Literal["both", "forward_only", "backward_only"]
Placebo = Literal["none", "zeros", "dup", "noise", "shuffle"]
Place = Literal["encoder", "bottleneck", "decoder"]
Activation = Literal["relu", "leaky_relu", "prelu", "elu", "gelu", "silu", "tanh", "sigmoid", "identity"]
Norm = Literal["none", "batch", "instance", "group", "layer"]
Init = Literal["he", "xavier", "orthogonal", "torch"]
ADDITIVE: tuple[ShortSkip, ...] = ("add", "scaled_add", "gated_add")
"""Short skips whose two maps must have one shape."""
WHOLE_DECODER = ("nested", "fullscale")
"""Long skips that wire the whole decoder, so that a single level cannot have them alone."""
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

    preset: str | None = None
    """Named architecture that the other settings depart from; `skipseg describe --help` lists them."""
    long_skip: LongSkip = "concat"
    """Long skip connection from encoder to decoder: concat (U-Net), add (LinkNet), mean, mul, max, gated (Attention
    U-Net), gated_scalar, se, respath (MultiResUNet), nested (U-Net++), fullscale (U-Net 3+), none (an autoencoder)."""
    long_skip_levels: dict[int, LongSkip] = field(default_factory=dict)
    """Levels that depart from long_skip, such as {0: none}."""
    long_skip_scale: float = 1.0
    """Factor on the encoder map; where it starts if it is learnt."""
    long_skip_scale_decay: float = 1.0
    """The factor of level i is long_skip_scale times this to the power i (ScaleLong)."""
    long_skip_scale_learned: bool = False
    """Learn one factor a level."""
    long_skip_gradient: Gradient = "both"
    """What passes: value and gradient, the value alone (forward_only), or the gradient alone (backward_only)."""
    long_skip_placebo: Placebo = "none"
    """Stand-in for the encoder map, at equal parameters: zeros, dup (the decoder map again), noise of the same mean
    and deviation, shuffle (the encoder map of another image of the batch)."""
    long_skip_dropout: float = 0.0
    """Share of the encoder map dropped in training, in [0, 1)."""
    long_skip_dropout_mode: Literal["element", "channel", "path"] = "path"
    """What is dropped at a time: single values, channels, or the whole map of an image."""
    long_skip_permute: list[int] | None = None
    """Encoder level that each decoder level reads, such as [1, 0, 2]; resized and projected by a 1x1 convolution."""
    long_skip_norm: Literal["none", "instance"] = "none"
    """Normalise the encoder map before it is joined."""
    input_skip: bool = False
    """Also add what the first convolution makes of the image to the last decoder map (Drozdzal et al.)."""
    short_skip: ShortSkip = "none"
    """Short skip connection inside a block: none, add (ResNet: y = x + F(x)), scaled_add (x + a F(x)), gated_add
    (highway), dense (DenseNet)."""
    short_skip_levels: dict[int, ShortSkip] = field(default_factory=dict)
    """Levels that depart from short_skip; level D is the bottleneck."""
    short_skip_where: list[Place] = field(default_factory=lambda: ["encoder", "bottleneck", "decoder"])
    """Parts of the network whose blocks have short skips."""
    short_skip_every: int = 2
    """Convolutions that an additive short skip spans."""
    short_skip_scale: float = 1.0
    """Factor a of scaled_add; where it starts if it is learnt."""
    short_skip_scale_learned: bool = False
    """Learn the factor of scaled_add, one a branch."""
    depth: int | None = None
    """Number of times the resolution is halved."""
    width: int | None = None
    """Channels at level 0; each level doubles them."""
    max_width: int = 320
    """Most channels at any level."""
    widths: list[int] | None = None
    """Channels of each of the depth + 1 levels, instead of width and max_width."""
    convs: int = 2
    """Convolutions in each block; with bottleneck blocks, residual branches."""
    convs_levels: dict[int, int] = field(default_factory=dict)
    """Levels that depart from convs; level D is the bottleneck."""
    block: Literal["basic", "bottleneck"] = "basic"
    """Block of 3x3 convolutions, or branches 1x1, 3x3, 1x1 with a quarter of the channels inside (He et al.)."""
    order: Literal["conv-norm-act", "norm-act-conv"] = "conv-norm-act"
    """Order inside a convolution unit; norm-act-conv is pre-activation."""
    kernel: int | None = None
    """Size of the convolutions along every axis, odd; otherwise as planned, 3."""
    activation: Activation = "leaky_relu"
    """Non-linearity after each convolution."""
    norm: Norm = "instance"
    """Normalisation after each convolution."""
    init: Init = "he"
    """How weights are drawn: he, xavier, orthogonal, or torch (PyTorch's defaults)."""
    gain: float = 1.0
    """Factor on the initial convolution weights."""
    zero_last: bool = False
    """Start every residual branch at zero, so that a block starts as the identity (Fixup, SkipInit)."""
    downsample: Literal["maxpool", "avgpool", "stride", "first_conv", "decimate"] = "maxpool"
    """How the encoder halves the resolution: pooling, a strided convolution of its own, a stride in the first
    convolution of the next block (nnU-Net), or every second voxel."""
    upsample: Literal["transpose", "nearest", "linear"] = "transpose"
    """How the decoder doubles it: transposed convolution, or interpolation and then a convolution unit."""
    dropout: float = 0.0
    """Share of bottleneck channels dropped in training, in [0, 1)."""
    deep_supervision: bool = False
    """Also train outputs of the coarser decoder levels."""
    budget_match: Literal["none", "params", "macs"] = "none"
    """Solve widths so that parameters or multiplications equal those of the reference: in a study its first
    condition, else the same network with concat and without short skips."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require_positive(self, "depth", "width", "max_width", "convs", "short_skip_every", "kernel", "gain")
        for name in ("dropout", "long_skip_dropout"):
            require(0 <= getattr(self, name) < 1, f"{name} must be in [0, 1), got {getattr(self, name)}")
        require(self.kernel is None or self.kernel % 2 == 1, f"kernel must be odd, got {self.kernel}")
        require(all(c > 0 for c in self.convs_levels.values()), f"convs_levels must be above 0: {self.convs_levels}")
        require(self.widths is None or all(w > 0 for w in self.widths), f"widths must be above 0, got {self.widths}")
        whole = WHOLE_DECODER
        mixed = any(kind in whole for kind in self.long_skip_levels.values()) or (
            self.long_skip in whole and bool(self.long_skip_levels)
        )
        require(not mixed, f"{' and '.join(whole)} wire the whole decoder; long_skip_levels cannot depart from them")
        if self.long_skip in whole:
            require(self.long_skip_placebo != "dup", f"placebo dup has no meaning with long_skip {self.long_skip}")
            require(not self.long_skip_permute, f"long_skip_permute has no meaning with long_skip {self.long_skip}")
        require(
            not (self.long_skip_permute and self.long_skip_placebo == "dup"),
            "placebo dup has no meaning with long_skip_permute, for the two levels' maps differ in size",
        )
        require(
            not (self.input_skip and self.long_skip == "fullscale"),
            "input_skip has no meaning with long_skip fullscale, whose decoder maps have other channels",
        )
        stuck = self.order == "conv-norm-act" and self.activation in ("relu", "sigmoid")
        require(
            not (self.zero_last and stuck),
            f"zero_last with order conv-norm-act and activation {self.activation} would never leave zero, or not be "
            "zero; use order norm-act-conv or another activation",
        )
        if self.depth is not None:
            self._check_levels(self.depth)

    def _check_levels(self, depth: int) -> None:
        """Refuse settings that name levels which a network of ``depth`` does not have."""
        for name, last in (("long_skip_levels", depth - 1), ("short_skip_levels", depth), ("convs_levels", depth)):
            wrong = [level for level in getattr(self, name) if not 0 <= level <= last]
            require(not wrong, f"{name} names level {wrong}, but this network has levels 0 to {last}")
        fits = self.widths is None or len(self.widths) == depth + 1
        require(fits, f"widths needs {depth + 1} values for depth {depth}, got {self.widths}")
        sources = self.long_skip_permute
        fits = sources is None or sorted(sources) == list(range(depth))
        require(fits, f"long_skip_permute must name each of the levels 0 to {depth - 1} once, got {sources}")

    def long_skip_at(self, level: int) -> LongSkip:
        """Long skip connection at ``level``."""
        return self.long_skip_levels.get(level, self.long_skip)

    def short_skip_at(self, level: int, place: Place) -> ShortSkip:
        """Short skip connection of the block at ``level`` in ``place``."""
        return self.short_skip_levels.get(level, self.short_skip) if place in self.short_skip_where else "none"

    def convs_at(self, level: int) -> int:
        """Convolutions of a block at ``level``."""
        return self.convs_levels.get(level, self.convs)

    def channels(self) -> list[int]:
        """Channels of each level, finest first; ``depth`` and ``width`` or ``widths`` must be set.

        Raises:
            SkipSegError: If they are not.

        Examples:
            >>> NetworkSettings(depth=3, width=32, max_width=128).channels()
            [32, 64, 128, 128]
        """
        if self.depth is None or (self.width is None and self.widths is None):
            raise SkipSegError(f"a network needs depth and width, got {self.depth} and {self.width}")
        return self.widths or [min((self.width or 0) * 2**i, self.max_width) for i in range(self.depth + 1)]


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
    devices: int = 1
    """Processes of one training on this machine, a GPU or a CPU process each (DDP); batch_size is for each."""
    nodes: int = 1
    """Machines of one training; started on each, as Lightning's DDP asks."""
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

    model: list[Path] | Path
    """Run or model folder: model.json and model.safetensors. Several are averaged: --model A --model B."""
    input: Path
    """A scan, a folder of scans with everything below it, a DICOM folder, or a zip archive of these."""
    output: Path | None = None
    """Folder for the masks, laid out like the input; otherwise each mask lies beside its scan."""
    format: Literal["same", "nii.gz", "nrrd", "seg.nrrd", "mha", "png", "tif", "dcm", "labelmap.dcm"] = "same"
    """File format of the masks; same follows each scan, DICOM gives nii.gz. dcm is a binary DICOM SEG."""
    overlap: float = 0.5
    """Share by which neighbouring windows overlap, in [0, 1)."""
    mirror: bool | None = None
    """Average over mirrored copies; otherwise as the model was scored."""
    postprocess: bool = True
    """Apply the steps that the model's validation cases chose."""
    probabilities: bool = False
    """Write the probability of each class beside the mask."""
    uncertainty: bool = False
    """Write maps of the entropy, and with several models of the variance between them, beside the mask."""
    series: str | None = None
    """Which series of a DICOM folder that holds several: a SeriesInstanceUID, all, or largest."""
    repair: list[Repair] = field(default_factory=list)
    """Faults of a DICOM series to mend instead of refusing it."""
    memory: str | None = None
    """Memory that the process may take, such as 2GiB; otherwise half of what is free."""
    backend: Literal["auto", "torch", "openvino", "onnxruntime"] = "auto"
    """What computes; auto takes the fastest that is installed and agrees with PyTorch on the first window."""
    batch_size: int | None = None
    """Windows computed at a time; otherwise as the hardware has room."""
    overwrite: bool = False
    """Compute anew what the same model has segmented already."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""
    threads: int = 0
    """CPU threads; 0 takes all cores."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require(len(self.models) > 0, "model must name at least one folder, got none")
        require(0 <= self.overlap < 1, f"overlap must be in [0, 1), got {self.overlap}")
        require_positive(self, "batch_size")

    @property
    def models(self) -> list[Path]:
        """The model folders, one or several."""
        return self.model if isinstance(self.model, list) else [self.model]


@dataclass(frozen=True)
class ExportSettings:
    """Write a trained model for other programs; each copy is compared with PyTorch before it is kept."""

    model: Path
    """Run or model folder."""
    out: Path
    """File (onnx), or folder (openvino, bundle, torch)."""
    format: Literal["onnx", "openvino", "bundle", "torch"] = "onnx"
    """ONNX file, OpenVINO model in fp32, MONAI bundle, or the files that SkipSeg itself reads, with a model card."""


@dataclass(frozen=True)
class ImportSettings:
    """Read a model that nnU-Net v2 trained, with weights_only=True, into a model folder of ours."""

    source: Path
    """nnU-Net's folder of a trained configuration: plans.json, dataset.json and fold_0 and so on."""
    out: Path
    """Folder for model.json and model.safetensors."""
    fold: str = "0"
    """Fold whose weights are read: 0 to 4, or all."""
    checkpoint: str = "checkpoint_final.pth"
    """File of the fold."""


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
    launcher: Literal["local", "ray", "slurm", "none"] = "local"
    """Who runs the trainings: processes of this machine, a Ray cluster, a SLURM array, or nobody: only freeze."""
    address: str | None = None
    """Address of the Ray cluster; otherwise the one of this machine, or a new one."""
    gpus: float = 0.0
    """GPUs of each training; a fraction lets small trainings share one."""
    retries: int = 2
    """How often a training is started again when its process or node dies."""
    slurm: dict[str, str] = field(default_factory=dict)
    """Options of the SLURM array, such as {partition: gpu, time: "02:00:00"}."""
    cache: Path | None = None
    """Folder for prepared arrays; otherwise the user's cache folder."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require(self.workers >= 0, f"workers must be at least 0, got {self.workers}")
        require(self.gpus >= 0, f"gpus must be at least 0, got {self.gpus}")
        require(self.retries >= 0, f"retries must be at least 0, got {self.retries}")


@dataclass(frozen=True)
class DescribeSettings:
    """Say what a network is made of: switches, parameters, multiplications, memory, field of view."""

    network: NetworkSettings = field(default_factory=lambda: NetworkSettings(depth=4, width=32))
    """The U-Net."""
    dims: Literal[2, 3] = 2
    """Spatial axes."""
    in_channels: int = 1
    """Channels of the image."""
    classes: int = 2
    """Channels of the logits, background included."""
    size: list[int] | None = None
    """Voxels of the input along each axis; otherwise 256 in 2-D, 96 in 3-D."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require_positive(self, "in_channels", "classes")
        fits = self.size is None or (len(self.size) == self.dims and min(self.size) > 0)
        require(fits, f"size needs {self.dims} values above 0, got {self.size}")


@dataclass(frozen=True)
class ProbeSettings:
    """Look into a trained run: gradients, landscape, lesions, use of skips."""

    run: Path
    """Run folder of a finished training."""
    kind: list[str] = field(default_factory=lambda: ["all"])
    """Which probes, such as --kind gradients --kind lesion, or --kind gradients,lesion; their list ends this help."""
    batches: int = 4
    """Batches of training patches that gradients and curvature are measured on."""
    cases: int = 16
    """Most held-out cases that lesions are measured on."""
    seed: int = 0
    """Seed of directions and draws."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""
    threads: int = 0
    """CPU threads; 0 takes all cores."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require_positive(self, "batches", "cases")


@dataclass(frozen=True)
class SuiteSettings:
    """Test one claim about skip connections, or all of them, on synthetic tasks whose truth is known."""

    name: str
    """s00 to s17, or its longer name, such as s01-vanish; all runs every suite that the size allows."""
    out: Path
    """Folder to create or to continue; finished cells are kept."""
    size: Literal["smoke", "cpu", "gpu"] = "cpu"
    """smoke proves that it runs, cpu gives the verdict on 2 cores, gpu adds real data and long trainings."""
    workers: int = 0
    """Processes at a time, one thread each; 0 takes one per core."""
    dataset: Path | None = None
    """Dataset of the suites on real data, s16 and s17."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require(self.workers >= 0, f"workers must be at least 0, got {self.workers}")


@dataclass(frozen=True)
class ReportSettings:
    """Write report.html for a study, a run or suites; results.json beside it for a study or a run."""

    folder: Path
    """Folder of a study, of a run, of a suite, or of many suites."""

"""Settings of the other commands, one class each."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from segmentation.config.checks import require, require_positive
from segmentation.config.network import NetworkSettings

Repair = Literal["gaps", "duplicates", "spacing", "tilt"]


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
    minutes: float | None = None
    """Time there is, from this command to the scores of one fold: sizes and length are then chosen by the speed of
    this machine, which is measured. The arrays are prepared, too."""
    cache: Path | None = None
    """Folder for results of earlier checks and prepared arrays; otherwise the user's cache folder."""

    def __post_init__(self) -> None:
        """Check ranges."""
        fits = self.minutes is None or 0 < self.minutes < math.inf
        require(fits, f"minutes must be a number greater than 0, got {self.minutes}")


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
    """Runtime of the network; auto takes the fastest that is installed and agrees with PyTorch on the first window."""
    batch_size: int | None = None
    """Windows computed at a time; otherwise as the hardware has room."""
    overwrite: bool = False
    """Compute anew what the same model has segmented already."""
    compile: bool = False
    """Compile the network by torch.compile first: takes minutes, and pays on a GPU with many scans."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""
    threads: int = 0
    """CPU threads; 0 takes all cores."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require(len(self.models) > 0, "model must name at least one folder, got none")
        require(0 <= self.overlap < 1, f"overlap must be in [0, 1), got {self.overlap}")
        require(self.threads >= 0, f"threads must be at least 0, got {self.threads}")
        require_positive(self, "batch_size")
        named = self.output is not None and self.output.name.endswith((".nii", ".gz", ".nrrd", ".mha", ".png", ".tif"))
        require(not named, f"output is the folder that the masks go into, got {self.output}; choose a type by --format")
        torch = self.backend in ("auto", "torch")
        require(torch or not self.compile, f"compile is for backend torch, got backend {self.backend}")

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
    track: Literal["none", "tensorboard", "mlflow", "wandb"] = "none"
    """Report the curves of runs that are frozen now to TensorBoard, MLflow or Weights & Biases; changes no result."""
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
    other: Path | None = None
    """Another finished run of the same network, for kind barrier: one of another seed, say."""
    seed: int = 0
    """Seed of directions and draws."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""
    threads: int = 0
    """CPU threads; 0 takes all cores."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require_positive(self, "batches", "cases")
        require(self.threads >= 0, f"threads must be at least 0, got {self.threads}")
        require(0 <= self.seed < 2**32, f"seed must be in [0, 2**32), got {self.seed}")


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

"""What a probe is given: a finished run, its network, patches that it learnt from and scans that it never saw.

The context is glue alone. What a probe measures is a function of a network, a loss and batches, so that it also
works on a bare network.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import default_collate

from segmentation import SkipSegError
from segmentation.config import ProbeSettings, TrainSettings
from segmentation.data.augment import NoAugmentation
from segmentation.data.cache import cache_cases
from segmentation.data.datamodule import PatchDataset
from segmentation.data.manifest import Case, Dataset
from segmentation.data.preprocessing import Preprocessing
from segmentation.data.transforms import prepare_image, standardise
from segmentation.figures import Figure
from segmentation.inference.backend_torch import Classifier, TorchBackend, resolve_device
from segmentation.inference.predictor import Predictor
from segmentation.metrics.overlap import dice_per_class
from segmentation.model.architecture import Architecture
from segmentation.model.storage import load_model
from segmentation.model.unet import UNet
from segmentation.runs import read_json, user_cache
from segmentation.scans import Scan, read_label_map, read_scan
from segmentation.training.job import Job, make_job
from segmentation.training.losses import build_loss, network_loss
from segmentation.training.record import read_config

Batch = tuple[Tensor, Tensor]
"""Standardised images, shape ``(B, C, *S)``, and labels, shape ``(B, *S)``."""
LossFunction = Callable[[Any, Tensor, Tensor], Tensor]
"""Loss of a network on images, shape ``(B, C, *S)``, and labels, shape ``(B, *S)``."""


class NotMeasurableError(SkipSegError):
    """A run lacks what a probe needs; ``all`` passes over it."""


@dataclass(frozen=True)
class ProbeResult:
    """What a probe found.

    Attributes:
        values: Plain data for JSON; a number that is not finite becomes null.
        figures: What to draw.
        note: What the values mean and where their meaning ends, for the reader of the report.
    """

    values: Mapping[str, Any]
    figures: Sequence[Figure]
    note: str


@dataclass(frozen=True)
class HeldOutCase:
    """A case that the run never learnt from, ready to be segmented again and again.

    Attributes:
        name: The case.
        scan: The scan as it was read.
        image: Prepared intensities in [0, 1], shape ``(C, *S)``.
        reference: Label of every voxel of the scan, shape as ``scan.spatial_shape``.
    """

    name: str
    scan: Scan
    image: NDArray[np.float32]
    reference: NDArray[np.integer[Any]]


@dataclass(frozen=True)
class ProbeContext:
    """A finished run, opened for probes.

    Attributes:
        folder: Run folder.
        run_hash: Identity of the run.
        settings: Its frozen settings.
        options: Settings of the probes: number of batches and cases, seed.
        architecture: What rebuilds the network.
        trained: The network at the end of the run.
        predictor: The run's way from a scan to a label map.
        dataset: The labelled cases.
        train_cases, val_cases: Both sides of the fold.
        device: Where to compute.
    """

    folder: Path
    run_hash: str
    settings: TrainSettings
    options: ProbeSettings
    architecture: Architecture
    trained: UNet
    predictor: Predictor
    dataset: Dataset
    train_cases: Sequence[Case]
    val_cases: Sequence[Case]
    device: str

    @classmethod
    def open(cls, options: ProbeSettings) -> "ProbeContext":
        """Open the run that ``options`` name.

        Raises:
            SkipSegError: If the folder holds no finished run, or its dataset has changed since.
        """
        folder, record = options.run, finished_record(options.run)
        device = resolve_device(options.device)
        job = _job(folder, record["hash"])
        return cls(
            folder,
            record["hash"],
            job.settings,
            options,
            job.architecture,
            load_model(folder).network.to(device),
            Predictor.load(folder, device=device, postprocess=False),
            job.dataset,
            job.cases(job.fold.train),
            job.cases(job.fold.val),
            device,
        )

    @cached_property
    def network(self) -> UNet:
        """The trained network, in evaluation mode; its parameters take gradients. Copy it before changing it."""
        return self.trained.eval().requires_grad_(True)

    def initial(self) -> UNet:
        """Build a network with the weights that the run started from, in evaluation mode."""
        return self.architecture.build(self.settings.seed).to(self.device).eval()

    @property
    def preprocessing(self) -> Preprocessing:
        """How scans are prepared."""
        return self.predictor.preprocessing

    @property
    def classes(self) -> dict[str, int]:
        """Name and label value of each foreground class."""
        return self.dataset.foreground

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Voxel spacing along the network's axes, in mm (pixels for pictures)."""
        return self.preprocessing.array_spacing_mm[-self.architecture.dims :]

    @cached_property
    def batches(self) -> list[Batch]:
        """Training patches without augmentation, the same for the same seed: ``options.batches`` batches."""
        cache = self.settings.cache or user_cache()
        cached = cache_cases(self.dataset, self.train_cases, self.preprocessing, cache)
        data, seed = self.settings.data, self.options.seed
        whole = NoAugmentation(tuple(data.patch_size or ()))
        patches = PatchDataset(cached, self.preprocessing, whole, data.foreground_share, seed, in_memory=False)
        size = data.batch_size or 1
        drawn = [[patches[b * size + i] for i in range(size)] for b in range(self.options.batches)]
        return [self._to_device(*default_collate(samples)) for samples in drawn]

    def _to_device(self, images: Tensor, labels: Tensor) -> Batch:
        """Standardise images, shape ``(B, C, *S)``, and move both to where the network is."""
        return standardise(images.to(self.device), self.preprocessing), labels.to(self.device)

    def loss(self, network: UNet, images: Tensor, labels: Tensor) -> Tensor:
        """The run's own loss of standardised images, shape ``(B, C, *S)``, and labels, shape ``(B, *S)``."""
        return network_loss(network, build_loss(self.settings.optim.loss), images, labels)

    @cached_property
    def held_out(self) -> list[HeldOutCase]:
        """At most ``options.cases`` held-out cases, evenly spread over their names, read and prepared."""
        count = min(self.options.cases, len(self.val_cases))
        chosen = np.linspace(0, len(self.val_cases) - 1, count).round().astype(int)
        return [self._read(self.val_cases[index]) for index in chosen]

    def _read(self, case: Case) -> HeldOutCase:
        """Read one case with its label map and prepare its intensities."""
        scan = read_scan(case.images, channels=len(self.dataset.channel_names))
        assert case.label is not None  # a fold holds labelled cases only
        reference = read_label_map(case.label, like=scan, remap=self.dataset.label_remap).array[0]
        return HeldOutCase(case.name, scan, prepare_image(scan, self.preprocessing), reference)

    def score(self, network: UNet) -> dict[str, dict[str, float]]:
        """Dice of each held-out case and class on the whole scan; nan for a class that neither map holds.

        Args:
            network: On the context's device; may carry hooks.
        """
        classifier = Classifier(network, self.preprocessing)
        predictor = replace(self.predictor, backends=[TorchBackend(classifier, self.architecture, self.device)])
        return {case.name: self._dice(predictor.label_map(case.image, case.scan), case) for case in self.held_out}

    def _dice(self, prediction: NDArray[np.uint8], case: HeldOutCase) -> dict[str, float]:
        """Dice of each class of a label map, shape as the scan."""
        dice = dice_per_class(prediction, case.reference, 1 + len(self.classes), self.dataset.ignore_label)
        return {name: float(dice[value]) for name, value in self.classes.items()}


def finished_record(folder: Path) -> dict[str, Any]:
    """Read run.json of a finished run.

    Raises:
        SkipSegError: If there is none, or the run is not finished.
    """
    if not (folder / "run.json").is_file():
        if (folder / "study.json").is_file():
            raise SkipSegError(f"{folder} is a study; give one of its runs, a folder in {folder / 'runs'}")
        raise SkipSegError(f"{folder} holds no run.json; give the folder of a finished training run")
    record = read_json(folder / "run.json")
    if record.get("state") != "finished":
        in_study = (folder.resolve().parent.parent / "study.json").is_file()
        command = "its study with `skipseg ablate`" if in_study else "it with `skipseg train`"
        raise SkipSegError(f"the run in {folder} is not finished; continue {command} first")
    return record


def _job(folder: Path, identity: str) -> Job:
    """Decide everything again as the run did, from its own settings and plan."""
    settings = read_config(folder / "config.yaml")
    _require_dataset(settings.dataset, folder / "config.yaml")
    # A run from a GPU may be probed elsewhere: nothing is decided by the device any more.
    job = make_job(replace(settings, plan=folder / "plan.json", device="cpu"))
    if replace(job, settings=replace(job.settings, device=settings.device)).identity != identity:
        raise SkipSegError(f"{settings.dataset} is not what the run in {folder} learnt from; restore it, or train anew")
    return job


def _require_dataset(path: Path, config: Path) -> None:
    """Say what to do where the data of a run that was moved, or is probed from elsewhere, are not found."""
    if path.exists():
        return
    if path.is_absolute():
        raise SkipSegError(f"{config} names the dataset {path}, which is not there; put it back or write its new place")
    raise SkipSegError(
        f"{config} names the dataset {path}, a path relative to the folder where the training started, and "
        f"{Path.cwd()} has no such path; probe from the folder where it started, or write the full path there"
    )


def on_batches(network: Any, loss: LossFunction, batches: Sequence[Batch]) -> float:
    """Mean loss over batches of images, shape ``(B, C, *S)``, and labels, shape ``(B, *S)``."""
    with torch.no_grad():
        return float(torch.stack([loss(network, *batch) for batch in batches]).double().mean())

"""One training: from a dataset and settings to a run folder.

    run/
      config.yaml          the settings, with every planned value filled in
      plan.json            the plan they were filled from
      run.json             state, hashes, parameter count, the cases on each side of the split
      metrics.csv          one row an epoch
      last.ckpt            where to resume
      model.safetensors    the weights to use, described by model.json
      last.safetensors, best.safetensors
      timing.json          seconds and memory: the only file that differs between two equal runs
"""

import logging
import resource
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import yaml
from safetensors.torch import load_file

from segmentation import SkipSegError, __version__
from segmentation.config import TrainSettings, fill, flatten, to_plain
from segmentation.data.cache import cache_cases, default_cache
from segmentation.data.check import CheckReport
from segmentation.data.datamodule import PatchDataModule
from segmentation.data.fingerprint import take_fingerprint
from segmentation.data.manifest import Case, Dataset
from segmentation.data.plan import Plan, checked_dataset, choose_strides, hardware_of, make_plan, plan_path
from segmentation.data.splits import Fold, Splits, make_splits
from segmentation.data.transforms import Preprocessing
from segmentation.model.storage import Architecture, save_model, save_weights
from segmentation.model.unet import count_parameters
from segmentation.runs import content_hash, read_json, write_json, write_text
from segmentation.training.checkpoint import ExactResume, SafeCheckpointIO
from segmentation.training.history import History, ProgressBar
from segmentation.training.task import SegmentationTask

VOLATILE = ("out", "cache", "plan", "threads")
"""Settings that say where and how fast, not what: they are not part of a run's identity."""

_EXPECTED_WARNINGS = (
    ".*does not have many workers.*",  # patches are cut in the training process: nothing to hang or to be killed
    ".*GPU available but not used.*",  # the user asked for the CPU
    ".*isinstance.treespec, LeafSpec.*",  # Lightning 2.6.6 on torch 2.13
    ".*Checkpoint directory.*exists and is not empty.*",  # that is what resuming is
)


@dataclass(frozen=True)
class Job:
    """Everything that a training is made of, decided before it starts.

    Attributes:
        settings: With every planned value filled in.
        dataset: The labelled cases.
        dataset_hash: Hash of their voxels, labels and patients.
        plan: Where the values come from.
        fold: The cases on each side.
        splits: All folds.
        preprocessing: How scans are prepared.
        architecture: The network.
    """

    settings: TrainSettings
    dataset: Dataset
    dataset_hash: str
    plan: Plan
    fold: Fold
    splits: Splits
    preprocessing: Preprocessing
    architecture: Architecture

    @property
    def identity(self) -> str:
        """Hash of all that decides the result: settings, dataset description, split and preparation."""
        plain = to_plain(self.settings)
        return content_hash(
            {
                "settings": {name: value for name, value in plain.items() if name not in (*VOLATILE, "dataset")},
                "dataset": self.dataset_hash,
                "split": self.splits.hash,
                "preprocessing": self.preprocessing.to_plain(),
                "architecture": self.architecture.to_plain(),
            }
        )

    def cases(self, side: tuple[str, ...]) -> list[Case]:
        """The cases named in ``side``, in that order."""
        named = {case.name: case for case in self.dataset.cases}
        return [named[name] for name in side]


def hash_dataset(dataset: Dataset, report: CheckReport) -> str:
    """Hash what a training can learn from: voxels, label values, their meaning, and patients."""
    patients = {case.name: case.patient for case in dataset.cases}
    cases = [(name, patients[name], facts.image_sha256, facts.label_sha256) for name, facts in report.facts.items()]
    return content_hash({"cases": cases, "labels": dict(dataset.labels), "channels": list(dataset.channel_names)})


def find_plan(dataset: Dataset, report: CheckReport, settings: TrainSettings) -> Plan:
    """Read the plan that ``settings`` name, or the dataset's own, or make one on the spot."""
    path = settings.plan or plan_path(settings.dataset)
    if settings.plan or path.is_file():
        plan = Plan.read(path)
        if settings.data.dims in (None, plan.values["data.dims"]):
            return plan
    return make_plan(take_fingerprint(dataset, report), hardware_of(settings.device), settings.data.dims)


def make_job(settings: TrainSettings) -> Job:
    """Check, plan and split: decide everything before anything is computed.

    Raises:
        SkipSegError: If the dataset has errors, or settings and dataset do not fit together.
    """
    dataset, report = checked_dataset(settings.dataset, settings.cache)
    plan = find_plan(dataset, report, settings)
    values = plan.values
    if settings.data.patch_size:
        del values["network.depth"]  # it was chosen for the planned patch
    settings = fill(settings, values)
    labelled = replace(dataset, cases=tuple(case for case in dataset.cases if case.label))
    folds = settings.folds or "leave-one-patient-out"
    volumes = {name: sum(facts.foreground.values()) for name, facts in report.facts.items()}
    splits = make_splits(labelled, folds, settings.split_seed, volumes)
    data = settings.data
    axes = plan.fingerprint.spatial_dims
    for name, values, wanted in (("spacing_mm", data.spacing_mm, axes), ("patch_size", data.patch_size, data.dims)):
        if values is None or len(values) != wanted:
            raise SkipSegError(f"data.{name} needs {wanted} values for this dataset, got {values}")
    assert data.dims and data.spacing_mm and data.patch_size and data.context_slices is not None
    preprocessing = plan.preprocessing(data.dims, data.spacing_mm, data.context_slices)
    spacing = preprocessing.array_spacing_mm[-data.dims :]
    strides, kernels = choose_strides(data.patch_size, spacing)
    depth = settings.network.depth or len(strides)
    settings = replace(settings, network=replace(settings.network, depth=depth))
    strides = [*strides, *[[2] * data.dims] * depth][:depth]
    kernels = [*kernels, *[[3] * data.dims] * (depth + 1)][: depth + 1]
    architecture = Architecture(
        settings.network, data.dims, preprocessing.network_channels, len(dataset.classes), strides, kernels
    )  # fmt: skip
    fold = splits.select(settings.fold)
    return Job(settings, labelled, hash_dataset(dataset, report), plan, fold, splits, preprocessing, architecture)


def train(settings: TrainSettings) -> Path:
    """Train a network, or continue a training that was interrupted, or return a finished one as it is.

    Returns:
        The run folder.

    Raises:
        SkipSegError: If the dataset has errors, or the folder holds a run of other settings.
        OSError: If the disk is full; the training can be continued once there is room.
    """
    job = make_job(settings)
    folder = job.settings.out
    state = open_run(folder, job)
    if state == "finished":
        return folder
    started = time.perf_counter()
    if job.settings.threads:
        torch.set_num_threads(job.settings.threads)
    cache = job.settings.cache or default_cache()
    cached = [cache_cases(job.dataset, job.cases(side), job.preprocessing, cache) for side in (job.fold.train, job.fold.val)]
    steps, epochs = job.settings.steps_per_epoch, job.settings.epochs
    assert steps and epochs
    network = job.architecture.build(job.settings.seed)
    task = SegmentationTask(network, job.settings.optim, job.preprocessing, job.architecture.classes, steps * epochs)
    data = PatchDataModule(*cached, job.preprocessing, job.settings.data, job.settings.augment, steps, job.settings.seed)
    history = History(folder, list(job.dataset.foreground), job.settings.patience)
    callbacks = [history, ProgressBar(steps), ExactResume(folder / "last.ckpt")]
    pl.seed_everything(job.settings.seed, verbose=False)
    resume = folder / "last.ckpt"
    with quiet_lightning():
        trainer = build_trainer(job.settings, callbacks)
        trainer.fit(task, data, ckpt_path=str(resume) if resume.exists() else None, weights_only=True)
    if trainer.interrupted:
        raise KeyboardInterrupt
    finish_run(folder, job, task, history)
    write_json(
        folder / "timing.json",
        {"train_seconds": round(time.perf_counter() - started, 1), "peak_memory_mb": peak_memory_mb(), "resumed": resume.exists() and state == "running"},
    )  # fmt: skip
    return folder


def open_run(folder: Path, job: Job) -> str:
    """Create the run folder, or recognise the run in it: ``"new"``, ``"running"`` or ``"finished"``.

    Raises:
        SkipSegError: If the folder holds a run of other settings.
    """
    plain = to_plain(job.settings)
    if (folder / "run.json").exists():
        record = read_json(folder / "run.json")
        if record.get("hash") != job.identity:
            known = dict(flatten(yaml.safe_load((folder / "config.yaml").read_text())))
            changed = [k for k, v in flatten(plain) if k not in VOLATILE and known.get(k) != v] or ["the dataset"]
            raise SkipSegError(f"{folder} holds a run with another {', '.join(changed)}; choose another folder or delete it")
        return str(record["state"])
    if folder.exists() and any(item for item in folder.iterdir() if item.name != "config.yaml"):
        raise SkipSegError(f"{folder} exists and is not a run; choose another folder")
    write_text(folder / "config.yaml", yaml.safe_dump(plain, sort_keys=False))
    job.plan.write(folder / "plan.json")
    write_json(folder / "run.json", {"state": "running", **describe_run(job)})
    return "new"


def describe_run(job: Job) -> dict[str, Any]:
    """What is known of a run before it starts; equal runs are described by equal bytes."""
    return {
        "hash": job.identity,
        "dataset": job.dataset.name,
        "patients": len({case.patient for case in job.dataset.cases}),
        "split": {"method": job.splits.method, "hash": job.splits.hash, "fold": job.settings.fold},
        "train_cases": list(job.fold.train),
        "val_cases": list(job.fold.val),
        "parameters": count_parameters(job.architecture.build()),
        "network": job.architecture.to_plain(),
        "versions": {"skipseg": __version__, **{name: version(name) for name in ("torch", "pytorch-lightning", "monai")}},
    }


def finish_run(folder: Path, job: Job, task: SegmentationTask, history: History) -> None:
    """Write the model and mark the run finished."""
    settings = job.settings
    last = task.final_weights()
    save_weights(folder / "last.safetensors", last)
    best = folder / "best.safetensors"
    weights = load_file(best) if settings.select == "best" and best.exists() else last
    description = {
        "skipseg": __version__,
        "preprocessing": job.preprocessing.to_plain(),
        "channel_names": list(job.dataset.channel_names),
        "labels": job.dataset.classes,
        "patch_size": settings.data.patch_size,
        "flip_axes": settings.augment.flip_axes,
        "mirror": settings.mirror,
        "keep_largest": settings.keep_largest,
        "selected": settings.select,
        "dataset": {
            "name": job.dataset.name,
            "licence": job.dataset.licence,
            "citation": job.dataset.citation,
            "notice": job.dataset.notice,
            "train_cases": list(job.fold.train),
        },
    }
    save_model(folder, job.architecture, weights, description)
    outcome = {"epochs": len(history.rows), "best_epoch": history.best_epoch if history.best_epoch >= 0 else None}
    write_json(folder / "run.json", {"state": "finished", **describe_run(job), **outcome})


def build_trainer(settings: TrainSettings, callbacks: list[pl.Callback]) -> pl.Trainer:
    """Configure Lightning: it runs the loop, and everything it would write is written by us."""
    cuda = hardware_of(settings.device) == "cuda"
    if settings.device == "cuda" and not cuda:
        raise SkipSegError("device cuda was asked for, but PyTorch finds no CUDA device; run `skipseg doctor`")
    precision: Any = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}.get(settings.precision)
    if precision is None:
        precision = ("bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed") if cuda else "32-true"
    return pl.Trainer(
        accelerator="gpu" if cuda else "cpu",
        devices=1,
        precision=precision,
        max_epochs=settings.epochs,
        gradient_clip_val=settings.optim.clip_norm or None,
        deterministic="warn" if settings.deterministic and cuda else settings.deterministic,
        callbacks=callbacks,
        plugins=[SafeCheckpointIO()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Hold back what Lightning says about hardware that it found and loaders that it would like."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "pytorch_lightning.utilities.rank_zero")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        for message in _EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", message)
        yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def peak_memory_mb() -> int:
    """Largest resident memory of this process so far, in MiB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)

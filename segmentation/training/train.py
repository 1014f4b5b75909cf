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
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import yaml
from safetensors.torch import load_file

from segmentation import SkipSegError, __version__
from segmentation.config import TrainSettings
from segmentation.data.cache import cache_cases
from segmentation.data.datamodule import PatchDataModule
from segmentation.data.plan import hardware_of
from segmentation.model.storage import save_model, save_weights
from segmentation.model.unet import count_parameters
from segmentation.plain import flatten, to_plain
from segmentation.runs import is_draft, read_json, user_cache, write_json, write_text
from segmentation.training.checkpoint import ExactResume, SafeCheckpointIO
from segmentation.training.history import History, ProgressBar
from segmentation.training.job import VOLATILE, Job, make_job
from segmentation.training.lock import locked
from segmentation.training.task import SegmentationTask

_WRITTEN_FIRST = ("config.yaml", "plan.json")
_EXPECTED_WARNINGS = (
    ".*does not have many workers.*",  # patches are cut in the training process: nothing to hang or to be killed
    ".*GPU available but not used.*",  # the user asked for the CPU
    ".*isinstance.treespec, LeafSpec.*",  # Lightning 2.6.6 on torch 2.13
    ".*Checkpoint directory.*exists and is not empty.*",  # that is what resuming is
)


def train(settings: TrainSettings) -> Path:
    """Train a network, or continue a training that was interrupted, or return a finished one as it is.

    Returns:
        The run folder.

    Raises:
        SkipSegError: If the dataset has errors, or the folder holds a run of other settings, or another
            process is training in it.
        OSError: If the disk is full; the training can be continued once there is room.
        KeyboardInterrupt: If interrupted; the same call continues.
    """
    job = make_job(settings)
    folder = job.settings.out
    if job.settings.threads:
        torch.set_num_threads(job.settings.threads)
    with locked(folder):
        if open_run(folder, job) != "finished":
            _train(folder, job)
    return folder


def _train(folder: Path, job: Job) -> None:
    """Train from the start, or from ``last.ckpt`` if there is one, and write the model."""
    started = time.perf_counter()
    steps, epochs = job.settings.steps_per_epoch or 1, job.settings.epochs or 1
    network = job.architecture.build(job.settings.seed)
    task = SegmentationTask(network, job.settings.optim, job.preprocessing, job.architecture.classes, steps * epochs)
    history = History(folder, list(job.dataset.foreground), job.settings.patience)
    last = folder / "last.ckpt"
    resume = str(last) if last.exists() else None
    pl.seed_everything(job.settings.seed, verbose=False)
    with quiet_lightning():
        trainer = build_trainer(job.settings, [history, ProgressBar(steps), ExactResume(last)])
        try:
            trainer.fit(task, load_data(job, steps), ckpt_path=resume, weights_only=True)
        except SystemExit:  # Lightning's answer to Ctrl-C and to SIGTERM
            raise KeyboardInterrupt from None
    finish_run(folder, job, task, history)
    spent = {"train_seconds": round(time.perf_counter() - started, 1), "peak_memory_mb": peak_memory_mb()}
    write_json(folder / "timing.json", spent | {"resumed": resume is not None})


def load_data(job: Job, steps: int) -> PatchDataModule:
    """Prepare both sides of the fold and cut patches from them."""
    cache = job.settings.cache or user_cache()
    learnt, held_out = (
        cache_cases(job.dataset, job.cases(side), job.preprocessing, cache) for side in (job.fold.train, job.fold.val)
    )
    settings = job.settings
    return PatchDataModule(learnt, held_out, job.preprocessing, settings.data, settings.augment, steps, settings.seed)


def open_run(folder: Path, job: Job) -> str:
    """Create the run folder, or recognise the run in it: ``"new"``, ``"running"`` or ``"finished"``.

    What a killed process left half-written is removed.

    Raises:
        SkipSegError: If the folder holds a run of other settings.
    """
    for draft in filter(is_draft, folder.rglob(".*")):
        draft.unlink()
    plain = to_plain(job.settings)
    if (folder / "run.json").exists():
        record = read_json(folder / "run.json")
        if record.get("hash") != job.identity:
            known = dict(flatten(yaml.safe_load((folder / "config.yaml").read_text())))
            changed = [k for k, v in flatten(plain) if k not in VOLATILE and known.get(k) != v] or ["the dataset"]
            raise SkipSegError(
                f"{folder} holds a run with another {', '.join(changed)}; choose another folder or delete it"
            )
        return str(record["state"])
    if folder.exists() and any(item.name not in _WRITTEN_FIRST for item in folder.iterdir()):
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
        "versions": {
            "skipseg": __version__,
            **{name: version(name) for name in ("torch", "pytorch-lightning", "monai")},
        },
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


def build_trainer(settings: TrainSettings, callbacks: Sequence[pl.Callback]) -> pl.Trainer:
    """Configure Lightning: it runs the loop, and everything it would write is written by us."""
    cuda = hardware_of(settings.device) == "cuda"
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
        callbacks=list(callbacks),
        plugins=[SafeCheckpointIO()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )


@contextmanager
def quiet_lightning() -> Generator[None]:
    """Hold back what Lightning says about hardware that it found and loaders that it would like."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "pytorch_lightning.utilities.rank_zero")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        for message in _EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", message)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def peak_memory_mb() -> int:
    """Largest resident memory of this process so far, in MiB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)

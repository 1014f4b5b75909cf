"""One training: from a dataset and settings to a run folder.

run/
  config.yaml          the settings, with every planned value filled in
  plan.json            the plan they were filled from
  run.json             state, hashes, parameter count, the cases on each side of the split
  metrics.csv          one row an epoch
  updates.csv          one row an epoch and layer, with track_updates
  tracking.json        what a tracker of ``track`` has been told
  snapshots/           weights of up to 20 epochs, with track_updates
  last.ckpt            where to resume
  model.safetensors    the weights to use, described by model.json
  last.safetensors, best.safetensors
  timing.json          seconds and memory: the only file that differs between two equal runs
"""

import logging
import time
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import DDPStrategy
from safetensors.torch import load_file

from segmentation import SkipSegError, __version__
from segmentation.config import TrainSettings
from segmentation.data.cache import CachedCase, cache_cases
from segmentation.data.datamodule import PatchDataModule
from segmentation.data.hardware import kept_memory, peak_memory
from segmentation.model.storage import save_model, save_weights
from segmentation.runs import read_json, user_cache, write_json
from segmentation.training.checkpoint import ExactResume, SafeCheckpointIO
from segmentation.training.follow import followed
from segmentation.training.history import History, ProgressBar
from segmentation.training.job import Job, make_job
from segmentation.training.lock import locked
from segmentation.training.ranks import EndTogether, Rank, RankEnvironment, first_rank
from segmentation.training.record import COMPUTED, open_run, set_state
from segmentation.training.snapshots import SnapshotRecorder
from segmentation.training.task import SegmentationTask
from segmentation.training.track import TrackRecorder
from segmentation.training.trackers import require_tracker
from segmentation.training.updates import UpdateRecorder

_EXPECTED_WARNINGS = (
    ".*does not have many workers.*",  # patches are cut in the training process: nothing to hang or to be killed
    ".*GPU available but not used.*",  # the user asked for the CPU
    ".*isinstance.treespec, LeafSpec.*",  # Lightning 2.6.6 on torch 2.13
    ".*does not have a deterministic implementation.*",  # the setting `deterministic` says so
    ".*Checkpoint directory.*exists and is not empty.*",  # that is what resuming is
)


def train(settings: TrainSettings) -> Path:
    """Train a network, or continue a training that was interrupted, or return a finished one as it is.

    With ``devices`` this process starts the others of this machine. With ``nodes``, it is called on each machine
    and returns there when the training is over; the first machine writes the run folder.

    Returns:
        The run folder.

    Raises:
        SkipSegError: If the dataset has errors, or the folder holds a run of other settings, or another
            process is training in it, or this machine lacks what ``devices``, ``nodes`` or ``track`` ask for.
        OSError: If the disk is full; the training can be continued once there is room.
        KeyboardInterrupt: If interrupted; the same call continues.
    """
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise SkipSegError("device cuda was asked for, but PyTorch finds no CUDA device; run `skipseg doctor`")
    require_tracker(settings.track)
    job = make_job(settings)
    folder = job.settings.out
    rank = first_rank(job.settings)
    _set_threads(job.settings)
    if rank.node:
        if not _is_trained(folder):
            _train(folder, job, rank)
        return folder
    with locked(folder):
        if open_run(folder, job) != "finished":
            set_state(folder, job, "running", **dict(zip(COMPUTED, computed_on(job.settings), strict=True)))
            _train(folder, job, rank)
    return folder


def follow_training(settings: TrainSettings, meet: Callable[[], Rank]) -> None:
    """Train as another process of a training that :func:`train` runs.

    Args:
        settings: Of the training, with every planned value filled in.
        meet: Called when all is prepared; waits for the first process to say which one this is.
    """
    job = make_job(settings)
    _fit(job.settings.out, job, meet())


def _is_trained(folder: Path) -> bool:
    """Tell whether the first machine has nothing left to train, so that it would wait for nobody."""
    record = folder / "run.json"
    return record.exists() and read_json(record)["state"] == "finished"


def _set_threads(settings: TrainSettings) -> None:
    """Share the threads of a training between its processes on this machine."""
    threads = settings.threads or (torch.get_num_threads() if settings.devices > 1 else 0)
    if threads:
        torch.set_num_threads(max(1, threads // settings.devices))


def _train(folder: Path, job: Job, rank: Rank) -> None:
    """Train in all processes of this machine; the first of all writes the model."""
    started = time.perf_counter()
    resumed = (folder / "last.ckpt").exists()
    prepare_arrays(job)  # once, before the other processes look for them
    with followed(rank, job.settings) as rank:
        task, history = _fit(folder, job, rank)
    if rank.number:
        return
    finish_run(folder, job, task, history)
    spent = {"train_seconds": round(time.perf_counter() - started, 1), "peak_memory_mb": round(peak_memory() / 2**20)}
    write_json(folder / "timing.json", spent | {"resumed": resumed})


def _fit(folder: Path, job: Job, rank: Rank) -> tuple[SegmentationTask, History]:
    """Train from the start, or from ``last.ckpt`` if there is one, as one of the processes."""
    steps, epochs = job.settings.steps_per_epoch or 1, job.settings.epochs or 1
    network = job.architecture.build(job.settings.seed)
    task = SegmentationTask(network, job.settings.optim, job.preprocessing, job.architecture.classes, steps * epochs)
    history = History(folder, list(job.dataset.foreground), job.settings.patience)
    last = folder / "last.ckpt"
    resume = str(last) if last.exists() else None
    pl.seed_everything(_seed_of(job.settings.seed, rank), verbose=False)
    bar = ProgressBar(steps)
    recorders: list[pl.Callback] = [history]
    if rank.number == 0:
        recorders.append(bar)
    if rank.number == 0 and job.settings.track_updates:
        patch = torch.zeros(1, job.architecture.in_channels, *(job.settings.data.patch_size or ()))
        recorders += [UpdateRecorder(folder, patch), SnapshotRecorder(folder, epochs)]
    recorders.append(ExactResume(last))
    tracking = [TrackRecorder(job.settings, history)] if rank.number == 0 and job.settings.track != "none" else []
    with quiet_lightning(), kept_memory():
        trainer = build_trainer(job.settings, [*recorders, *tracking], rank)
        try:
            trainer.fit(task, load_data(job, steps, rank), ckpt_path=resume, weights_only=True)
        except SystemExit:  # Lightning's answer to Ctrl-C and to SIGTERM
            raise KeyboardInterrupt from None
        finally:
            bar.close()
            for recorder in tracking:
                recorder.close(finished=not trainer.interrupted)
    return task, history


def _seed_of(seed: int, rank: Rank) -> int:
    """Seed of the dropout of one process: the first has the run's own, the others differ."""
    return int(np.random.SeedSequence([seed, rank.number]).generate_state(1)[0]) if rank.number else seed


def load_data(job: Job, steps: int, rank: Rank | None = None) -> PatchDataModule:
    """Prepare both sides of the fold and cut patches from them: the share of ``rank``, or all."""
    rank = rank or Rank()
    learnt, held_out = prepare_arrays(job)
    data, augment, seed = job.settings.data, job.settings.augment, job.settings.seed
    return PatchDataModule(learnt, held_out, job.preprocessing, data, augment, steps, seed, rank.number, rank.world)


def prepare_arrays(job: Job) -> tuple[list[CachedCase], list[CachedCase]]:
    """Prepare the cases that are learnt from and those that are held out."""
    cache = job.settings.cache or user_cache()
    learnt, held_out = (
        cache_cases(job.dataset, job.cases(side), job.preprocessing, cache) for side in (job.fold.train, job.fold.val)
    )
    return learnt, held_out


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
        **({"codes": job.dataset.extra["codes"]} if "codes" in job.dataset.extra else {}),
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
    computed = dict(zip(COMPUTED, computed_on(settings), strict=True))
    best_epoch = history.best_epoch if history.best_epoch >= 0 else None
    set_state(folder, job, "finished", epochs=len(history.rows), best_epoch=best_epoch, **computed)


def uses_cuda(settings: TrainSettings) -> bool:
    """Whether a training computes on a GPU."""
    return settings.device != "cpu" and torch.cuda.is_available()


def computed_on(settings: TrainSettings) -> tuple[str, str]:
    """What a training computes on, ``"cpu"`` or the name of the GPU, and in which arithmetic."""
    cuda = uses_cuda(settings)
    device = torch.cuda.get_device_name() if cuda else "cpu"
    if settings.precision != "auto":
        return device, settings.precision
    in_hardware = cuda and torch.cuda.is_bf16_supported(including_emulation=False)
    return device, ("bf16" if in_hardware else "fp16") if cuda else "fp32"


def build_trainer(settings: TrainSettings, callbacks: Sequence[pl.Callback], rank: Rank) -> pl.Trainer:
    """Configure Lightning: it runs the loop, and everything it would write is written by us."""
    several: dict[str, Any] = {}
    if rank.world > 1:
        # With find_unused_parameters the gradients keep their order in the messages between processes, which
        # PyTorch would otherwise change after the first step: a resumed training would add three or more up in
        # another order. Sums of two are the same in any order.
        several = {
            "strategy": DDPStrategy(find_unused_parameters=rank.world > 2, forward_sync_buffers=False),
            "sync_batchnorm": settings.network.norm == "batch",
            "num_nodes": rank.nodes,
        }
    # With its deterministic algorithms PyTorch fills every new tensor with NaN, to show who reads it too early. The
    # setting belongs to a module that replaces itself when it is loaded, which a type checker does not see.
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
    cuda, (_, arithmetic) = uses_cuda(settings), computed_on(settings)
    precision: Any = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}[arithmetic]
    return pl.Trainer(
        accelerator="gpu" if cuda else "cpu",
        devices=rank.devices,
        precision=precision,
        max_epochs=settings.epochs,
        gradient_clip_val=settings.optim.clip_norm or None,
        deterministic="warn" if settings.deterministic and cuda else settings.deterministic,
        callbacks=[*callbacks, EndTogether(rank)] if several else list(callbacks),
        plugins=[SafeCheckpointIO(), RankEnvironment(rank)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        **several,
    )


@contextmanager
def quiet_lightning() -> Generator[None]:
    """Hold back what Lightning says about hardware that it found and loaders that it would like."""
    names = ("pytorch_lightning", "pytorch_lightning.utilities.rank_zero", "lightning_fabric")
    loggers = [logging.getLogger(name) for name in names]
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

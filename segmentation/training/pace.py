"""A plan for the time at hand: the speed of this machine, measured on the data, decides sizes and length.

Only numbers are decided by the clock, and they are written into plan.json with what was measured: the training that
follows them is as reproducible as any other.
"""

import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from segmentation import SkipSegError
from segmentation.config import PlanSettings, TrainSettings
from segmentation.data.budgets import BUDGETS, ENOUGH_STEPS, budgets_by_cost
from segmentation.data.cache import CachedCase
from segmentation.data.datamodule import VALIDATION_PATCHES, PatchDataModule
from segmentation.data.hardware import hardware_of, kept_memory
from segmentation.data.plan import Choice, Plan, make_plan, plan_path
from segmentation.metrics import score_case
from segmentation.scans import read_label_map
from segmentation.training.job import Job, Source, make_job, open_source
from segmentation.training.ranks import Rank
from segmentation.training.task import SegmentationTask
from segmentation.training.train import build_trainer, prepare_arrays, quiet_lightning

Cases = tuple[list[CachedCase], list[CachedCase]]
"""Those that are learnt from, and those that are held out."""

STEPS, MOST_STEPS, SECONDS = 6, 60, 4.0
"""Steps that are timed: at least STEPS, and more until SECONDS have passed; the first two warm up."""
EPOCHS = 20
"""Epochs of a training for a given time, however long they are: each is validated and can be resumed from."""
MARGIN = 0.1
"""Share of the time that is left alone, as machines are not equally fast at all times."""
SCORING = 3.0
"""Time to read, choose steps for, score and draw a case, in parts of that of its scores alone."""
SEGMENTING = 1.5
"""Time to read, resample, segment and write a case, in parts of that of the network alone, as validation runs it."""


@dataclass(frozen=True)
class Pace:
    """How fast a training is on this machine.

    Attributes:
        step_s: Seconds of one step: loading, forward, backward, update.
        validation_s: Seconds of the validation that ends an epoch.
    """

    step_s: float
    validation_s: float

    def steps(self, seconds: float) -> int:
        """Steps an epoch for which a training takes ``seconds``, with all its validations.

        Examples:
            >>> Pace(step_s=0.5, validation_s=1.0).steps(220.0)
            20
        """
        return int((seconds / EPOCHS - self.validation_s) / self.step_s)


def plan_in_time(settings: PlanSettings, started: float) -> tuple[Path, Plan]:
    """Plan a training that ends in time, and prepare its arrays meanwhile.

    Budgets are tried from the cheapest on, until one leaves too little time for
    :data:`~segmentation.data.budgets.ENOUGH_STEPS` steps; the one before it is taken.

    Args:
        settings: With ``minutes``.
        started: When the command was given, in seconds since the epoch.

    Returns:
        The file that was written, and the plan.

    Raises:
        SkipSegError: If the dataset has errors, a plan of it stands already, or the time is too short.
        OSError: If a file cannot be written.
    """
    imported = time.time() - started
    source = open_source(settings.dataset, settings.cache)
    path = settings.out or plan_path(settings.dataset)
    if path.exists() and Plan.read(path).fingerprint.is_of(source.fingerprint):
        raise SkipSegError(f"{path} holds a plan already; delete it, or write elsewhere with --out")
    minutes, hardware = settings.minutes or 0.0, hardware_of(settings.device)
    ends = started + 60 * minutes * (1 - MARGIN) - imported  # the training will import as much again
    cases: Cases | None = None
    chosen: tuple[Plan, Pace, float] | None = None
    for budget in budgets_by_cost(BUDGETS[hardware]):
        named = replace(budget, name=f"{minutes:g} minutes on {budget.name}")
        plan = make_plan(source.fingerprint, hardware, settings.dims, named)
        job = _job(settings, plan, source)
        cases = cases or prepare_arrays(job)
        try:
            pace = measure_pace(job, cases)
        except torch.OutOfMemoryError:
            if chosen is None:
                raise
            break  # the one before it fits
        scoring = scoring_seconds(job, cases[1], pace)
        if chosen and EPOCHS * pace.steps(ends - time.time() - scoring) < ENOUGH_STEPS:
            break
        chosen = plan, pace, scoring
    assert chosen
    plan, pace, scoring = chosen
    steps = pace.steps(ends - time.time() - scoring)
    if steps < 1:
        training = EPOCHS * (pace.step_s + pace.validation_s)
        raise SkipSegError(
            f"{minutes:g} minutes are too short: {time.time() - started:.0f} s are spent, {EPOCHS} epochs of one step "
            f"take {training:.0f} s, and scoring {scoring:.0f} s; give more minutes"
        )
    plan = with_length(plan, pace, steps, minutes)
    plan.write(path)
    return path, plan


def with_length(plan: Plan, pace: Pace, steps: int, minutes: float) -> Plan:
    """The same plan with :data:`EPOCHS` epochs of ``steps`` steps, and why."""
    values = plan.values
    patch = "x".join(map(str, values["data.patch_size"]))
    why = (
        f"a step of {values['data.batch_size']} x {patch} takes {pace.step_s:.2g} s on this machine, so "
        f"{EPOCHS * steps} steps fit {EPOCHS * (steps * pace.step_s + pace.validation_s) / 60:.1f} of the "
        f"{minutes:g} minutes"
    )
    epochs = Choice(EPOCHS, "an epoch is the unit of validation and of resuming")
    return replace(plan, choices={**plan.choices, "epochs": epochs, "steps_per_epoch": Choice(steps, why)})


def measure_pace(job: Job, cases: Cases) -> Pace:
    """Train a fresh network for a moment as :func:`segmentation.training.train.train` would, and time it.

    Args:
        job: The training.
        cases: Those that are learnt from, and those that are held out.
    """
    settings, clock = job.settings, _Clock()
    network = job.architecture.build(settings.seed)
    task = SegmentationTask(network, settings.optim, job.preprocessing, job.architecture.classes, MOST_STEPS)
    data = PatchDataModule(*cases, job.preprocessing, settings.data, settings.augment, MOST_STEPS, settings.seed)
    with quiet_lightning(), kept_memory():
        build_trainer(settings, [clock], Rank()).fit(task, data)
    return Pace(float(np.mean(np.diff(clock.steps)[1:])), clock.validated - clock.steps[-1])


def scoring_seconds(job: Job, held_out: Sequence[CachedCase], pace: Pace) -> float:
    """Seconds that segmenting and scoring the held-out cases will take, from one window and one scored case."""
    windows = 0
    for case in held_out:
        shape, patch = case.labels(in_memory=False).shape, job.settings.data.patch_size or ()
        slices, inside = shape[: -len(patch)], shape[-len(patch) :]
        windows += math.prod(slices) * math.prod(
            max(1, math.ceil(2 * n / p) - 1) for n, p in zip(inside, patch, strict=True)
        )
    label = job.cases(job.fold.val)[0].label
    assert label  # cases without one take no part
    reference = read_label_map(label, remap=job.dataset.label_remap)
    labels, ignored = reference.array[0], job.dataset.ignore_label
    predicted = np.roll(np.where(labels == ignored, 0, labels), 1, axis=0)  # nobody predicts what is to be ignored
    begun = time.time()
    score_case(
        predicted, labels, reference.spacing_mm, job.dataset.foreground, ignored, job.settings.tolerance_mm or 1.0
    )
    scored = SCORING * (time.time() - begun) * len(held_out)
    return scored + SEGMENTING * pace.validation_s * windows / VALIDATION_PATCHES


def _job(settings: PlanSettings, plan: Plan, source: Source) -> Job:
    """The training that a plan asks for, cut to what is timed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan.json"
        plan.write(path)
        wanted = TrainSettings(
            settings.dataset, Path(folder), epochs=1, steps_per_epoch=MOST_STEPS, plan=path, device=settings.device,
            cache=settings.cache, folds=max(2, min(5, len({case.patient for case in source.labelled.cases}))),
        )  # fmt: skip
        return make_job(wanted, source)


class _Clock(pl.Callback):
    """Notes when each step and the validation ended; ends the epoch when it knows enough."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.validated = 0.0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """The end of a step."""
        self.steps.append(_now())
        trainer.should_stop = len(self.steps) >= STEPS and self.steps[-1] - self.steps[0] >= SECONDS

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The end of the epoch."""
        self.validated = _now()


def _now() -> float:
    """Seconds, when everything that was asked for is computed."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()

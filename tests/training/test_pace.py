import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from segmentation import SkipSegError
from segmentation.config import PlanSettings, TrainSettings
from segmentation.data.plan import Plan, plan_dataset
from segmentation.runs import read_json, write_json
from segmentation.training import pace
from segmentation.training.job import make_job, open_source
from segmentation.training.pace import EPOCHS, Pace, measure_pace, plan_in_time, scoring_seconds
from segmentation.training.train import prepare_arrays


@pytest.fixture
def asked(make_dataset, tmp_path) -> PlanSettings:
    dataset = make_dataset(tmp_path / "data", dims=2)
    return PlanSettings(dataset.root, device="cpu", minutes=10, cache=tmp_path / "cache")


def timed(monkeypatch, step_s: dict[int, float], scoring_s: float = 1.0) -> list[int]:
    """Replace the clock by seconds a step for each width; gives the widths that were measured."""
    seen: list[int] = []

    def measure(job, cases):
        seen.append(job.settings.network.width)
        return Pace(step_s[job.settings.network.width], 0.0)

    monkeypatch.setattr(pace, "measure_pace", measure)
    monkeypatch.setattr(pace, "scoring_seconds", lambda job, held_out, of: scoring_s)
    return seen


def test_the_largest_network_with_enough_steps_is_planned(asked, monkeypatch):
    seen = timed(monkeypatch, {8: 0.1, 16: 0.2, 32: 0.8})
    path, plan = plan_in_time(asked, time.time())
    assert seen == [8, 8, 16, 16, 32]
    assert plan.values["network.width"] == 16
    assert 10 * 60 * 0.5 < EPOCHS * plan.values["steps_per_epoch"] * 0.2 < 10 * 60 * 0.9
    why = plan.choices["steps_per_epoch"].why
    assert "takes 0.2 s on this machine" in why
    assert "of the 10 minutes" in why
    assert "10 minutes on a CPU" in plan.choices["network.width"].why
    assert Plan.read(path).values == plan.values


@pytest.mark.slow
def test_longer_times_give_longer_trainings_and_then_larger_networks(asked, monkeypatch, tmp_path):
    timed(monkeypatch, {8: 0.1, 16: 0.3, 32: 0.9})
    plans = [
        plan_in_time(replace(asked, minutes=minutes, out=tmp_path / f"{minutes}.json"), time.time())[1].values
        for minutes in (1, 5, 15, 45)
    ]
    assert [values["network.width"] for values in plans] == [8, 8, 16, 32]
    steps = [EPOCHS * values["steps_per_epoch"] for values in plans]
    assert steps[0] < 1000 <= min(steps[1:])


def test_a_budget_without_memory_leaves_the_one_before_it(asked, monkeypatch):
    timed(monkeypatch, {8: 0.01, 16: 0.01, 32: 0.01})
    measure = pace.measure_pace

    def short(least):
        def measured(job, cases):
            if job.settings.network.width >= least:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return measure(job, cases)

        return measured

    monkeypatch.setattr(pace, "measure_pace", short(32))
    assert plan_in_time(asked, time.time())[1].values["network.width"] == 16
    monkeypatch.setattr(pace, "measure_pace", short(8))
    with pytest.raises(torch.OutOfMemoryError):
        plan_in_time(replace(asked, out=asked.dataset / "other.json"), time.time())


def test_too_little_time_is_refused_with_what_takes_it(asked, monkeypatch):
    timed(monkeypatch, {8: 40.0}, scoring_s=99)
    with pytest.raises(SkipSegError, match=r"10 minutes are too short: .* take 800 s, and scoring 99 s"):
        plan_in_time(asked, time.time())
    assert not (asked.dataset / "plan.json").exists()


def test_time_spent_before_counts(asked, monkeypatch):
    timed(monkeypatch, {8: 0.1, 16: 99.0})
    _, plan = plan_in_time(asked, time.time() - 60)
    # A minute went for imports, and the training will need one as well.
    left = (10 * 0.9 - 2) * 60
    assert 0.9 * left < EPOCHS * plan.values["steps_per_epoch"] * 0.1 < left


def test_a_plan_that_stands_is_not_replaced(asked, tmp_path):
    path, plan = plan_dataset(replace(asked, minutes=None))
    with pytest.raises(SkipSegError, match="holds a plan already"):
        plan_in_time(asked, time.time())
    assert Plan.read(path).values == plan.values


@pytest.mark.parametrize("minutes", [0, -1, float("nan"), float("inf")])
def test_minutes_must_be_a_number_greater_than_zero(minutes, tmp_path):
    with pytest.raises(SkipSegError, match="minutes must be a number greater than 0"):
        PlanSettings(tmp_path, minutes=minutes)


@pytest.mark.parametrize(("step_s", "steps"), [(9.0, pace.STEPS), (0.5, 9)])
def test_short_steps_are_timed_for_longer(monkeypatch, step_s, steps):
    times = iter(step_s * count for count in range(pace.MOST_STEPS))
    monkeypatch.setattr(pace, "_now", lambda: next(times))
    clock, trainer = pace._Clock(), SimpleNamespace(should_stop=False)
    while not trainer.should_stop:
        clock.on_train_batch_end(trainer, None, None, None, 0)
    assert len(clock.steps) == steps


def test_voxels_that_are_to_be_ignored_are_no_prediction(asked):
    description = asked.dataset / "dataset.json"
    content = read_json(description)
    content["labels"]["ignore"] = 1 + max(content["labels"].values())
    write_json(description, content)
    for path in (asked.dataset / "labelsTr").iterdir():
        label = np.array(Image.open(path))
        label[:3] = content["labels"]["ignore"]
        Image.fromarray(label).save(path)
    settings = TrainSettings(asked.dataset, asked.dataset / "run", device="cpu", cache=asked.cache, folds=3)
    job = make_job(settings, open_source(asked.dataset, asked.cache))
    assert 0 < scoring_seconds(job, prepare_arrays(job)[1], Pace(0.0, 0.0)) < 60


@pytest.mark.slow
def test_more_work_takes_more_time(asked, tmp_path):
    source = open_source(asked.dataset, asked.cache)
    found: list[Pace] = []
    for width, batch in ((4, 1), (32, 4)):
        settings = TrainSettings(
            asked.dataset, tmp_path / "run", device="cpu", cache=asked.cache, epochs=1, steps_per_epoch=6, folds=3
        )
        network, data = replace(settings.network, width=width), replace(settings.data, batch_size=batch)
        job = make_job(replace(settings, network=network, data=data), source)
        cases = prepare_arrays(job)
        found.append(measure_pace(job, cases))
        one, all_cases = (scoring_seconds(job, held_out, Pace(1.0, 32.0)) for held_out in (cases[1][:1], cases[1]))
        assert 1.0 <= one < all_cases
    assert 0 < found[0].step_s < found[1].step_s
    assert min(each.validation_s for each in found) > 0
    assert not (tmp_path / "run").exists()

"""The table of updates: what a step did, and that an interruption leaves no trace in it."""

import math
from types import SimpleNamespace

import pytest
import torch

from segmentation.data.transforms import standardise
from segmentation.model.order import layers_in_order
from segmentation.runs import read_csv
from segmentation.training import updates as updates_module
from segmentation.training.checkpoint import ExactResume
from segmentation.training.job import make_job
from segmentation.training.losses import network_loss
from segmentation.training.task import SegmentationTask
from segmentation.training.train import load_data, train
from segmentation.training.updates import COLUMNS, UpdateRecorder, measure_update

TRACKED = {"track_updates": True, "network.dropout": 0.3, "epochs": 3}


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


@pytest.fixture(scope="module")
def tracked(pictures, tiny, tmp_path_factory):
    """A finished training with its updates; read only."""
    return train(tiny(pictures, tmp_path_factory.mktemp("tracked") / "run", TRACKED))


def test_one_step_is_the_difference_of_the_weights(pictures, tiny, tmp_path):
    once = {"track_updates": True, "epochs": 1, "steps_per_epoch": 1, "network.norm": "none"}
    settings = tiny(pictures, tmp_path / "run", once)
    rows = {row["layer"]: row for row in read_csv(train(settings) / "updates.csv")}
    job = make_job(settings)
    network = job.architecture.build(job.settings.seed)
    images, labels = next(iter(load_data(job, 1).train_dataloader()))
    task = SegmentationTask(network, job.settings.optim, job.preprocessing, 3, 1)
    network_loss(network, task.loss, standardise(images, job.preprocessing), labels).backward()
    after = torch.load(settings.out / "last.ckpt", weights_only=True)["state_dict"]
    assert list(rows) == list(layers_in_order(network, images)) != []
    for name, row in rows.items():
        weight = network.get_parameter(f"{name}.weight")
        step = after[f"network.{name}.weight"] - weight.detach()
        assert float(row["mean_update"]) == pytest.approx(step.abs().mean().item(), rel=1e-4)
        assert float(row["update_ratio"]) == pytest.approx((step.norm() / weight.norm()).item(), rel=1e-4)
        assert float(row["rms_gradient"]) == pytest.approx(weight.grad.square().mean().sqrt().item(), rel=1e-4)


def test_epoch_is_the_mean_over_its_steps(make_task, tmp_path):
    task, example = make_task(), torch.zeros(1, 1, 8, 8)
    recorder, trainer = UpdateRecorder(tmp_path, example), SimpleNamespace(current_epoch=4, is_global_zero=True)
    recorder.on_train_start(trainer, task)
    weight = task.network.encoder[0].units[0][0].weight
    norms = []
    recorder.on_train_epoch_start(trainer, task)
    for gradient, step in ((1.0, 0.5), (3.0, 0.25)):
        weight.grad = torch.full_like(weight, gradient)
        recorder.on_before_optimizer_step(trainer, task, None)
        norms.append(weight.detach().norm().item() / math.sqrt(weight.numel()))
        with torch.no_grad():
            weight += step
        recorder.on_train_batch_end(trainer, task, None, None, 0)
    recorder.on_train_epoch_end(trainer, task)
    first, second, *_ = read_csv(tmp_path / "updates.csv")
    assert (first["epoch"], first["layer"]) == ("4", "encoder.0.units.0.0")
    assert float(first["mean_update"]) == pytest.approx(0.375)
    assert float(first["rms_gradient"]) == 2.0
    assert float(first["update_ratio"]) == pytest.approx((0.5 / norms[0] + 0.25 / norms[1]) / 2, rel=1e-4)
    assert [float(second[name]) for name in COLUMNS[2:]] == [0.0, 0.0, 0.0]


def test_zero_weights_have_no_ratio():
    mean, ratio = measure_update(torch.ones(2), torch.zeros(2))
    assert mean == 1
    assert ratio.isnan()


def test_step_that_rounding_swallows_is_none():
    weight = torch.tensor([0.1])
    assert measure_update(weight + 1e-10, weight)[0] == 0


def test_table_has_every_layer_of_every_epoch(tracked):
    rows = read_csv(tracked / "updates.csv")
    layers = [row["layer"] for row in rows if row["epoch"] == "0"]
    assert [(row["epoch"], row["layer"]) for row in rows] == [(epoch, name) for epoch in "012" for name in layers]
    assert layers[0] == "encoder.0.units.0.0"
    assert layers[-1] == "heads.0"
    assert all(float(row["mean_update"]) > 0 for row in rows)


def test_recording_changes_nothing_else(tracked, pictures, tiny, results, tmp_path):
    silent = results(train(tiny(pictures, tmp_path / "run", TRACKED | {"track_updates": False})))
    assert silent["metrics.csv"] == results(tracked)["metrics.csv"]
    assert silent["model.safetensors"] == results(tracked)["model.safetensors"]
    assert "updates.csv" not in silent


@pytest.mark.parametrize(
    ("owner", "name", "call", "after"),
    [
        (SegmentationTask, "training_step", 4, False),
        (updates_module, "write_csv", 2, True),
        (updates_module, "write_csv", 3, False),
        (ExactResume, "on_train_epoch_end", 2, True),
    ],
    ids=["within an epoch", "before the checkpoint", "before the table", "after the checkpoint"],
)
def test_interrupted_and_resumed_gives_the_same_table(
    tracked, pictures, tiny, results, tmp_path, owner, name, call, after
):
    settings, real, calls = tiny(pictures, tmp_path / "run", TRACKED), getattr(owner, name), []

    def deadly(*args, **kwargs):
        calls.append(name)
        if len(calls) == call and not after:
            raise Killed
        result = real(*args, **kwargs)
        if len(calls) == call:
            raise Killed
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, deadly)
        with pytest.raises(Killed):
            train(settings)
    train(settings)
    assert results(settings.out) == results(tracked)

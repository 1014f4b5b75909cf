"""A training as a whole: what it writes, and that an interruption at any moment changes nothing."""

import fcntl
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from segmentation import SkipSegError
from segmentation.ablation.cell import run_cell
from segmentation.inference.postprocess import Step
from segmentation.inference.predictor import Predictor
from segmentation.model.storage import load_model
from segmentation.plain import to_plain
from segmentation.runs import read_csv, read_json, write_text
from segmentation.training import history as history_module
from segmentation.training import train as train_module
from segmentation.training.checkpoint import ExactResume
from segmentation.training.job import make_job
from segmentation.training.lock import locked
from segmentation.training.task import SegmentationTask
from segmentation.training.train import load_data, train

EPOCHS = 3
CHANGES = {"epochs": EPOCHS, "network.dropout": 0.3, "keep_largest": True}  # dropout draws from the global numbers


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


@pytest.fixture(scope="module")
def finished(pictures, tiny, tmp_path_factory):
    """A finished training; read only."""
    return train(tiny(pictures, tmp_path_factory.mktemp("finished") / "run", CHANGES))


def kill_at(monkeypatch, owner, name, call, after=False):
    """Make ``owner.name`` kill the training at its ``call``-th call, before or after its work."""
    real, calls = getattr(owner, name), []

    def deadly(*args, **kwargs):
        calls.append(name)
        if len(calls) < call:
            return real(*args, **kwargs)
        if after:
            real(*args, **kwargs)
        raise Killed

    monkeypatch.setattr(owner, name, deadly)


def test_folder(finished):
    names = {path.name for path in finished.iterdir()}
    assert names == {
        "config.yaml", "plan.json", "run.json", "metrics.csv", "last.ckpt", "timing.json",
        "model.safetensors", "model.json", "last.safetensors", "best.safetensors",
    }  # fmt: skip
    record = read_json(finished / "run.json")
    assert (record["state"], record["epochs"]) == ("finished", EPOCHS)
    assert (record["device"], record["precision"]) == ("cpu", "fp32")
    assert record["versions"].keys() >= {"torch", "numpy", "albumentations"}
    assert set(record["train_cases"]).isdisjoint(record["val_cases"])
    assert record["parameters"] == sum(weight.numel() for weight in load_model(finished).network.parameters())
    rows = read_csv(finished / "metrics.csv")
    assert [(row["epoch"], row["step"]) for row in rows] == [("0", "2"), ("1", "4"), ("2", "6")]
    assert (finished / "model.safetensors").read_bytes() == (finished / "last.safetensors").read_bytes()


def test_model_predicts_as_the_training_was_told(finished):
    predictor = Predictor.load(finished)
    assert (predictor.mirror, predictor.steps) == (False, [Step("keep_largest", 1), Step("keep_largest", 2)])


def test_checkpoint_needs_no_code(finished):
    checkpoint = torch.load(finished / "last.ckpt", weights_only=True)
    assert {"state_dict", "optimizer_states", "lr_schedulers", "average", "random_state", "callbacks"} <= set(
        checkpoint
    )


def test_model_is_the_average_and_not_the_last_step(finished):
    checkpoint = torch.load(finished / "last.ckpt", weights_only=True)
    model = load_file(finished / "model.safetensors")
    assert all(torch.equal(model[name], value) for name, value in checkpoint["average"].items())
    assert any(not torch.equal(model[name], checkpoint["state_dict"][f"network.{name}"]) for name in model)


def test_finished_training_is_left_as_it_is(finished, pictures, tiny, results):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    assert train(tiny(pictures, finished, CHANGES)) == finished
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before


def test_finished_training_is_scored_with_as_many_threads_as_it_was_trained(finished, pictures, tiny):
    # Sums depend on the number of threads, so a kill between training and scoring must not change it.
    torch.set_num_threads(2)
    train(tiny(pictures, finished, CHANGES))
    assert torch.get_num_threads() == 1


def test_same_training_twice_gives_the_same_bytes(finished, pictures, tiny, results, tmp_path):
    torch.manual_seed(5), np.random.seed(5)  # what stood there before must not matter
    assert results(train(tiny(pictures, tmp_path / "run", CHANGES))) == results(finished)


MOMENTS = {
    "first step": (SegmentationTask, "training_step", 1, False),
    "second epoch": (SegmentationTask, "training_step", 4, False),
    "validation": (SegmentationTask, "validation_step", 20, False),
    "after the best weights, before the table": (history_module, "save_weights", 1, True),
    "after the table, before the checkpoint": (history_module, "write_csv", 2, True),
    "after a checkpoint": (ExactResume, "on_train_epoch_end", 2, True),
    "after the last checkpoint": (ExactResume, "on_train_epoch_end", EPOCHS, True),
    "before the model": (train_module, "save_model", 1, False),
    "after the model": (train_module, "save_model", 1, True),
}
EPOCHS_KEPT = dict(zip(MOMENTS, [0, 1, 1, 0, 1, 2, EPOCHS, EPOCHS, EPOCHS], strict=True))


@pytest.mark.parametrize("moment", MOMENTS)
def test_interrupted_and_resumed_gives_the_same_bytes(finished, pictures, tiny, results, tmp_path, moment):
    settings = tiny(pictures, tmp_path / "run", CHANGES)
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, *MOMENTS[moment])
        with pytest.raises(Killed):
            train(settings)
    assert read_json(settings.out / "run.json")["state"] == "running"
    steps = (EPOCHS - EPOCHS_KEPT[moment]) * settings.steps_per_epoch
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, SegmentationTask, "training_step", steps + 1)  # what was done is not done again
        train(settings)
    assert results(settings.out) == results(finished)


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "bf16"},
        {"network.norm": "batch", "network.deep_supervision": True, "optim.optimizer": "sgd", "optim.schedule": "poly"},
        {"optim.ema_decay": 0.0, "optim.clip_norm": 0.0, "optim.warmup_share": 0.0, "select": "best"},
    ],
    ids=["bf16", "batch norm and sgd", "no average"],
)
def test_resume_is_exact_with_other_settings(pictures, tiny, results, tmp_path, changes):
    whole = train(tiny(pictures, tmp_path / "whole", changes))
    settings = tiny(pictures, tmp_path / "run", changes)
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, SegmentationTask, "training_step", 4)
        with pytest.raises(Killed):
            train(settings)
    assert results(train(settings)) == results(whole)


@pytest.mark.parametrize(("step", "device"), [(1, "cpu"), (3, "NVIDIA H200, then cpu")])
def test_a_run_that_goes_on_elsewhere_says_so(pictures, tiny, tmp_path, monkeypatch, step, device):
    settings = tiny(pictures, tmp_path / "run", CHANGES)
    with monkeypatch.context() as patch:
        patch.setattr(train_module, "computed_on", lambda _: ("NVIDIA H200", "bf16"))
        patch.setattr(train_module, "uses_cuda", lambda _: False)
        kill_at(patch, SegmentationTask, "training_step", step)  # before or after the first checkpoint
        with pytest.raises(Killed):
            train(settings)
    train(settings)
    record = read_json(tmp_path / "run" / "run.json")
    precision = device.replace("NVIDIA H200", "bf16").replace("cpu", "fp32")
    assert (record["device"], record["precision"]) == (device, precision)


def test_resume_is_exact_in_3d(volumes, tiny, results, tmp_path):
    whole = train(tiny(volumes, tmp_path / "whole"))
    settings = tiny(volumes, tmp_path / "run")
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, SegmentationTask, "training_step", 4)
        with pytest.raises(Killed):
            train(settings)
    assert results(train(settings)) == results(whole)


def test_early_stop_is_exact_after_its_last_checkpoint(pictures, tiny, results, tmp_path):
    # Nothing moves, so that the second epoch is no better than the first.
    changes = {"epochs": 9, "patience": 1, "optim.learning_rate": 1e-30}
    whole = train(tiny(pictures, tmp_path / "whole", changes))
    assert read_json(whole / "run.json")["epochs"] == 2
    settings = tiny(pictures, tmp_path / "run", changes)
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, train_module, "finish_run", 1)
        with pytest.raises(Killed):
            train(settings)
    assert results(train(settings)) == results(whole)


def test_select_best(pictures, tiny, tmp_path, monkeypatch):
    scores = iter([[0.9, 0.9], [0.1, 0.1]])
    monkeypatch.setattr(SegmentationTask, "validation_dice", lambda self: self.scores)
    monkeypatch.setattr(SegmentationTask, "on_validation_end", lambda self: self.__dict__.update(scores=next(scores)))
    run = train(tiny(pictures, tmp_path / "run", {"select": "best", "optim.ema_decay": 0.0}))
    assert read_json(run / "run.json")["best_epoch"] == 0
    assert (run / "model.safetensors").read_bytes() == (run / "best.safetensors").read_bytes()
    assert (run / "model.safetensors").read_bytes() != (run / "last.safetensors").read_bytes()


def test_training_learns(pictures, tiny, tmp_path):
    changes = {"epochs": 3, "steps_per_epoch": 12, "network.width": 8, "network.depth": 2, "data.patch_size": [32, 32]}
    rows = read_csv(train(tiny(pictures, tmp_path / "run", changes)) / "metrics.csv")
    assert float(rows[-1]["val_dice"]) > max(0.5, float(rows[0]["val_dice"]))


def test_a_long_gradient_is_cut_to_the_norm_that_was_set(pictures, tiny, tmp_path):
    once = {"epochs": 1, "steps_per_epoch": 1, "optim.weight_decay": 0.0, "optim.ema_decay": 0.0}
    changes = {"optim.optimizer": "sgd", "optim.learning_rate": 1.0, "optim.clip_norm": 1e-3}
    settings = tiny(pictures, tmp_path / "run", once | changes)
    after = load_file(train(settings) / "last.safetensors")
    before = make_job(settings).architecture.build(settings.seed).state_dict()
    step = torch.cat([(after[name] - value).flatten() for name, value in before.items()])
    assert step.norm().item() == pytest.approx(1.99e-3, rel=0.01)  # a first step with Nesterov's momentum of 0.99


# Paired conditions


def test_conditions_see_the_same_batches_and_share_initial_weights(pictures, tiny, tmp_path):
    jobs = [
        make_job(tiny(pictures, tmp_path / kind, {"network.long_skip": kind, "network.depth": 2, "seed": 3}))
        for kind in ("concat", "add", "none")
    ]
    loaders = []
    for job in jobs:
        loader = load_data(job, steps=2).train_dataloader()
        loader.sampler.set_epoch(1)
        loaders.append(list(loader))
    for concat, *others in zip(*loaders, strict=True):
        for other in others:
            assert all(torch.equal(a, b) for a, b in zip(concat, other, strict=True))
    first, *rest = (job.architecture.build(3).state_dict() for job in jobs)
    for other in rest:
        shared = [name for name in first.keys() & other.keys() if first[name].shape == other[name].shape]
        assert len(shared) > len(first) // 2
        assert all(torch.equal(first[name], other[name]) for name in shared)


def test_seed_changes_batches_and_initial_weights(pictures, tiny, tmp_path):
    jobs = [make_job(tiny(pictures, tmp_path / "run", {"seed": seed})) for seed in (0, 1)]
    images = [next(iter(load_data(job, steps=2).train_dataloader()))[0] for job in jobs]
    assert not torch.equal(*images)
    first, second = (job.architecture.build(job.settings.seed).state_dict() for job in jobs)
    assert any(not torch.equal(first[name], second[name]) for name in first)


# What is refused


def test_run_of_other_settings_is_refused_and_left_alone(finished, pictures, tiny, results):
    before = results(finished)
    with pytest.raises(SkipSegError, match=r"holds a run with another seed, network.long_skip; choose another folder"):
        train(tiny(pictures, finished, CHANGES | {"seed": 4, "network.long_skip": "add"}))
    assert results(finished) == before


def test_run_of_another_dataset_is_refused(finished, make_dataset, tiny, tmp_path):
    other = make_dataset(tmp_path / "other", dims=2, seed=1)
    with pytest.raises(SkipSegError, match="holds a run with another"):
        train(tiny(other, finished, CHANGES))


def test_folder_of_something_else_is_refused_and_left_alone(pictures, tiny, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine")
    with pytest.raises(SkipSegError, match="exists and is not a run"):
        train(tiny(pictures, tmp_path / "run"))
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.txt"]


def test_damaged_checkpoint_is_one_line_and_starts_over_when_deleted(finished, pictures, tiny, results, tmp_path):
    settings = tiny(pictures, tmp_path / "run", CHANGES)
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, SegmentationTask, "training_step", 4)
        with pytest.raises(Killed):
            train(settings)
    last = settings.out / "last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])
    with pytest.raises(SkipSegError, match=r"last\.ckpt cannot be resumed from .*; delete it to start over"):
        train(settings)
    last.unlink()
    assert results(train(settings)) == results(finished)


def test_drafts_of_a_killed_process_are_removed(finished, pictures, tiny, results, tmp_path):
    settings = tiny(pictures, tmp_path / "run", CHANGES)
    write_text(settings.out / "config.yaml", yaml.safe_dump(to_plain(settings)))  # killed before run.json
    (settings.out / ".0123456789ab.partial.ckpt").write_bytes(b"half")
    assert results(train(settings)) == results(finished)


def test_two_trainings_in_one_folder_are_refused(finished, pictures, tiny):
    descriptor = os.open(finished, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(SkipSegError, match="in use by another process"):
            train(tiny(pictures, finished, CHANGES))
    finally:
        os.close(descriptor)
    with locked(finished):
        pass


def test_training_that_diverges_ends_at_once_and_in_words(pictures, tiny, tmp_path):
    settings = tiny(pictures, tmp_path / "run", {"epochs": 9, "optim.learning_rate": 1e36, "optim.clip_norm": 0.0})
    with pytest.raises(SkipSegError, match=r"training diverged in epoch [0-3]: weights are not finite"):
        train(settings)
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_failed_training_leaves_logging_as_it_was(pictures, tiny, tmp_path, monkeypatch):
    logger = logging.getLogger("pytorch_lightning")
    before = logger.level
    kill_at(monkeypatch, SegmentationTask, "training_step", 1)
    with pytest.raises(Killed):
        train(tiny(pictures, tmp_path / "run"))
    assert logger.level == before


# Processes


@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_is_an_interrupt_and_not_lightnings_exit(finished, pictures, tiny, results, tmp_path, asked):
    settings = tiny(pictures, tmp_path / "run", CHANGES)
    with pytest.MonkeyPatch.context() as patch:
        real = SegmentationTask.training_step

        def interrupted(task, batch, index):
            if task.global_step == 3:
                signal.getsignal(asked)(asked, None)  # the slow tests send real ones, to processes of their own
            return real(task, batch, index)

        patch.setattr(SegmentationTask, "training_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(settings)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, "the next Ctrl-C must work too"
    assert results(train(settings)) == results(finished)


@pytest.mark.slow
def test_ctrl_c_is_one_line(pictures, tiny, results, tmp_path):
    settings = tiny(pictures, tmp_path / "run", {"epochs": 400})
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(to_plain(settings)))
    command = [sys.executable, "-m", "segmentation", "train", "--config", str(tmp_path / "train.yaml")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (settings.out / "last.ckpt").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert (out, err) == (
        "",
        "skipseg: interrupted; give the same command again: "
        "prepare, train, predict, probe, ablate and suite continue where they stopped\n",
    )


@pytest.mark.slow
def test_killed_at_random_moments_gives_the_same_bytes(volumes, tiny, results, tmp_path):
    changes = CHANGES | {"epochs": 8, "steps_per_epoch": 4}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["segmentation.ablation.cell", "segmentation.ablation.score", "monai.transforms"])
    process = context.Process(target=time.sleep, args=(0,))  # starts the server, which imports the libraries
    process.start()
    process.join()
    started = time.perf_counter()
    whole = tiny(volumes, tmp_path / "whole", changes)
    process = context.Process(target=run_cell, args=(whole,))
    process.start()
    process.join()
    assert process.exitcode == 0
    seconds = time.perf_counter() - started
    settings = replace(whole, out=tmp_path / "run")
    rng, kills = np.random.default_rng(0), 0
    for _ in range(40):
        process = context.Process(target=run_cell, args=(settings,))
        process.start()
        process.join(rng.uniform(0.1, 0.6) * seconds)
        if process.exitcode is not None:
            break
        process.kill()
        process.join()
        kills += 1
    else:
        run_cell(settings)
    assert kills >= 3
    assert results(settings.out) == results(whole.out)
    assert "predictions/case_00.nii.gz" in results(whole.out)
    assert not list(settings.out.rglob(".*"))

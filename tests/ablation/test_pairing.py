"""Conditions of one fold and seed differ in what they are about, and in nothing else."""

import hashlib
from collections import defaultdict

import pytest
import torch

from segmentation.ablation.launch import ablate
from segmentation.ablation.study import expand, read_study
from segmentation.config import AblateSettings
from segmentation.model.init import named_generator
from segmentation.training.task import SegmentationTask
from segmentation.training.train import train

CONDITIONS = {
    "concat": {"network.long_skip": "concat"},
    "none": {"network.long_skip": "none"},
    "matched": {"network.long_skip": "none", "network.budget_match": "params"},
    "noise": {"network.long_skip_placebo": "noise", "network.long_skip_dropout": 0.5, "network.dropout": 0.5},
}


@pytest.fixture
def arms(tmp_path, pictures, write_study):
    """Function of a seed and a fold: condition to its job; half of the conditions draw random numbers as they train."""

    def decide(seed=0, fold=0):
        base = {"folds": 0, "epochs": 2, "steps_per_epoch": 3, "device": "cpu", "network": {"depth": 2, "width": 8}}
        base["data"] = {"patch_size": [16, 16], "batch_size": 2}
        changes = {"base": base, "conditions": CONDITIONS, "seeds": [seed], "folds": [fold]}
        runs = expand(read_study(write_study(tmp_path, pictures, **changes), None), tmp_path / f"{seed}-{fold}", None)
        return {run.condition: run.job for run in runs}

    return decide


@pytest.fixture
def batches(monkeypatch):
    """Function of a job: trains it, and gives the hash of each batch that its network met, training and validation."""
    seen: dict[str, list[str]] = defaultdict(list)

    def spy(name):
        real = getattr(SegmentationTask, name)

        def step(task, batch, index):
            digest = hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in batch)).hexdigest()
            seen[name].append(digest)
            return real(task, batch, index)

        monkeypatch.setattr(SegmentationTask, name, step)

    spy("training_step")
    spy("validation_step")

    def watch(job):
        seen.clear()
        train(job.settings)
        return dict(seen)

    return watch


def test_arms_meet_the_same_batches(arms, batches):
    jobs = arms()
    met = {name: batches(job) for name, job in jobs.items()}
    first = met["concat"]
    assert len(first["training_step"]) == len(set(first["training_step"])) == 2 * 3
    assert len(first["validation_step"]) == 2 * len(set(first["validation_step"])) > 0, "the same ones every epoch"
    assert all(each == first for each in met.values())
    other = batches(arms(seed=1)["concat"])
    assert not set(other["training_step"]) & set(first["training_step"]), "another seed draws others"
    assert other["validation_step"] == first["validation_step"]


def test_arms_hold_out_the_same_patients(arms):
    for fold in (0, 1):
        folds = {job.fold for seed in (0, 1) for job in arms(seed, fold).values()}
        assert len(folds) == 1
    assert arms(0, 0)["none"].fold != arms(0, 1)["none"].fold


def initial(job) -> dict[str, torch.Tensor]:
    return {name: value.detach() for name, value in job.architecture.build(job.settings.seed).named_parameters()}


def test_arms_start_from_the_same_tensors(arms):
    weights = {name: initial(job) for name, job in arms().items()}
    concat = weights["concat"]
    for name in ("none", "noise", "matched"):
        common = [key for key in weights[name] if key in concat and weights[name][key].shape == concat[key].shape]
        assert all(torch.equal(weights[name][key], concat[key]) for key in common)
        # Where long skips end, convolutions read fewer channels; other widths leave only biases alike, if anything.
        differ = {key for key in concat if key not in common}
        if name == "none":
            assert {key.rsplit(".", 2)[0] for key in differ} == {"decoder.0.units.0", "decoder.1.units.0"}
        if name == "noise":
            assert not differ
    again = initial(arms(seed=1)["concat"])
    assert not torch.equal(again["encoder.0.units.0.0.weight"], concat["encoder.0.units.0.0.weight"])


def test_a_tensor_is_drawn_by_its_name():
    first, again, other = (torch.randn(4, generator=named_generator(name, 0)) for name in ("a", "a", "b"))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.slow
def test_processes_side_by_side_change_nothing(tmp_path, pictures, write_study, results):
    study = write_study(tmp_path, pictures, seeds=[0, 1])
    for workers in (1, 3):
        ablate(AblateSettings(study, tmp_path / str(workers), workers=workers))
    assert results(tmp_path / "1") == results(tmp_path / "3")

"""What a probe is given is what the run was: its network, its loss, its way of scoring."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from segmentation import SkipSegError
from segmentation.ablation.cell import run_cell
from segmentation.config import NetworkSettings, ProbeSettings, TrainSettings
from segmentation.data.transforms import standardise
from segmentation.inference.predictor import Predictor
from segmentation.metrics.overlap import dice_per_class
from segmentation.model.storage import Architecture, load_model
from segmentation.plain import from_plain
from segmentation.probes.context import ProbeContext
from segmentation.runs import read_csv, read_json, write_json, write_text
from segmentation.scans import read_label_map, read_scan
from segmentation.training.losses import build_loss, deep_loss, network_loss


def test_network_is_the_trained_one_and_takes_gradients(context, picture_run):
    stored = load_model(picture_run).network.state_dict()
    assert all(torch.equal(value, stored[name]) for name, value in context.network.state_dict().items())
    assert not context.network.training
    assert all(parameter.requires_grad for parameter in context.network.parameters())


def test_initial_network_has_the_weights_of_the_seed(context):
    built = context.architecture.build(context.settings.seed).state_dict()
    initial = context.initial()
    assert all(torch.equal(value, built[name]) for name, value in initial.state_dict().items())
    assert not torch.equal(initial.encoder[0].units[0][0].weight, context.network.encoder[0].units[0][0].weight)


def test_batches_depend_on_the_seed_alone(context):
    again = ProbeContext.open(context.options).batches
    other = ProbeContext.open(replace(context.options, seed=1)).batches
    assert [images.shape for images, _ in context.batches] == [(2, 1, 16, 16)] * 2
    assert all(
        torch.equal(a, b) for x, y in zip(context.batches, again, strict=True) for a, b in zip(x, y, strict=True)
    )
    assert not torch.equal(context.batches[0][0], other[0][0])
    assert not torch.equal(context.batches[0][0], context.batches[1][0])


def test_batches_are_standardised(context):
    images = context.batches[0][0]
    zero, one = standardise(torch.tensor([0.0, 1.0]).view(2, 1, 1, 1), context.preprocessing).flatten()
    assert zero - 1e-5 <= images.min() < 0 < images.max() <= one + 1e-5


def test_loss_is_the_one_of_the_training(context):
    images, labels = context.batches[0]
    expected = build_loss("dice_ce")(context.network(images), labels)
    assert torch.equal(context.loss(context.network, images, labels), expected)


def test_loss_supervises_every_level_that_the_network_does():
    settings = NetworkSettings(depth=2, width=4, deep_supervision=True)
    network = Architecture(settings, 2, 1, 3, [[2, 2]] * 2, [[3, 3]] * 3).build()
    images, labels = torch.randn(2, 1, 8, 8), torch.randint(0, 3, (2, 8, 8))
    expected = deep_loss(build_loss("ce"), network.forward_deep(images), labels, network.strides)
    assert torch.equal(network_loss(network, build_loss("ce"), images, labels), expected)


def test_score_is_that_of_the_evaluation(pictures, picture_run):
    run_cell(from_plain(TrainSettings, yaml.safe_load((picture_run / "config.yaml").read_text())))
    context = ProbeContext.open(ProbeSettings(picture_run, cases=99, device="cpu"))
    found = context.score(context.network)
    rows = read_csv(picture_run / "evaluation" / "cases.csv")
    assert {row["case"] for row in rows} == set(found)
    for row in rows:
        expected = float(row["dice"] or "nan")
        assert found[row["case"]][row["class"]] == pytest.approx(expected, abs=1e-6, nan_ok=True)


def test_score_takes_a_network_with_hooks(context):
    before = context.score(context.network)
    hook = context.network.heads[0].register_forward_hook(lambda module, inputs, output: output * 0 + 1)
    lesioned = context.score(context.network)
    hook.remove()
    assert all(dice == 0 for case in lesioned.values() for dice in case.values())  # argmax of a tie: background
    assert context.score(context.network) == before


def test_score_of_volumes_agrees_with_prediction_by_hand(volume_model):
    context = ProbeContext.open(ProbeSettings(volume_model, cases=1, device="cpu"))
    (case,) = context.held_out
    source = next(each for each in context.val_cases if each.name == case.name)
    scan = read_scan(source.images, channels=1)
    label_map = Predictor.load(volume_model)(scan)
    expected = dice_per_class(label_map, read_label_map(source.label).array[0], 3)
    assert context.score(context.network)[case.name] == {"organ": expected[1], "lesion": expected[2]}
    assert len(context.spacing_mm) == 3


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(SkipSegError, match="holds no run"):
        ProbeContext.open(ProbeSettings(tmp_path))


def test_an_unfinished_run_is_refused(tmp_path):
    write_json(tmp_path / "run.json", {"state": "running", "hash": "0"})
    with pytest.raises(SkipSegError, match="is not finished; continue it with `skipseg train`"):
        ProbeContext.open(ProbeSettings(tmp_path))


def test_an_unfinished_run_of_a_study_names_the_command_that_continues_it(tmp_path, monkeypatch):
    write_json(tmp_path / "study.json", {})
    write_json(tmp_path / "runs" / "a" / "run.json", {"state": "running", "hash": "0"})
    told = "is not finished; continue its study with `skipseg ablate` first"
    with pytest.raises(SkipSegError, match=told):
        ProbeContext.open(ProbeSettings(tmp_path / "runs" / "a"))
    monkeypatch.chdir(tmp_path / "runs" / "a")
    with pytest.raises(SkipSegError, match=told):
        ProbeContext.open(ProbeSettings(Path()))


def test_a_study_is_not_taken_for_a_run(tmp_path):
    write_json(tmp_path / "study.json", {})
    with pytest.raises(SkipSegError, match=r"is a study; give one of its runs, a folder in .*runs$"):
        ProbeContext.open(ProbeSettings(tmp_path))


def test_data_that_are_not_where_the_run_says_are_named_with_what_to_do(picture_run, tmp_path, monkeypatch):
    run = shutil.copytree(picture_run, tmp_path / "run")
    plain = yaml.safe_load((run / "config.yaml").read_text())
    source = Path(plain["dataset"])
    write_text(run / "config.yaml", yaml.dump(plain | {"dataset": source.name}))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SkipSegError, match=r"config.yaml names the dataset \w+, a path relative to .* probe from the"):
        ProbeContext.open(ProbeSettings(run))
    monkeypatch.chdir(source.parent)
    assert ProbeContext.open(ProbeSettings(run)).dataset.cases
    write_text(run / "config.yaml", yaml.dump(plain | {"dataset": str(tmp_path / "moved")}))
    with pytest.raises(SkipSegError, match=r"names the dataset .*moved, which is not there; put it back"):
        ProbeContext.open(ProbeSettings(run))


def test_a_run_on_other_data_is_refused(picture_run, tmp_path):
    for name in ("config.yaml", "plan.json", "model.json", "model.safetensors"):
        (tmp_path / name).write_bytes((picture_run / name).read_bytes())
    write_json(tmp_path / "run.json", read_json(picture_run / "run.json") | {"hash": "of other data"})
    with pytest.raises(SkipSegError, match=r"is not what the run in .* learnt from"):
        ProbeContext.open(ProbeSettings(tmp_path))

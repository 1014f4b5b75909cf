import copy
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from segmentation import SkipSegError
from segmentation.config import ProbeSettings
from segmentation.model.chain import Chain
from segmentation.probes import barrier as barrier_module
from segmentation.probes.barrier import barrier, loss_between
from segmentation.probes.barrier import probe as probe_barrier
from segmentation.probes.context import NotMeasurableError, ProbeContext, on_batches
from segmentation.probes.run import probe
from segmentation.runs import read_json
from segmentation.training.record import read_config
from segmentation.training.train import train

EMPTY = [(torch.zeros(1), torch.zeros(1))]


@pytest.fixture(scope="module")
def other_seed(picture_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same training from other weights."""
    settings = read_config(picture_run / "config.yaml")
    return train(replace(settings, seed=1, out=tmp_path_factory.mktemp("barrier") / "run"))


def test_barrier_between_two_wells_is_their_wall():
    layer = nn.Linear(1, 1, bias=False)

    def wells(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        return (network.get_parameter("weight") ** 2 - 1).square().sum()

    ends = ({"weight": torch.tensor([[end]])} for end in (-1.0, 1.0))
    values = loss_between(layer, wells, EMPTY, *ends, points=5)
    np.testing.assert_allclose(values, [0, 0.5625, 1, 0.5625, 0])
    assert barrier(values) == pytest.approx(1.0)


def test_barrier_is_zero_on_a_convex_line():
    assert barrier(np.array([1.0, 1.5, 2.5, 4.0])) == 0


def test_interpolation_mixes_running_statistics():
    norms = [nn.BatchNorm1d(1), nn.BatchNorm1d(1)]
    norms[1].running_mean = torch.tensor([4.0])
    means: list[float] = []

    def read(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        means.append(float(network.get_buffer("running_mean")))
        return torch.zeros(())

    loss_between(norms[0], read, EMPTY, norms[0].state_dict(), norms[1].state_dict(), points=3)
    assert means == [0.0, 2.0, 4.0]


def test_the_network_is_left_as_it_was():
    images = torch.randn(2, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    chain, end = (Chain(3, 4, 1, 1, short="add", norm="batch", seed=seed).train() for seed in (0, 1))
    before = {name: value.clone() for name, value in chain.state_dict().items()}
    values = loss_between(
        chain, lambda network, x, y: (network(x) - y).square().mean(), [(images, images)], before, end.state_dict(), 3
    )
    assert np.isfinite(values).all()
    assert all(torch.equal(before[name], value) for name, value in chain.state_dict().items())
    assert chain.training


def test_the_line_goes_from_the_start_to_the_trained_weights(context: ProbeContext):
    values = probe_barrier(context).values
    assert list(values) == ["from the start"]
    line = values["from the start"]["loss"]
    assert line[-1] == pytest.approx(on_batches(context.network, context.loss, context.batches))
    assert line[0] != line[-1]
    assert values["from the start"]["barrier"] == barrier(np.array(line))


def test_the_line_to_another_run_ends_at_its_weights(context: ProbeContext, other_seed: Path):
    found = probe_barrier(replace(context, options=replace(context.options, other=other_seed)))
    first, second = (found.values[name]["loss"] for name in ("from the start", "to the other run"))
    assert second[0] == pytest.approx(first[-1])
    network = context.architecture.build()
    network.load_state_dict(load_file(other_seed / "model.safetensors"))
    assert second[-1] == pytest.approx(on_batches(network.eval(), context.loss, context.batches))
    assert len(found.figures[0].series) == 2


def test_another_other_run_is_measured_anew(picture_run, other_seed, tmp_path, monkeypatch):
    run, asked = shutil.copytree(picture_run, tmp_path / "run"), []
    monkeypatch.setattr(
        barrier_module, "probe", lambda context: asked.append(context.options.other) or probe_barrier(context)
    )
    settings = ProbeSettings(run, ["barrier"], batches=1, cases=1, device="cpu", threads=1)
    for other in (None, None, other_seed, other_seed, None, run):
        (path,) = probe(replace(settings, other=other))
    assert asked == [None, other_seed, run]
    probe(replace(settings, batches=3))
    probe(replace(settings, other=other_seed))
    assert asked[3:] == [None, other_seed], "a larger result without the other run is no answer"
    (path,) = probe(replace(settings, other=run))
    assert read_json(path)["values"]["to the other run"]["barrier"] == pytest.approx(0, abs=1e-6)


def test_another_network_or_a_kind_that_needs_no_other_run_is_refused(context, picture_run, other_seed, tmp_path):
    settings = read_config(picture_run / "config.yaml")
    none = train(replace(settings, network=replace(settings.network, long_skip="none"), out=tmp_path / "none"))
    with pytest.raises(NotMeasurableError, match=r"none has another architecture; give a run that differs in seed"):
        probe_barrier(replace(context, options=replace(context.options, other=none)))
    with pytest.raises(SkipSegError, match="is for kind barrier, which was not asked for"):
        probe(ProbeSettings(picture_run, ["noise"], other=other_seed))
    with pytest.raises(SkipSegError, match=r"holds no run\.json"):
        probe(ProbeSettings(picture_run, ["barrier"], other=tmp_path))


def test_a_loss_that_is_no_number_at_an_end_is_no_line(context: ProbeContext):
    broken = copy.deepcopy(context.network)
    with torch.no_grad():
        next(broken.parameters()).fill_(float("nan"))
    with pytest.raises(NotMeasurableError, match="the loss at an end of the line is not finite"):
        probe_barrier(replace(context, trained=broken))

"""Gradient profile: against hand-computed chains, against autograd, and the claims that it is made for."""

import math

import pytest
import torch
from torch import nn

from segmentation.config import NetworkSettings
from segmentation.model.chain import Chain
from segmentation.model.unet import UNet
from segmentation.probes import gradients
from segmentation.probes.gradients import (
    LayerGradient,
    block_gradients,
    centre_starvation,
    layer_gradients,
    profile,
    slope,
    vanishing_index,
)
from segmentation.training.losses import cross_entropy


def mean_output(network, images, labels):
    return network(images).mean()


def ce(network, images, labels):
    return cross_entropy(network(images), labels)


def draw(count=2, size=16, channels=1):
    generator = torch.Generator().manual_seed(0)
    return [
        (
            torch.randn(2, channels, size, size, generator=generator),
            torch.randint(0, 2, (2, size, size), generator=generator),
        )
        for _ in range(count)
    ]


def linear_chain(*weights):
    """z = w_L ... w_1 x."""
    network = nn.Sequential(*(nn.Linear(1, 1, bias=False) for _ in weights))
    for layer, weight in zip(network, weights, strict=True):
        nn.init.constant_(layer.weight, weight)
    return network


def test_chain_of_scalars_has_the_gradients_of_the_chain_rule():
    network = linear_chain(0.5, 0.01, 0.1)
    first, second, third = layer_gradients(network, mean_output, [(torch.tensor([[2.0], [4.0]]), torch.zeros(2))])
    x = 3.0  # the mean of the inputs
    assert first.gradient == pytest.approx(0.1 * 0.01 * x)
    assert second.gradient == pytest.approx(0.1 * 0.5 * x)
    assert third.gradient == pytest.approx(0.01 * 0.5 * x)
    assert second.relative == pytest.approx(second.gradient / 0.01)
    assert third.activation == pytest.approx(1 / 2)  # of the mean of two outputs
    assert first.activation == pytest.approx(0.1 * 0.01 / 2)
    assert vanishing_index([first.gradient, third.gradient]) == pytest.approx(math.log10(0.1 / 0.5))


def test_activation_gradient_is_the_root_mean_square_over_batches():
    network, one, three = linear_chain(1.0), (torch.tensor([[1.0]]), None), (torch.tensor([[3.0]]), None)
    (layer,) = layer_gradients(network, lambda net, x, _: net(x).square().sum() / 2, [one, three])
    assert layer.activation == pytest.approx(math.sqrt((1 + 9) / 2))
    assert layer.gradient == pytest.approx((1 + 9) / 2)


def test_gradients_are_those_of_autograd_on_the_mean_loss():
    network, batches = UNet(NetworkSettings(depth=2, width=4), 2, 1, 2), draw()
    found = {each.name: each for each in layer_gradients(network, ce, batches)}
    mean = torch.stack([ce(network, *batch) for batch in batches]).mean()
    parameters = dict(network.named_parameters())
    expected = torch.autograd.grad(mean, [parameters[f"{name}.weight"] for name in found])
    for name, gradient in zip(found, expected, strict=True):
        weight = parameters[f"{name}.weight"]
        assert found[name].gradient == pytest.approx(gradient.square().mean().sqrt().item(), rel=1e-4)
        assert found[name].relative == pytest.approx((gradient.norm() / weight.norm()).item(), rel=1e-4)
    assert not any(name.startswith("heads") for name in found)
    assert next(iter(found)) == "encoder.0.units.0.0"
    assert (
        list(found).index("bottleneck.units.1.0") < list(found).index("up.1") < list(found).index("decoder.0.units.1.0")
    )
    assert all(parameter.grad is None for parameter in network.parameters())


def test_activation_gradient_is_that_of_the_units_map():
    network, (batch,) = UNet(NetworkSettings(depth=1, width=4), 2, 1, 2), draw(count=1)
    found = {each.name: each for each in layer_gradients(network, ce, [batch])}
    kept = []
    unit = network.encoder[0].units[1]
    hook = unit.register_forward_hook(lambda module, inputs, output: output.retain_grad() or kept.append(output))
    ce(network, *batch).backward()
    hook.remove()
    expected = kept[0].grad.square().mean().sqrt().item()
    assert found["encoder.0.units.1.0"].activation == pytest.approx(expected, rel=1e-4)


def test_batch_normalisation_uses_the_batch_and_learns_nothing():
    network = UNet(NetworkSettings(depth=1, width=4, norm="batch"), 2, 1, 2)
    (images, labels), modes = draw(count=1)[0], [module.training for module in network.modules()]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = layer_gradients(network.eval().train(), ce, [(3 * images + 5, labels)])
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert [module.training for module in network.modules()] == modes
    ce(network, 3 * images + 5, labels).backward()  # in training mode
    trained = network.encoder[0].units[0][0].weight.grad
    assert found[0].gradient == pytest.approx(trained.square().mean().sqrt().item(), rel=1e-4)


def test_layer_without_gradient_counts_as_the_smallest_number():
    assert vanishing_index([0.0, 1.0]) == pytest.approx(math.log10(2.0**-149))
    assert math.isnan(slope([1.0]))


def test_block_is_the_mean_square_over_its_weights():
    layers = [
        LayerGradient("encoder.0.units.0.0", 1, 3.0, 0, 0),
        LayerGradient("encoder.0.units.1.0", 3, 1.0, 0, 0),
        LayerGradient("encoder.0.projections.0", 1, 99.0, 0, 0),
        LayerGradient("bottleneck.units.0.0", 1, 1e-5, 0, 0),
        LayerGradient("up.0", 1, 99.0, 0, 0),
        LayerGradient("decoder.0.units.0.0", 1, 1e-1, 0, 0),
    ]
    blocks = block_gradients(layers, depth=1)
    assert blocks == pytest.approx({"E0": math.sqrt((9 + 3) / 4), "B": 1e-5, "D0": 0.1})
    assert centre_starvation(blocks) == pytest.approx(-5 - (math.log10(math.sqrt(3)) - 1) / 2)


@pytest.mark.parametrize("long_skip", ["nested", "fullscale", "gated", "none"])
def test_every_kind_of_long_skip_has_all_blocks(long_skip):
    network = UNet(NetworkSettings(depth=2, width=4, long_skip=long_skip, norm="none"), 2, 1, 2)
    found = profile(network, ce, draw(), depth=2)
    assert list(found["blocks"]) == ["E0", "E1", "B", "D1", "D0"]
    assert all(value > 0 for value in found["blocks"].values())


@pytest.mark.parametrize(("short", "low", "high"), [("none", -1.2, -0.6), ("add", -0.15, 0.15), ("dense", -0.15, 0.15)])
def test_sigmoid_vanishes_and_short_skips_rescue(short, low, high):
    chain = Chain(8, 16, 1, 2, short=short, activation="sigmoid", init="torch")
    layers = [each.gradient for each in layer_gradients(chain, ce, draw()) if each.name.startswith("block.units")]
    assert low < slope(layers) < high
    assert vanishing_index(layers) == pytest.approx(slope(layers) * 7, abs=1.5)


def test_long_skips_alone_starve_the_centre():
    def measure(long_skip, short_skip):
        settings = NetworkSettings(
            depth=3,
            width=8,
            long_skip=long_skip,
            short_skip=short_skip,
            activation="sigmoid",
            norm="none",
            init="torch",
        )
        return profile(UNet(settings, 2, 1, 2), ce, draw(size=32), depth=3)

    long_only, both, neither = measure("concat", "none"), measure("concat", "add"), measure("none", "none")
    assert long_only["C"] < both["C"] - 1
    assert neither["V"] < long_only["V"] - 5  # C alone would not tell:
    assert neither["C"] > long_only["C"]


def test_probe_compares_start_and_end(context):
    result = gradients.probe(context)
    start, now = result.values["at the start"], result.values["after training"]
    expected = profile(context.initial(), context.loss, context.batches, depth=2)
    assert start["V"] == expected["V"] != now["V"]
    assert start["C"] == expected["C"]
    assert len(result.figures) == 3
    assert result.figures[0].ticks == ["E0", "E1", "B", "D1", "D0"]
    assert f"V = {now['V']:.2f} and C = {now['C']:.2f}" in result.note

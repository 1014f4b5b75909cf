"""Frozen fraction: a step that float32 cannot see, for SGD and AdamW."""

import math

import pytest
import torch
from torch import nn

from segmentation.model.chain import Chain
from segmentation.probes import frozen
from segmentation.probes.frozen import frozen_layers
from segmentation.training.losses import cross_entropy

BATCH = [(torch.ones(1, 1), torch.zeros(1))]


def layer_with_gradient(gradient, weight=0.1):
    """A layer of one weight whose loss has exactly this gradient, and its loss."""
    network = nn.Sequential(nn.Linear(1, 1, bias=False))
    nn.init.constant_(network[0].weight, weight)
    return network, lambda net, x, _: gradient * net(x).sum()


@pytest.mark.parametrize(
    ("gradient", "frozen"),
    [(1e-15, 1.0), (1e-6, 1.0), (1e-3, 0.0)],  # 1e-4 * g against half the distance of floats near 0.1, 3.7e-9
)
def test_sgd_moves_a_weight_only_beyond_its_rounding(gradient, frozen):
    network, loss = layer_with_gradient(gradient)
    (found,) = frozen_layers(network, loss, BATCH, "sgd", 1e-4)
    assert found.frozen == frozen
    assert found.log10_mean_step == pytest.approx(math.log10(1e-4 * gradient), abs=1e-5)
    assert network[0].weight.item() == torch.tensor(0.1).item()


@pytest.mark.parametrize(("gradient", "frozen", "below"), [(1e-6, 0.0, 0.0), (1e-10, 0.0, 1.0), (1e-15, 1.0, 1.0)])
def test_adamw_hides_vanishing_until_its_eps(gradient, frozen, below):
    network, loss = layer_with_gradient(gradient)
    (found,) = frozen_layers(network, loss, BATCH, "adamw", 1e-4)
    # The first step is rate * g / (|g| + 1e-8): 1e-4, 1e-6 and 1e-11.
    assert (found.frozen, found.below_eps) == (frozen, below)


def test_a_weight_without_gradient_is_frozen_though_weights_decay():
    network, loss = layer_with_gradient(0.0, weight=3.0)
    for optimizer in ("sgd", "adamw"):
        assert frozen_layers(network, loss, BATCH, optimizer, 1e-2)[0].frozen == 1.0


def test_fraction_counts_single_weights():
    network = nn.Sequential(nn.Linear(4, 1, bias=False))
    scale = torch.tensor([[1.0, 1e-12, 1.0, 0.0]])
    (found,) = frozen_layers(network, lambda net, x, _: net(x).sum(), [(scale, None)], "sgd", 0.1)
    assert found.frozen == 0.5


def test_deep_sigmoid_chain_is_frozen_at_its_first_layer_and_rescued_by_short_skips():
    generator = torch.Generator().manual_seed(0)
    batch = torch.randn(2, 1, 12, 12, generator=generator), torch.randint(0, 2, (2, 12, 12), generator=generator)

    def first(short):
        chain = Chain(16, 8, 1, 2, short=short, activation="sigmoid", init="torch")
        return frozen_layers(chain, lambda net, x, y: cross_entropy(net(x), y), [batch], "sgd", 1e-4)[1]

    assert first("none").frozen > 0.99
    assert first("none").log10_mean_step < -15
    assert first("add").frozen < 0.9


def test_probe_names_layers_optimisers_and_eps(context):
    before = {name: value.clone() for name, value in context.network.state_dict().items()}
    result = frozen.probe(context)
    assert all(torch.equal(value, before[name]) for name, value in context.network.state_dict().items())
    expected = frozen_layers(context.network, context.loss, context.batches, "adamw", 2e-3)
    found = result.values["adamw, after training"]
    assert [layer["frozen"] for layer in found] == [layer.frozen for layer in expected]
    assert (result.values["adam_eps"], result.values["learning_rate"]) == (1e-8, 2e-3)
    assert [series.name for series in result.figures[0].series] == [
        "sgd, at the start", "adamw, at the start", "sgd, after training", "adamw, after training",
    ]  # fmt: skip

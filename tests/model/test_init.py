import math

import pytest
import torch
from torch import nn

from segmentation.model.init import fans, init_parameters, named_generator

SIGMA = 4  # standard errors that an estimate may lie off


@pytest.fixture
def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(32, 64, 3), nn.ConvTranspose2d(64, 32, 2, 2), nn.Conv2d(32, 32, (3, 1)))


FANS = [(32 * 9, 64 * 9), (64, 32 * 4), (32 * 3, 32 * 3)]


def test_fans_count_what_meets_in_a_voxel_and_what_a_voxel_reaches(network):
    for layer, expected in zip(network, FANS, strict=True):
        assert fans(layer.weight, layer.transposed) == expected
        # Count by ones: a voxel of ones through weights of ones, forwards and backwards.
        nn.init.ones_(layer.weight)
        nn.init.zeros_(layer.bias)
        x = torch.ones(1, layer.in_channels, 9, 9, requires_grad=True)
        y = layer(x)
        y.sum().backward()
        assert (y[0, 0, 4, 4].item(), x.grad[0, 0, 4, 4].item()) == expected


def check_variance(weight: torch.Tensor, variance: float, kurtosis: float) -> None:
    error = variance * math.sqrt((kurtosis - 1) / weight.numel())
    assert abs(weight.var().item() - variance) < SIGMA * error
    assert abs(weight.mean().item()) < SIGMA * math.sqrt(variance / weight.numel())


@pytest.mark.parametrize(
    ("activation", "gain2"),
    [("relu", 2), ("sigmoid", 1), ("tanh", 25 / 9), ("leaky_relu", 2), ("prelu", 32 / 17), ("identity", 1)],
)
def test_he_keeps_the_variance_forwards(network, activation, gain2):
    init_parameters(network, "he", activation, seed=1)
    for layer, (fan_in, _) in zip(network, FANS, strict=True):
        check_variance(layer.weight, gain2 / fan_in, kurtosis=3)
        assert not layer.bias.any()


def test_xavier_lies_between_forwards_and_backwards(network):
    init_parameters(network, "xavier", "relu", seed=1)
    for layer, both in zip(network, FANS, strict=True):
        check_variance(layer.weight, 2 / sum(both), kurtosis=3)


def test_torch_is_what_a_fresh_layer_of_pytorch_has(network):
    fresh = [(layer.weight.detach().clone(), layer.bias.detach().clone()) for layer in network]
    init_parameters(network, "torch", "relu", seed=1)
    for layer, (weight, bias) in zip(network, fresh, strict=True):
        bound = weight.abs().max().item()
        assert layer.weight.abs().max().item() == pytest.approx(bound, rel=0.02)
        check_variance(layer.weight, bound**2 / 3, kurtosis=1.8)
        assert layer.bias.any()
        assert layer.bias.abs().max().item() == pytest.approx(bias.abs().max().item(), rel=0.3)
        assert layer.bias.abs().max().item() <= bound * 1.01


def test_orthogonal_rows_are_orthogonal(network):
    init_parameters(network, "orthogonal", "relu", seed=1)
    for layer in network:
        rows = layer.weight.detach().flatten(1)
        rows = rows if len(rows) <= rows.shape[1] else rows.T
        assert torch.allclose(rows @ rows.T, 2 * torch.eye(len(rows)), atol=1e-4)


@pytest.mark.parametrize("init", ["he", "xavier", "orthogonal", "torch"])
def test_draws_depend_on_name_and_seed_alone(network, init):
    other = nn.Sequential(nn.Conv2d(3, 5, 3), *list(network)[1:2])
    torch.manual_seed(9)
    init_parameters(network, init, "relu", seed=4)
    drawn = [layer.weight.detach().clone() for layer in network]
    torch.manual_seed(10)
    state = torch.get_rng_state()
    init_parameters(other, init, "relu", seed=4)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(other[1].weight, drawn[1])
    init_parameters(network, init, "relu", seed=5)
    assert not any(torch.equal(layer.weight, before) for layer, before in zip(network, drawn, strict=True))


def test_generators_of_two_names_differ():
    first, again, second, other = (
        torch.rand(4, generator=named_generator(name, seed)) for name, seed in (("a", 0), ("a", 0), ("b", 0), ("a", 1))
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert not torch.equal(first, other)


def test_normalisations_start_as_the_identity():
    norm = nn.BatchNorm2d(4)
    init_parameters(nn.Sequential(nn.Conv2d(1, 4, 3), norm), "he", "relu", seed=0)
    assert norm.weight.unique().item() == 1
    assert norm.bias.unique().item() == 0


@pytest.mark.parametrize("init", ["he", "xavier", "orthogonal", "torch"])
def test_a_factor_scales_the_weights_and_not_the_biases(network, init):
    init_parameters(network, init, "relu", seed=2)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    init_parameters(network, init, "relu", seed=2, factor=0.5)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name] * (0.5 if name.endswith("weight") else 1))

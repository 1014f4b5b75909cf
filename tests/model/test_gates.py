import math

import pytest
import torch
from torch import nn

from segmentation.config import NetworkSettings
from segmentation.model.gates import AttentionGate, HighwayGate, ResPath, ScalarGate, SqueezeExcitation
from segmentation.model.unet import count_parameters


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def fill(conv: nn.Module, weight: list, bias: list) -> None:
    with torch.no_grad():
        conv.weight.copy_(torch.tensor(weight).reshape(conv.weight.shape))
        conv.bias.copy_(torch.tensor(bias))


def test_attention_of_one_voxel_by_hand():
    gate = AttentionGate(2, 4)
    fill(gate.from_decoder, [1.0, 0, 0, 0, 0, 1, 0, 0], [0.5, 0.0])
    fill(gate.from_encoder, [0.0, 0, 2, 0, 0, 0, 0, -3], [0.0, 0.25])
    fill(gate.psi, [0.7, -0.4], [0.1])
    u = torch.tensor([0.3, -0.2, 9, 9]).reshape(1, 4, 1, 1)
    s = torch.tensor([9, 9, 0.6, -0.5]).reshape(1, 4, 1, 1)
    first, second = 0.3 + 0.5 + 2 * 0.6, -0.2 + 3 * 0.5 + 0.25  # both above 0, so the relu keeps them
    share = sigmoid(0.7 * first - 0.4 * second + 0.1)
    assert gate.attention(u, s).item() == pytest.approx(share, rel=1e-6)
    assert torch.allclose(gate(u, s), share * s)
    # A negative sum is cut off by the relu.
    assert gate.attention(u - 9, s).item() == pytest.approx(sigmoid(0.1), rel=1e-6)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("channels", [1, 2, 7, 16])
def test_attention_has_half_the_channels_inside_and_one_share_a_voxel(channels, dims):
    gate = AttentionGate(dims, channels)
    inner = max(1, channels // 2)
    assert count_parameters(gate) == 2 * (channels * inner + inner) + inner + 1
    u, s = torch.randn(2, 2, channels, *(5, 4, 3)[:dims])
    assert gate.attention(u, s).shape == (2, 1, *(5, 4, 3)[:dims])
    assert gate(u, s).shape == s.shape


def test_a_scalar_gate_starts_at_one_and_stays_above_zero():
    gate = ScalarGate()
    s = torch.randn(1, 3, 4, 5)
    assert torch.allclose(gate(torch.zeros_like(s), s), s)
    with torch.no_grad():
        gate.weight.fill_(-2.0)
    assert torch.allclose(gate(s, s), s * math.log1p(math.exp(-2)))


def test_squeeze_and_excitation_by_hand():
    gate = SqueezeExcitation(2, 2)
    fill(gate.squeeze, [0.5, -1.0] + 6 * [0.0], [0.2, 0.0, 0.0, 0.0])
    fill(gate.excite, [2.0, 9.0, 9.0, 9.0, -3.0, 9.0, 9.0, 9.0], [0.0, 0.4])
    s = torch.tensor([[1.0, 3.0], [-0.4, 0.2]]).reshape(1, 2, 1, 2)
    hidden = 0.5 * 2 - 1.0 * -0.1 + 0.2
    expected = s * torch.tensor([sigmoid(2 * hidden), sigmoid(-3 * hidden + 0.4)]).reshape(1, 2, 1, 1)
    assert torch.allclose(gate(s, s), expected)
    assert gate.squeeze.out_channels == 4  # three of them zero here
    assert count_parameters(SqueezeExcitation(3, 64)) == 64 * 4 + 4 + 4 * 64 + 64


def test_a_respath_is_a_chain_of_units_with_shortcuts():
    settings = NetworkSettings(norm="none", activation="tanh")
    path = ResPath(settings, 2, 3, (3, 1), length=2)
    s = torch.randn(1, 3, 5, 4)
    expected = s
    for unit, shortcut in zip(path.units, path.shortcuts, strict=True):
        plain = nn.functional.conv2d(expected, unit[0].weight, unit[0].bias, padding=(1, 0))
        expected = torch.tanh(torch.tanh(plain) + shortcut(expected))
    assert torch.allclose(path(s, s), expected, atol=1e-6)
    assert count_parameters(path) == 2 * (3 * 3 * 3 + 3 + 3 * 3 + 3)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_highway_carries_at_first(dims):
    gate = HighwayGate(dims, 4)
    x = torch.randn(2, 4, *(3, 5, 2)[:dims])
    assert torch.allclose(gate(x), torch.sigmoid(gate.conv(x) - 1), atol=1e-6)
    with torch.no_grad():
        gate.conv.weight.zero_()
        gate.bias[2] = 0.5
    expected = [sigmoid(b) for b in (-1, -1, 0.5, -1)]
    assert gate(x)[0].flatten(1)[:, 0].tolist() == pytest.approx(expected)
    assert count_parameters(gate) == 4 * 4 + 4

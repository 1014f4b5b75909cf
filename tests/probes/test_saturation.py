"""Saturation: against derivatives known in closed form."""

import math

import pytest
import torch
from torch import nn

from segmentation import SkipSegError
from segmentation.config import NetworkSettings
from segmentation.model.unet import UNet
from segmentation.probes import saturation as module
from segmentation.probes.saturation import ACTIVATIONS, derivative, largest_derivative, saturation


class Identity(nn.Sequential):
    """Gives ``activation`` the images themselves."""

    def __init__(self, activation):
        super().__init__(activation)


def measure(activation, values):
    """Saturation of an activation that is given ``values``, one row a channel."""
    z = torch.tensor(values, dtype=torch.float32)[None]
    (found,) = saturation(Identity(activation), [(z, torch.zeros(1))])
    return found


@pytest.mark.parametrize(
    ("activation", "largest"),
    [
        (nn.Sigmoid(), 0.25),
        (nn.Tanh(), 1.0),
        (nn.ReLU(), 1.0),
        (nn.ReLU(inplace=True), 1.0),
        (nn.LeakyReLU(0.01), 1.0),
        (nn.PReLU(3), 1.0),
        (nn.ELU(), 1.0),
        (nn.SiLU(), 1.0998),
        (nn.GELU(), 1.1289),
    ],
)
def test_largest_derivative(activation, largest):
    assert largest_derivative(activation) == pytest.approx(largest, abs=1e-4)
    assert isinstance(activation, ACTIVATIONS)


def test_derivative_of_tanh():
    z = torch.linspace(-3, 3, 7)[None]
    assert torch.allclose(derivative(nn.Tanh(), z), 1 - z.tanh() ** 2, atol=1e-6)


def test_saturation_begins_where_the_derivative_is_a_hundredth_of_its_largest():
    edge = math.atanh(math.sqrt(0.99))  # tanh' = 0.01; sigmoid'(2z) = tanh'(z) / 4
    assert measure(nn.Tanh(), [[edge - 0.01, edge + 0.01, -edge - 0.01, 0.0]]).saturated == 0.5
    assert measure(nn.Sigmoid(), [[2 * edge - 0.01, 2 * edge + 0.01, -2 * edge - 0.01, 0.0]]).saturated == 0.5


def test_relu_is_saturated_where_it_is_zero_and_dead_where_it_is_never_positive():
    found = measure(nn.ReLU(inplace=True), [[-1.0, -2.0], [-1.0, 2.0], [1.0, 2.0], [-3.0, -0.1]])
    assert (found.saturated, found.dead, found.kind) == (5 / 8, 0.5, "ReLU")


def test_leaky_relu_never_saturates():
    found = measure(nn.LeakyReLU(0.01), [[-1.0, -2.0]])
    assert (found.saturated, found.dead) == (0.0, 0.0)


def test_one_batch_in_which_a_channel_lives_is_enough():
    network = Identity(nn.ReLU())
    dead, alive = torch.tensor([[[-1.0]]]), torch.tensor([[[1.0]]])
    assert [each.dead for each in saturation(network, [(dead, dead), (alive, alive)])] == [0.0]
    assert [each.saturated for each in saturation(network, [(dead, dead), (alive, alive)])] == [0.5]


def test_network_is_left_as_it_is_and_read_in_order():
    network = UNet(NetworkSettings(depth=1, width=4, norm="batch", activation="relu"), 2, 1, 2)
    images = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = saturation(network, [(images, torch.zeros(2, 8, 8))])
    assert [each.name.split(".")[0] for each in found] == ["encoder"] * 2 + ["bottleneck"] * 2 + ["decoder"] * 2
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    with torch.no_grad():
        conv, norm, _ = network.train().encoder[0].units[0]
        z = nn.functional.relu(norm(conv(images)))
    assert found[0].saturated == pytest.approx((z == 0).double().mean().item())


def test_probe_measures_start_and_end(context):
    result = module.probe(context)
    assert [each["kind"] for each in result.values["after training"]] == ["LeakyReLU"] * 10
    assert [figure.y_label for figure in result.figures] == ["share of activations", "share of channels"]


def test_network_without_non_linearity_is_refused(context, monkeypatch):
    monkeypatch.setattr(module, "ACTIVATIONS", ())
    with pytest.raises(SkipSegError, match="has no non-linearity"):
        module.probe(context)

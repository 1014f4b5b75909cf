"""Maps whose channels lie last: the same numbers, in another order in memory."""

import copy

import pytest
import torch
from torch import Tensor, nn

from segmentation.config import NetworkSettings
from segmentation.model.channels_last import FORMAT, channels_last, instance_norm, is_channels_last
from segmentation.model.unet import UNet
from segmentation.model.units import InstanceNorm
from segmentation.training.losses import build_loss, network_loss

SIZES = {2: (19, 14), 3: (9, 12, 7)}


def plain_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return nn.functional.instance_norm(x, weight=weight, bias=bias)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dims", [2, 3])
def test_a_copy_has_the_same_values_and_its_channels_last(dims, channels):
    x = torch.randn(2, channels, *SIZES[dims])
    y = channels_last(x)
    assert torch.equal(x, y)
    assert y.stride(1) == 1
    assert y.stride(-1) == channels
    assert is_channels_last(y) == (channels > 1)
    assert not is_channels_last(x)


@pytest.mark.parametrize("offset", [0.0, 30.0])
@pytest.mark.parametrize("dims", [2, 3])
def test_norm_and_its_gradients_are_those_of_pytorch_in_float64(dims, offset):
    given = [torch.randn(3, 4, *SIZES[dims]) + offset, torch.rand(4) - 0.5, torch.randn(4)]
    gradient = torch.randn(3, 4, *SIZES[dims])
    inputs = [channels_last(given[0]), given[1].clone(), given[2].clone()]
    exact = [each.double() for each in given]
    for each in (*inputs, *exact):
        each.requires_grad_()
    ours, theirs = instance_norm(*inputs), plain_norm(*exact)
    assert is_channels_last(ours)
    torch.testing.assert_close(ours.double(), theirs, atol=1e-5, rtol=0)
    found = torch.autograd.grad(ours, inputs, gradient)
    for mine, other in zip(found, torch.autograd.grad(theirs, exact, gradient.double()), strict=True):
        torch.testing.assert_close(mine.double(), other, atol=1e-5, rtol=1e-4)


def test_a_constant_map_becomes_the_shift():
    x = channels_last(torch.full((2, 3, 8, 9), 1000.0))
    y = instance_norm(x, torch.ones(3), torch.tensor([0.0, 1.0, 2.0]))
    assert torch.equal(y, torch.arange(3.0).view(1, 3, 1, 1).expand(2, 3, 8, 9))


def test_the_layer_takes_either_layout_and_leaves_its_input():
    layer = InstanceNorm(3)
    x = torch.randn(2, 3, 8, 9)
    last = channels_last(x)
    torch.testing.assert_close(layer(last), layer(x), atol=1e-5, rtol=0)
    assert torch.equal(last, x)


def test_second_derivatives_are_refused_rather_than_wrong():
    x = channels_last(torch.randn(2, 3, 8, 9)).requires_grad_()
    with pytest.raises(RuntimeError, match="no second derivatives"):
        torch.autograd.grad(instance_norm(x, torch.ones(3), torch.zeros(3)).square().sum(), x, create_graph=True)


@pytest.mark.parametrize("downsample", ["maxpool", "avgpool", "stride", "first_conv"])
@pytest.mark.parametrize("upsample", ["transpose", "linear"])
@pytest.mark.parametrize("dims", [2, 3])
def test_loss_and_gradients_do_not_depend_on_the_layout(dims, upsample, downsample):
    settings = NetworkSettings(depth=2, width=4, upsample=upsample, downsample=downsample, deep_supervision=True)
    network = UNet(settings, dims, in_channels=1, classes=3)
    other = copy.deepcopy(network).to(memory_format=FORMAT[dims])
    images, labels = torch.randn(2, 1, *SIZES[dims]), torch.randint(0, 3, (2, *SIZES[dims]))
    losses = [
        network_loss(net, build_loss("dice_ce"), x, labels)
        for net, x in ((network, images), (other, channels_last(images)))
    ]
    torch.testing.assert_close(losses[1], losses[0], atol=1e-6, rtol=1e-6)
    first, last = (
        torch.autograd.grad(loss, list(net.parameters())) for loss, net in zip(losses, (network, other), strict=True)
    )
    for a, b in zip(first, last, strict=True):
        torch.testing.assert_close(b, a, atol=1e-5, rtol=1e-3)


def test_every_map_of_a_training_network_keeps_the_layout():
    network = UNet(NetworkSettings(depth=2, width=4, downsample="first_conv"), 3, in_channels=1, classes=2)
    seen: list[bool] = []
    for layer in network.modules():
        if isinstance(layer, InstanceNorm):
            layer.register_forward_hook(
                lambda _, given, result: seen.append(is_channels_last(given[0]) and is_channels_last(result))
            )
    network(channels_last(torch.randn(2, 1, 8, 9, 10)))
    assert len(seen) == 10
    assert all(seen)

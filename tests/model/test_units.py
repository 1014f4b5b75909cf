import math
from dataclasses import replace
from typing import get_args

import pytest
import torch
from torch import nn

from segmentation.config import Activation, NetworkSettings, Norm
from segmentation.model.units import ConvUnit, InstanceNorm, activation_layer, norm_layer

PLAIN = NetworkSettings(depth=1, width=8, activation="relu")
FUNCTIONS = {"prelu": lambda x: torch.where(x > 0, x, x / 4), "identity": lambda x: x}


def normalised(x: torch.Tensor, norm: str) -> torch.Tensor:
    match norm:
        case "batch":
            return nn.functional.batch_norm(x, None, None, training=True)
        case "instance":
            return nn.functional.instance_norm(x)
        case "group":  # 8 channels or fewer: one group
            return nn.functional.group_norm(x, 1)
        case "layer":
            return nn.functional.layer_norm(x, x.shape[1:])
    return x


def activated(x: torch.Tensor, activation: str) -> torch.Tensor:
    function = FUNCTIONS.get(activation) or getattr(torch, activation, None) or getattr(nn.functional, activation)
    return function(x)


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_a_unit_rounds_the_size_up(size, stride, kernel):
    unit = ConvUnit(PLAIN, 2, 2, 4, (kernel, 3), (stride, 1))
    assert unit(torch.randn(1, 2, size, 7)).shape == (1, 4, math.ceil(size / stride), 7)


@pytest.mark.parametrize("activation", get_args(Activation))
@pytest.mark.parametrize("norm", get_args(Norm))
def test_every_activation_and_norm_is_what_its_name_says(norm, activation):
    unit = ConvUnit(replace(PLAIN, norm=norm, activation=activation), 2, 3, 8, (3, 3))
    x = torch.randn(2, 3, 9, 7)
    assert torch.allclose(unit(x), activated(normalised(unit[0](x), norm), activation), atol=1e-5)
    assert unit.conv is unit[0]
    assert (unit.conv.bias is None) == (norm != "none")


@pytest.mark.parametrize("activation", get_args(Activation))
@pytest.mark.parametrize("norm", get_args(Norm))
def test_a_preactivation_unit_ends_in_its_convolution_and_leaves_its_input(norm, activation):
    unit = ConvUnit(replace(PLAIN, norm=norm, activation=activation, order="norm-act-conv"), 2, 3, 8, (3, 3))
    x = torch.randn(2, 3, 9, 7)
    before = x.clone()
    y = unit(x)
    assert torch.equal(x, before)
    assert torch.allclose(y, unit[2](activated(normalised(x, norm), activation)), atol=1e-5)
    assert unit.conv is unit[2]


@pytest.mark.parametrize("order", ["conv-norm-act", "norm-act-conv"])
@pytest.mark.parametrize("norm", get_args(Norm))
def test_a_unit_that_starts_at_zero_gives_zero_and_can_leave_it(norm, order):
    unit = ConvUnit(replace(PLAIN, norm=norm, activation="elu", order=order), 2, 3, 8, (3, 3))
    unit.start_at_zero()
    y = unit(torch.randn(2, 3, 9, 7))
    assert not y.any()
    (y * torch.randn_like(y)).sum().backward()
    moved = [p for p in unit.parameters() if p.grad is not None and p.grad.abs().sum() > 0]
    assert moved
    assert all(not p.any() for p in moved)
    assert max(p.grad.abs().max().item() for p in moved) < 100  # not divided by the epsilon of the normalisation


def test_groups_are_eight_channels_where_that_divides():
    assert [norm_layer("group", 2, n).num_groups for n in (8, 16, 20, 24)] == [1, 2, 1, 3]


@pytest.mark.parametrize("dims", [2, 3])
def test_instance_norm_is_pytorchs_and_takes_a_single_voxel(dims):
    ours = InstanceNorm(4)
    with torch.no_grad():
        ours.weight.uniform_()
        ours.bias.uniform_()
    theirs = (nn.InstanceNorm2d, nn.InstanceNorm3d)[dims - 2](4, affine=True)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 4, *(5, 7, 6)[:dims])
    assert torch.equal(ours(x), theirs(x))
    voxel = torch.randn(1, 4, *(1,) * dims)
    assert torch.allclose(ours(voxel).flatten(), ours.bias, atol=1e-4)


def test_an_activation_overwrites_its_input_only_where_told():
    x = torch.randn(3, 4)
    before = x.clone()
    activation_layer("relu")(x)
    assert torch.equal(x, before)
    activation_layer("relu", inplace=True)(x)
    assert torch.equal(x, before.relu())

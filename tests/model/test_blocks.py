import math
from dataclasses import replace
from typing import get_args

import pytest
import torch
from torch import nn

from segmentation.config import Activation, NetworkSettings, Norm
from segmentation.model.blocks import ConvBlock, InstanceNorm, conv_unit, norm_layer
from segmentation.model.init import init_parameters

PLAIN = NetworkSettings(depth=1, width=8, activation="relu")


def zero_last(block: ConvBlock) -> None:
    """Set the last convolution of each residual branch to zero."""
    last = [min((index + 1) * block.span, len(block.units)) - 1 for index in range(len(block.projections))]
    for index in last:
        nn.init.zeros_(block.units[index][0].weight)
        if block.units[index][0].bias is not None:
            nn.init.zeros_(block.units[index][0].bias)


@pytest.mark.parametrize("norm", get_args(Norm))
@pytest.mark.parametrize("convs", [1, 2, 3, 4])
@pytest.mark.parametrize("dims", [2, 3])
def test_a_residual_block_with_zero_last_weights_is_the_identity(dims, convs, norm):
    block = ConvBlock(replace(PLAIN, convs=convs, norm=norm), dims, 8, 8, (3,) * dims, "add")
    x = torch.randn(2, 8, *(5, 7, 6)[:dims])
    assert not torch.equal(block(x), x)
    zero_last(block)
    assert torch.equal(block(x), x)


def test_a_residual_block_that_changes_the_channels_becomes_its_projection():
    block = ConvBlock(PLAIN, 2, 3, 8, (3, 3), "add")
    zero_last(block)
    x = torch.randn(1, 3, 5, 7)
    assert torch.equal(block(x), block.projections[0](x))
    assert block.projections[0].kernel_size == (1, 1)


@pytest.mark.parametrize("short", ["none", "add"])
def test_short_skips_are_the_formula_over_the_same_units(short):
    block = ConvBlock(replace(PLAIN, convs=4), 2, 8, 8, (3, 3), short)
    x = torch.randn(1, 8, 9, 7)
    first, second, third, fourth = block.units
    half = second(first(x)) + (x if short == "add" else 0)
    whole = fourth(third(half)) + (half if short == "add" else 0)
    assert torch.allclose(block(x), whole, atol=1e-6)


def test_a_dense_block_stacks_every_earlier_map():
    block = ConvBlock(replace(PLAIN, convs=2), 2, 3, 8, (3, 3), "dense")
    x = torch.randn(1, 3, 9, 7)
    one = torch.cat((x, block.units[0](x)), dim=1)
    two = torch.cat((one, block.units[1](one)), dim=1)
    assert two.shape[1] == 3 + 4 + 4
    assert torch.equal(block(x), block.fuse(two))


@pytest.mark.parametrize("short", ["none", "add", "dense"])
@pytest.mark.parametrize("channels", [(3, 8), (8, 8), (5, 3)])
@pytest.mark.parametrize("kernel", [(3, 3, 1), (1, 3, 3), (3, 3, 3)])
def test_blocks_keep_the_size_and_give_the_channels(kernel, channels, short):
    block = ConvBlock(replace(PLAIN, convs=5, norm="instance"), 3, *channels, kernel, short)
    assert block(torch.randn(1, channels[0], 5, 3, 4)).shape == (1, channels[1], 5, 3, 4)


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_a_unit_rounds_the_size_up(size, stride, kernel):
    unit = conv_unit(PLAIN, 2, 2, 4, (kernel, 3), (stride, 1))
    assert unit(torch.randn(1, 2, size, 7)).shape == (1, 4, math.ceil(size / stride), 7)


@pytest.mark.parametrize("activation", get_args(Activation))
@pytest.mark.parametrize("norm", get_args(Norm))
def test_every_activation_and_norm_is_what_its_name_says(norm, activation):
    unit = conv_unit(replace(PLAIN, norm=norm, activation=activation), 2, 3, 8, (3, 3))
    x = torch.randn(2, 3, 9, 7)
    y = unit[0](x)
    match norm:
        case "batch":
            y = nn.functional.batch_norm(y, None, None, training=True)
        case "instance":
            y = nn.functional.instance_norm(y)
        case "group":
            y = nn.functional.group_norm(y, 1)
    function = getattr(torch, activation, None) or getattr(nn.functional, activation)
    assert torch.allclose(unit(x), function(y), atol=1e-5)
    assert (unit[0].bias is None) == (norm != "none")


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


def test_units_have_the_same_names_and_draws_in_a_plain_and_a_residual_block():
    plain, residual = (ConvBlock(PLAIN, 2, 8, 8, (3, 3), short) for short in ("none", "add"))
    for block in (plain, residual):
        init_parameters(block, "he", "relu", seed=3)
    assert plain.state_dict().keys() == residual.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), residual.parameters(), strict=True))

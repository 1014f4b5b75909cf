from dataclasses import replace
from typing import get_args

import pytest
import torch
from torch import nn

from segmentation.config import NetworkSettings, Norm, ShortSkip
from segmentation.model.blocks import ConvBlock, draw_weights
from segmentation.model.init import init_parameters

PLAIN = NetworkSettings(depth=1, width=8, activation="elu")
SHORT = get_args(ShortSkip)


@pytest.mark.parametrize("norm", get_args(Norm))
@pytest.mark.parametrize("convs", [1, 2, 3, 4])
@pytest.mark.parametrize(("order", "block"), [("conv-norm-act", "basic"), ("norm-act-conv", "bottleneck")])
@pytest.mark.parametrize("short", ["add", "scaled_add"])
def test_a_residual_block_that_starts_at_zero_is_the_identity(short, order, block, convs, norm):
    settings = replace(PLAIN, convs=convs, norm=norm, order=order, block=block)
    block = ConvBlock(settings, 2, 8, 8, (3, 3), short)
    x = torch.randn(2, 8, 5, 7)
    assert not torch.equal(block(x), x)
    draw_weights(block, replace(settings, zero_last=True), seed=0)
    assert torch.equal(block(x), x)


@pytest.mark.parametrize("short", ["none", "gated_add", "dense"])
def test_starting_at_zero_leaves_other_short_skips_alone(short):
    block = ConvBlock(PLAIN, 2, 8, 8, (3, 3), short)
    before = [parameter.clone() for parameter in block.parameters()]
    block.start_as_identity()
    assert all(torch.equal(a, b) for a, b in zip(before, block.parameters(), strict=True))


@pytest.mark.parametrize("activation", ["leaky_relu", "prelu", "elu", "gelu", "silu", "tanh", "identity"])
def test_a_block_that_starts_at_zero_learns(activation):
    settings = replace(PLAIN, activation=activation, zero_last=True)
    block = ConvBlock(settings, 2, 8, 8, (3, 3), "add")
    draw_weights(block, settings, seed=0)
    x, target = torch.randn(2, 8, 5, 7), torch.randn(2, 8, 5, 7)
    losses = []
    for _ in range(40):
        loss = (block(x) - x - target).square().mean()
        block.zero_grad()
        loss.backward()
        losses.append(loss.item())
        with torch.no_grad():
            for parameter in block.parameters():
                parameter -= 0.02 * parameter.grad.sign()
    assert losses[0] == pytest.approx(target.square().mean().item())
    assert losses[-1] < 0.8 * losses[0]


def test_a_residual_block_that_changes_the_channels_becomes_its_projection():
    block = ConvBlock(PLAIN, 2, 3, 8, (3, 3), "add")
    block.start_as_identity()
    x = torch.randn(1, 3, 5, 7)
    assert torch.equal(block(x), block.projections[0](x))
    assert block.projections[0].kernel_size == (1, 1)


@pytest.mark.parametrize("every", [1, 2, 3, 5])
@pytest.mark.parametrize("short", ["none", "add", "scaled_add", "gated_add"])
def test_short_skips_are_the_formula_over_the_same_units(short, every):
    settings = replace(PLAIN, convs=4, short_skip_every=every, short_skip_scale=0.3)
    block = ConvBlock(settings, 2, 8, 8, (3, 3), short)
    x = y = torch.randn(1, 8, 9, 7)
    spans = {1: (1, 1, 1, 1), 2: (2, 2), 3: (3, 1), 5: (4,)}[every] if short != "none" else (1, 1, 1, 1)
    units = list(block.units)
    for span, join in zip(spans, block.joins, strict=True):
        branch = y
        for unit in units[:span]:
            branch = unit(branch)
        del units[:span]
        if short == "gated_add":
            gate = join.gate(y)
            y = gate * branch + (1 - gate) * y
        else:
            y = {"none": branch, "add": y + branch, "scaled_add": y + 0.3 * branch}[short]
    assert torch.allclose(block(x), y, atol=1e-5)


def test_a_dense_block_stacks_every_earlier_map():
    block = ConvBlock(replace(PLAIN, convs=2), 2, 3, 8, (3, 3), "dense")
    x = torch.randn(1, 3, 9, 7)
    one = torch.cat((x, block.units[0](x)), dim=1)
    two = torch.cat((one, block.units[1](one)), dim=1)
    assert two.shape[1] == 3 + 4 + 4
    assert torch.equal(block(x), block.fuse(two))


@pytest.mark.parametrize("short", SHORT)
def test_a_bottleneck_branch_is_narrow_inside(short):
    block = ConvBlock(replace(PLAIN, block="bottleneck", convs=2), 2, 8, 32, (3, 5), short)
    convs = [(unit.conv.in_channels, unit.conv.out_channels, unit.conv.kernel_size) for unit in block.units]
    one, wide = (1, 1), (3, 5)
    if short == "dense":
        assert convs[:3] == [(8, 4, one), (4, 4, wide), (4, 16, one)]
        assert convs[3:] == [(24, 4, one), (4, 4, wide), (4, 16, one)]
    else:
        assert convs[:3] == [(8, 8, one), (8, 8, wide), (8, 32, one)]
        assert convs[3:] == [(32, 8, one), (8, 8, wide), (8, 32, one)]
    assert len(block.joins) == 2
    x = torch.randn(1, 8, 9, 7)
    first = block.units[2](block.units[1](block.units[0](x)))
    stream = block.joins[0](block.projections[0](x), first)
    second = block.units[5](block.units[4](block.units[3](stream)))
    assert torch.equal(block(x), block.fuse(block.joins[1](stream, second)))


@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
@pytest.mark.parametrize("short", SHORT)
@pytest.mark.parametrize("channels", [(3, 8), (8, 8), (5, 3)])
@pytest.mark.parametrize("kernel", [(3, 3, 1), (1, 3, 5)])
@pytest.mark.parametrize("stride", [None, (1, 2, 2)])
def test_blocks_round_the_size_up_and_give_the_channels(stride, kernel, channels, short, kind):
    block = ConvBlock(replace(PLAIN, convs=5, block=kind), 3, *channels, kernel, short, convs=3, stride=stride)
    size = (5, 2, 2) if stride else (5, 3, 4)
    assert block(torch.randn(1, channels[0], 5, 3, 4)).shape == (1, channels[1], *size)
    assert len(block.units) == 3 * (3 if kind == "bottleneck" else 1)


@pytest.mark.parametrize("short", ["add", "gated_add", "dense"])
def test_a_strided_block_carries_what_it_skips_to_the_new_size(short):
    block = ConvBlock(PLAIN, 2, 8, 8, (3, 3), short, stride=(2, 2))
    x = torch.randn(1, 8, 5, 7)
    carried = block.projections[0](x)
    assert carried.shape == (1, 8, 3, 4)
    if short == "dense":
        assert torch.allclose(carried[..., 0, 0], x[..., :2, :2].mean((2, 3)), atol=1e-6)
        assert torch.allclose(carried[..., 2, 3], x[..., 4, 6], atol=1e-6)  # the part of a window that is inside
    else:
        weight, bias = block.projections[0].weight, block.projections[0].bias
        assert torch.allclose(carried, nn.functional.conv2d(x[..., ::2, ::2], weight, bias), atol=1e-6)


@pytest.mark.parametrize("other", SHORT)
def test_units_have_the_same_names_and_draws_whatever_the_short_skip(other):
    plain, changed = (ConvBlock(PLAIN, 2, 8, 8, (3, 3), short) for short in ("none", other))
    for block in (plain, changed):
        init_parameters(block, "he", "relu", seed=3)
    ours, theirs = plain.state_dict(), changed.state_dict()
    assert ours.keys() <= theirs.keys()
    shared = [name for name in ours if ours[name].shape == theirs[name].shape]
    assert len(shared) == len(ours) or other == "dense"
    assert all(torch.equal(ours[name], theirs[name]) for name in shared)

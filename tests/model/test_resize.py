import itertools
import math
from typing import get_args, get_type_hints

import pytest
import torch
from torch import nn

from segmentation.config import NetworkSettings
from segmentation.model.resize import Decimate, Rescale, crop_to, down_layer, enlarge, up_layer, upsample

DOWN = get_args(get_type_hints(NetworkSettings)["downsample"])
UP = get_args(get_type_hints(NetworkSettings)["upsample"])


def settings(**changes) -> NetworkSettings:
    return NetworkSettings(norm="none", activation="identity", **changes)


def ramp(*size: int) -> torch.Tensor:
    """A map whose value is the position along its last axis."""
    return torch.arange(float(size[-1])).expand(1, 1, *size).contiguous()


def test_crop_keeps_the_near_end():
    x = torch.arange(12.0).reshape(1, 1, 3, 4)
    assert torch.equal(crop_to(x, (2, 3)), x[..., :2, :3])


def test_linear_enlarging_is_linear_between_centres_and_nearest_repeats():
    x = torch.tensor([0.0, 4.0, 8.0]).reshape(1, 1, 1, 3)
    assert enlarge(x, (1, 2), (1, 5), "linear").flatten().tolist() == [0, 1, 3, 5, 7]
    assert enlarge(x, (1, 2), (1, 5), "nearest").flatten().tolist() == [0, 0, 4, 4, 8]
    assert enlarge(x[..., None], (1, 2, 3), (1, 6, 2), "nearest")[0, 0, 0, :, 0].tolist() == [0, 0, 4, 4, 8, 8]


def test_decimating_keeps_every_second_voxel():
    x = torch.arange(35.0).reshape(1, 1, 5, 7)
    assert torch.equal(Decimate((2, 3))(x), x[..., ::2, ::3])


@pytest.mark.parametrize("how", [how for how in DOWN if how != "first_conv"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 8])
@pytest.mark.parametrize("stride", [(1, 2, 2), (2, 2, 3)])
def test_every_step_down_rounds_up(stride, size, how):
    y = down_layer(settings(downsample=how), 3, 2, (1, 3, 3), stride)(torch.randn(1, 2, 5, size, size))
    assert y.shape[2:] == tuple(math.ceil(n / s) for n, s in zip((5, size, size), stride, strict=True))


def test_steps_down_are_what_their_names_say():
    x = torch.randn(1, 1, 3, 5)
    corner = x[..., 2, 4]
    window = x[..., :2, :2].flatten()
    pooled = {how: down_layer(settings(downsample=how), 2, 1, (3, 3), (2, 2))(x) for how in DOWN}
    assert pooled["maxpool"][..., 0, 0] == window.max()
    assert torch.allclose(pooled["avgpool"][..., 0, 0], window.mean())
    assert pooled["decimate"][..., 0, 0] == x[..., 0, 0]
    assert torch.allclose(torch.stack([pooled[how][..., 1, 2] for how in ("maxpool", "avgpool", "decimate")]), corner)
    assert pooled["first_conv"] is x
    strided = down_layer(settings(downsample="stride"), 2, 1, (3, 3), (2, 2))
    assert strided.conv.stride == (2, 2)


@pytest.mark.parametrize("how", UP)
@pytest.mark.parametrize("dims", [2, 3])
def test_every_way_up_gives_the_channels_and_the_size(dims, how):
    stride, size = (2, 1, 2)[:dims], (5, 4, 3)[:dims]
    layer = up_layer(settings(upsample=how), dims, 6, 3, (3,) * dims, stride)
    coarse = torch.randn(2, 6, *(3, 4, 2)[:dims])
    assert upsample(layer, coarse, stride, size, how).shape == (2, 3, *size)


def test_ways_up_are_what_their_names_say():
    coarse = ramp(1, 3) * 4
    for how, expected in (("transpose", [0, 0, 4, 4, 8]), ("nearest", [0, 0, 4, 4, 8]), ("linear", [0, 1, 3, 5, 7])):
        layer = up_layer(settings(upsample=how), 2, 1, 1, (1, 1), (1, 2))
        conv = layer if isinstance(layer, nn.ConvTranspose2d) else layer.conv
        nn.init.ones_(conv.weight)
        nn.init.zeros_(conv.bias)
        assert upsample(layer, coarse, (1, 2), (1, 5), how).flatten().tolist() == expected


@pytest.mark.parametrize(("source", "target"), list(itertools.product(range(3), repeat=2)))
@pytest.mark.parametrize("pool", ["max", "avg"])
def test_a_map_goes_from_any_level_to_any_other(pool, source, target):
    strides, finest = [(1, 2, 2), (2, 2, 1)], (3, 9, 5)
    sizes = [finest, (3, 5, 3), (2, 3, 3)]
    rescale = Rescale(3, strides, source, target, pool)
    assert rescale(torch.randn(1, 2, *sizes[source]), sizes[target]).shape[2:] == sizes[target]


def test_levels_stay_over_each_other_at_odd_sizes():
    """The position that a coarse voxel stands for does not drift, however the size was rounded."""
    x = ramp(1, 13)
    strides = [(1, 2), (1, 2)]
    down = Rescale(2, strides, 0, 2, "avg")(x, (1, 4))
    assert down.flatten().tolist() == [1.5, 5.5, 9.5, 12]
    up = Rescale(2, strides, 2, 0, "avg")(torch.tensor([1.5, 5.5, 9.5, 13.5]).reshape(1, 1, 1, 4), (1, 13))
    assert torch.equal(up[..., 2:], x[..., 2:])
    assert Rescale(2, strides, 0, 2, "max")(x, (1, 4)).flatten().tolist() == [3, 7, 11, 12]
    assert Rescale(2, strides, 1, 1, "max")(x, (1, 13)) is x


def test_a_cut_of_nothing_is_the_map_itself():
    x = torch.zeros(1, 2, 5, 6)
    assert crop_to(x, (5, 6)) is x
    assert crop_to(x, (5, 4)).shape == (1, 2, 5, 4)

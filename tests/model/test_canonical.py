import dataclasses

import pytest

from segmentation.config import NetworkSettings
from segmentation.model.canonical import canonical
from segmentation.model.unet import UNet

BASE = NetworkSettings(depth=2, width=4)
SAME = {
    "placebo of no skip": ({"long_skip": "none"}, {"long_skip": "none", "long_skip_placebo": "zeros"}),
    "gradient of no skip": ({"long_skip": "none"}, {"long_skip": "none", "long_skip_gradient": "forward_only"}),
    "levels written out": ({"long_skip_levels": {0: "none", 1: "none"}}, {"long_skip": "none"}),
    "level as the others": ({"long_skip_levels": {1: "concat"}}, {}),
    "identity permutation": ({"long_skip_permute": [0, 1]}, {}),
    "scale of a plain sum": ({"short_skip": "add"}, {"short_skip": "add", "short_skip_scale": 0.3}),
    "short skips nowhere": ({"short_skip": "add", "short_skip_where": []}, {}),
    "widths written out": ({"widths": [4, 8, 16]}, {}),
    "convolutions written out": ({"convs_levels": {0: 2}}, {}),
    "mode without dropout": ({"long_skip_dropout_mode": "element"}, {}),
    "short skips in a full-scale decoder": (
        {"long_skip": "fullscale", "short_skip": "add"},
        {"long_skip": "fullscale", "short_skip": "add", "short_skip_where": ["encoder", "bottleneck"]},
    ),
    "upsampling of a full-scale decoder": (
        {"long_skip": "fullscale", "upsample": "linear"},
        {"long_skip": "fullscale"},
    ),
    "outputs of two levels": ({"deep_supervision": True}, {}),
    "span of bottlenecks": (
        {"short_skip": "add", "block": "bottleneck", "short_skip_every": 1},
        {"short_skip": "add", "block": "bottleneck"},
    ),
    "start as identity of a skip that is gated": (
        {"short_skip": "gated_add", "zero_last": True},
        {"short_skip": "gated_add"},
    ),
    "level of a part without short skips": (
        {"short_skip": "add", "short_skip_where": ["encoder"], "short_skip_levels": {2: "dense"}},
        {"short_skip": "add", "short_skip_where": ["encoder"]},
    ),
    "part whose levels have none": (
        {"short_skip": "add", "short_skip_levels": {2: "none"}},
        {"short_skip": "add", "short_skip_where": ["decoder", "encoder"]},
    ),
    "span without additive skips": ({"short_skip": "dense", "short_skip_every": 1}, {"short_skip": "dense"}),
}
OTHER = {
    "placebo": ({"long_skip_placebo": "zeros"}, {}),
    "one level": ({"long_skip_levels": {0: "none"}}, {}),
    "scale": ({"short_skip": "scaled_add", "short_skip_scale": 0.3}, {"short_skip": "scaled_add"}),
    "place": ({"short_skip": "add", "short_skip_where": ["encoder"]}, {"short_skip": "add"}),
    "width": ({"widths": [4, 8, 17]}, {}),
    "permutation": ({"long_skip_permute": [1, 0]}, {}),
    "whole decoder": ({"long_skip": "nested"}, {"long_skip": "fullscale"}),
    "norm": ({"norm": "batch"}, {}),
}


def both(pair):
    return [dataclasses.replace(BASE, **changes) for changes in pair]


@pytest.mark.parametrize("pair", SAME.values(), ids=SAME)
def test_settings_without_effect_are_one_network(pair):
    first, second = both(pair)
    assert first != second
    assert canonical(first) == canonical(second)
    names = [sorted(UNet(each, 2, 1, 2).state_dict()) for each in (first, second)]
    assert names[0] == names[1]


@pytest.mark.parametrize("pair", OTHER.values(), ids=OTHER)
def test_settings_with_an_effect_are_two_networks(pair):
    first, second = both(pair)
    assert canonical(first) != canonical(second)


@pytest.mark.parametrize("pair", [*SAME.values(), *OTHER.values()])
def test_canonical_settings_build_the_same_network(pair):
    for each in both(pair):
        built = [{n: tuple(v.shape) for n, v in UNet(s, 2, 1, 2).state_dict().items()} for s in (each, canonical(each))]
        assert built[0] == built[1]
        assert canonical(canonical(each)) == canonical(each)

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from segmentation.config import Activation, LongSkip, NetworkSettings, Norm, ShortSkip
from segmentation.model.unet import UNet, count_parameters, crop_to

LONG, SHORT = get_args(LongSkip), get_args(ShortSkip)
SMALL = NetworkSettings(depth=2, width=8, activation="elu")  # elu: smooth, so that no gradient is zero by chance
SIZES = {2: (13, 18), 3: (7, 10, 9)}
OVERRIDES = {"long_skip_levels": {0: "none", 1: "add"}, "short_skip_levels": {0: "dense", 2: "add"}}
VARIANTS = [
    *(
        pytest.param(dims, {"long_skip": long, "short_skip": short}, id=f"{dims}d-{long}-{short}")
        for dims, long, short in itertools.product((2, 3), LONG, SHORT)
    ),
    pytest.param(2, OVERRIDES, id="2d-levels"),
    pytest.param(3, OVERRIDES, id="3d-levels"),
    pytest.param(2, {"downsample": "stride", "short_skip": "add"}, id="2d-stride"),
    pytest.param(3, {"downsample": "stride", "long_skip": "none"}, id="3d-stride"),
    pytest.param(2, {"deep_supervision": True, "depth": 3}, id="2d-deep"),
    pytest.param(3, {"deep_supervision": True, "convs": 3, "short_skip": "dense", "norm": "none"}, id="3d-deep"),
    pytest.param(2, {"convs": 3, "short_skip": "add", "max_width": 12, "norm": "batch"}, id="2d-capped"),
]


def build(dims: int, changes: dict, seed: int = 0, **options) -> UNet:
    return UNet(replace(SMALL, **changes), dims, in_channels=2, classes=3, seed=seed, **options)


def parameters(net: NetworkSettings, inputs: int, classes: int, strides: Sequence, kernels: Sequence) -> int:
    """Parameters of a network, counted from the description alone."""

    def unit(read: int, write: int, voxels: int) -> int:
        return read * write * voxels + (write if net.norm == "none" else 2 * write)

    def block(read: int, write: int, voxels: int, short: str) -> int:
        if short == "dense":
            growth = write // net.convs
            units = sum(unit(read + index * growth, growth, voxels) for index in range(net.convs))
            return units + unit(read + net.convs * growth, write, 1)
        units = unit(read, write, voxels) + (net.convs - 1) * unit(write, write, voxels)
        return units + (read * write + write if short == "add" and read != write else 0)

    assert net.depth is not None
    assert net.width is not None
    c = [min(net.width * 2**level, net.max_width) for level in range(net.depth + 1)]
    k = [math.prod(kernel) for kernel in kernels]
    total = sum(
        block(c[level - 1] if level else inputs, c[level], k[level], net.short_skip_at(level))
        for level in range(net.depth + 1)
    )
    for level in range(net.depth):
        joined = c[level] * (2 if net.long_skip_at(level) == "concat" else 1)
        total += block(joined, c[level], k[level], net.short_skip_at(level))
        total += c[level + 1] * c[level] * math.prod(strides[level]) + c[level]
        total += unit(c[level], c[level], k[level]) if net.downsample == "stride" else 0
    heads = range(max(1, net.depth - 1)) if net.deep_supervision else range(1)
    return total + sum(c[level] * classes + classes for level in heads)


@pytest.mark.parametrize(("dims", "changes"), VARIANTS)
def test_network_contract(dims, changes):
    network = build(dims, changes)
    x = torch.randn(2, 2, *SIZES[dims])
    logits = network(x)
    assert logits.shape == (2, 3, *SIZES[dims])
    deep = network.forward_deep(x)
    assert torch.equal(deep[0], logits)
    sum(output.square().sum() for output in deep).backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []
    depth = network.settings.depth
    strides, kernels = [(2,) * dims] * depth, [(3,) * dims] * (depth + 1)
    assert count_parameters(network) == parameters(network.settings, 2, 3, strides, kernels)


@pytest.mark.parametrize(
    ("long", "short", "two", "three"),
    [
        ("concat", "none", 29_571, 85_411),
        ("add", "none", 26_691, 76_771),
        ("none", "none", 26_691, 76_771),
        ("concat", "add", 30_947, 86_787),
        ("none", "add", 27_403, 77_483),
        ("concat", "dense", 21_299, 54_675),
        ("none", "dense", 18_099, 45_715),
    ],
)
def test_parameter_counts_are_golden(long, short, two, three):
    changes = {"long_skip": long, "short_skip": short}
    assert (count_parameters(build(2, changes)), count_parameters(build(3, changes))) == (two, three)


@pytest.mark.parametrize("downsample", ["maxpool", "stride"])
@pytest.mark.parametrize("size", list(itertools.product((1, 2, 3, 5, 8), repeat=2)))
def test_any_size_comes_back(size, downsample):
    network = build(2, {"downsample": downsample}).eval()
    logits = network(torch.randn(1, 2, *size))
    assert logits.shape == (1, 3, *size)
    assert logits.isfinite().all()


@hypothesis_settings(max_examples=15)
@given(st.tuples(*[st.integers(1, 19)] * 3), st.sampled_from(LONG))
def test_any_volume_comes_back(size, long):
    network = build(3, {"long_skip": long, "width": 4}).eval()
    assert network(torch.randn(1, 2, *size)).shape == (1, 3, *size)


@pytest.mark.parametrize("long", LONG)
@pytest.mark.parametrize("downsample", ["maxpool", "stride"])
def test_anisotropic_strides_and_kernels(long, downsample):
    strides, kernels = [(1, 2, 2), (2, 2, 2)], [(1, 3, 3), (3, 3, 3), (3, 3, 3)]
    changes = {"long_skip": long, "downsample": downsample, "deep_supervision": True, "depth": 2}
    network = build(3, changes, strides=strides, kernels=kernels)
    x = torch.randn(1, 2, 5, 13, 11)
    assert [tuple(map_.shape[2:]) for map_ in network.decode(x)] == [(5, 13, 11), (5, 7, 6)]
    assert network(x).shape[2:] == x.shape[2:]
    assert network.encoder[0].units[0][0].kernel_size == (1, 3, 3)
    assert count_parameters(network) == parameters(network.settings, 2, 3, strides, kernels)


def test_deep_supervision_gives_every_level_but_the_coarsest():
    network = build(2, {"deep_supervision": True, "depth": 4, "width": 4})
    shapes = [tuple(output.shape) for output in network.forward_deep(torch.randn(1, 2, 33, 50))]
    assert shapes == [(1, 3, 33, 50), (1, 3, 17, 25), (1, 3, 9, 13)]
    assert len(build(2, {"depth": 4, "width": 4}).forward_deep(torch.randn(1, 2, 33, 50))) == 1


def test_logits_are_unbounded():
    network = build(2, {}).eval()
    x = torch.randn(1, 2, 13, 18)
    logits = network(x)
    with torch.no_grad():
        network.heads[0].weight *= 1000
    assert torch.allclose(network(x), 1000 * logits, rtol=1e-3)
    assert logits.min() < 0 < logits.max()


@pytest.mark.parametrize("long", LONG)
@pytest.mark.parametrize("downsample", ["maxpool", "stride"])
def test_what_a_voxel_says_stays_around_it(long, downsample):
    """No level mirrors or shifts its map: a change of one voxel is felt there and nowhere far from it."""
    network = build(2, {"long_skip": long, "downsample": downsample, "norm": "none"}).eval()
    x = torch.randn(1, 2, 61, 70)
    for place in ((7, 9), (52, 9), (30, 60)):
        changed = x.clone()
        changed[0, :, *place] += 50
        felt = (network(changed) - network(x)).abs().sum(dim=(0, 1)).detach()
        rows, columns = torch.nonzero(felt > 1e-3 * felt.max(), as_tuple=True)
        assert felt[place] > 0
        assert (rows - place[0]).abs().max() <= 30
        assert (columns - place[1]).abs().max() <= 30


def perturb_encoder_map(network: UNet, level: int, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Output as it is, and with the encoder map of ``level`` replaced, yet what goes down from it unchanged."""
    down: list[torch.Tensor] = []
    with torch.no_grad():
        keep = network.down[level].register_forward_hook(lambda *call: down.append(call[2]))
        before = network(x)
        keep.remove()
        hooks = [
            network.encoder[level].register_forward_hook(lambda *call: call[2] * 0 + torch.randn_like(call[2])),
            network.down[level].register_forward_hook(lambda *_: down[0]),
        ]
        after = network(x)
    for hook in hooks:
        hook.remove()
    return before, after


@pytest.mark.parametrize("long", LONG)
@pytest.mark.parametrize("level", [0, 1])
def test_none_disconnects_its_level_and_the_others_connect(level, long):
    others = {1 - level: "concat" if long == "none" else "none"}
    network = build(2, {"long_skip": long, "long_skip_levels": others}).eval()
    x = torch.randn(1, 2, 13, 18)
    before, after = perturb_encoder_map(network, level, x)
    assert torch.equal(before, after) == (long == "none")
    before, after = perturb_encoder_map(network, 1 - level, x)
    assert torch.equal(before, after) == (long != "none")


@pytest.mark.parametrize("short", ["none", "add"])
def test_add_is_concat_whose_two_halves_have_the_same_weights(short):
    added, joined = (build(2, {"long_skip": long, "short_skip": short}) for long in ("add", "concat"))
    weights = added.state_dict()
    doubled = {
        name: weights[name] if weights[name].shape == value.shape else torch.cat((weights[name], weights[name]), dim=1)
        for name, value in joined.state_dict().items()
        if name in weights
    }
    for level in range(2):
        if short == "add":  # adding needs no projection there: the identity, twice
            eye = torch.eye(weights[f"decoder.{level}.units.0.0.weight"].shape[1])[..., None, None]
            doubled[f"decoder.{level}.projections.0.weight"] = torch.cat((eye, eye), dim=1)
            doubled[f"decoder.{level}.projections.0.bias"] = torch.zeros(len(eye))
    joined.load_state_dict(doubled)
    x = torch.randn(1, 2, 13, 18)
    assert torch.allclose(added(x), joined(x), atol=1e-5)


@pytest.mark.parametrize("init", ["he", "xavier", "orthogonal", "torch"])
def test_conditions_share_every_initial_tensor_of_one_name_and_shape(init):
    conditions = [
        build(2, {"long_skip": long, "short_skip": short, "init": init}, seed=7).state_dict()
        for long, short in itertools.product(LONG, SHORT)
    ]
    for a, b in itertools.combinations(conditions, 2):
        shared = [name for name in a if name in b and a[name].shape == b[name].shape]
        assert len(shared) >= 6
        assert [name for name in shared if not torch.equal(a[name], b[name])] == []


def test_concat_and_none_differ_in_the_first_decoder_convolutions_alone():
    concat, none = (build(3, {"long_skip": long}).state_dict() for long in ("concat", "none"))
    assert concat.keys() == none.keys()
    different = [name for name in concat if concat[name].shape != none[name].shape]
    assert different == ["decoder.0.units.0.0.weight", "decoder.1.units.0.0.weight"]


def test_the_seed_decides_and_the_global_generator_does_not():
    torch.manual_seed(1)
    first = build(2, {}, seed=3).state_dict()
    torch.manual_seed(2)
    again, other = build(2, {}, seed=3).state_dict(), build(2, {}, seed=4).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["heads.0.weight"], other["heads.0.weight"])


@pytest.mark.parametrize("activation", get_args(Activation))
@pytest.mark.parametrize("norm", get_args(Norm))
def test_every_activation_and_norm_trains(norm, activation):
    network = build(2, {"activation": activation, "norm": norm})
    network(torch.randn(2, 2, 9, 11)).square().mean().backward()
    gradients = [p.grad for p in network.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


def test_dropout_acts_in_training_alone():
    network = build(2, {"dropout": 0.5})
    x = torch.randn(1, 2, 13, 18)
    assert not torch.equal(network(x), network(x))
    network.eval()
    assert torch.equal(network(x), network(x))


def test_crop_keeps_the_near_end():
    x = torch.arange(12.0).reshape(1, 1, 3, 4)
    assert torch.equal(crop_to(x, (2, 3)), x[..., :2, :3])


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"depth": None}, {}, "needs depth and width"),
        ({"width": None}, {}, "needs depth and width"),
        ({}, {"strides": [(2, 2)]}, "needs 2 strides and 3 kernels"),
        ({}, {"kernels": [(3, 3)] * 2}, "needs 2 strides and 3 kernels"),
    ],
)
def test_an_incomplete_description_is_refused(changes, options, message):
    with pytest.raises(ValueError, match=message):
        build(2, changes, **options)

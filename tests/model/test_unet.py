import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import get_args, get_type_hints

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from segmentation import SkipSegError
from segmentation.config import Activation, LongSkip, NetworkSettings, Norm, ShortSkip
from segmentation.model.unet import UNet, count_parameters

LONG, SHORT = get_args(LongSkip), get_args(ShortSkip)
DOWN, UP, ORDER = (get_args(get_type_hints(NetworkSettings)[name]) for name in ("downsample", "upsample", "order"))
SMALL = NetworkSettings(depth=2, width=8, activation="elu")  # elu: smooth, so that no gradient is zero by chance
SIZES = {2: (13, 18), 3: (7, 10, 9)}
MIXED = {
    "long_skip_levels": {0: "none", 1: "add", 2: "gated"},
    "short_skip_levels": {0: "dense", 1: "gated_add", 3: "add"},
    "convs_levels": {0: 1, 3: 4},
    "depth": 3,
}
VARIANTS = [
    MIXED,
    {"deep_supervision": True, "depth": 3},
    {"deep_supervision": True, "depth": 3, "long_skip": "nested", "short_skip": "add"},
    {"deep_supervision": True, "depth": 3, "long_skip": "fullscale", "order": "norm-act-conv"},
    {"deep_supervision": True, "depth": 3, "convs": 3, "short_skip": "dense", "norm": "none"},
    {"convs": 3, "short_skip": "add", "max_width": 12, "norm": "batch"},
    {"short_skip": "scaled_add", "short_skip_scale_learned": True, "short_skip_every": 1},
    {"short_skip": "gated_add", "short_skip_where": ["bottleneck"]},
    {"block": "bottleneck", "short_skip": "add", "downsample": "first_conv", "convs": 3},
    {"block": "bottleneck", "short_skip": "dense", "order": "norm-act-conv"},
    {"widths": [5, 12, 7], "width": None, "kernel": 5},
    {"order": "norm-act-conv", "input_skip": True, "short_skip": "add", "long_skip": "add"},
    {"order": "norm-act-conv", "norm": "none", "activation": "relu", "long_skip": "nested", "depth": 3},
    {"input_skip": True, "long_skip": "none"},
    {"long_skip_permute": [2, 0, 1], "depth": 3, "long_skip": "add"},
    {"long_skip_permute": [1, 0], "long_skip_levels": {0: "none"}},
    {"long_skip_scale_learned": True, "long_skip_scale_decay": 0.5, "long_skip_norm": "instance"},
    {"long_skip_dropout": 0.3, "long_skip": "nested", "long_skip_scale_learned": True},
    {"long_skip_gradient": "forward_only"},
    {"long_skip_gradient": "backward_only", "long_skip": "add"},
    *({"long_skip_placebo": placebo} for placebo in ("zeros", "dup", "noise", "shuffle")),
    *({"long_skip_placebo": placebo, "long_skip": "nested"} for placebo in ("noise", "shuffle")),
    *({"norm": norm, "short_skip": "add"} for norm in get_args(Norm)),
    *({"downsample": down, "upsample": up, "short_skip": "add"} for down, up in itertools.product(DOWN, UP)),
    *({"downsample": "first_conv", "short_skip": short, "order": order} for short in SHORT for order in ORDER),
]


def build(dims: int, changes: dict, seed: int = 0, **options) -> UNet:
    return UNet(replace(SMALL, **changes), dims, in_channels=2, classes=3, seed=seed, **options)


def wake(network: UNet) -> UNet:
    """Let every hidden unit of squeeze-excitation be above its relu; of few channels some start dead."""
    for name, parameter in network.named_parameters():
        if name.endswith("squeeze.bias"):
            torch.nn.init.constant_(parameter, 9.0)
    return network


def silent_parameters(network: UNet, x: torch.Tensor) -> list[str]:
    """Names of parameters whose gradient is zero, after a check that all are reached by a finite one, as DDP asks."""
    sum(output.square().sum() for output in network.forward_deep(x)).backward()
    gradients = {name: p.grad for name, p in network.named_parameters()}
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients.values())
    return [name for name, gradient in gradients.items() if not gradient.any()]


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("short", SHORT)
@pytest.mark.parametrize("long", LONG)
def test_network_contract(long, short, dims):
    network = wake(build(dims, {"long_skip": long, "short_skip": short}))
    x = torch.randn(2, 2, *SIZES[dims])
    assert network(x).shape == (2, 3, *SIZES[dims])
    assert silent_parameters(network, x) == []


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("changes", VARIANTS, ids=lambda changes: "-".join(map(str, changes.values())))
def test_network_contract_over_the_other_settings(changes, dims):
    network = build(dims, changes)
    x = torch.randn(2, 2, *SIZES[dims])
    logits, deep = network.eval()(x), network.forward_deep(x)
    assert logits.shape == (2, 3, *SIZES[dims])
    assert torch.equal(deep[0], logits)
    assert len(deep) == (2 if network.settings.deep_supervision else 1)
    assert silent_parameters(network.train(), x) == []


def test_what_a_placebo_of_zeros_starves_is_the_gate_and_the_scale_alone():
    """Both only multiply or weigh the encoder map, and that is zero."""
    changes = {"long_skip": "gated", "long_skip_placebo": "zeros", "long_skip_scale_learned": True}
    silent = silent_parameters(build(2, changes), torch.randn(2, 2, 13, 18))
    assert {name.split(".")[0] for name in silent} == {"joins", "taps"}
    assert len(silent) == 2 * (6 + 1)


def test_what_reads_nothing_but_zeros_has_no_gradient():
    x = torch.randn(2, 2, 13, 18)
    nested = build(2, {"long_skip": "nested", "long_skip_placebo": "zeros"})
    inner = [name for name, _ in nested.named_parameters() if name.startswith("nested") and name.endswith("weight")]
    assert silent_parameters(nested, x) == inner
    assert len(inner) == 5
    fullscale = build(2, {"long_skip": "fullscale", "long_skip_gradient": "backward_only"})
    branches = ["decoder.0.branches.0", "decoder.1.branches.0", "decoder.1.branches.1"]
    expected = [f"{branch}.{name}.weight" for branch in branches for name in (0, 1)]
    assert silent_parameters(fullscale, x) == expected


def parameters(net: NetworkSettings, inputs: int, classes: int, strides: Sequence, kernels: Sequence) -> int:
    """Parameters of a network with concat, add or none and short skips none, add or dense, from its description."""

    def unit(read: int, write: int, voxels: int) -> int:
        return read * write * voxels + (write if net.norm == "none" else 2 * write)

    def block(read: int, write: int, voxels: int, short: str) -> int:
        if short == "dense":
            growth = write // net.convs
            units = sum(unit(read + index * growth, growth, voxels) for index in range(net.convs))
            return units + unit(read + net.convs * growth, write, 1)
        units = unit(read, write, voxels) + (net.convs - 1) * unit(write, write, voxels)
        return units + (read * write + write if short == "add" and read != write else 0)

    c = net.channels()
    k = [math.prod(kernel) for kernel in kernels]
    depth = len(c) - 1
    total = sum(
        block(c[i - 1] if i else inputs, c[i], k[i], net.short_skip_levels.get(i, net.short_skip))
        for i in range(depth + 1)
    )
    for level in range(depth):
        joined = c[level] * (2 if net.long_skip_at(level) == "concat" else 1)
        total += block(joined, c[level], k[level], net.short_skip_levels.get(level, net.short_skip))
        total += c[level + 1] * c[level] * math.prod(strides[level]) + c[level]
        total += unit(c[level], c[level], k[level]) if net.downsample == "stride" else 0
    heads = range(max(1, depth - 1)) if net.deep_supervision else range(1)
    return total + sum(c[level] * classes + classes for level in heads)


@pytest.mark.parametrize("short", ["none", "add", "dense"])
@pytest.mark.parametrize("long", ["concat", "add", "none"])
@pytest.mark.parametrize("downsample", ["maxpool", "stride"])
@pytest.mark.parametrize("depth", [2, 3])
def test_parameters_are_those_of_the_formula(depth, downsample, long, short):
    strides, kernels = [(1, 2, 2), (2, 2, 2), (2, 1, 2)], [(1, 3, 3), (3, 3, 3), (3, 1, 3), (3, 3, 3)]
    changes = {"long_skip": long, "short_skip": short, "downsample": downsample, "depth": depth, "max_width": 24}
    changes |= {"long_skip_levels": {1: "none"}, "deep_supervision": True, "convs": 3}
    network = build(3, changes, strides=strides[:depth], kernels=kernels[: depth + 1])
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


@pytest.mark.parametrize(
    ("long", "base", "extra"),
    [
        ("mean", "add", 0),
        ("mul", "add", 0),
        ("max", "add", 0),
        ("gated_scalar", "add", 2),
        # two convolutions 8 to 4 and one 4 to 1; 16 to 8 and 8 to 1
        ("gated", "concat", 2 * (8 * 4 + 4) + 4 + 1 + 2 * (16 * 8 + 8) + 8 + 1),
        # one hidden channel each
        ("se", "concat", (4 * 8 + 4 + 8 * 4 + 8) + (4 * 16 + 4 + 16 * 4 + 16)),
        # two links at level 0, one at level 1: unit 3x3 with scale and shift, shortcut 1x1 with bias
        ("respath", "concat", 2 * (8 * 8 * 9 + 16 + 8 * 8 + 8) + (16 * 16 * 9 + 32 + 16 * 16 + 16)),
        # one node X[0][1]: up 16 to 8, units 16 to 8 and 8 to 8; and 8 more channels into X[0][2]
        ("nested", "concat", (16 * 8 * 4 + 8) + (16 * 8 * 9 + 16) + (8 * 8 * 9 + 16) + 8 * 8 * 9),
    ],
)
def test_what_a_long_skip_costs_by_hand(long, base, extra):
    assert count_parameters(build(2, {"long_skip": long})) - count_parameters(build(2, {"long_skip": base})) == extra


def test_the_switches_that_cost_parameters_by_hand():
    def extra(changes: dict, base: dict | None = None) -> int:
        return count_parameters(build(2, changes)) - count_parameters(build(2, base or {}))

    assert extra({"long_skip_scale_learned": True}) == 2
    assert extra({"long_skip_placebo": "zeros"}) == extra({"long_skip_norm": "instance"}) == 0
    assert extra({"long_skip_permute": [1, 0]}) == (16 * 8 + 8) + (8 * 16 + 16)
    # a stem 2 to 8 with bias, so that the first unit reads 8 channels
    assert extra({"input_skip": True}) == 2 * 8 * 9 + 8 + (8 - 2) * 8 * 9
    assert extra({"activation": "prelu"}) == 2 * (2 + 1 + 2)
    # gates 8, 16 and 32 channels wide in the encoder and bottleneck, 8 and 16 in the decoder
    gates = sum(c * c + c for c in (8, 16, 32, 8, 16))
    assert extra({"short_skip": "gated_add"}, {"short_skip": "add"}) == gates
    learned = {"short_skip": "scaled_add", "short_skip_scale_learned": True, "short_skip_every": 1}
    assert extra(learned, {"short_skip": "add"}) == 2 * 5
    # interpolation: 3x3 unit with scale and shift instead of a transposed 2x2 with bias
    assert extra({"upsample": "linear"}) == (32 * 16 + 16 * 8) * (9 - 4) + 16 + 8


@pytest.mark.parametrize("downsample", DOWN)
@pytest.mark.parametrize("size", list(itertools.product((1, 2, 3, 5, 8), (1, 5, 8))))
def test_any_size_comes_back(size, downsample):
    network = build(2, {"downsample": downsample, "upsample": "linear"}).eval()
    logits = network(torch.randn(1, 2, *size))
    assert logits.shape == (1, 3, *size)
    assert logits.isfinite().all()


@hypothesis_settings(max_examples=30, deadline=None)
@given(st.tuples(*[st.integers(1, 19)] * 3), st.sampled_from(LONG), st.sampled_from(DOWN), st.sampled_from(UP))
def test_any_volume_comes_back(size, long, down, up):
    network = build(3, {"long_skip": long, "width": 4, "downsample": down, "upsample": up}).eval()
    assert network(torch.randn(1, 2, *size)).shape == (1, 3, *size)


@pytest.mark.parametrize("long", LONG)
@pytest.mark.parametrize(("downsample", "upsample"), [("maxpool", "transpose"), ("first_conv", "linear")])
def test_anisotropic_strides_and_kernels(long, downsample, upsample):
    strides, kernels = [(1, 2, 2), (2, 2, 2)], [(1, 3, 3), (3, 3, 3), (3, 3, 3)]
    changes = {"long_skip": long, "downsample": downsample, "upsample": upsample, "deep_supervision": True}
    network = build(3, changes, strides=strides, kernels=kernels)
    x = torch.randn(1, 2, 5, 13, 11)
    assert [tuple(map_.shape[2:]) for map_ in network.decode(x)] == [(5, 13, 11), (5, 7, 6)]
    assert network(x).shape[2:] == x.shape[2:]
    assert network.encoder[0].units[0].conv.kernel_size == (1, 3, 3)
    even = replace(network.settings, kernel=5)
    assert UNet(even, 3, 2, 3, strides, kernels).encoder[0].units[0].conv.kernel_size == (5, 5, 5)


def test_deep_supervision_gives_every_level_but_the_two_coarsest():
    network = build(2, {"depth": 4, "width": 4, "deep_supervision": True})
    x = torch.randn(1, 2, 33, 50)
    assert [tuple(y.shape) for y in network.forward_deep(x)] == [(1, 3, 33, 50), (1, 3, 17, 25), (1, 3, 9, 13)]
    assert len(build(2, {"depth": 4, "width": 4}).forward_deep(x)) == 1


def test_logits_are_unbounded():
    network = build(2, {}).eval()
    x = torch.randn(1, 2, 13, 18)
    logits = network(x)
    with torch.no_grad():
        network.heads[0].weight *= 1000
    assert torch.allclose(network(x), 1000 * logits, rtol=1e-3)
    assert logits.min() < 0 < logits.max()


NAMES = [
    *(
        f"{block}.units.{unit}.{name}"
        for block in ("encoder.0", "encoder.1", "decoder.0", "decoder.1", "bottleneck")
        for unit in (0, 1)
        for name in ("0.weight", "1.weight", "1.bias")
    ),
    *(f"{layer}.{name}" for layer in ("up.0", "up.1", "heads.0") for name in ("weight", "bias")),
]
STORED = {  # mean absolute logit and five logits, from version 0.1.0
    2: (0.9193132, [0.7302647, 3.2367866, -0.1028365, 0.7187837, 0.1557873]),
    3: (0.8771697, [0.1661923, 1.1927973, 1.5490310, 2.6723366, 1.7230832]),
}


@pytest.mark.parametrize("dims", [2, 3])
def test_stored_models_of_the_defaults_keep_their_names_and_their_logits(dims):
    network = UNet(NetworkSettings(depth=2, width=8), dims, 2, 3, seed=5).eval()
    assert sorted(network.state_dict()) == sorted(NAMES)
    size = (13, 18, 9)[:dims]
    x = torch.linspace(-2, 2, 2 * math.prod(size)).sin().reshape(1, 2, *size)
    logits = network(x)
    mean, some = STORED[dims]
    assert logits.abs().mean().item() == pytest.approx(mean, rel=1e-4)
    assert logits.flatten()[::97][:5].tolist() == pytest.approx(some, rel=1e-3)


@pytest.mark.parametrize("long", LONG)
@pytest.mark.parametrize("changes", [*({"downsample": d} for d in DOWN), *({"upsample": up} for up in UP[1:])])
def test_what_a_voxel_says_stays_around_it(long, changes):
    """No level mirrors or shifts its map: a change of one voxel is felt there and nowhere far from it."""
    # Squeeze and excitation looks at the whole map.
    long = "concat" if long == "se" else long
    network = build(2, {"long_skip": long, "norm": "none", **changes}).eval()
    x = torch.randn(1, 2, 61, 70)
    for place in ((8, 8), (52, 8), (28, 60)):
        changed = x.clone()
        changed[0, :, *place] += 50
        felt = (network(changed) - network(x)).abs().sum(dim=(0, 1)).detach()
        rows, columns = torch.nonzero(felt > 1e-3 * felt.max(), as_tuple=True)
        assert felt[place] > 0
        assert (rows - place[0]).abs().max() <= 30
        assert (columns - place[1]).abs().max() <= 30


@pytest.mark.parametrize("order", ORDER)
def test_the_input_skip_adds_the_first_convolution_to_the_last_decoder_map(order):
    changes = {"order": order, "short_skip": "add"}
    network = build(2, {"input_skip": True, **changes}).eval()
    x = torch.randn(1, 2, 13, 18)
    stem = torch.nn.functional.conv2d(x, network.stem.weight, network.stem.bias, padding=1)
    last: list[torch.Tensor] = []
    network.decoder[0].register_forward_hook(lambda *call: last.append(call[2]))
    decoded = network.decode(x)
    assert torch.allclose(decoded[0], last[0] + stem, atol=1e-5)


def test_preactivation_ends_in_a_normalisation_and_an_activation():
    network = build(2, {"order": "norm-act-conv", "depth": 3, "deep_supervision": True}).eval()
    x = torch.randn(1, 2, 13, 18)
    for level, (features, logits) in enumerate(zip(network.decode(x), network.forward_deep(x), strict=False)):
        ready = torch.nn.functional.elu(torch.nn.functional.instance_norm(features))
        assert torch.allclose(network.heads[level](ready), logits, atol=1e-5)


def test_a_network_that_starts_at_zero_passes_its_input_through_every_residual_block():
    network = build(2, {"short_skip": "add", "zero_last": True, "long_skip": "add"}).eval()
    x = torch.randn(1, 16, 6, 9)
    assert torch.equal(network.decoder[1](x), x)
    assert torch.equal(network.encoder[1](x[:, :8]), network.encoder[1].projections[0](x[:, :8]))


def test_the_gain_scales_every_convolution():
    plain, small = (
        build(2, {"long_skip": "gated"}).state_dict(),
        build(2, {"long_skip": "gated", "gain": 0.5}).state_dict(),
    )
    for name in plain:
        convolution = plain[name].ndim > 1
        assert torch.equal(small[name], plain[name] * (0.5 if convolution else 1))


@pytest.mark.parametrize("init", ["he", "xavier", "orthogonal", "torch"])
def test_conditions_share_every_initial_tensor_of_one_name_and_shape(init):
    conditions = [
        build(2, {"long_skip": long, "short_skip": short, "init": init}, seed=7).state_dict()
        for long, short in [*((long, "none") for long in LONG), *(("concat", short) for short in SHORT)]
    ]
    for a, b in itertools.combinations(conditions, 2):
        shared = [name for name in a if name in b and a[name].shape == b[name].shape]
        assert len(shared) >= 6 or a is not conditions[0]
        different = [name for name in shared if not torch.equal(a[name], b[name])]
        # PyTorch's default draws a bias within a bound that depends on what the weights read.
        bounds = [
            a[f"{name[: -len('.bias')]}.weight"].shape != b[f"{name[: -len('.bias')]}.weight"].shape
            for name in different
        ]
        assert all(bounds)
        assert init == "torch" or not different


def test_concat_and_none_differ_in_the_first_decoder_convolutions_alone():
    concat, none = (build(3, {"long_skip": long}).state_dict() for long in ("concat", "none"))
    assert concat.keys() == none.keys()
    different = [name for name in concat if concat[name].shape != none[name].shape]
    assert different == ["decoder.0.units.0.0.weight", "decoder.1.units.0.0.weight"]


@pytest.mark.parametrize("long", LONG)
def test_the_seed_decides_and_the_global_generator_does_not(long):
    changes = {"long_skip": long, "short_skip": "gated_add", "long_skip_scale_learned": True}
    torch.manual_seed(1)
    first = build(2, changes, seed=3).state_dict()
    torch.manual_seed(2)
    again, other = build(2, changes, seed=3).state_dict(), build(2, changes, seed=4).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["heads.0.weight"], other["heads.0.weight"])


@pytest.mark.parametrize("changes", [*({"long_skip": k} for k in LONG), *({"short_skip": k} for k in SHORT)])
def test_every_skip_trains_in_mixed_precision(changes):
    network = wake(build(2, {"long_skip_scale_learned": True, **changes}))
    with torch.autocast("cpu", torch.bfloat16):
        assert silent_parameters(network, torch.randn(2, 2, 13, 18)) == []


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


@pytest.mark.parametrize(
    ("changes", "message"), [({"depth": None}, "needs depth and width"), ({"width": None}, "needs depth and width")]
)
def test_an_incomplete_description_is_refused(changes, message):
    with pytest.raises(SkipSegError, match=message):
        build(2, changes)


@pytest.mark.parametrize("options", [{"strides": [(2, 2)]}, {"kernels": [(3, 3)] * 2}])
def test_a_description_of_another_depth_is_refused(options):
    with pytest.raises(ValueError, match="needs 2 strides and 3 kernels"):
        build(2, {}, **options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"long_skip_permute": [1, 0], "long_skip_placebo": "dup"}, "dup has no meaning with long_skip_permute"),
        ({"long_skip": "fullscale", "input_skip": True}, "input_skip has no meaning with long_skip fullscale"),
        ({"long_skip": "mul", "long_skip_gradient": "backward_only"}, "long_skip mul multiplies by what passes"),
        ({"long_skip_levels": {1: "mul"}, "long_skip_placebo": "zeros"}, "long_skip mul multiplies by what passes"),
        ({"zero_last": True, "activation": "relu"}, "zero_last needs order norm-act-conv"),
        ({"zero_last": True, "activation": "sigmoid"}, "zero_last needs order norm-act-conv"),
    ],
)
def test_settings_that_have_no_network_are_refused(changes, message):
    with pytest.raises(SkipSegError, match=message):
        build(2, changes)

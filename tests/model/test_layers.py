"""The torch-free description of a network against the network itself."""

import math
from dataclasses import replace
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import nn

from segmentation import SkipSegError
from segmentation.config import WHOLE_DECODER, Activation, LongSkip, NetworkSettings, Norm, ShortSkip
from segmentation.model.layers import layers, total_cost
from segmentation.model.unet import UNet, count_parameters

LONG, SHORT = get_args(LongSkip), get_args(ShortSkip)
PAIRWISE = [kind for kind in LONG if kind not in WHOLE_DECODER]
SIZES = {2: (21, 34), 3: (9, 14, 12)}
CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@st.composite
def networks(draw: st.DrawFn) -> tuple[NetworkSettings, int]:
    """Settings that depart from the defaults in everything that changes layers, and 2 or 3 axes."""
    depth = draw(st.integers(1, 4))
    long = draw(st.sampled_from(LONG))
    mixed = long not in WHOLE_DECODER
    levels, kinds = st.integers(0, depth - 1), st.sampled_from(SHORT)
    places = st.lists(st.sampled_from(["encoder", "bottleneck", "decoder"]), unique=True)
    settings = NetworkSettings(
        depth=depth,
        widths=draw(st.lists(st.integers(1, 17), min_size=depth + 1, max_size=depth + 1)),
        long_skip=long,
        long_skip_levels=draw(st.dictionaries(levels, st.sampled_from(PAIRWISE), max_size=2)) if mixed else {},
        long_skip_permute=draw(st.none() | st.permutations(range(depth))) if mixed else None,
        long_skip_scale_learned=draw(st.booleans()),
        input_skip=draw(st.booleans()) and long != "fullscale",
        short_skip=draw(kinds),
        short_skip_levels=draw(st.dictionaries(st.integers(0, depth), kinds, max_size=2)),
        short_skip_where=draw(places),
        short_skip_every=draw(st.integers(1, 3)),
        short_skip_scale_learned=draw(st.booleans()),
        convs=draw(st.integers(1, 4)),
        convs_levels=draw(st.dictionaries(st.integers(0, depth), st.integers(1, 3), max_size=2)),
        block=draw(st.sampled_from(["basic", "bottleneck"])),
        order=draw(st.sampled_from(["conv-norm-act", "norm-act-conv"])),
        kernel=draw(st.sampled_from([None, 1, 3, 5])),
        activation=draw(st.sampled_from(get_args(Activation))),
        norm=draw(st.sampled_from(get_args(Norm))),
        downsample=draw(st.sampled_from(["maxpool", "avgpool", "stride", "first_conv", "decimate"])),
        upsample=draw(st.sampled_from(["transpose", "nearest", "linear"])),
        deep_supervision=draw(st.booleans()),
    )
    return settings, draw(st.sampled_from([2, 3]))


@hypothesis_settings(max_examples=60)
@given(networks())
def test_every_parameter_is_counted_in_the_layer_that_holds_it(drawn):
    settings, dims = drawn
    network = UNet(settings, dims, in_channels=2, classes=3)
    described = layers(settings, dims, 2, 3, size=SIZES[dims])
    counted: dict[str, int] = {}
    for layer in described:
        counted[layer.name] = counted.get(layer.name, 0) + layer.parameters
    held = {name: sum(p.numel() for p in module.parameters(recurse=False)) for name, module in network.named_modules()}
    assert {name: n for name, n in counted.items() if n} == {name: n for name, n in held.items() if n}
    assert total_cost(settings, dims, 2, 3).parameters == count_parameters(network)


def convolutions_seen(network: UNet, x: torch.Tensor) -> dict[str, tuple[int, tuple[int, ...], int]]:
    """Channels, size and multiplications of every convolution that an image passes, from the tensors themselves."""
    seen: dict[str, tuple[int, tuple[int, ...], int]] = {}

    def hook(name):
        def count(module, inputs, output):
            # Each input voxel of a transposed convolution, each output voxel of the others, meets every weight once.
            met = (inputs[0] if module.transposed else output)[0, 0].numel()
            size = tuple(output.shape[2:])
            seen[name] = (output.shape[1], size, met * module.weight.numel())

        return count

    for name, module in network.named_modules():
        if isinstance(module, CONVOLUTIONS):
            module.register_forward_hook(hook(name))
    with torch.no_grad():
        network.eval().forward_deep(x)
    return seen


@hypothesis_settings(max_examples=30)
@given(networks())
def test_multiplications_and_sizes_are_those_of_the_tensors(drawn):
    settings, dims = drawn
    network = UNet(settings, dims, in_channels=2, classes=3)
    seen = convolutions_seen(network, torch.randn(1, 2, *SIZES[dims]))
    described = {layer.name: layer for layer in layers(settings, dims, 2, 3, size=SIZES[dims]) if layer.macs}
    assert {name: layer.macs for name, layer in described.items()} == {name: each[2] for name, each in seen.items()}
    # A transposed convolution is cut to its level after it has written; every other size is what is written.
    cut = {name for name, module in network.named_modules() if getattr(module, "transposed", False)}
    for name, (channels, size, _) in seen.items():
        assert described[name].channels == channels
        assert described[name].size == size or (name in cut and settings.upsample == "transpose")


@pytest.mark.parametrize("kind", [*PAIRWISE, *WHOLE_DECODER])
def test_anisotropic_strides_and_kernels(kind):
    strides, kernels = [(1, 2, 2), (2, 2, 2)], [(1, 3, 3), (3, 3, 3), (3, 3, 3)]
    settings = NetworkSettings(depth=2, width=4, long_skip=kind)
    network = UNet(settings, 3, 1, 2, strides, kernels)
    found = layers(settings, 3, 1, 2, strides, kernels, size=(5, 13, 11))
    assert sum(layer.parameters for layer in found) == count_parameters(network)
    seen = convolutions_seen(network, torch.randn(1, 1, 5, 13, 11))
    assert sum(layer.macs for layer in found) == sum(macs for *_, macs in seen.values())


# Receptive fields

LINEAR = NetworkSettings(depth=2, width=1, max_width=1, activation="identity", norm="none", downsample="avgpool")
FIELDS = {
    "plain": {},
    "one level": {"depth": 1},
    "three levels": {"depth": 3, "convs": 1},
    "three levels, two convolutions": {"depth": 3},
    "large kernels": {"kernel": 5},
    "strided": {"downsample": "stride"},
    "strided in the block": {"downsample": "first_conv", "short_skip": "add"},
    "decimated": {"downsample": "decimate"},
    "nearest": {"upsample": "nearest"},
    "linear": {"upsample": "linear"},
    "no skips": {"long_skip": "none"},
    "added": {"long_skip": "add", "short_skip": "add"},
    "dense": {"short_skip": "dense"},
    "nested": {"long_skip": "nested"},
    "permuted": {"long_skip_permute": [1, 0]},
    "convolved skips": {"long_skip": "respath", "convs": 1, "convs_levels": {2: 1}},
    "input skip": {"input_skip": True},
}


def support(settings: NetworkSettings, size: int) -> set[int]:
    """Voxels along an axis that an output voxel depends on, for each of the output voxels of a central period."""
    network = UNet(settings, 2, 1, 1)
    for parameter in network.parameters():
        nn.init.constant_(parameter, 1 / parameter[0].numel() if parameter.ndim else 1)
    x = torch.ones(1, 1, size, size, requires_grad=True)
    logits = network(x)
    widths = set()
    for shift in range(2 ** (settings.depth or 0)):
        at = size // 2 + shift
        (gradient,) = torch.autograd.grad(logits[0, 0, at, at], x, retain_graph=True)
        touched = torch.nonzero(gradient[0, 0].sum(dim=0)).flatten()
        assert touched.min() > 0
        assert touched.max() < size - 1
        widths.add(int(touched.max() - touched.min()) + 1)
    return widths


@pytest.mark.parametrize("case", FIELDS)
def test_the_field_is_the_support_of_the_gradient(case):
    settings = replace(LINEAR, **FIELDS[case])
    last = layers(settings, 2, 1, 1)[-1]
    assert last.name == "heads.0"
    assert last.field == (max(support(settings, 256)),) * 2


def test_the_field_of_a_chain_is_the_formula():
    settings = replace(LINEAR, depth=3, convs=2)
    found = {layer.name: layer.field[0] for layer in layers(settings, 2, 1, 1)}
    r, jump = 1, 1
    for level in range(4):
        block = f"encoder.{level}" if level < 3 else "bottleneck"
        for conv in range(2):
            r += (3 - 1) * jump
            assert found[f"{block}.units.{conv}.0"] == r
        if level < 3:
            r, jump = r + (2 - 1) * jump, jump * 2
            assert found[f"down.{level}"] == r


def test_the_field_follows_the_axes():
    strides, kernels = [(1, 2, 2)], [(1, 3, 3), (3, 3, 3)]
    *_, last = layers(replace(LINEAR, depth=1), 3, 1, 1, strides, kernels, size=(8, 8, 8))
    assert last.field == (5, 18, 18)


# Memory


def saved_bytes(network: UNet, x: torch.Tensor) -> int:
    """Bytes that autograd keeps for the backward pass, weights left out."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    kept: dict[int, int] = {}
    alive: list[torch.Tensor] = []

    def keep(tensor):
        alive.append(tensor)  # or another tensor could take its address
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(x)
    return sum(kept.values())


@pytest.mark.parametrize("long", LONG)
@pytest.mark.parametrize("changes", [{}, {"short_skip": "add"}, {"norm": "none", "activation": "silu"}], ids=str)
def test_training_keeps_most_of_the_maps_that_are_counted(long, changes):
    settings = NetworkSettings(depth=3, width=8, long_skip=long, **changes)
    counted = total_cost(settings, 2, 1, 2, size=(64, 64)).activation_bytes
    measured = saved_bytes(UNet(settings, 2, 1, 2), torch.randn(1, 1, 64, 64))
    assert 0.6 * counted < measured <= counted


def test_memory_by_hand():
    """One level of one unit, concatenated: what is written, map by map."""
    settings = NetworkSettings(depth=1, width=4, convs=1)
    fine, coarse = 16 * 16, 8 * 8
    unit = 2  # the convolution and the normalisation write, the activation overwrites
    pooled = 4 + 8  # bytes of a maximum and of its index
    maps = (
        unit * 4 * fine
        + 4 * coarse * pooled // 4
        + unit * 8 * coarse
        + 4 * fine
        + 8 * fine
        + unit * 4 * fine
        + 3 * fine
    )
    assert total_cost(settings, 2, 2, 3, size=(16, 16)).activation_bytes == 4 * (2 * fine + maps)


def test_total_is_the_sum_of_the_layers_and_scales_with_the_image():
    settings = NetworkSettings(depth=3, width=8)
    small, large = (total_cost(settings, 2, 1, 2, size=(side, side)) for side in (32, 64))
    assert large.parameters == small.parameters
    assert (large.macs, large.activation_bytes) == (4 * small.macs, 4 * small.activation_bytes)
    assert small.macs == sum(layer.macs for layer in layers(settings, 2, 1, 2, size=(32, 32)))


def test_a_plain_convolution_by_hand():
    first, *_ = layers(NetworkSettings(depth=1, width=8, norm="none"), 3, 2, 2, size=(6, 7, 8))
    assert (first.parameters, first.macs) == (2 * 8 * 27 + 8, 2 * 8 * 27 * math.prod((6, 7, 8)))


def test_a_network_without_size_is_refused():
    with pytest.raises(SkipSegError, match="needs depth and width"):
        layers(NetworkSettings(depth=2), 2, 1, 2)
    with pytest.raises(SkipSegError, match="needs depth and width"):
        total_cost(NetworkSettings(width=2), 2, 1, 2)

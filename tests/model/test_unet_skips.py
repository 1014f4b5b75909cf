"""What each long skip does inside a whole network."""

from dataclasses import replace
from typing import get_args

import pytest
import torch

from segmentation.config import WHOLE_DECODER, LongSkip, NetworkSettings
from segmentation.model.unet import UNet, count_parameters

LONG = get_args(LongSkip)
LEVEL_LONG = [kind for kind in LONG if kind not in WHOLE_DECODER]
SMALL = NetworkSettings(depth=2, width=8, activation="elu")


def build(dims: int, changes: dict, seed: int = 0) -> UNet:
    return UNet(replace(SMALL, **changes), dims, in_channels=2, classes=3, seed=seed)


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


@pytest.mark.parametrize("long", LEVEL_LONG)
@pytest.mark.parametrize("level", [0, 1])
def test_none_disconnects_its_level_and_the_others_connect(level, long):
    others = {1 - level: "concat" if long == "none" else "none"}
    network = build(2, {"long_skip": long, "long_skip_levels": others}).eval()
    x = torch.randn(1, 2, 13, 18)
    before, after = perturb_encoder_map(network, level, x)
    assert torch.equal(before, after) == (long == "none")
    before, after = perturb_encoder_map(network, 1 - level, x)
    assert torch.equal(before, after) == (long != "none")


@pytest.mark.parametrize("long", WHOLE_DECODER)
def test_whole_decoders_read_every_level(long):
    network = build(2, {"long_skip": long, "depth": 3}).eval()
    for level in range(3):
        before, after = perturb_encoder_map(network, level, torch.randn(1, 2, 13, 18))
        assert not torch.equal(before, after)


def test_none_has_no_modules():
    network = build(2, {"long_skip": "none"})
    assert len(network.taps) == len(network.joins) == len(network.routes) == 0
    assert network.tap(0) is None
    mixed = build(2, {"long_skip_levels": {0: "none"}})
    assert list(mixed.taps) == list(mixed.joins) == ["1"]
    assert mixed.tap(0) is None
    assert mixed.tap(1) is mixed.taps["1"]


@pytest.mark.parametrize("long", LONG)
def test_every_long_skip_leaves_through_its_tap(long):
    """With all taps silenced, no encoder map reaches the output except through the bottleneck."""
    network = build(2, {"long_skip": long, "depth": 3}).eval()
    seen: list[int] = []
    for level in network.taps:
        network.taps[level].register_forward_hook(lambda tap, _, out: seen.append(tap.level) or out * 0)
    x = torch.randn(1, 2, 13, 18)
    for level in range(3):
        before, after = perturb_encoder_map(network, level, x)
        assert torch.equal(before, after)
    assert sorted(set(seen)) == ([] if long == "none" else [0, 1, 2])
    assert len(seen) == 6 * len(set(seen))  # once in each of six passes


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


def first_decoder_convs(network: UNet) -> list[torch.Tensor]:
    return [block.units[0].conv.weight.data for block in network.decoder]


def test_mean_is_add_whose_decoder_reads_at_half_the_scale():
    added, mean = (build(2, {"long_skip": long, "norm": "none"}, seed=3) for long in ("add", "mean"))
    x = torch.randn(1, 2, 13, 18)
    assert not torch.allclose(added(x), mean(x), atol=1e-2)
    for weight in first_decoder_convs(added):
        weight *= 0.5
    assert torch.allclose(added(x), mean(x), atol=1e-5)


def test_zeros_is_concat_whose_decoder_does_not_read_the_skip():
    full, zeros = (build(2, {"long_skip_placebo": placebo}) for placebo in ("none", "zeros"))
    assert count_parameters(full) == count_parameters(zeros)
    x = torch.randn(2, 2, 13, 18)
    assert not torch.allclose(full(x), zeros(x), atol=1e-2)
    for weight in first_decoder_convs(full):
        weight[:, weight.shape[1] // 2 :] = 0
    assert torch.allclose(full(x), zeros(x), atol=1e-5)


def test_dup_is_a_decoder_that_reads_its_own_map_twice():
    none, dup = build(2, {"long_skip": "none"}), build(2, {"long_skip_placebo": "dup"})
    weights = none.state_dict()
    for level in range(2):
        name = f"decoder.{level}.units.0.0.weight"
        up, skip = dup.state_dict()[name].chunk(2, dim=1)
        weights[name] = up + skip
    none.load_state_dict(weights)
    x = torch.randn(2, 2, 13, 18)
    assert torch.allclose(none(x), dup(x), atol=1e-5)


def gradients(network: UNet, x: torch.Tensor) -> dict[str, torch.Tensor]:
    network.zero_grad()
    network(x).square().sum().backward()
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("long", ["concat", "gated", "nested", "fullscale"])
def test_gradient_modes_split_the_value_from_the_gradient(long):
    x = torch.randn(2, 2, 13, 18)
    both, forward, backward = (
        build(2, {"long_skip": long, "long_skip_gradient": mode}) for mode in ("both", "forward_only", "backward_only")
    )
    zeros = build(2, {"long_skip": long, "long_skip_placebo": "zeros"})
    assert torch.equal(both(x), forward(x))
    assert torch.equal(backward(x), zeros(x))
    whole, cut = gradients(both, x), gradients(forward, x)
    sent, none = gradients(backward, x), gradients(zeros, x)
    for name in whole:  # the value alone changes nothing in the decoder, the gradient alone everything in the encoder
        if name.startswith(("decoder.0", "heads")):
            assert torch.allclose(whole[name], cut[name], atol=1e-4)
            assert torch.allclose(sent[name], none[name], atol=1e-4)
        if name.startswith("encoder.0"):
            assert not torch.allclose(whole[name], cut[name], rtol=1e-2)
            assert not torch.allclose(sent[name], none[name], rtol=1e-2)


@pytest.mark.parametrize("mode", ["element", "channel", "path"])
@pytest.mark.parametrize("long", ["add", "fullscale"])
def test_skip_dropout_is_off_in_evaluation_and_keeps_the_mean_skip_in_training(long, mode):
    changes = {"long_skip": long, "long_skip_dropout": 0.5, "long_skip_dropout_mode": mode}
    network, plain = build(2, changes), build(2, {"long_skip": long}).eval()
    x = torch.randn(1, 2, 13, 18)
    assert not torch.equal(network(x), network(x))
    assert torch.equal(network.eval()(x), plain(x))
    taken: list[torch.Tensor] = []
    tap = network.tap(0)
    skip = plain.encoder[0](x)
    tap.register_forward_hook(lambda *call: taken.append(call[2]))
    with torch.no_grad():
        for _ in range(300):
            tap.train()(skip)
    mean = torch.stack(taken).mean(0)
    assert (mean - skip).abs().max() < 5 * skip.abs().max() / 300**0.5


def test_the_permutation_that_changes_nothing_is_none_given():
    plain, same = build(2, {}), build(2, {"long_skip_permute": [0, 1]})
    assert plain.state_dict().keys() == same.state_dict().keys()
    x = torch.randn(1, 2, 13, 18)
    assert torch.equal(plain(x), same(x))


def test_a_permuted_decoder_level_reads_the_other_encoder_level():
    network = build(2, {"long_skip_permute": [1, 0], "long_skip_levels": {1: "none"}}).eval()
    assert network.sources == {0: 1}
    assert network.tap(0) is None
    read: list[torch.Tensor] = []
    network.joins["0"].register_forward_pre_hook(lambda _, args: read.append(args[1]))
    x = torch.randn(1, 2, 13, 18)
    network(x)
    coarse = network.encoder[1](network.down[0](network.encoder[0](x)))
    raised = torch.nn.functional.interpolate(coarse, scale_factor=2, mode="bilinear")[..., :13, :18]
    assert torch.allclose(read[0], network.routes["0"].project(raised), atol=1e-5)

from dataclasses import replace
from typing import get_args

import pytest
import torch

from segmentation.config import LongSkip, NetworkSettings, ShortSkip
from segmentation.model.skips import ShortJoin, SkipJoin, SkipTap, drop, placebo_of

PLAIN = NetworkSettings()
U, S = torch.randn(2, 2, 16, 3, 4)
JOINS = {
    "concat": torch.cat((U, S), dim=1),
    "add": U + S,
    "mean": (U + S) / 2,
    "mul": U * S,
    "max": torch.where(U > S, U, S),
    "gated_scalar": U + S,
}


def join(kind: LongSkip, dims: int = 2) -> SkipJoin:
    return SkipJoin(kind, PLAIN, dims, 16, (3,) * dims, 2)


@pytest.mark.parametrize("kind", JOINS)
def test_joins_follow_their_formulas(kind):
    assert torch.allclose(join(kind)(U, S), JOINS[kind])
    assert join(kind).channels == JOINS[kind].shape[1]


@pytest.mark.parametrize("kind", ["gated", "se", "respath"])
def test_gated_joins_stack_the_decoder_map_and_what_the_gate_passes(kind):
    module = join(kind)
    joined = module(U, S)
    assert torch.equal(joined[:, :16], U)
    assert torch.equal(joined[:, 16:], module.gate(U, S))
    assert module.channels == joined.shape[1] == 32


@pytest.mark.parametrize("kind", [*JOINS, "gated", "se", "respath"])
@pytest.mark.parametrize("skip", [S[..., :3], S[:, :1], S[:1]])
def test_maps_of_two_shapes_are_refused_even_where_they_would_broadcast(kind, skip):
    with pytest.raises(ValueError, match=r"one shape, got \(2, 16, 3, 4\) and"):
        join(kind)(U, skip)


def test_what_joins_no_two_maps_is_refused_and_every_other_kind_is_known():
    for kind in get_args(LongSkip):
        if kind in ("none", "nested", "fullscale"):
            with pytest.raises(ValueError, match=f"got '{kind}'"):
                join(kind)
        else:
            assert join(kind, dims=3).kind == kind


@pytest.mark.parametrize("kind", get_args(ShortSkip))
def test_short_joins_follow_their_formulas(kind):
    module = ShortJoin(kind, replace(PLAIN, short_skip_scale=0.25), 2, 16)
    joined = module(U, S)
    match kind:
        case "none":
            assert joined is S
        case "add":
            assert torch.equal(joined, U + S)
        case "scaled_add":
            assert torch.equal(joined, U + 0.25 * S)
        case "gated_add":
            gate = module.gate(U)
            assert torch.allclose(joined, gate * S + (1 - gate) * U, atol=1e-6)
        case "dense":
            assert torch.equal(joined, torch.cat((U, S), dim=1))
    assert sum(p.numel() for p in module.parameters()) == (16 * 16 + 16 if kind == "gated_add" else 0)


def test_a_learnt_short_scale_starts_where_told_and_gets_its_gradient():
    module = ShortJoin("scaled_add", replace(PLAIN, short_skip_scale=0.5, short_skip_scale_learned=True), 2, 16)
    assert torch.equal(module(U, S), U + 0.5 * S)
    module(U, S).sum().backward()
    assert module.scale.grad.item() == pytest.approx(S.sum().item(), rel=1e-4)
    assert not list(ShortJoin("add", replace(PLAIN, short_skip_scale_learned=True), 2, 16).parameters())


def tap(level: int = 0, **changes) -> SkipTap:
    return SkipTap(NetworkSettings(**{f"long_skip_{name}": value for name, value in changes.items()}), level)


def gradient(module: SkipTap, upsampled: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Output of a tap and the gradient that a gradient of ones sends into the encoder map."""
    encoded = S.clone().requires_grad_()
    out = module(encoded, upsampled)
    if out.requires_grad:
        out.sum().backward()
    return out.detach(), encoded.grad


def test_a_tap_of_the_defaults_passes_the_map_itself():
    assert tap()(S) is S
    assert not tap().state_dict()


def test_gradient_modes_pass_the_value_the_gradient_or_both():
    assert [torch.equal(a, b) for a, b in zip(gradient(tap()), (S, torch.ones_like(S)), strict=True)] == [True, True]
    value, sent = gradient(tap(gradient="forward_only"))
    assert torch.equal(value, S)
    assert sent is None
    value, sent = gradient(tap(gradient="backward_only"))
    assert not value.any()
    assert torch.equal(sent, torch.ones_like(S))


def test_scales_decay_with_the_level():
    assert torch.allclose(tap(level=3, scale=0.8, scale_decay=0.5)(S), 0.1 * S)
    learned = tap(level=2, scale=3.0, scale_decay=0.5, scale_learned=True)
    learned(S).sum().backward()
    assert learned.scale.item() == 0.75
    assert learned.scale.grad.item() == pytest.approx(S.sum().item(), rel=1e-4)


def test_a_normalised_skip_has_mean_0_and_deviation_1_and_no_parameters():
    module = tap(norm="instance")
    skip = module(5 * S + 3)
    assert torch.allclose(skip.mean((2, 3)), torch.zeros(2, 16), atol=1e-5)
    assert torch.allclose(skip.std((2, 3), correction=0), torch.ones(2, 16), atol=1e-3)
    assert not list(module.parameters())
    assert not module(torch.ones(1, 4, 1, 1)).any()


def test_zeros_and_dup_hide_the_encoder():
    value, sent = gradient(tap(placebo="zeros"))
    assert not value.any()
    assert sent is None
    value, sent = gradient(tap(placebo="dup"), U)
    assert torch.equal(value, U)
    assert sent is None


@pytest.mark.parametrize("upsampled", [None, U[:, :4]])
def test_dup_needs_the_decoder_map(upsampled):
    with pytest.raises(ValueError, match=r"decoder map of shape \(2, 16, 3, 4\), got"):
        tap(placebo="dup")(S, upsampled)


def test_noise_has_the_mean_and_deviation_of_each_channel_of_each_image():
    skip = torch.randn(2, 3, 200, 200) * torch.tensor([1.0, 5, 0]).view(1, 3, 1, 1) + torch.tensor([-4.0, 7]).view(
        2, 1, 1, 1
    )
    noise = placebo_of(skip, "noise", None, seed=None)
    assert torch.allclose(noise.mean((2, 3)), skip.mean((2, 3)), atol=0.1)
    assert torch.allclose(noise.std((2, 3)), skip.std((2, 3)), rtol=0.02)
    flat = torch.stack((noise[:, :2], skip[:, :2])).flatten(3)
    correlation = torch.nn.functional.cosine_similarity(*(flat - flat.mean(-1, keepdim=True)), dim=-1)
    assert correlation.abs().max() < 0.03
    assert gradient(tap(placebo="noise"))[1] is None


def test_noise_is_fixed_in_evaluation_whatever_shares_the_batch():
    module = tap(level=1, placebo="noise")
    assert not torch.equal(module(S), module(S))
    module.eval()
    state = torch.get_rng_state()
    alone = torch.cat([module(S[:1]), module(S[1:])])
    assert torch.equal(module(S), alone)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(module(S), tap(level=2, placebo="noise").eval()(S))


def test_shuffle_takes_the_previous_image_and_of_one_image_its_far_side():
    value, sent = gradient(tap(placebo="shuffle"))
    assert torch.equal(value, S.flip(0))
    assert torch.equal(sent, torch.ones_like(S))
    image = torch.arange(12.0).reshape(1, 1, 3, 4)
    assert placebo_of(image, "shuffle", None, None).tolist() == [[[[10, 11, 8, 9], [2, 3, 0, 1], [6, 7, 4, 5]]]]


def test_shuffle_rolls_in_evaluation_whatever_shares_the_batch():
    module = tap(placebo="shuffle").eval()
    assert torch.equal(module(S), torch.cat([module(S[:1]), module(S[1:])]))
    assert torch.equal(module(S), S.roll([size // 2 for size in S.shape[2:]], dims=(2, 3)))


@pytest.mark.parametrize(("mode", "axes"), [("element", ()), ("channel", (2, 3)), ("path", (1, 2, 3))])
def test_skip_dropout_drops_its_unit_whole_and_keeps_the_expectation(mode, axes):
    ones = torch.ones(400, 8, 5, 5)
    dropped = drop(ones, 0.25, mode)
    assert dropped.unique().tolist() == pytest.approx([0, 4 / 3])
    if axes:
        assert not dropped.std(axes).any()
    independent = {"element": 400 * 8 * 25, "channel": 400 * 8, "path": 400}[mode]
    error = (1 / 3 / independent) ** 0.5  # variance p / (1 - p)
    assert abs(dropped.mean().item() - 1) < 4 * error


def test_skip_dropout_acts_in_training_alone():
    module = tap(dropout=0.5, dropout_mode="element")
    assert not torch.equal(module(S), S)
    assert module.eval()(S) is S


def test_the_steps_of_a_tap_come_in_their_order():
    """The placebo is normalised, then scaled; its gradient is that of the map it stands for."""
    module = tap(placebo="shuffle", norm="instance", scale=3.0)
    expected = 3 * torch.nn.functional.instance_norm(S.flip(0))
    assert torch.allclose(module(S), expected, atol=1e-6)
    assert torch.equal(tap(scale=2.0, gradient="forward_only")(S), 2 * S)

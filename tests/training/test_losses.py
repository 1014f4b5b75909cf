"""Losses against hand-made values and against MONAI's and PyTorch's, and where nothing is to be learnt."""

import monai.losses
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from segmentation.model.resize import Decimate
from segmentation.training.losses import SMOOTH, build_loss, cross_entropy, deep_loss, overlap_loss

LOSSES = ("dice_ce", "dice", "ce", "focal", "tversky", "dice_focal")
SIZES = ((7, 5), (3, 5, 4))


def batch(size: tuple[int, ...], classes: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits, shape ``(2, classes, *size)``, and labels without ignored voxels."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn((2, classes, *size), generator=generator)
    return logits, torch.randint(classes, (2, *size), generator=generator)


@pytest.mark.parametrize("size", SIZES)
def test_dice_is_monais(size):
    logits, labels = batch(size)
    # MONAI doubles the overlap where we halve the errors, so its smoothing is twice ours.
    reference = monai.losses.DiceLoss(
        include_background=False, to_onehot_y=True, softmax=True, batch=True, smooth_nr=2 * SMOOTH, smooth_dr=2 * SMOOTH
    )
    torch.testing.assert_close(build_loss("dice")(logits, labels), reference(logits, labels[:, None]))


@pytest.mark.parametrize("size", SIZES)
def test_tversky_is_monais_with_misses_weighing_more(size):
    logits, labels = batch(size)
    reference = monai.losses.TverskyLoss(
        include_background=False, to_onehot_y=True, softmax=True, batch=True,
        alpha=0.3, beta=0.7, smooth_nr=SMOOTH, smooth_dr=SMOOTH,
    )  # fmt: skip
    torch.testing.assert_close(build_loss("tversky")(logits, labels), reference(logits, labels[:, None]))


@pytest.mark.parametrize("size", SIZES)
def test_focal_is_monais(size):
    logits, labels = batch(size)
    # MONAI's "sum" is the mean over voxels, summed over batch and classes.
    reference = monai.losses.FocalLoss(gamma=2.0, to_onehot_y=True, use_softmax=True, reduction="sum")
    torch.testing.assert_close(build_loss("focal")(logits, labels), reference(logits, labels[:, None]) / len(labels))


@pytest.mark.parametrize("size", SIZES)
def test_cross_entropy_is_pytorchs_with_the_ignored_left_out(size):
    logits, labels = batch(size)
    labels[0, :2] = 3
    torch.testing.assert_close(cross_entropy(logits, labels), functional.cross_entropy(logits, labels, ignore_index=3))


@pytest.mark.parametrize(("name", "parts"), [("dice_ce", ("dice", "ce")), ("dice_focal", ("dice", "focal"))])
def test_sums_are_sums(name, parts):
    logits, labels = batch((7, 5))
    torch.testing.assert_close(
        build_loss(name)(logits, labels), sum(build_loss(part)(logits, labels) for part in parts)
    )


def test_overlap_by_hand():
    # Probability 1/2 everywhere, 4 voxels, 1 of them foreground: overlap 1/2, false positives 3/2, misses 1/2.
    logits, labels = torch.zeros(1, 2, 4), torch.tensor([[0, 0, 0, 1]])
    assert overlap_loss(logits, labels, 0.5, 0.5).item() == pytest.approx(1 - 0.5 / 1.5, abs=1e-4)
    assert overlap_loss(logits, labels, 0.3, 0.7).item() == pytest.approx(1 - 0.5 / (0.5 + 0.45 + 0.35), abs=1e-4)


def test_focal_by_hand():
    # p = 1/2: (1 - p)^2 = 1/4 of the cross-entropy ln 2.
    value = cross_entropy(torch.zeros(1, 2, 4), torch.tensor([[0, 0, 0, 1]]), focus=2.0)
    assert value.item() == pytest.approx(0.25 * 0.693147, abs=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_certain_and_right_costs_nothing(name):
    _, labels = batch((7, 5))
    logits = 60 * functional.one_hot(labels, 3).movedim(-1, 1).float()
    assert build_loss(name)(logits, labels).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_all_ignored_batch_teaches_nothing(name):
    logits, labels = batch((7, 5))
    logits.requires_grad_()
    loss = build_loss(name)(logits, torch.full_like(labels, 3))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert logits.grad.abs().max() == 0


@given(st.sampled_from(LOSSES), st.integers(0, 20), st.floats(-30, 30))
def test_ignored_voxels_do_not_matter(name, seed, other):
    logits, labels = batch((4, 5), seed=seed)
    labels[0, :2] = 3
    changed = logits.clone()
    changed[0, 1, :2] = other
    torch.testing.assert_close(build_loss(name)(changed, labels), build_loss(name)(logits, labels))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("extreme", [0.1, 6e4])
def test_half_precision_logits_are_finite(name, kind, extreme):
    logits, labels = batch((7, 5))
    half = (logits.sign() * extreme).to(kind).requires_grad_()
    loss = build_loss(name)(half, labels)
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert half.grad is not None
    assert torch.isfinite(half.grad).all()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("scale", [0.0, 1.0, 50.0])
def test_gradient_is_finite_without_any_foreground(name, scale):
    logits, labels = batch((7, 5))
    logits = (scale * logits).requires_grad_()
    build_loss(name)(logits, torch.zeros_like(labels)).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_unknown_loss_is_refused():
    with pytest.raises(ValueError, match="unknown loss 'l2'"):
        build_loss("l2")  # pyright: ignore[reportArgumentType] - wrong on purpose


def test_deep_loss_weighs_levels_by_halves():
    values = iter([7.0, 4.0, 1.0])
    outputs = [torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 2, 2)]
    sizes: list[tuple[int, ...]] = []

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        sizes.append(tuple(labels.shape[1:]))
        return torch.tensor(next(values))

    total = deep_loss(loss, outputs, torch.zeros(1, 8, 8, dtype=torch.long), [(2, 2)] * 2)
    assert total.item() == pytest.approx((7 + 4 / 2 + 1 / 4) / (1 + 1 / 2 + 1 / 4))
    assert sizes == [(8, 8), (4, 4), (2, 2)]


def test_deep_loss_keeps_ignored_voxels_ignored_at_odd_sizes():
    labels = torch.full((1, 7, 9), 2)
    outputs = [torch.randn(1, 2, 7, 9), torch.randn(1, 2, 4, 5)]
    assert deep_loss(build_loss("dice_ce"), outputs, labels, [(2, 2)]).item() == 0


@pytest.mark.parametrize("shape", [(33, 64), (12, 19)])
def test_coarse_levels_are_judged_where_the_network_lays_them(shape):
    """The network's own maps of a slope and the labels that judge them lie over the same voxels."""
    strides = [(2, 2), (2, 1), (2, 2)]
    labels = torch.arange(shape[0])[:, None].expand(shape)[None].clone()
    maps = [labels[:, None].float()]
    for stride in strides:
        maps.append(Decimate(stride)(maps[-1]))
    seen: list[Tensor] = []

    def loss(logits: Tensor, target: Tensor) -> Tensor:
        seen.append(target)
        return logits.sum()

    deep_loss(loss, maps, labels, strides)
    assert [target.tolist() for target in seen] == [each[:, 0].tolist() for each in maps]

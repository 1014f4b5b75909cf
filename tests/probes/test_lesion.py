import math
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from segmentation import SkipSegError
from segmentation.config import NetworkSettings
from segmentation.data.manifest import Case
from segmentation.model.unet import UNet
from segmentation.probes import block_lesion, shapley
from segmentation.probes.context import NotMeasurableError, ProbeContext
from segmentation.probes.kinds import KINDS
from segmentation.probes.lesion import (
    HOW,
    NOTE,
    How,
    case_dice,
    dice_changes,
    lesioned_skips,
    patient_interval,
    probe,
    skip_levels,
    skip_means,
    skips_note,
    summarise,
)
from segmentation.probes.stages import captured


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def build(**settings: Any) -> UNet:
    return UNet(NetworkSettings(depth=2, width=4, **settings), 2, 1, 2).eval()


@torch.no_grad()
def tapped(network: UNet, images: Tensor, level: int) -> Tensor:
    tap = network.tap(level)
    assert tap is not None
    with captured({"tap": tap}) as maps:
        network(images)
    return maps["tap"]


def test_levels_with_a_skip():
    assert skip_levels(build()) == [0, 1]
    assert skip_levels(build(long_skip_levels={0: "none"})) == [1]
    assert skip_levels(build(long_skip="none")) == []


@pytest.mark.parametrize("long_skip", ["concat", "add", "gated", "nested", "fullscale"])
@pytest.mark.parametrize("how", HOW)
def test_every_lesion_changes_the_output_and_leaves_no_trace(long_skip: Any, how: How, images: Tensor):
    network = build(long_skip=long_skip)
    with torch.no_grad():
        before = network(images)
        with lesioned_skips(network, [1], how, skip_means(network, [(images, images)])):
            assert not torch.allclose(network(images), before)
        assert torch.equal(network(images), before)


def test_a_lesion_ends_also_with_an_error(images: Tensor):
    network = build()
    before = network(images)
    with pytest.raises(KeyError), lesioned_skips(network, [0, 1], "zero"):
        raise KeyError
    assert torch.equal(network(images), before)


def test_zero_lesion_of_all_levels_equals_a_network_whose_taps_give_zeros(images: Tensor):
    network, silent = build(long_skip="add"), build(long_skip="add", long_skip_placebo="zeros")
    with lesioned_skips(network, [0, 1], "zero"):
        assert torch.equal(network(images), silent(images))


def test_shuffle_gives_each_image_the_map_of_the_one_before(images: Tensor):
    network = build()
    intact = tapped(network, images, 0)
    with lesioned_skips(network, [0], "shuffle"):
        # Capturing hooks the tap after the lesion, so it sees what the decoder sees.
        assert torch.equal(tapped(network, images, 0), intact.roll(1, dims=0))


def test_roll_keeps_each_image_its_own_map_in_another_place_whatever_shares_the_batch(images: Tensor):
    network = build()
    intact = tapped(network, images, 0)
    with lesioned_skips(network, [0], "roll"):
        assert torch.equal(tapped(network, images, 0), intact.roll((4, 4), dims=(2, 3)))
        alone = tapped(network, images[:1], 0)
    torch.testing.assert_close(alone, intact[:1].roll((4, 4), dims=(2, 3)))


def test_roll_does_not_undo_the_placebo_that_rolls(images: Tensor):
    network = build(long_skip_placebo="shuffle")
    true = tapped(build(), images, 0)
    assert torch.equal(tapped(network, images, 0), true.roll((4, 4), dims=(2, 3)))
    with lesioned_skips(network, [0], "roll"):
        assert torch.equal(tapped(network, images, 0), true.roll((6, 6), dims=(2, 3)))


def test_mean_lesion_gives_the_mean_over_images_and_space(images: Tensor):
    network = build()
    batches = [(images[:2], images), (images[2:], images)]
    expected = tapped(network, images, 1).mean(dim=(0, 2, 3))
    means = skip_means(network, batches)
    torch.testing.assert_close(means[1].flatten(), expected)
    with lesioned_skips(network, [1], "mean", means):
        found = tapped(network, images, 1)
    torch.testing.assert_close(found, expected.view(1, -1, 1, 1).expand_as(found))


def test_impossible_lesions_are_refused():
    with (
        pytest.raises(SkipSegError, match=r"level 0 has no long skip; this network has them at \[1\]"),
        lesioned_skips(build(long_skip_levels={0: "none"}), [1, 0], "zero"),
    ):
        pass
    with pytest.raises(SkipSegError, match="needs the mean map of level 1"), lesioned_skips(build(), [1], "mean"):
        pass


def test_changes_are_lesioned_minus_intact(images: Tensor):
    network = build()

    def score() -> dict[str, float]:
        return {str(index): float(value) for index, value in enumerate(network(images).detach().mean(dim=(1, 2, 3)))}

    before = score()
    with lesioned_skips(network, [0], "zero"):
        after = score()
    intact, changes = dice_changes(score, {"L0": lambda: lesioned_skips(network, [0], "zero")})
    assert intact == before
    assert changes == {"L0": {case: after[case] - before[case] for case in before}}


def test_interval_is_over_patients_and_leaves_out_what_is_not_defined(context: ProbeContext):
    cases = [replace(context.val_cases[0], name=name, patient=patient) for name, patient in ("aA", "bA", "cB", "dC")]
    several: list[Case] = cases
    values = {"a": -0.2, "b": -0.4, "c": -0.1, "d": math.nan}
    interval = patient_interval(replace(context, val_cases=several), values)
    assert interval.n == 2
    assert interval.estimate == pytest.approx((-0.3 - 0.1) / 2)
    with pytest.raises(NotMeasurableError, match="not defined for any"):
        patient_interval(context, {})


def test_probe_lesions_every_level_in_every_way(context: ProbeContext):
    result = probe(context)
    assert list(result.values["changes"]) == [f"L{level} {how}" for level in (0, 1) for how in HOW]
    (name,) = case_dice(context, context.network)
    intact = result.values["intact"][name]
    with lesioned_skips(context.network, [0], "roll"):
        lesioned = case_dice(context, context.network)[name]
    assert result.values["changes"]["L0 roll"]["cases"] == {name: lesioned - intact}
    assert list(result.figures[0].ticks) == list(result.values["changes"])


def test_what_is_called_a_change_is_negative_where_dice_is_lost(context: ProbeContext, monkeypatch: pytest.MonkeyPatch):
    dice = iter([0.75, 0.5])
    (case,) = [case.name for case in context.held_out]
    monkeypatch.setattr("segmentation.probes.lesion.case_dice", lambda *_: {case: next(dice)})
    result = summarise(context, "Change of Dice", {"L0": nullcontext}, NOTE)
    assert result.figures[0].series[0].y == [-0.25]
    assert result.figures[0].x_label == "change of Dice (below 0: lost)"
    for text in (result.note, block_lesion.NOTE, KINDS["lesion"].title, KINDS["block_lesion"].title):
        assert text.startswith(("Change of Dice", "Changes are Dice with the"))
    assert "below 0 the lesion costs Dice" in result.note


def test_a_placebo_is_named(context: ProbeContext):
    assert "placebo" not in skips_note(context.network)
    assert "input skip" not in skips_note(context.network)
    assert "input skip" in skips_note(build(input_skip=True))
    network = UNet(NetworkSettings(depth=2, width=2, long_skip_placebo="noise"), 2, context.architecture.in_channels, 2)
    stood_in = replace(context, trained=network.eval())
    for measure in (probe, shapley.probe):
        assert "carry the placebo noise" in measure(stood_in).note


def test_probe_needs_a_long_skip(context: ProbeContext):
    bare = replace(context, trained=build(long_skip="none"))
    with pytest.raises(NotMeasurableError, match="no long skip"):
        probe(bare)

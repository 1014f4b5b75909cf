import itertools
import time
from dataclasses import replace
from typing import get_args

import pytest

from segmentation import SkipSegError
from segmentation.config import LongSkip, NetworkSettings, ShortSkip
from segmentation.model.budget import TOLERANCE, default_reference, solve_widths
from segmentation.model.layers import total_cost
from segmentation.model.unet import UNet, count_parameters

LONG, SHORT = get_args(LongSkip), get_args(ShortSkip)
PLAIN = [kind for kind in LONG if kind not in ("nested", "fullscale")]
REFERENCE = NetworkSettings(depth=4, width=32)
SIZE = {2: (64, 64), 3: (32, 32, 32)}


def solve(settings: NetworkSettings, reference: NetworkSettings = REFERENCE, dims: int = 2) -> NetworkSettings:
    return solve_widths(settings, reference, dims, in_channels=1, classes=2, size=SIZE[dims])


def relative_gap(settings: NetworkSettings, reference: NetworkSettings, dims: int) -> float:
    """Relative difference of what the settings say is matched."""
    cost, target = (total_cost(each, dims, 1, 2, size=SIZE[dims]) for each in (settings, reference))
    if settings.budget_match == "params":
        return abs(cost.parameters / target.parameters - 1)
    return abs(cost.macs / target.macs - 1)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("budget", ["params", "macs"])
@pytest.mark.parametrize("long", LONG)
def test_every_kind_is_matched(long, budget, dims):
    for short in SHORT:
        settings = replace(REFERENCE, long_skip=long, short_skip=short, budget_match=budget)
        found = solve(settings, dims=dims)
        assert relative_gap(found, REFERENCE, dims) <= TOLERANCE
        assert replace(found, widths=None) == settings


@pytest.mark.parametrize(("long", "short"), list(itertools.product(("none", "add", "gated"), ("none", "add", "dense"))))
def test_small_networks_are_matched_in_two_dimensions(long, short):
    reference = NetworkSettings(depth=3, width=8)
    settings = replace(reference, long_skip=long, short_skip=short, budget_match="params")
    assert relative_gap(solve(settings, reference), reference, 2) <= TOLERANCE


@pytest.mark.parametrize("long", ["none", "nested", "fullscale"])
@pytest.mark.parametrize("dims", [2, 3])
def test_networks_that_are_built_have_the_parameters(long, dims):
    reference = NetworkSettings(depth=3, width=16)
    settings = replace(reference, long_skip=long, short_skip="add", budget_match="params")
    built, target = (UNet(each, dims, 1, 2) for each in (solve(settings, reference, dims), reference))
    assert count_parameters(built) == pytest.approx(count_parameters(target), rel=TOLERANCE)


@pytest.mark.parametrize("budget", ["params", "macs"])
@pytest.mark.parametrize("long", PLAIN)
def test_ratios_of_the_widths_are_kept_within_one_channel(long, budget):
    settings = replace(REFERENCE, long_skip=long, budget_match=budget)
    widths, base = solve(settings).channels(), REFERENCE.channels()
    pairs = list(zip(widths, base, strict=True))
    assert max((width - 1) / each for width, each in pairs) <= min((width + 1) / each for width, each in pairs)


def test_without_long_skips_the_network_becomes_wider_by_the_root_of_what_it_lacks():
    settings = replace(REFERENCE, long_skip="none", budget_match="params")
    lacking = total_cost(REFERENCE, 2, 1, 2).parameters / total_cost(settings, 2, 1, 2).parameters
    assert solve(settings).channels()[-1] / REFERENCE.channels()[-1] == pytest.approx(lacking**0.5, rel=0.01)


def test_a_network_that_costs_the_same_keeps_its_widths():
    settings = replace(REFERENCE, long_skip_placebo="zeros", budget_match="macs")
    assert solve(settings).channels() == REFERENCE.channels()


def test_no_budget_changes_nothing():
    settings = replace(REFERENCE, long_skip="none")
    assert solve(settings) is settings


def test_widths_of_the_reference_are_the_pattern():
    """A preset's own widths give way, where the depths agree; another depth keeps its own pattern."""
    flat = NetworkSettings(depth=2, widths=[24, 24, 24])
    matched = solve(NetworkSettings(depth=2, width=8, long_skip="add", budget_match="params"), flat).channels()
    assert max(matched) - min(matched) <= 2
    deeper = solve(NetworkSettings(depth=3, width=8, long_skip="add", budget_match="params"), flat).channels()
    assert deeper[3] / deeper[0] == pytest.approx(8, rel=0.15)


def test_groups_of_a_normalisation_stay_whole():
    reference = replace(REFERENCE, norm="group", width=64)
    matched = solve(replace(reference, long_skip="none", budget_match="params"), reference).channels()
    assert [width % 8 for width in matched] == [0] * 5


def test_strides_and_kernels_count():
    strides, kernels = [(1, 2, 2), (2, 2, 2)], [(1, 3, 3), (3, 3, 3), (3, 3, 3)]
    reference = NetworkSettings(depth=2, width=16)
    settings = replace(reference, long_skip="none", budget_match="macs")
    found = solve_widths(settings, reference, 3, 1, 2, strides, kernels, size=(5, 40, 33))
    costs = [total_cost(each, 3, 1, 2, strides, kernels, size=(5, 40, 33)).macs for each in (found, reference)]
    assert costs[0] == pytest.approx(costs[1], rel=TOLERANCE)


def test_the_default_reference_is_the_same_network_with_concat_and_without_short_skips():
    settings = replace(
        REFERENCE, long_skip="gated", long_skip_levels={0: "none"}, short_skip="dense", norm="batch", convs=3
    )
    assert default_reference(settings) == replace(REFERENCE, norm="batch", convs=3)


def test_a_budget_that_no_widths_meet_is_refused_with_what_was_reached():
    reference = NetworkSettings(depth=1, width=1)
    settings = replace(reference, long_skip="se", budget_match="params")
    with pytest.raises(SkipSegError, match=r"within 1% of 128 parameters: the nearest, \[1, 2\], have 141;"):
        solve(settings, reference)


def test_two_hundred_runs_are_matched_in_seconds():
    """As many as a large study freezes; other work may share the machine, so that the least time counts."""
    settings = replace(REFERENCE, long_skip="none", short_skip="add", budget_match="params")
    times: list[float] = []
    for _ in range(20):
        start = time.perf_counter()
        solve(settings)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.025

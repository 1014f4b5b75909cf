import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from segmentation.config import NetworkSettings
from segmentation.model.chain import Chain
from segmentation.model.skips import ShortJoin
from segmentation.model.unet import UNet
from segmentation.probes.block_lesion import bypassed, path_profile, probe, removable_branches, swapped
from segmentation.probes.context import NotMeasurableError, ProbeContext


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 1, 6, 6, generator=torch.Generator().manual_seed(0))


def joins(network: nn.Module, images: Tensor) -> list[ShortJoin]:
    return list(removable_branches(network, images).values())


def zero_unit(chain: Chain, index: int) -> None:
    for parameter in chain.units[index].parameters():
        nn.init.zeros_(parameter)


@pytest.mark.parametrize("short", ["add", "scaled_add", "gated_add", "dense"])
def test_bypassing_a_branch_is_a_branch_of_zeros(short: Any, images: Tensor):
    chain = Chain(4, 4, 1, 1, short=short)
    other = Chain(4, 4, 1, 1, short=short)
    zero_unit(other, 2)
    with torch.no_grad():
        before = chain(images)
        with bypassed(joins(chain, images)[2]):
            torch.testing.assert_close(chain(images), other(images))
        assert torch.equal(chain(images), before)
        assert not torch.allclose(before, other(images))


def test_bypassing_a_plain_unit_takes_it_out_of_the_chain(images: Tensor):
    chain = Chain(3, 4, 1, 1)
    with torch.no_grad():
        x = chain.stem(images)
        expected = chain.head(chain.units[2](chain.units[0](x)))
        with bypassed(joins(chain, images)[1]):
            torch.testing.assert_close(chain(images), expected)


def test_additive_branches_span_several_units(images: Tensor):
    chain = Chain(4, 4, 1, 1, short="add", every=2)
    assert list(removable_branches(chain, images)) == ["block.joins.0", "block.joins.1"]
    with torch.no_grad(), bypassed(*joins(chain, images)):
        torch.testing.assert_close(chain(images), chain.head(chain.stem(images)))


def test_plain_branches_that_change_the_channels_stay():
    plain = UNet(NetworkSettings(depth=1, width=2), 2, 1, 2)
    names = list(removable_branches(plain, torch.zeros(1, 1, 4, 4)))
    # The first unit of each block changes the channels, the second keeps them.
    assert names == ["encoder.0.joins.1", "bottleneck.joins.1", "decoder.0.joins.1"]
    residual = UNet(NetworkSettings(depth=1, width=2, short_skip="add"), 2, 1, 2)
    assert len(removable_branches(residual, torch.zeros(1, 1, 4, 4))) == 3


def test_swapped_units_are_swapped_back(images: Tensor):
    chain = Chain(3, 4, 1, 1)
    before = list(chain.units)
    with torch.no_grad(), swapped(chain.units, 0, 2):
        x = chain.stem(images)
        expected = chain.head(before[0](before[1](before[2](x))))
        torch.testing.assert_close(chain(images), expected)
    assert list(chain.units) == before


class Scalars(nn.Module):
    """x multiplied by 1 + w for each w: 2^n paths whose gradients are products of w."""

    def __init__(self, *weights: float) -> None:
        super().__init__()
        self.weights = weights
        self.joins = nn.ModuleList(ShortJoin("add", NetworkSettings(), 2, 1) for _ in weights)

    def forward(self, x: Tensor) -> Tensor:
        for weight, join in zip(self.weights, self.joins, strict=True):
            x = join(x, weight * x)
        return x


def test_gradient_of_paths_is_the_mean_product_of_their_weights():
    network = Scalars(0.5, 0.5, 0.5)
    batch = (torch.ones(1, 1, 1, 1), torch.zeros(1))
    found = path_profile(network, lambda net, x, y: net(x).sum(), [batch], joins(network, batch[0]), samples=2)
    assert found.one_path == pytest.approx([1, 0.5, 0.25, 0.125])
    assert found.all_paths == pytest.approx([1, 1.5, 0.75, 0.125])
    assert sum(found.all_paths) == pytest.approx(1.5**3)  # all paths together are the whole gradient


def test_gradients_of_paths_are_sampled_over_sets_of_branches():
    network = Scalars(1.0, 2.0, 4.0)
    batch = (torch.ones(1, 1, 1, 1), torch.zeros(1))
    found = path_profile(network, lambda net, x, y: net(x).sum(), [batch], joins(network, batch[0]), samples=400)
    assert found.one_path[1] == pytest.approx(7 / 3, rel=0.1)
    assert found.one_path[2] == pytest.approx(14 / 3, rel=0.1)
    assert network(batch[0]).item() == pytest.approx(2 * 3 * 5)


def test_profile_leaves_no_hook_and_no_mode_behind(images: Tensor):
    chain = Chain(2, 2, 1, 1, short="add", norm="batch").train()
    path_profile(chain, lambda net, x, y: net(x).square().sum(), [(images, images)], joins(chain, images), samples=1)
    assert chain.training
    x = images.clone().requires_grad_()
    chain.eval()(x).sum().backward()
    assert x.grad is not None
    assert math.isfinite(float(x.grad.norm()))


def test_probe_bypasses_every_branch_that_it_can(context: ProbeContext):
    result = probe(context)
    names = ["encoder.0.1", "encoder.1.1", "bottleneck.1", "decoder.0.1", "decoder.1.1"]
    assert sorted(result.values["changes"]) == sorted(names)
    assert result.figures[0].title == "Change of Dice when a branch is bypassed"
    assert "paths" not in result.values  # there is no short skip


def test_probe_measures_paths_where_there_are_short_skips(context: ProbeContext):
    residual = UNet(NetworkSettings(depth=2, width=4, short_skip="add"), 2, context.architecture.in_channels, 2)
    result = probe(replace(context, trained=residual))
    assert len(result.values["paths"]["one_path"]) == 6
    assert len(result.figures) == 2


def test_probe_needs_a_branch(context: ProbeContext):
    settings = NetworkSettings(depth=2, width=4, convs=1)
    bare = UNet(settings, 2, context.architecture.in_channels, 2)
    with pytest.raises(NotMeasurableError, match="changes the number of channels"):
        probe(replace(context, trained=bare))

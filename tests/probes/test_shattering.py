"""Shattered gradients: the autocorrelation by hand, and depth and skips as Balduzzi et al. have them."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from segmentation import SkipSegError
from segmentation.config import NetworkSettings
from segmentation.model.unet import UNet
from segmentation.probes import shattering as module
from segmentation.probes.modes import settle
from segmentation.probes.shattering import (
    autocorrelation,
    decay_length,
    foreground_margin,
    input_gradients,
    line,
    shattering,
)


def test_autocorrelation_is_that_of_numpy():
    values = np.random.default_rng(0).normal(size=40)
    centred = values - values.mean()
    expected = np.correlate(centred, centred, "full")[39:60] / (centred @ centred)
    assert autocorrelation(torch.from_numpy(values)) == pytest.approx(expected.tolist())


def test_autocorrelation_of_vectors_is_the_weighted_mean_of_their_components():
    values = np.random.default_rng(0).normal(size=(30, 3)) * [1, 5, 2]
    power = ((values - values.mean(0)) ** 2).sum(0)
    single = np.array([autocorrelation(torch.from_numpy(values[:, i])) for i in range(3)])
    assert autocorrelation(torch.from_numpy(values)) == pytest.approx((power @ single / power.sum()).tolist())


def test_constant_gradient_has_no_autocorrelation():
    assert all(math.isnan(r) for r in autocorrelation(torch.ones(8)))


@pytest.mark.parametrize(("rate", "expected"), [(0.5, 0.5), (4.0, 4.0)])
def test_decay_length_of_an_exponential(rate, expected):
    found = decay_length([math.exp(-k / rate) for k in range(20)])
    assert found == pytest.approx(expected, abs=0.3)
    assert math.isnan(decay_length([1.0, 0.9, 0.8]))


def test_input_gradient_is_the_derivative():
    class Cube(nn.Module):
        def forward(self, x):
            return x**3

    points = line(torch.tensor([-1.0]), torch.tensor([2.0]), 20)
    assert torch.allclose(input_gradients(Cube(), points), 3 * points**2)


def test_points_do_not_touch_each_other():
    network = UNet(NetworkSettings(depth=1, width=4, norm="batch"), 2, 1, 2)
    images = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    network = settle(network, [(images, torch.zeros(3))]).eval()
    together = input_gradients(network, images, foreground_margin)
    assert torch.allclose(together[1:2], input_gradients(network, images[1:2], foreground_margin), atol=1e-7)


def test_settled_batch_normalisation_knows_the_mean_of_the_batches():
    network, generator = nn.Sequential(nn.BatchNorm2d(2)), torch.Generator().manual_seed(0)
    batches = [(torch.randn(4, 2, 5, 5, generator=generator) * 3 + 1, torch.zeros(4)) for _ in range(3)]
    settle(network, batches)
    means = torch.stack([images.mean((0, 2, 3)) for images, _ in batches])
    assert torch.allclose(network[0].running_mean, means.mean(0), atol=1e-6)
    assert network[0].momentum == 0.1
    assert network.training


class Mlp(nn.Module):
    """The network of Balduzzi et al.: ReLU layers of one width, with or without short skips."""

    def __init__(self, depth, short, seed, width=100):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.inside = torch.randn(2, width, generator=generator)
        self.layers = [torch.randn(width, width, generator=generator) * math.sqrt(2 / width) for _ in range(depth)]
        self.outside = torch.randn(width, 1, generator=generator)
        self.short = short

    def forward(self, x):
        h = x @ self.inside[:1] + self.inside[1]
        for weight in self.layers:
            branch = nn.functional.relu(h) @ weight
            h = h + 0.1 * branch if self.short else branch
        return nn.functional.relu(h) @ self.outside


def test_depth_shatters_gradients_and_short_skips_hold_them_together():
    points = line(torch.tensor([-2.0]), torch.tensor([2.0]), 256)

    def at_lag(depth, short):
        return float(np.mean([shattering(Mlp(depth, short, s), [points])["autocorrelation"][15] for s in range(8)]))

    shallow, deep, rescued = at_lag(1, False), at_lag(24, False), at_lag(24, True)
    assert deep < shallow - 0.3
    assert rescued > deep + 0.3


def test_probe_walks_between_patches(context):
    result = module.probe(context)
    images = torch.cat([images for images, _ in context.batches])
    lines = [line(images[0], images[1], 64), line(images[2], images[3], 64)]
    assert result.values["lines"] == 2
    assert result.values["after training"] == shattering(context.network, lines, foreground_margin)
    assert result.values["at the start"]["autocorrelation"][0] == pytest.approx(1.0)


def test_probe_needs_two_patches(context):
    single = replace(context)
    vars(single)["batches"] = [tuple(tensor[:1] for tensor in context.batches[0])]
    with pytest.raises(SkipSegError, match="two patches"):
        module.probe(single)

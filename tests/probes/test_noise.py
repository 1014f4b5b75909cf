"""Gradient noise: against numbers by hand, and in expectation."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from segmentation import SkipSegError
from segmentation.probes import noise
from segmentation.probes.noise import gradient_noise, layer_noise


def test_three_gradients_by_hand():
    rows = np.array([[2.0, 0.0], [0.0, 2.0], [4.0, 1.0]])
    signal, spread = (2.0**2 + 1.0**2), (4.0 + 1.0)  # mean (2, 1); variances 4 and 1 with B - 1
    found = gradient_noise(torch.tensor(rows))
    assert found.snr == pytest.approx((signal - spread / 3) / spread)
    assert found.noise_scale == pytest.approx(spread / signal)
    assert found.confusion == pytest.approx(0.0)
    opposed = gradient_noise(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [1.0, 1.0]]))
    assert opposed.confusion == pytest.approx(-1.0)
    assert opposed.snr == 0.0


def test_signal_is_unbiased():
    # Mean (1, 0, ..., 0), unit variance: ||m||^2 / sum(s^2) is 1 / 10, and the naive estimate 1 / 10 + 1 / 4.
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(4000, 4, 10, generator=generator, dtype=torch.float64)
    draws[:, :, 0] += 1
    signal = draws.mean(1).square().sum(1) - draws.var(1).sum(1) / 4
    assert (signal.mean() / 10).item() == pytest.approx(0.1, abs=0.01)
    one = gradient_noise(draws[0])
    assert one.snr == pytest.approx(max(signal[0].item(), 0) / draws[0].var(0).sum().item())


def test_equal_and_absent_gradients_have_no_noise_to_compare_with():
    equal, absent = gradient_noise(torch.ones(2, 3)), gradient_noise(torch.zeros(2, 3))
    assert math.isnan(equal.snr)
    assert (equal.noise_scale, equal.confusion) == (0.0, pytest.approx(1.0))
    assert math.isnan(absent.noise_scale)
    assert math.isnan(absent.confusion)


def test_one_mini_batch_is_refused():
    with pytest.raises(ValueError, match="at least two mini-batches"):
        gradient_noise(torch.ones(1, 3))


def test_layers_and_all_of_them_together():
    network = nn.Sequential(nn.Linear(2, 1, bias=False), nn.Linear(1, 1, bias=False))
    nn.init.ones_(network[0].weight), nn.init.ones_(network[1].weight)
    batches = [(torch.tensor([[1.0, 2.0]]), torch.zeros(1)), (torch.tensor([[3.0, 0.0]]), torch.zeros(1))]
    found = layer_noise(network, lambda net, x, _: net(x).sum(), batches)
    # Gradients: of the first layer the input, of the second its sum, 3 in both.
    expected = [
        gradient_noise(torch.tensor([[1.0, 2.0], [3.0, 0.0]]), "0"),
        gradient_noise(torch.tensor([[3.0], [3.0]]), "1"),
        gradient_noise(torch.tensor([[1.0, 2.0, 3.0], [3.0, 0.0, 3.0]]), "all layers"),
    ]
    assert repr(found) == repr(expected)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_probe_measures_start_and_end(context):
    result = noise.probe(context)
    layers = result.values["after training"]
    assert layers[-1]["name"] == "all layers"
    assert len(result.figures[0].ticks) == len(layers) - 1
    assert all(-1 <= layer["confusion"] <= 1 for layer in layers)


def test_probe_needs_two_batches(context):
    with pytest.raises(SkipSegError, match="--batches 2"):
        noise.probe(replace(context, options=replace(context.options, batches=1)))

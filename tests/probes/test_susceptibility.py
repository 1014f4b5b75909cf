import numpy as np
import pytest
import torch
from scipy.spatial.distance import euclidean
from torch import Tensor, nn

from segmentation.data.shifts import gain
from segmentation.probes.context import ProbeContext
from segmentation.probes.susceptibility import SHIFTS, channel_distances, hellinger, probe, susceptibility


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_distance_equals_the_euclidean_one_of_roots():
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(6)), rng.dirichlet(np.ones(6))
    assert hellinger(p, q) == pytest.approx(euclidean(np.sqrt(p), np.sqrt(q)) / np.sqrt(2))


def test_distance_of_two_gaussians_is_the_known_one():
    # H^2 = 1 - exp(-(m1 - m2)^2 / (8 s^2)) for equal s.
    source, target = draw(200_000, 1), draw(200_000, 1, seed=1) + 1.0
    assert channel_distances(source, target)[0] == pytest.approx(np.sqrt(1 - np.exp(-1 / 8)), abs=0.01)


def test_channels_are_taken_by_themselves():
    source = torch.cat((draw(500, 1), torch.ones(500, 1), torch.zeros(500, 1)), dim=1)
    target = torch.cat((source[:, :1], torch.ones(500, 1), torch.ones(500, 1)), dim=1)
    np.testing.assert_allclose(channel_distances(source, target), [0, 0, 1], atol=1e-7)


def test_a_block_that_normalises_does_not_notice_less_contrast():
    network = nn.Sequential(nn.Identity(), nn.InstanceNorm2d(2))
    images = draw(4, 2, 24, 24)
    found = susceptibility(
        network, {"raw": network[0], "normalised": network[1]}, [images], [gain(images, 0.5)], samples=2000
    )
    assert found["raw"] > 0.3
    assert found["normalised"] < 0.15


def test_probe_finds_more_than_the_control(context: ProbeContext):
    values = probe(context).values
    assert list(values) == list(SHIFTS)
    assert values["noise"]["E0"] > values["control"]["E0"]

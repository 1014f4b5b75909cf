import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from segmentation import SkipSegError
from segmentation.config import NetworkSettings
from segmentation.model.unet import UNet
from segmentation.probes.context import ProbeContext
from segmentation.probes.similarity import cka, compare, hsic, probe
from segmentation.probes.stages import stages


def draw(n: int, channels: int, seed: int) -> Tensor:
    return torch.randn(n, channels, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def brute_force(k: np.ndarray, other: np.ndarray) -> float:
    """HSIC as Song et al. define it: the mean over all ordered quadruples of distinct samples."""
    quadruples = itertools.permutations(range(len(k)), 4)
    return float(np.mean([k[i, j] * (other[i, j] + other[q, r] - 2 * other[i, q]) for i, j, q, r in quadruples]))


def test_hsic_equals_the_mean_over_all_quadruples():
    x, y = draw(7, 3, 0), draw(7, 2, 1)
    k, other = x @ x.T, y @ y.T
    assert hsic(k, other).item() == pytest.approx(brute_force(k.numpy(), other.numpy()))


def test_hsic_ignores_the_diagonal_and_the_mean_of_the_features():
    x, y = draw(9, 3, 0) + 5, draw(9, 2, 1)
    k, other = x @ x.T, y @ y.T
    centred = x - x.mean(dim=0)
    assert hsic(k + torch.eye(9), other).item() == pytest.approx(hsic(k, other).item())
    assert hsic(centred @ centred.T, other).item() == pytest.approx(hsic(k, other).item())


def test_hsic_of_independent_features_is_zero_on_average():
    found = [
        hsic(x @ x.T, y @ y.T).item() for x, y in ((draw(12, 4, 2 * s), draw(12, 4, 2 * s + 1)) for s in range(400))
    ]
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(len(found))


def test_cka_is_one_under_rotation_scale_and_shift():
    x = draw(50, 6, 0)
    rotation, _ = torch.linalg.qr(draw(6, 6, 1))
    assert cka([x], [2.5 * x @ rotation + 3]) == pytest.approx(1)


def test_cka_is_symmetric_and_differs_under_a_general_linear_map():
    x = draw(200, 6, 0)
    y = x @ torch.diag(torch.tensor([10.0, 1, 1, 1, 1, 1], dtype=torch.float64))
    assert cka([x], [y]) == pytest.approx(cka([y], [x]))
    assert cka([x], [y]) < 0.7


def test_cka_of_independent_features_is_about_zero_although_channels_outnumber_samples():
    # The biased estimator gives about C / (n + C), here 0.9.
    found = [cka([draw(20, 200, 2 * s)], [draw(20, 200, 2 * s + 1)]) for s in range(30)]
    assert abs(np.mean(found)) < 0.1


def test_minibatches_are_summed_before_the_ratio():
    parts = [(draw(30, 3, s), draw(30, 3, s + 10) + draw(30, 3, s)) for s in range(4)]
    sums = np.zeros(3)
    for x, y in parts:
        k, other = x @ x.T, y @ y.T
        sums += [hsic(k, other).item(), hsic(k, k).item(), hsic(other, other).item()]
    assert cka(*zip(*parts, strict=True)) == pytest.approx(sums[0] / np.sqrt(sums[1] * sums[2]))


def test_features_that_do_not_vary_have_no_similarity():
    assert np.isnan(cka([torch.ones(8, 2)], [draw(8, 2, 0)]))


def test_too_few_samples_are_refused():
    with pytest.raises(SkipSegError, match="at least 4 samples, got 3"):
        cka([draw(3, 2, 0)], [draw(3, 2, 1)])


def test_a_network_equals_itself_and_two_seeds_differ():
    networks = [UNet(NetworkSettings(depth=2, width=4), 2, 1, 2, seed=seed) for seed in (0, 1)]
    images = [draw(4 * 256, 1, seed).float().view(4, 1, 16, 16) for seed in (0, 1)]
    first, second = ((network, stages(network)) for network in networks)
    same, other = compare(first, first, images, samples=64), compare(first, second, images, samples=64)
    np.testing.assert_allclose(np.diag(same), 1)
    assert (np.diag(other) < 0.99).all()
    assert same.shape == (5, 5)
    np.testing.assert_allclose(same, same.T)


def test_probe_reads_encoder_against_decoder_off_the_matrix(context: ProbeContext):
    values = probe(context).values
    matrix, names = np.array(values["cka"]), values["blocks"]
    assert values["encoder_decoder"] == [matrix[names.index(f"E{i}"), names.index(f"D{i}")] for i in (0, 1)]
    assert np.diag(matrix) == pytest.approx(1)

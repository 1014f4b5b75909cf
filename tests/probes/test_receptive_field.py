import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from segmentation.config import NetworkSettings
from segmentation.model.layers import layers
from segmentation.model.unet import UNet
from segmentation.probes.context import ProbeContext
from segmentation.probes.receptive_field import centre_profile, describe_field, effective_field, probe


class Linear(nn.Module):
    """Convolutions of ones: the field of n of them is the n-fold convolution of a box with itself."""

    def __init__(self, convs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.Conv2d(1, 1, 3, padding=1, bias=False) for _ in range(convs)))
        for parameter in self.parameters():
            nn.init.ones_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def test_field_of_linear_convolutions_is_their_kernel():
    box = np.ones(3)
    for _ in range(2):
        box = np.convolve(box, np.ones(3))
    expected = np.zeros((11, 11))
    expected[2:9, 2:9] = np.outer(box, box)
    np.testing.assert_allclose(effective_field(Linear(3), 1, (11, 11), inputs=5, batch=2), expected)


def test_field_sums_channels_and_averages_classes():
    conv = nn.Conv2d(2, 3, 1)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([[1.0, -2.0], [0.0, 3.0], [-6.0, 0.0]]).view(3, 2, 1, 1))
    field = effective_field(conv, 2, (5, 5))
    assert field[2, 2] == pytest.approx((3 + 3 + 6) / 3)
    assert np.count_nonzero(field) == 1


def test_extent_of_a_chain_is_its_theoretical_field():
    # r = 1 + sum (k - 1) = 7 voxels.
    found = describe_field(effective_field(Linear(3), 1, (21, 21)), (0.5, 2.0))
    assert found.extent_mm == pytest.approx([3.5, 14.0])


@pytest.mark.parametrize("long_skip", ["concat", "none"])
def test_extent_of_a_unet_stays_within_its_theoretical_field(long_skip):
    settings = NetworkSettings(depth=2, width=4, norm="none", activation="tanh", long_skip=long_skip)
    theory = layers(settings, 2, 1, 2)[-1].field
    field = effective_field(UNet(settings, 2, 1, 2), 1, (64, 64), inputs=4)
    found = describe_field(field, (1.0, 1.0)).extent_mm
    # Theory is the largest over the voxels of a block; the middle one may reach a little less far.
    assert all(t - 4 <= f <= t for f, t in zip(found, theory, strict=True))


def test_long_skips_sharpen_the_centre():
    masses: list[float] = []
    for long_skip in ("concat", "none"):
        network = UNet(NetworkSettings(depth=3, width=8, norm="none", long_skip=long_skip), 2, 1, 2)
        masses.append(describe_field(effective_field(network, 1, (64, 64), inputs=4), (1.0, 1.0)).centre_mass)
    assert masses[0] > 1.5 * masses[1]


def test_area_radius_and_centre_mass_of_a_disc():
    rows, columns = np.indices((101, 101)) - 50
    found = describe_field((np.hypot(rows, columns) <= 20).astype(float), (0.5, 0.5))
    assert found.radius_mm == pytest.approx(10, rel=0.01)
    assert found.area == pytest.approx(math.pi * 100, rel=0.02)
    assert found.centre_mass == pytest.approx(29 / 1257)  # pixels within 3 and within 20 of the middle


def test_area_ends_at_the_share_of_the_maximum():
    field = np.zeros((9, 9))
    field[4, 3:6] = [0.0455, 1.0, 0.0456]
    assert describe_field(field, (1.0, 1.0)).area == 2


def test_radius_of_a_ball_in_anisotropic_voxels():
    axes = np.indices((21, 41, 41)) - np.array([10, 20, 20]).reshape(3, 1, 1, 1)
    distance = np.sqrt((2 * axes[0]) ** 2 + axes[1] ** 2 + axes[2] ** 2)
    assert describe_field((distance <= 15).astype(float), (2.0, 1.0, 1.0)).radius_mm == pytest.approx(15, rel=0.02)


def test_profile_runs_through_the_middle():
    field = np.arange(12.0).reshape(3, 4)
    np.testing.assert_allclose(centre_profile(field), np.array([4, 5, 6, 7]) / 7)


def test_gradients_of_weights_are_not_touched():
    network = Linear(1)
    effective_field(network, 1, (5, 5))
    assert all(parameter.grad is None for parameter in network.parameters())


def test_probe_compares_with_theory_in_mm(context: ProbeContext):
    result = probe(context)
    field = layers(context.architecture.settings, 2, context.architecture.in_channels, 2)[-1].field
    assert result.values["theoretical_mm"] == pytest.approx(np.multiply(field, context.spacing_mm))
    assert result.values["after training"]["radius_mm"] > 0
    assert [figure.kind for figure in result.figures] == ["lines", "surface"]

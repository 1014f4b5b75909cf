import numpy as np
import pytest

from segmentation.probes.terrain import basin_radius, describe_plane, non_convex_share, ring_rise, roughness

AXIS = np.linspace(-1, 1, 41)
A, B = np.meshgrid(AXIS, AXIS)


def test_rings_of_a_cone_rise_with_their_radius():
    radii, rise = ring_rise(7 + np.hypot(A, B), AXIS)
    np.testing.assert_allclose(radii, AXIS[20:])
    np.testing.assert_allclose(rise, radii, atol=0.025)  # half a grid step


def test_a_ring_takes_the_median():
    plane = np.hypot(A, B)
    plane[20, 40] = 1e9  # one of the points at distance 1
    assert ring_rise(plane, AXIS)[1][-1] == pytest.approx(1, abs=0.025)


def test_basin_ends_where_half_of_the_gain_is_lost():
    # From 5 down to 1: half of the gain is a rise by 2, reached where r^2 = 2 / 8.
    assert describe_plane(1 + 8 * (A**2 + B**2), AXIS, initial_loss=5.0).basin_radius == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(("threshold", "expected"), [(10.0, np.inf), (0.0, 0.0), (-1.0, 0.0), (4.0, 2.0)])
def test_basin_radius_at_its_corners(threshold: float, expected: float):
    assert basin_radius(np.array([0.0, 1.0, 2.0]), np.array([0.0, 2.0, 4.0]), threshold) == expected


def test_basin_ends_at_the_last_finite_ring_before_an_infinite_loss():
    assert basin_radius(np.array([0.0, 1.0, 2.0]), np.array([0.0, 1.0, np.inf]), 5.0) == 1.0


@pytest.mark.parametrize(
    ("plane", "expected"), [(A**2 + B**2, 0.0), (-(A**2), 1.0), (A * B, 1.0), (A + B, 0.0), (A**3, 0.5)]
)
def test_share_of_cells_that_bend_downwards(plane: np.ndarray, expected: float):
    # The third power bends downwards left of zero; its middle column is flat.
    assert non_convex_share(plane, 0.05) == pytest.approx(expected, abs=0.02)


def test_cells_beside_an_infinite_loss_are_left_out():
    plane = A**2 + B**2
    plane[0, 0] = np.inf
    assert non_convex_share(plane, 0.05) == 0.0
    assert np.isnan(non_convex_share(np.full((5, 5), np.inf), 0.05))


def test_roughness_counts_what_goes_up_and_down():
    assert roughness(A**2 + B**2) == pytest.approx(1)
    # Along every ray sin^2 makes a full wave: up by 1 and down by 1 over a range of 1.
    radius = np.maximum(abs(A), abs(B))
    assert roughness(np.sin(np.pi * radius) ** 2) == pytest.approx(2)
    assert np.isnan(roughness(np.zeros((5, 5))))


def test_rays_end_before_an_infinite_loss():
    plane = np.array([0.0, 1.0, np.inf])[np.maximum(*np.abs(np.meshgrid(range(-2, 3), range(-2, 3))))]
    assert roughness(plane) == 1

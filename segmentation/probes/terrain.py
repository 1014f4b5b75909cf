"""Numbers that describe a plane of the loss landscape: rise on rings, radius of the basin, convexity, roughness."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
BASIN_SHARE = 0.5
"""Share of what training gained, at whose loss the basin ends."""
CONCAVE = -1e-3
"""A cell whose smaller curvature lies below this counts as non-convex."""


@dataclass(frozen=True)
class Terrain:
    """What describes a plane about its centre.

    Attributes:
        rise_half: Median rise of the loss at distance 1/2.
        rise_one: The same at distance 1.
        basin_radius: Distance at which half of what training gained is lost; infinity if the plane ends before.
        non_convex: Share of cells that bend downwards in some direction, in [0, 1].
        roughness: 1 where the loss only rises on its way out; above 1 it goes up and down.
    """

    rise_half: float
    rise_one: float
    basin_radius: float
    non_convex: float
    roughness: float


def describe_plane(plane: Array, axis: Array, initial_loss: float) -> Terrain:
    """Describe a plane.

    Args:
        plane: Loss, shape ``(N, N)`` with N odd; the weights are its centre.
        axis: Positions of its rows and columns, shape ``(N,)``, even and symmetric about 0.
        initial_loss: Loss of the untrained network.

    Examples:
        A bowl f = a^2 + b^2 on a network that started at a loss of 0.5:

        >>> axis = np.linspace(-1, 1, 21)
        >>> found = describe_plane(axis[:, None] ** 2 + axis[None, :] ** 2, axis, initial_loss=0.5)
        >>> round(found.rise_one, 1), round(found.basin_radius, 1), found.non_convex, round(found.roughness, 2)
        (1.0, 0.5, 0.0, 1.0)
    """
    radii, rise = ring_rise(plane, axis)
    centre = float(plane[len(axis) // 2, len(axis) // 2])
    return Terrain(
        float(np.interp(0.5, radii, rise)),
        float(np.interp(1.0, radii, rise)),
        basin_radius(radii, rise, BASIN_SHARE * (initial_loss - centre)),
        non_convex_share(plane, float(axis[1] - axis[0])),
        roughness(plane),
    )


def ring_rise(plane: Array, axis: Array) -> tuple[Array, Array]:
    """Median rise of the loss on rings, D(r) = median of f over |(a, b)| = r, minus f(0).

    A ring holds the points within half a grid step of its radius.

    Args:
        plane: Loss, shape ``(N, N)`` with N odd.
        axis: Positions of its rows and columns, shape ``(N,)``.

    Returns:
        Radii from 0 to the edge and the rise at each, shapes ``((N + 1) / 2,)``.
    """
    distance = np.hypot(axis[:, None], axis[None, :])
    half, radii = (axis[1] - axis[0]) / 2, axis[len(axis) // 2 :]
    centre = plane[len(axis) // 2, len(axis) // 2]
    rings = [plane[np.abs(distance - radius) <= half * (1 + 1e-9)] for radius in radii[1:]]
    return radii, np.array([0.0, *(np.median(ring) - centre for ring in rings)])


def basin_radius(radii: Array, rise: Array, threshold: float) -> float:
    """Smallest radius at which the rise reaches ``threshold``, interpolated between rings.

    Args:
        radii: Shape ``(R,)``, rising from 0.
        rise: Rise of the loss at each, shape ``(R,)``, 0 at the first.
        threshold: Rise at which the basin ends.

    Returns:
        Infinity if it is never reached; 0 if the threshold is not positive, for then training gained nothing.

    Examples:
        >>> basin_radius(np.array([0.0, 1.0, 2.0]), np.array([0.0, 1.0, 5.0]), threshold=3.0)
        1.5
    """
    if threshold <= 0:
        return 0.0
    beyond = np.flatnonzero(rise >= threshold)
    if not len(beyond):
        return float("inf")
    last = int(beyond[0])
    before, after = rise[last - 1], rise[last]
    share = 0.0 if np.isinf(after) else (threshold - before) / (after - before)
    return float(radii[last - 1] + share * (radii[last] - radii[last - 1]))


def non_convex_share(plane: Array, step: float) -> float:
    """Share of interior points whose Hessian by finite differences has an eigenvalue below -0.001.

    Args:
        plane: Loss, shape ``(N, N)``; points beside an infinite loss are left out.
        step: Distance between neighbouring points.

    Examples:
        >>> axis = np.linspace(-1, 1, 5)
        >>> non_convex_share(axis[:, None] ** 2 - axis[None, :] ** 2, step=0.5)
        1.0
    """
    finite = np.where(np.isfinite(plane), plane, np.nan)
    core = finite[1:-1, 1:-1]
    rows = (finite[2:, 1:-1] - 2 * core + finite[:-2, 1:-1]) / step**2
    columns = (finite[1:-1, 2:] - 2 * core + finite[1:-1, :-2]) / step**2
    mixed = (finite[2:, 2:] - finite[2:, :-2] - finite[:-2, 2:] + finite[:-2, :-2]) / (4 * step**2)
    smallest = (rows + columns) / 2 - np.hypot((rows - columns) / 2, mixed)
    known = smallest[np.isfinite(smallest)]
    return float((known < CONCAVE).mean()) if known.size else float("nan")


def roughness(plane: Array) -> float:
    """Total variation along a ray from the centre over its range, mean of the eight rays along the grid.

    Args:
        plane: Loss, shape ``(N, N)`` with N odd; rays that meet an infinite loss end before it.

    Returns:
        At least 1; nan for a plane without any difference.

    Examples:
        >>> ray = np.array([0.0, 2.0, 1.0])  # up by 2, down by 1, over a range of 2
        >>> roughness(ray[np.abs(np.arange(-2, 3))][:, None] + np.zeros((1, 5)))
        1.5
    """
    middle = len(plane) // 2
    found: list[float] = []
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            ray = np.array([plane[middle + down * i, middle + right * i] for i in range(middle + 1)])
            ray = ray[: int(np.argmin(np.isfinite(ray)))] if not np.isfinite(ray).all() else ray
            if len(ray) and np.ptp(ray) > 0:
                found.append(float(np.abs(np.diff(ray)).sum() / np.ptp(ray)))
    return float(np.mean(found)) if found else float("nan")

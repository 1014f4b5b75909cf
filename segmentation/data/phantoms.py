"""Synthetic tasks whose truth is known, because it is planted: blobs, thin curves, textures, lesions in an organ."""

from collections.abc import Callable, Mapping
from itertools import product
from typing import Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

Task = Literal["blob", "thin", "texture", "lesion"]
_Array = NDArray[np.float64]
_Planted = tuple[_Array, NDArray[np.uint8]]
"""Intensities about 0 to 1 without noise, and the label map, both of shape ``(*S)``."""


def plant(task: Task, rng: Generator, shape: tuple[int, ...], spacing: _Array, difficulty: float) -> _Planted:
    """Draw the truth of one scan, and its intensities without noise.

    Args:
        task: What is planted.
        rng: Source of every draw.
        shape: Voxels along each axis.
        spacing: Voxel spacing in mm along each axis, shape ``(len(shape),)``.
        difficulty: 0 is easy, 1 is hard: less contrast, or textures more alike.

    Returns:
        Intensities, about 0 to 1, and the label map, both of shape ``(*S)``.

    Examples:
        >>> signal, labels = plant("thin", np.random.default_rng(0), (32, 32), np.ones(2), difficulty=0.0)
        >>> sorted(np.unique(signal[labels == 1]).tolist())
        [0.9]
    """
    return _PLANTERS[task](rng, shape, spacing, difficulty)


def _plant_blobs(rng: Generator, shape: tuple[int, ...], spacing: _Array, difficulty: float) -> _Planted:
    """One to three bright compact shapes with wavy outlines."""
    extent = min(np.array(shape) * spacing)
    inside = np.zeros(shape, bool)
    for _ in range(rng.integers(1, 4)):
        inside |= _blob(rng, shape, spacing, rng.uniform(0.1, 0.22) * extent)
    return (0.9 - 0.75 * difficulty) * inside, inside.astype(np.uint8)


def _plant_curves(rng: Generator, shape: tuple[int, ...], spacing: _Array, difficulty: float) -> _Planted:
    """Three to five bright curves, two voxels wide, across the whole scan."""
    del spacing  # a curve is as wide as the grid allows
    inside = np.zeros(shape, bool)
    size = np.array(shape)
    steps = np.linspace(-1, 1, 4 * max(shape))[:, None]
    for _ in range(rng.integers(3, 6)):
        direction, bend = (_unit(rng.standard_normal(len(shape))) for _ in range(2))
        sway = 0.15 * np.sin(rng.uniform(2, 5) * steps + rng.uniform(0, 2 * np.pi))
        points = size * (rng.uniform(0.3, 0.7, len(shape)) + steps * direction + sway * bend)
        for corner in product((0, 1), repeat=len(shape)):
            voxels = np.floor(points).astype(int) + corner
            voxels = voxels[((voxels >= 0) & (voxels < size)).all(axis=1)]
            inside[tuple(voxels.T)] = True
    return (0.9 - 0.6 * difficulty) * inside, inside.astype(np.uint8)


def _plant_texture(rng: Generator, shape: tuple[int, ...], spacing: _Array, difficulty: float) -> _Planted:
    """Blobs that differ from their surroundings by texture alone: fine against coarse, of equal mean and variance.

    The fine texture is blended with the coarse one by the difficulty: at 1 nothing would be left to see, so the
    blend stops at 0.95.
    """
    extent = min(np.array(shape) * spacing)
    inside = np.zeros(shape, bool)
    for _ in range(rng.integers(1, 3)):
        inside |= _blob(rng, shape, spacing, rng.uniform(0.15, 0.28) * extent)
    fine, coarse = smooth_noise(rng, shape, 0.7), smooth_noise(rng, shape, 2.5)
    alpha = 0.95 * difficulty
    blended = ((1 - alpha) * fine + alpha * coarse) / np.hypot(1 - alpha, alpha)
    return 0.5 + 0.25 * np.where(inside, blended, coarse), inside.astype(np.uint8)


def _plant_lesions(rng: Generator, shape: tuple[int, ...], spacing: _Array, difficulty: float) -> _Planted:
    """An organ with one to five dark lesions, whose radii follow a log-normal distribution: most are small."""
    extent = min(np.array(shape) * spacing)
    centre = np.array(shape) * rng.uniform(0.45, 0.55, len(shape))
    organ = _blob(rng, shape, spacing, 0.34 * extent, centre)
    places = np.argwhere(organ)
    lesions = np.zeros(shape, bool)
    for _ in range(rng.integers(1, 6)):
        radius = np.clip(0.06 * extent * rng.lognormal(0, 0.4), spacing.max() / 2, 0.15 * extent)
        lesions |= _blob(rng, shape, spacing, radius, places[rng.integers(len(places))])
    lesions &= organ
    return 0.6 * organ - (0.45 - 0.35 * difficulty) * lesions, organ.astype(np.uint8) + lesions


_PLANTERS: Mapping[str, Callable[[Generator, tuple[int, ...], _Array, float], _Planted]] = {
    "blob": _plant_blobs,
    "thin": _plant_curves,
    "texture": _plant_texture,
    "lesion": _plant_lesions,
}


def _blob(
    rng: Generator, shape: tuple[int, ...], spacing: _Array, radius_mm: float, centre: _Array | None = None
) -> NDArray[np.bool_]:
    """Ball in mm with a wavy outline, shape ``(*S)``; it holds at least the voxel at its centre."""
    size = np.array(shape)
    centre = np.floor(size * rng.uniform(0.25, 0.75, len(shape)) if centre is None else centre)
    offsets = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1) - centre
    waves = smooth_noise(rng, shape, tuple(np.maximum(radius_mm / 2 / spacing, 1)))
    return np.linalg.norm(offsets * spacing, axis=-1) <= np.maximum(radius_mm * (1 + 0.15 * waves), 0)


def smooth_noise(rng: Generator, shape: tuple[int, ...], sigma: float | tuple[float, ...]) -> _Array:
    """Gaussian noise blurred by ``sigma`` voxels, with mean 0 and standard deviation 1, shape ``(*S)``."""
    noise = gaussian_filter(rng.standard_normal(shape), sigma, mode="reflect")
    return (noise - noise.mean()) / noise.std()


def _unit(vector: _Array) -> _Array:
    return vector / np.linalg.norm(vector)

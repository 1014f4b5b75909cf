"""Synthetic scans whose truth is known, because it is planted: blobs, thin curves, textures, lesions in an organ.

Every case is drawn from its own random stream (seed, case number), so that the first cases of a large set are those of
a small one, and the same settings give the same bytes.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from data_prep.build import About, Record, build
from segmentation import SkipSegError
from segmentation.config import PhantomSettings
from segmentation.data.manifest import Dataset
from segmentation.scans import Scan

SPACING_MM = (0.9, 0.9, 2.4)
"""Voxel spacing of oblique volumes; others are 1 mm along each axis."""

LABELS = {
    "blob": {"background": 0, "blob": 1},
    "thin": {"background": 0, "curve": 1},
    "texture": {"background": 0, "texture": 1},
    "lesion": {"background": 0, "organ": 1, "lesion": 2},
}

_Array = NDArray[np.float64]
_Planted = tuple[_Array, NDArray[np.uint8]]
"""Intensities about 0 to 1 without noise, and the label map, both of shape ``(*S)``."""


def prepare(out: Path, options: Mapping[str, Any]) -> Dataset:
    """Make the scans and write them: PNG with 8 bits for pictures, int16 NIfTI for volumes.

    Args:
        out: Dataset folder to create.
        options: Fields of :class:`segmentation.config.PhantomSettings`; the others keep their defaults.

    Returns:
        The dataset; each case is one patient.

    Raises:
        SkipSegError: If an option is unknown or out of range, or ``out`` holds something else.
    """
    try:
        settings = PhantomSettings(**options)
    except TypeError:
        known = ", ".join(asdict(PhantomSettings()))
        raise SkipSegError(f"phantom has the options {known}; got {', '.join(options)}") from None
    if settings.task not in LABELS:
        raise SkipSegError(f"phantom has the tasks {', '.join(LABELS)}; got {settings.task!r}")
    names = [f"{settings.task}_{number:03d}" for number in range(settings.cases)]
    records = [Record(name, name, partial(make_case, settings, number)) for number, name in enumerate(names)]
    about = About(
        name="phantom",
        spatial_dims=settings.spatial_dims,
        channel_names=("synthetic",),
        labels=LABELS[settings.task],
        licence="none: made by this program, free for any use",
        citation="none",
        notice="Synthetic scans: a score here says nothing about patients.",
    )
    return build(out, about, records, options=asdict(settings))


def make_case(settings: PhantomSettings, number: int) -> tuple[Scan, NDArray[np.uint8]]:
    """Draw one scan with its truth.

    Args:
        settings: What to draw.
        number: Which case of the set, from 0.

    Returns:
        Scan of shape ``(1, *S)``, uint8 for a picture and int16 for a volume, and its label map of shape ``(*S)``.

    Examples:
        >>> scan, label_map = make_case(PhantomSettings(task="lesion", spatial_dims=3, size=24), 0)
        >>> scan.array.dtype.name, sorted(np.unique(label_map).tolist())
        ('int16', [0, 1, 2])
    """
    rng = np.random.default_rng([settings.seed, number])
    tilted = settings.spatial_dims == 3 and settings.oblique
    spacing = SPACING_MM if tilted else (1.0,) * settings.spatial_dims
    extent = settings.size * rng.uniform(0.9, 1.1, settings.spatial_dims)
    shape = tuple(int(n) for n in np.maximum(np.round(extent * spacing[0] / np.array(spacing)), 8))
    signal, label_map = _PLANTERS[settings.task](rng, shape, np.array(spacing), settings.difficulty)
    shading = 0.1 * _smooth_noise(rng, shape, min(shape) / 3)
    noise = (0.03 + 0.12 * settings.difficulty) * rng.standard_normal(shape)
    image = signal + shading + noise
    if settings.spatial_dims == 2:
        pixels = np.clip(np.round(40 + 150 * image), 0, 255).astype(np.uint8)
        return Scan(pixels[None], np.eye(4), "phantom"), label_map
    affine = _oblique_affine(rng, np.array(spacing)) if tilted else np.eye(4)
    return Scan(np.round(1000 * image).astype(np.int16)[None], affine, "phantom"), label_map


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
    fine, coarse = _smooth_noise(rng, shape, 0.7), _smooth_noise(rng, shape, 2.5)
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
    waves = _smooth_noise(rng, shape, tuple(np.maximum(radius_mm / 2 / spacing, 1)))
    return np.linalg.norm(offsets * spacing, axis=-1) <= np.maximum(radius_mm * (1 + 0.15 * waves), 0)


def _smooth_noise(rng: Generator, shape: tuple[int, ...], sigma: float | tuple[float, ...]) -> _Array:
    """Gaussian noise blurred by ``sigma`` voxels, with mean 0 and standard deviation 1, shape ``(*S)``."""
    noise = gaussian_filter(rng.standard_normal(shape), sigma, mode="reflect")
    return (noise - noise.mean()) / noise.std()


def _oblique_affine(rng: Generator, spacing: _Array) -> _Array:
    """Rotation by up to 20 degrees about each axis, with spacing and a shift, shape ``(4, 4)``."""
    affine = np.eye(4)
    for axis, angle in enumerate(np.deg2rad(rng.uniform(-20, 20, 3))):
        turn = np.eye(3)
        first, second = [i for i in range(3) if i != axis]
        turn[[first, second], [first, second]] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        affine[:3, :3] = affine[:3, :3] @ turn
    affine[:3, :3] *= spacing
    affine[:3, 3] = rng.uniform(-100, 100, 3)
    return affine


def _unit(vector: _Array) -> _Array:
    return vector / np.linalg.norm(vector)

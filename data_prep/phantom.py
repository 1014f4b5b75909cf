"""Synthetic scans whose truth is known, because it is planted: blobs, thin curves, textures, lesions in an organ.

Every case is drawn from its own random stream (seed, case number), so that the first cases of a large set are those of
a small one, and the same settings give the same bytes.
"""

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from data_prep.build import About, Record, build
from segmentation import SkipSegError
from segmentation.config import PhantomSettings
from segmentation.data.manifest import Dataset
from segmentation.data.phantoms import plant, smooth_noise
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
    signal, label_map = plant(settings.task, rng, shape, np.array(spacing), settings.difficulty)
    shading = 0.1 * smooth_noise(rng, shape, min(shape) / 3)
    noise = (0.03 + 0.12 * settings.difficulty) * rng.standard_normal(shape)
    image = signal + shading + noise
    if settings.spatial_dims == 2:
        pixels = np.clip(np.round(40 + 150 * image), 0, 255).astype(np.uint8)
        return Scan(pixels[None], np.eye(4), "phantom"), label_map
    affine = _oblique_affine(rng, np.array(spacing)) if tilted else np.eye(4)
    return Scan(np.round(1000 * image).astype(np.int16)[None], affine, "phantom"), label_map


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

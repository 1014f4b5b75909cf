"""Scans whose structures are known, of the sizes that hospitals have: a brain in four contrasts, and a CT of a body."""

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

SPACING_MM = {"brain": (1.0, 1.0, 1.0), "ct": (0.75, 0.75, 1.5)}
CHANNELS = {"brain": ("t1", "t1ce", "t2", "flair"), "ct": ("CT",)}
LABELS = {
    "brain": {"background": 0, "oedema": 1, "core": 2},
    "ct": {"background": 0, "organ": 1, "lesion": 2},
}
_CONTRAST = ((-60, 40), (-60, 200), (160, 120), (220, 120))
"""What oedema and core add to the tissue in each contrast of the brain."""


def make_scan(kind: str, shape: Sequence[int], seed: int = 0) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Draw a scan.

    Args:
        kind: ``"brain"``: a head that fills about a quarter of the volume, zero around it. ``"ct"``: a body in air.
        shape: Voxels along (x, y, z).
        seed: Of all that is random.

    Returns:
        Intensities of shape ``(C, *shape)``, and the label map of shape ``shape``.
    """
    rng = np.random.default_rng(seed)
    texture, wobble = _field(shape, 6, rng), _field(shape, 16, rng)
    if kind == "brain":
        inside = _distance(shape, (0.5, 0.5, 0.5), (0.31, 0.38, 0.42)) < 1
        nested = [_distance(shape, (0.42, 0.55, 0.55), np.array((0.15, 0.15, 0.2)) * size) for size in (1.0, 0.65)]
        labels = sum((each + 0.15 * wobble < 1).astype(np.uint8) for each in nested) * inside
        scan = np.empty((len(_CONTRAST), *shape), np.int16)
        for channel, added in enumerate(_CONTRAST):
            values = 400 + 40 * texture + np.array((0, *added), np.float32)[labels]
            scan[channel] = np.where(inside, values + rng.normal(0, 15, shape).astype(np.float32), 0)
        return scan, labels
    body = _distance(shape, (0.5, 0.5, 0.5), (0.42, 0.33, 9.0)) < 1
    organ = _distance(shape, (0.38, 0.48, 0.5), (0.16, 0.14, 0.3)) + 0.15 * wobble < 1
    labels = organ.astype(np.uint8)
    for centre in ((0.34, 0.45, 0.42), (0.42, 0.52, 0.58), (0.36, 0.5, 0.62)):
        labels[(_distance(shape, centre, (0.07, 0.07, 0.1)) + 0.1 * wobble < 1) & organ] = 2
    values = 30 + 15 * texture + np.array((0, 120, 30), np.float32)[labels]
    grain = np.array((8, 8, 40), np.float32)[labels] * rng.standard_normal(shape, np.float32)
    values = np.where(body, values, -1000) + grain
    return values.round().astype(np.int16)[None], labels


def write_scan(folder: Path, name: str, scan: NDArray[np.int16], spacing_mm: Sequence[float]) -> list[Path]:
    """Write one ``NAME_0000.nii.gz`` a channel of a scan of shape ``(C, *S)``."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}_{channel:04}.nii.gz" for channel in range(len(scan))]
    for path, values in zip(paths, scan, strict=True):
        write_volume(path, values, spacing_mm)
    return paths


def write_volume(path: Path, values: NDArray[np.generic], spacing_mm: Sequence[float]) -> None:
    """Write one volume, shape ``(*S)``, whose axes run to right, anterior, superior."""
    image = nib.Nifti1Image(values, np.diag([*spacing_mm, 1.0]))
    image.header.set_xyzt_units("mm")
    image.to_filename(path)


def _field(shape: Sequence[int], scale: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Smooth noise of about unit deviation: one draw for each ``scale`` voxels, linear between them."""
    coarse = [max(2, -(-size // scale)) for size in shape]
    factors = [size / few for size, few in zip(shape, coarse, strict=True)]
    drawn = 1.5 * rng.standard_normal(coarse, np.float32)
    return ndimage.zoom(drawn, factors, order=1, mode="nearest", grid_mode=True)


def _distance(shape: Sequence[int], centre: Sequence[float], radii: Sequence[float]) -> NDArray[np.float32]:
    """Distance from ``centre`` in units of ``radii``, both as shares of the volume."""
    axes = [
        (((np.arange(size) + 0.5) / size - middle) / radius) ** 2
        for size, middle, radius in zip(shape, centre, radii, strict=True)
    ]
    return np.sqrt(sum(np.ix_(*axes))).astype(np.float32)

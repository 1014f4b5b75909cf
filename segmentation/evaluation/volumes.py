"""Small volumes of where a prediction is right and wrong, for the viewer of the report.

Three files a case: ``NAME_image.nii.gz`` (grey levels with the scale back to the scan's intensities),
``NAME_errors.nii.gz`` (a code of class and kind of error) and ``NAME.json``, which says what the codes mean.
"""

import gzip
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from segmentation.evaluation.overlays import COLOURS, agreement
from segmentation.runs import write_bytes, write_json

MOST_VOXELS = 750_000
"""Voxels of a volume for the viewer: larger scans are shrunk by whole factors, never cropped."""

GREYS = 127
"""Steps between the darkest and the brightest grey: more would only store noise."""

WINDOW = (0.5, 99.5)
"""Percentiles of the intensities that become the darkest and the brightest grey."""


def write_volume(
    folder: Path,
    name: str,
    image: NDArray[np.floating] | None,
    prediction: NDArray[np.integer],
    reference: NDArray[np.integer],
    affine: NDArray[np.float64],
    labels: Mapping[str, int],
) -> None:
    """Write a scan and its errors in the scan's own frame, shrunk to :data:`MOST_VOXELS`.

    The intensity of a shrunk voxel is the mean of its voxels. Its code is the most frequent error inside, and agreement
    only where there is none: no error vanishes, however small, and thin ones look thicker. The same input gives the
    same bytes.

    Args:
        folder: Where the files go.
        name: Beginning of their names.
        image: Intensities, shape ``(*S)`` with three axes; None for none.
        prediction: Predicted labels, same shape.
        reference: Annotated labels, same shape. Set voxels to be ignored to 0 in both.
        affine: Voxel to world of all three, shape ``(4, 4)``, in mm.
        labels: Name and value of every foreground class.
    """
    factors = shrinking(reference.shape, np.linalg.norm(affine[:3, :3], axis=0).tolist())
    codes = _shrunk_codes(_codes(prediction, reference, labels), factors)
    grey = np.zeros(codes.shape) if image is None else _blocks(image, factors, "edge").mean(axis=-1, dtype=np.float64)
    low, high = _window(grey)
    step = (high - low) / GREYS
    levels = np.nan_to_num((grey - low) / step, posinf=GREYS, neginf=0).clip(0, GREYS).round().astype(np.uint8)
    shrunk = affine @ _grown_voxels(factors)
    _write_nifti(folder / f"{name}_image.nii.gz", levels, shrunk, step, low)
    _write_nifti(folder / f"{name}_errors.nii.gz", codes, shrunk)
    meanings = [
        {"value": int(code), "class": class_name, "kind": kind}
        for code, class_name, kind in _meanings(labels)
        if (codes == code).any()
    ]
    facts = {"shrunk": list(factors), "window": [low, high], "at_mm": _place(prediction, reference, affine)}
    write_json(folder / f"{name}.json", facts | {"labels": meanings})


def shrinking(shape: Sequence[int], spacing_mm: Sequence[float], most: int = MOST_VOXELS) -> tuple[int, ...]:
    """Whole factors by which the axes of a volume shrink to ``most`` voxels, the finest axes first.

    Examples:
        >>> shrinking((512, 512, 120), (0.7, 0.7, 2.5))
        (5, 5, 2)
        >>> shrinking((48, 64, 32), (1, 1, 1))
        (1, 1, 1)
    """
    factors = np.ones(len(shape), int)
    while math.prod(math.ceil(size / factor) for size, factor in zip(shape, factors, strict=True)) > most:
        sizes = np.asarray(spacing_mm) * factors
        factors[sizes < 1.01 * sizes[np.asarray(shape) > factors].min()] += 1
    return tuple(int(factor) for factor in factors)


def _meanings(labels: Mapping[str, int]) -> list[tuple[int, str, str]]:
    """Code, class and kind of error: four codes a class, in the order of the overlay's colours."""
    pairs = [(name, kind) for name in labels for kind in COLOURS]
    return [(code, name, kind) for code, (name, kind) in enumerate(pairs, start=1)]


def _codes(
    prediction: NDArray[np.integer], reference: NDArray[np.integer], labels: Mapping[str, int]
) -> NDArray[np.unsignedinteger]:
    """Code of each voxel; of a missed voxel the annotated class counts, else the predicted one."""
    codes = np.zeros(reference.shape, np.uint8 if len(labels) * len(COLOURS) < 256 else np.uint16)
    for kind, mask in enumerate(agreement(prediction, reference), start=1):
        owner = np.where(prediction != 0, prediction, reference)
        for index, value in enumerate(labels.values()):
            codes[mask & (owner == value)] = len(COLOURS) * index + kind
    return codes


def _blocks(array: NDArray[Any], factors: Sequence[int], beyond: Any) -> NDArray[Any]:
    """Voxels of each block along a last axis; ``beyond`` says how the volume goes on past its end."""
    padding = [(0, -size % factor) for size, factor in zip(array.shape, factors, strict=True)]
    padded = np.pad(array, padding, beyond)
    sides = [side for size, factor in zip(padded.shape, factors, strict=True) for side in (size // factor, factor)]
    apart = padded.reshape(sides).transpose(0, 2, 4, 1, 3, 5)
    return apart.reshape(*apart.shape[:3], -1)


def _shrunk_codes(codes: NDArray[np.unsignedinteger], factors: Sequence[int]) -> NDArray[np.unsignedinteger]:
    """Most frequent error of each block; agreement where it has none."""
    blocks = _blocks(codes, factors, "constant")
    shrunk = np.zeros(blocks.shape[:3], codes.dtype)
    found = np.unique(codes[codes != 0])
    agreed = (found - 1) % len(COLOURS) == 0
    for group in (found[agreed], found[~agreed]):  # an error goes over agreement, however few its voxels
        most = np.zeros(blocks.shape[:3], int)
        for code in group:
            count = np.count_nonzero(blocks == code, axis=-1)
            shrunk[count > most] = code
            most = np.maximum(most, count)
    return shrunk


def _window(grey: NDArray[np.floating]) -> tuple[float, float]:
    """Intensities that become the darkest and the brightest grey, always apart."""
    finite = grey[np.isfinite(grey)]
    low, high = (float(bound) for bound in np.percentile(finite, WINDOW)) if finite.size else (0.0, 1.0)
    return (low, high) if high > low else (low, low + 1.0)


def _grown_voxels(factors: Sequence[int]) -> NDArray[np.float64]:
    """Index in the shrunk volume to index in the scan: the first voxel's centre moves to that of its block."""
    growth = np.diag([*factors, 1.0])
    growth[:3, 3] = (np.asarray(factors) - 1) / 2
    return growth


def _place(prediction: NDArray[np.integer], reference: NDArray[np.integer], affine: NDArray[np.float64]) -> list[float]:
    """Where to look first, in mm: amid the errors of the slice with most of them, else amid the annotation."""
    wrong = prediction != reference
    shown = wrong if wrong.any() else reference != 0
    if not shown.any():
        shown = np.ones_like(shown)
    areas = np.count_nonzero(shown, axis=(0, 1))
    fullest = int(np.median(np.flatnonzero(areas == areas.max())))
    inside = np.argwhere(shown[..., fullest])
    nearest = inside[np.linalg.norm(inside - inside.mean(axis=0), axis=1).argmin()]
    return [round(float(value), 3) for value in (affine @ [*nearest, fullest, 1])[:3]]


def _write_nifti(
    path: Path, values: NDArray[Any], affine: NDArray[np.float64], slope: float = 1.0, intercept: float = 0.0
) -> None:
    """Write stored values and the scale that makes intensities of them; no text, no date."""
    header = nib.Nifti1Header()
    header.set_data_dtype(values.dtype)
    header.set_data_shape(values.shape)
    header.set_xyzt_units("mm")
    header.set_sform(affine, code="scanner")
    header.set_slope_inter(slope, intercept)
    header.set_data_offset(header.single_vox_offset)
    zooms = np.linalg.norm(affine[:3, :3], axis=0)
    header.set_zooms(zooms)
    extension = b"\0" * (header.single_vox_offset - header.sizeof_hdr)
    content = header.binaryblock + extension + values.astype(header.get_data_dtype()).tobytes(order="F")
    write_bytes(path, gzip.compress(content, 9, mtime=0))

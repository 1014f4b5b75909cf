"""Breast lesions on ultrasound (BUSI): 437 benign, 210 malignant and 133 normal pictures.

Many pictures occur twice or more, nearly alike, some of them under two diagnoses. Pictures that resemble each other are
grouped as one patient, so that a copy never stands on both sides of a split.
"""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from data_prep.build import About, Record, build_from
from data_prep.pictures import file_in, read_manifest, read_mask, read_pages, read_picture
from segmentation import SkipSegError
from segmentation.data.manifest import Dataset
from segmentation.scans import Scan

CLASSES = ("benign", "malignant", "normal")
ALIKE = 0.95
"""Correlation of two thumbnails above which pictures count as copies of each other."""

ABOUT = About(
    name="busi",
    spatial_dims=2,
    channel_names=("ultrasound",),
    labels={"background": 0, "lesion": 1},
    licence="not stated by the authors; public copies disagree, so ask the authors before other use than research",
    citation="Al-Dhabyani W, et al. Dataset of breast ultrasound images. Data in Brief 28, 104863 (2020)",
    page="https://scholar.cu.edu.eg/?q=afahmy/pages/dataset",
    layout="folders benign, malignant and normal with 'benign (1).png' and 'benign (1)_mask.png', or manifest.csv "
    "(id, image, mask, cls) with its files",
    notice="Near-identical pictures are grouped as one patient; published scores mostly ignored the copies.",
)


def prepare(out: Path, source: Path | None = None) -> Dataset:
    """Write gray pictures with lesion 1; several masks of one picture are united.

    Args:
        out: Dataset folder to create.
        source: BUSI as folder or archive.

    Returns:
        The dataset, grouped by near-duplicates, with the diagnosis as stratum.

    Raises:
        SkipSegError: If there is no source, it is not BUSI, or ``out`` holds something else.
    """
    return build_from(source, out, ABOUT, {"benign": _official, "manifest.csv": _listed})


def _official(root: Path) -> list[Record]:
    """Cases of the official layout; a picture may have ``_mask.png``, ``_mask_1.png`` and so on."""
    found: list[tuple[str, str, Path, tuple[Path, ...]]] = []
    for diagnosis in CLASSES:
        for image in sorted((root / diagnosis).glob(f"{diagnosis} (*).png")):
            number = re.search(r"\((\d+)\)", image.name)
            masks = tuple(sorted(image.parent.glob(f"{image.stem}_mask*.png")))
            if number is None or not masks:
                raise SkipSegError(f"{image} has no number or no mask beside it; fetch the source again")
            found.append((f"{diagnosis}_{int(number[1]):03d}", diagnosis, image, masks))
    groups = duplicate_groups([image for _, _, image, _ in found])
    return [
        Record(name, found[group][0], partial(_load, image, masks), (image, *masks), diagnosis)
        for (name, diagnosis, image, masks), group in zip(found, groups, strict=True)
    ]


def _listed(root: Path) -> list[Record]:
    """Cases of a folder with manifest.csv; without its column dup_group the groups are found anew."""
    rows = read_manifest(root, ["id", "image", "mask", "cls"])
    images = [file_in(root, row["image"]) for row in rows]
    masks = [file_in(root, row["mask"]) for row in rows]
    if "dup_group" in rows[0]:
        patients = [row["dup_group"] for row in rows]
    else:
        patients = [rows[group]["id"] for group in duplicate_groups(images)]
    return [
        Record(row["id"], patient, partial(_load, image, (mask,)), (image, mask), row["cls"])
        for row, image, mask, patient in zip(rows, images, masks, patients, strict=True)
    ]


def duplicate_groups(pictures: Sequence[Path]) -> list[int]:
    """Group pictures that resemble each other, directly or through others.

    Each picture is reduced to 32 x 32 gray values; two are alike when these correlate by more than :data:`ALIKE`.

    Args:
        pictures: Picture files.

    Returns:
        For each picture the index of the first picture of its group, which is its own for a single one.
    """
    if not pictures:
        return []
    vectors = np.stack([_thumbnail(path) for path in pictures])
    _, groups = connected_components(csr_array(vectors @ vectors.T > ALIKE), directed=False)
    _, first = np.unique(groups, return_index=True)
    return [int(first[group]) for group in groups]


def _thumbnail(path: Path) -> NDArray[np.float64]:
    """Zero-mean, unit-length gray values, shape ``(1024,)``; all zero for a picture without contrast."""
    gray = Image.fromarray(read_pages(path, "L")[0, 0])
    values = np.asarray(gray.resize((32, 32), Image.Resampling.BILINEAR), dtype=np.float64).ravel()
    values -= values.mean()
    return values / max(float(np.linalg.norm(values)), 1e-12)


def _load(image: Path, masks: Sequence[Path]) -> tuple[Scan, NDArray[Any]]:
    """Picture of shape ``(1, rows, columns)`` and label map of shape ``(rows, columns)``."""
    planes = [read_mask(mask) for mask in masks]
    if len({plane.shape for plane in planes}) > 1:
        raise SkipSegError(f"the masks of {image.name} differ in size; fetch the source again")
    return read_picture(image, "L"), np.logical_or.reduce(planes)

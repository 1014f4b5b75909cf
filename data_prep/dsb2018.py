"""Cell nuclei: the training part of the 2018 Data Science Bowl (BBBC038), fluorescence and stained tissue.

The label map is nucleus against background: touching nuclei merge in it.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep.build import About, Record, build_from
from data_prep.pictures import file_in, read_manifest, read_mask, read_pages, read_picture
from segmentation import SkipSegError
from segmentation.data.manifest import Dataset
from segmentation.scans import Scan

ABOUT = About(
    name="dsb2018",
    spatial_dims=2,
    channel_names=("red", "green", "blue"),
    labels={"background": 0, "nucleus": 1},
    licence="CC0 1.0 (public domain)",
    citation=(
        "Caicedo JC, et al. Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl. "
        "Nat Methods 16, 1247-1253 (2019)"
    ),
    page="https://bbbc.broadinstitute.org/BBBC038",
    layout="stage1_train with ID/images/ID.png and ID/masks/*.png, or manifest.csv (id, image, mask, modality, h, w) "
    "with its files",
    notice="No patients are known: every picture counts as one, although pictures of one batch are alike.",
)


def prepare(out: Path, source: Path | None = None) -> Dataset:
    """Write all pictures in colour, gray ones with three equal channels, with nucleus 1.

    Args:
        out: Dataset folder to create.
        source: stage1_train as folder or archive.

    Returns:
        The dataset, with modality and size as stratum.

    Raises:
        SkipSegError: If there is no source, it is another one, or ``out`` holds something else.
    """
    return build_from(source, out, ABOUT, {"manifest.csv": _listed, "*/masks/*.png": _official})


def _official(root: Path) -> list[Record]:
    """Cases of the official layout: one folder a picture, with one mask file a nucleus."""
    records: list[Record] = []
    for folder in sorted(path.parent for path in root.glob("*/masks/")):
        image = file_in(root, f"{folder.name}/images/{folder.name}.png")
        masks = tuple(sorted((folder / "masks").glob("*.png")))
        if not masks:
            raise SkipSegError(f"{folder} holds no masks; fetch the source again")
        pixels = read_pages(image, "RGB")[0]
        stratum = f"{modality(pixels)}-{pixels.shape[1]}x{pixels.shape[2]}"
        records.append(Record(folder.name, folder.name, partial(_load, image, masks), (image, *masks), stratum))
    return records


def _listed(root: Path) -> list[Record]:
    """Cases of a folder with manifest.csv."""
    records: list[Record] = []
    for row in read_manifest(root, ["id", "image", "mask", "modality", "h", "w"]):
        image, mask = file_in(root, row["image"]), file_in(root, row["mask"])
        stratum = f"{row['modality']}-{row['h']}x{row['w']}"
        records.append(Record(row["id"], row["id"], partial(_load, image, (mask,)), (image, mask), stratum))
    return records


def modality(pixels: NDArray[np.uint8]) -> str:
    """Tell how a picture was taken by its colours.

    Args:
        pixels: Red, green and blue in 0 to 255, shape ``(3, rows, columns)``.

    Returns:
        ``"stained"`` for coloured, ``"brightfield"`` for gray on bright, ``"fluo"`` for gray on dark.

    Examples:
        >>> modality(np.zeros((3, 4, 4), np.uint8))
        'fluo'
    """
    spread = pixels.max(axis=0).astype(float) - pixels.min(axis=0)
    if spread.mean() > 5:
        return "stained"
    return "brightfield" if np.median(pixels) > 127 else "fluo"


def _load(image: Path, masks: Sequence[Path]) -> tuple[Scan, NDArray[Any]]:
    """Picture of shape ``(3, rows, columns)`` and label map of shape ``(rows, columns)``."""
    planes = [read_mask(mask) for mask in masks]
    if len({plane.shape for plane in planes}) > 1:
        raise SkipSegError(f"the masks of {image.parent.parent.name} differ in size; fetch the source again")
    return read_picture(image, "RGB"), np.logical_or.reduce(planes)

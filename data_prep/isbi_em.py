"""Neuron membranes in serial-section electron microscopy: the training stack of the ISBI 2012 challenge, 30 slices.

All slices come from one animal and neighbours look alike, so they are split in contiguous blocks with a gap.
"""

from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from data_prep.build import About, Record, build_from
from data_prep.pictures import as_mask, file_in, picture_scan, read_manifest, read_mask, read_pages, read_picture
from segmentation import SkipSegError
from segmentation.data.manifest import Dataset
from segmentation.scans import Scan

ABOUT = About(
    name="isbi-em",
    spatial_dims=2,
    channel_names=("gray",),
    labels={"background": 0, "membrane": 1},
    licence="not stated with the files; the challenge was for non-commercial research: ask its organisers for more",
    citation=(
        "Arganda-Carreras I, et al. Crowdsourcing the creation of image segmentation algorithms for connectomics. "
        "Front Neuroanat 9, 142 (2015)"
    ),
    page="https://imagej.net/events/isbi-2012-segmentation-challenge",
    layout="train-volume.tif and train-labels.tif of 30 pages, or manifest.csv (id, image, mask, slice) with its files",
    notice="One stack of one animal: splits.json keeps contiguous blocks apart; it cannot speak for other animals.",
)

SLICES = 30
TRAIN = range(20)
VALIDATION = (*range(22, 25), *range(27, 30))


def prepare(out: Path, source: Path | None = None) -> Dataset:
    """Write the slices with membrane 1 and cell 0, and the one split in contiguous blocks.

    Args:
        out: Dataset folder to create.
        source: The challenge's training stack as folder or archive.

    Returns:
        The dataset; all slices are one patient.

    Raises:
        SkipSegError: If there is no source, it does not hold 30 slices, or ``out`` holds something else.
    """
    fold = {"train": [_name(i) for i in TRAIN], "val": [_name(i) for i in VALIDATION]}
    splits = {"method": "slices 0-19 train, 22-24 and 27-29 val", "grouping": "contiguous blocks", "folds": [fold]}
    return build_from(source, out, ABOUT, {"train-volume.tif": _official, "manifest.csv": _listed}, splits)


def _name(number: int) -> str:
    return f"slice_{number:02d}"


def _official(root: Path) -> list[Record]:
    """Slices of the official stacks, whose labels are white inside cells and black on membranes."""
    files = file_in(root, "train-volume.tif"), file_in(root, "train-labels.tif")
    images, labels = (read_pages(path, "L")[:, 0] for path in files)
    if len(images) != SLICES or images.shape != labels.shape:
        raise SkipSegError(f"the stacks are {images.shape} and {labels.shape}; expected {SLICES} slices in both")
    membrane = ~as_mask(labels, files[1])

    def load(number: int) -> tuple[Scan, NDArray[Any]]:
        return picture_scan(images[number][None], _name(number)), membrane[number]

    return [Record(_name(i), "stack1", partial(load, i), files if i == 0 else ()) for i in range(SLICES)]


def _listed(root: Path) -> list[Record]:
    """Slices of a folder with manifest.csv, whose masks are white on membranes."""
    rows = read_manifest(root, ["id", "image", "mask", "slice"])
    if sorted(row["slice"] for row in rows) != sorted(map(str, range(SLICES))):
        raise SkipSegError(
            f"{root / 'manifest.csv'} lists {len(rows)} slices; expected slice 0 to {SLICES - 1}, once each"
        )
    files = [(int(r["slice"]), file_in(root, r["image"]), file_in(root, r["mask"])) for r in rows]
    return [Record(_name(i), "stack1", partial(_load, image, mask), (image, mask)) for i, image, mask in files]


def _load(image: Path, mask: Path) -> tuple[Scan, NDArray[Any]]:
    """Slice of shape ``(1, rows, columns)`` and label map of shape ``(rows, columns)``."""
    return read_picture(image, "L"), read_mask(mask)

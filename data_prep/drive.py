"""Retinal vessels: the training part of DRIVE, 20 colour photographs. Pixels outside the field of view are ignored."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep.build import About, Record, build_from
from data_prep.pictures import file_in, read_manifest, read_mask, read_picture
from segmentation import SkipSegError
from segmentation.data.manifest import IGNORE, Dataset
from segmentation.scans import Scan

ABOUT = About(
    name="drive",
    spatial_dims=2,
    channel_names=("red", "green", "blue"),
    labels={"background": 0, "vessel": 1, IGNORE: 2},
    licence="DRIVE: free of charge for research and education; no redistribution, no unauthorised commercial use",
    citation=(
        "Staal J, et al. Ridge-based vessel segmentation in color images of the retina. "
        "IEEE Trans Med Imaging 23, 501-509 (2004)"
    ),
    page="https://drive.grand-challenge.org (registration)",
    layout="training/ with images, 1st_manual and mask, or manifest.csv (id, image, mask, fov) with its files",
    notice="Only the 20 training photographs (21-40) are used; the official test part stays untouched.",
)


def prepare(out: Path, source: Path | None = None) -> Dataset:
    """Write the photographs with vessel 1, background 0 and everything outside the field of view as ``ignore`` 2.

    Args:
        out: Dataset folder to create.
        source: DRIVE as folder or archive; it needs registration and cannot be fetched.

    Returns:
        The dataset; each photograph is one patient.

    Raises:
        SkipSegError: If there is no source, it is not DRIVE, or ``out`` holds something else.
    """
    return build_from(source, out, ABOUT, {"training/1st_manual": _official, "manifest.csv": _listed})


def _official(root: Path) -> list[Record]:
    """Cases of the official layout: 21_training.tif, 21_manual1.gif, 21_training_mask.gif."""
    part = root / "training"
    ids = sorted(path.name.partition("_")[0] for path in (part / "images").glob("*_training.*"))
    parts = ("images/{}_training.*", "1st_manual/{}_manual1.*", "mask/{}_training_mask.*")
    return [_record(i, f"pat{i}", *(_only(part, pattern.format(i)) for pattern in parts)) for i in ids]


def _only(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise SkipSegError(f"{folder} holds {len(found)} files {pattern}; expected one, fetch the source again")
    return found[0]


def _listed(root: Path) -> list[Record]:
    """Cases of a folder with manifest.csv; where it has a column split, the training photographs alone."""
    listed = read_manifest(root, ["id", "image", "mask", "fov"])
    rows = [row for row in listed if (row.get("split") or "").strip().lower() in ("", "train", "training")]
    if not rows:
        raise SkipSegError(f"{root / 'manifest.csv'} has no row with split 'train'; give DRIVE's training photographs")
    return [
        _record(
            r["id"], r.get("subject") or f"pat{r['id']}", *(file_in(root, r[key]) for key in ("image", "mask", "fov"))
        )
        for r in rows
    ]


def _record(number: str, patient: str, image: Path, mask: Path, view: Path) -> Record:
    return Record(f"drive_{number}", patient, partial(_load, image, mask, view), (image, mask, view))


def _load(image: Path, mask: Path, view: Path) -> tuple[Scan, NDArray[Any]]:
    """Photograph of shape ``(3, rows, columns)`` and label map of shape ``(rows, columns)``."""
    vessel, inside = read_mask(mask), read_mask(view)
    if vessel.shape != inside.shape:
        raise SkipSegError(f"{mask.name} is {vessel.shape} and {view.name} is {inside.shape}; fetch the source again")
    return read_picture(image, "RGB"), np.where(inside, vessel, ABOUT.labels[IGNORE])

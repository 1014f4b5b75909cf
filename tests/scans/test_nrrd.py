from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pytest

from segmentation import SkipSegError
from segmentation.scans import Scan, grid_difference, read_label_map, read_scan, scan_geometry, write_label_map

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

import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segmentation import SkipSegError
from segmentation.scans import Scan, read_label_map, read_scan, scan_geometry, write_label_map

MakeNifti = Callable[..., Path]
SHAPE = (9, 7, 5)


def voxels(dtype: type = np.int16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 100, SHAPE).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint16, np.int32, np.float32, np.dtype(">i2")])
@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz", "SCAN.NII.GZ"])
def test_values_and_dtype_are_read_as_stored(make_nifti: MakeNifti, dtype: type, name: str):
    scan = read_scan(make_nifti(voxels(dtype), name=name))
    assert scan.array.shape == (1, *SHAPE)
    assert scan.array.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(scan.array[0], voxels(dtype))
    assert (scan.source, scan.notes) == (name, ())


def test_doubles_become_single_precision(make_nifti: MakeNifti):
    assert read_scan(make_nifti(voxels(np.float64))).array.dtype == np.float32


def test_intensity_scaling_is_applied(tmp_path: Path):
    image = nib.Nifti1Image(voxels(), np.eye(4))
    image.header.set_slope_inter(0.5, -3)
    nib.save(image, tmp_path / "scan.nii")
    stored = nib.load(tmp_path / "scan.nii")
    scan = read_scan(tmp_path / "scan.nii")
    assert scan.array.dtype == np.float32
    np.testing.assert_allclose(scan.array[0], stored.get_fdata(), rtol=1e-6)


def test_nifti_2_comes_back_as_nifti_2(tmp_path: Path):
    nib.save(nib.Nifti2Image(voxels(), np.diag([-1.0, 2, 3, 1])), tmp_path / "scan.nii.gz")
    scan = read_scan(tmp_path / "scan.nii.gz")
    write_label_map(tmp_path / "map.nii.gz", scan.array[0] > 50, scan)
    assert isinstance(nib.load(tmp_path / "map.nii.gz"), nib.Nifti2Image)
    np.testing.assert_array_equal(read_label_map(tmp_path / "map.nii.gz", scan).array, scan.array > 50)


def test_a_label_map_returns_in_the_scans_frame_for_every_orientation(
    oriented_affine: np.ndarray, make_nifti: MakeNifti, tmp_path: Path
):
    scan = read_scan(make_nifti(voxels(), oriented_affine, name="scan.nii"))
    write_label_map(tmp_path / "map.nii", scan.array[0] // 10, scan)
    back = read_label_map(tmp_path / "map.nii", like=scan)
    np.testing.assert_array_equal(back.array, scan.array // 10)
    np.testing.assert_array_equal(back.affine, scan.affine)
    frame = ("sform_code", "qform_code", "srow_x", "srow_y", "srow_z", "quatern_b", "qoffset_x", "xyzt_units")
    for name in (*frame, "quatern_c", "quatern_d", "qoffset_y", "qoffset_z", "pixdim"):
        np.testing.assert_array_equal(back.header[name], scan.header[name], err_msg=name)


@pytest.mark.parametrize("codes", [{"sform": 0, "qform": 1}, {"sform": 3, "qform": 0}, {"sform": 1, "qform": 4}])
def test_form_codes_are_kept(make_nifti: MakeNifti, tmp_path: Path, codes: dict[str, int]):
    scan = read_scan(make_nifti(voxels(), **codes))
    write_label_map(tmp_path / "map.nii.gz", scan.array[0] > 3, scan)
    header = nib.load(tmp_path / "map.nii.gz").header
    assert {name: int(header[f"{name}_code"]) for name in codes} == codes


def test_the_same_map_gives_the_same_bytes(make_nifti: MakeNifti, tmp_path: Path):
    scan = read_scan(make_nifti(voxels()))
    for name in ("a.nii.gz", "b.nii.gz"):
        write_label_map(tmp_path / name, scan.array[0] > 3, scan)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_texts_and_extensions_that_may_name_the_patient_are_left_out(tmp_path: Path):
    image = nib.Nifti1Image(voxels(), np.eye(4))
    image.header["descrip"] = image.header["aux_file"] = b"Jane Doe"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Jane Doe, born 1950"))
    nib.save(image, tmp_path / "scan.nii")
    write_label_map(tmp_path / "map.nii", voxels() > 3, read_scan(tmp_path / "scan.nii"))
    assert b"Jane" in (tmp_path / "scan.nii").read_bytes()
    assert b"Jane" not in (tmp_path / "map.nii").read_bytes()


def test_scaling_of_the_scan_does_not_reach_its_label_map(tmp_path: Path):
    image = nib.Nifti1Image(voxels(), np.eye(4))
    image.header.set_slope_inter(0.5, -3)
    nib.save(image, tmp_path / "scan.nii")
    write_label_map(tmp_path / "map.nii", voxels() > 3, read_scan(tmp_path / "scan.nii"))
    np.testing.assert_array_equal(nib.load(tmp_path / "map.nii").get_fdata(), voxels() > 3)


def test_a_scan_without_nifti_header_sets_both_forms(tmp_path: Path, oriented_affine: np.ndarray):
    like = Scan(voxels()[None], oriented_affine, "series")
    write_label_map(tmp_path / "map.nii.gz", voxels(), like)
    header = nib.load(tmp_path / "map.nii.gz").header
    np.testing.assert_allclose(header.get_sform(), oriented_affine, atol=1e-4)
    np.testing.assert_allclose(header.get_qform(), oriented_affine, atol=1e-4)
    assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 1)


def test_a_sheared_affine_is_kept_noted_and_written_back(tmp_path: Path):
    affine = np.diag([1.0, 1.0, 3.0, 1.0])
    affine[1, 2] = 3 * np.tan(np.radians(15))
    nib.save(nib.Nifti1Image(voxels(), affine), tmp_path / "scan.nii")
    scan = read_scan(tmp_path / "scan.nii")
    np.testing.assert_allclose(scan.affine, affine, atol=1e-6)
    assert any("15.00 degrees off a right angle" in note for note in scan.notes)
    for like in (scan, Scan(scan.array, scan.affine, "no header")):
        write_label_map(tmp_path / "map.nii", voxels(), like)
        np.testing.assert_allclose(read_label_map(tmp_path / "map.nii", scan).affine, affine, atol=1e-6)
        assert int(nib.load(tmp_path / "map.nii").header["qform_code"]) == 0  # a qform cannot say a shear


def test_the_sform_wins_over_a_conflicting_qform_and_says_so(tmp_path: Path):
    image = nib.Nifti1Image(voxels(), None)
    image.set_qform(np.diag([-1.0, 1, 1, 1]), 1)
    image.set_sform(np.diag([1.0, 1, 1, 1]), 1)
    nib.save(image, tmp_path / "scan.nii")
    scan = read_scan(tmp_path / "scan.nii")
    assert scan.orientation == "RAS"
    assert any("sform and qform place a corner 16 mm apart" in note for note in scan.notes)


def test_a_file_without_forms_is_read_with_a_note(tmp_path: Path):
    image = nib.Nifti1Image(voxels(), None)
    image.header.set_zooms((1, 2, 3))
    nib.save(image, tmp_path / "scan.nii")
    scan = read_scan(tmp_path / "scan.nii")
    assert scan.spacing_mm == (1, 2, 3)
    assert any("neither sform nor qform" in note for note in scan.notes)


def test_lengths_in_micron_are_noted(make_nifti: MakeNifti, tmp_path: Path):
    image = nib.load(make_nifti(voxels(), name="scan.nii"))
    image.header.set_xyzt_units("micron")
    nib.save(image, tmp_path / "small.nii")
    assert any("micron" in note for note in read_scan(tmp_path / "small.nii").notes)


def test_four_axes_need_the_number_of_channels(make_nifti: MakeNifti):
    path = make_nifti(np.arange(2 * 3 * 4 * 5, dtype=np.int16).reshape(2, 3, 4, 5))
    with pytest.raises(SkipSegError, match="4-D where 3-D is expected"):
        read_scan(path)
    with pytest.raises(SkipSegError, match="or 4 channels last"):
        read_scan(path, channels=4)
    with pytest.raises(SkipSegError, match="4-D where 3-D"):
        scan_geometry(path)
    scan = read_scan(path, channels=5)
    np.testing.assert_array_equal(scan.array[3], np.arange(120).reshape(2, 3, 4, 5)[..., 3])
    assert scan_geometry(path, channels=5).shape == scan.spatial_shape == (2, 3, 4)


@pytest.mark.parametrize("shape", [(4, 3, 2, 1), (4, 3), (4, 3, 2, 1, 1)])
def test_axes_of_one_are_no_axes(make_nifti: MakeNifti, shape: tuple[int, ...]):
    scan = read_scan(make_nifti(np.ones(shape, np.uint8)))
    assert scan.array.shape == (1, *(*shape, 1)[:3])


def test_real_parts_only(make_nifti: MakeNifti):
    with pytest.raises(SkipSegError, match="complex64"):
        read_scan(make_nifti(voxels(np.complex64)))


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(SkipSegError, match=r"none\.nii does not exist"):
        read_scan(tmp_path / "none.nii")


@pytest.mark.parametrize("kept", [0, 3, 200, 400, -1])
@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
def test_a_truncated_file_is_refused(make_nifti: MakeNifti, name: str, kept: int):
    path = make_nifti(voxels(), name=name)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(SkipSegError, match=r"scan\.nii.* cannot be read as NIfTI"):
        read_scan(path)


def test_a_flipped_bit_behind_gzip_is_found(make_nifti: MakeNifti):
    path = make_nifti(voxels())
    raw = bytearray(gzip.decompress(path.read_bytes()))
    stored = bytearray(gzip.compress(bytes(raw), compresslevel=0))
    stored[-100] ^= 1  # a voxel; deflate itself does not notice
    path.write_bytes(stored)
    with pytest.raises(SkipSegError, match="CRC"):
        read_scan(path)


@pytest.mark.parametrize(
    ("offset", "content", "words"),
    [
        (344, b"xxxx", "magic"),
        (0, b"\x07\0\0\0", "sizeof_hdr"),
        (80, b"\0" * 4, "pixdim"),
        (70, b"\x63\0", "data code"),
    ],
)
def test_a_wrong_header_is_refused(
    make_nifti: MakeNifti, offset: int, content: bytes, words: str, capfd: pytest.CaptureFixture[str]
):
    path = make_nifti(voxels(), name="scan.nii")
    raw = bytearray(path.read_bytes())
    raw[offset : offset + len(content)] = content
    path.write_bytes(raw)
    with pytest.raises(SkipSegError, match=words):
        read_scan(path)
    assert capfd.readouterr().err == ""


def test_a_singular_sform_is_refused(make_nifti: MakeNifti):
    path = make_nifti(voxels(), name="scan.nii")
    raw = bytearray(path.read_bytes())
    raw[280:296] = bytes(16)
    path.write_bytes(raw)
    with pytest.raises(SkipSegError, match="does not span a volume"):
        read_scan(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 351), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_header_gives_a_scan_or_one_line(tmp_path: Path, changes: list[tuple[int, int]]):
    raw = bytearray(nib.Nifti1Image(np.ones((3, 2, 2), np.int16), np.eye(4)).to_bytes())
    for offset, byte in changes:
        raw[offset] = byte
    path = tmp_path / "damaged.nii"
    path.write_bytes(raw)
    scan, message = None, ""
    try:
        scan = read_scan(path)
    except SkipSegError as error:
        message = str(error)
    if scan is None:
        assert "damaged.nii" in message
        assert "\n" not in message
    else:
        assert scan.array.ndim == 4
        assert scan_geometry(path).shape == scan.spatial_shape


def test_the_header_alone_gives_the_grid(make_nifti: MakeNifti, oriented_affine: np.ndarray):
    path = make_nifti(voxels(), oriented_affine)
    grid, scan = scan_geometry(path), read_scan(path)
    assert grid.shape == scan.spatial_shape
    np.testing.assert_array_equal(grid.affine, scan.affine)
    assert (grid.orientation, grid.spacing_mm) == (scan.orientation, scan.spacing_mm)

import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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
from segmentation.scans.workspace import Workspace

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


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64, np.dtype(">i2")])
@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
@pytest.mark.parametrize("slope", [None, 0.37])
def test_block_by_block_nothing_changes(
    tmp_path: Path, file_space: Workspace, tiny_blocks: None, dtype: type, name: str, slope: float | None
):
    image = nib.Nifti1Image(np.stack([voxels(dtype), 3 * voxels(dtype)], axis=-1), np.eye(4))
    image.header.set_slope_inter(slope, None if slope is None else -3)
    nib.save(image, tmp_path / name)
    stored = nib.load(tmp_path / name).dataobj
    scan = read_scan(tmp_path / name, channels=2, workspace=file_space)
    expected = np.asarray(stored, np.float32) if slope or np.dtype(dtype).kind == "f" else stored.get_unscaled()
    np.testing.assert_array_equal(scan.array, np.moveaxis(expected, -1, 0))
    assert scan.array.dtype == expected.dtype.newbyteorder("=")
    assert file_space.spilled == 1
    assert np.argmax(scan.array.strides) == 0, "one channel after the other"
    assert scan.array[0].flags.f_contiguous, "as in the file"


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
    image.header["descrip"] = image.header["aux_file"] = image.header["db_name"] = b"Jane Doe"
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


def test_a_length_unit_that_does_not_exist_is_noted(make_nifti: MakeNifti):
    path = make_nifti(voxels(), name="scan.nii")
    raw = bytearray(path.read_bytes())
    raw[123] = 0b11010111
    path.write_bytes(raw)
    assert any("lengths in an unknown unit" in note for note in read_scan(path).notes)


def test_extensions_are_passed_over_however_long_they_claim_to_be(tmp_path: Path):
    image = nib.Nifti1Image(voxels(), np.eye(4))
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"a comment"))
    raw = bytearray(image.to_bytes())
    raw[352:356] = (2_000_000_001).to_bytes(4, "little")
    (tmp_path / "scan.nii").write_bytes(raw)
    np.testing.assert_array_equal(read_scan(tmp_path / "scan.nii").array[0], voxels())


def test_four_axes_need_the_number_of_channels(make_nifti: MakeNifti):
    path = make_nifti(np.arange(2 * 3 * 4 * 5, dtype=np.int16).reshape(2, 3, 4, 5))
    with pytest.raises(SkipSegError, match="4-D where 3-D is expected"):
        read_scan(path)
    with pytest.raises(SkipSegError, match="or 4 channels last"):
        read_scan(path, channels=4)
    with pytest.raises(SkipSegError, match="4-D where 3-D"):
        scan_geometry(path)
    with pytest.raises(SkipSegError, match="5-D where 3-D"):
        read_scan(make_nifti(np.zeros((2, 3, 4, 1, 2), np.int16), name="five.nii.gz"))
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


def test_a_claim_that_the_file_cannot_hold_is_refused_before_memory_is_taken(
    make_nifti: MakeNifti, file_space: Workspace
):
    raw = bytearray(make_nifti(voxels(), name="scan.nii").read_bytes())
    raw[42:48] = np.array([2000, 2000, 1250], "<i2").tobytes()  # 10 GB
    for name, content in (("scan.nii", raw), ("scan.nii.gz", gzip.compress(raw))):
        path = make_nifti(voxels(), name=name)
        path.write_bytes(content)
        with pytest.raises(SkipSegError, match=rf"{name} cannot be read .*claims 1\d{{10}} bytes, which a file of"):
            read_scan(path, workspace=file_space)
    assert file_space.spilled == 0


def test_more_voxels_than_the_header_says_are_refused(make_nifti: MakeNifti):
    image = nib.Nifti1Image(np.zeros((40, 40, 40), np.int16), np.eye(4))
    raw = bytearray(image.to_bytes())
    raw[46:48] = np.array(30, "<i2").tobytes()  # the header of a shorter scan
    path = make_nifti(voxels(), name="scan.nii")
    path.write_bytes(raw)
    with pytest.raises(SkipSegError, match="more voxels than its header says"):
        read_scan(path)


def test_a_header_for_voxels_in_another_file_is_refused(make_nifti: MakeNifti):
    path = make_nifti(voxels(), name="scan.nii")
    raw = bytearray(path.read_bytes())
    raw[344:348], raw[108:112] = b"ni1\0", bytes(4)
    path.write_bytes(raw)
    with pytest.raises(SkipSegError, match="start at byte 0, within its header"):
        read_scan(path)


@pytest.mark.parametrize("offset", [np.inf, np.nan, 1e30])
def test_an_offset_beyond_every_file_is_refused(make_nifti: MakeNifti, offset: float):
    path = make_nifti(voxels(), name="scan.nii")
    raw = bytearray(path.read_bytes())
    raw[108:112] = np.array(offset, "<f4").tobytes()
    path.write_bytes(raw)
    with pytest.raises(SkipSegError, match=r"scan\.nii cannot be read as NIfTI"):
        read_scan(path)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_label_map_in_any_memory_order_gives_the_same_file(
    make_nifti: MakeNifti, tmp_path: Path, file_space: Workspace, tiny_blocks: None, dtype: type
):
    scan, labels = read_scan(make_nifti(voxels())), voxels(dtype) * (200 if dtype == np.uint16 else 1)
    upside_down = file_space.zeros(SHAPE, np.uint16)
    upside_down[...] = labels[::-1]
    sideways = file_space.zeros((SHAPE[2], SHAPE[0], SHAPE[1]), np.int32)
    sideways[...] = np.moveaxis(labels, -1, 0)
    views = (labels, np.asfortranarray(labels), upside_down[::-1], np.moveaxis(sideways, 0, -1))
    for index, view in enumerate(views):
        write_label_map(tmp_path / f"{index}.nii.gz", view, scan, workspace=file_space)
    contents = [(tmp_path / f"{index}.nii.gz").read_bytes() for index in range(len(views))]
    assert contents == contents[:1] * len(views)
    np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / "0.nii.gz").dataobj), labels)


def test_a_big_endian_scan_has_a_big_endian_mask(tmp_path: Path):
    header = nib.Nifti1Header(endianness=">")
    nib.save(nib.Nifti1Image(voxels(np.dtype(">i2")), np.eye(4), header), tmp_path / "scan.nii")
    scan = read_scan(tmp_path / "scan.nii")
    write_label_map(tmp_path / "map.nii", voxels() * 300, scan)
    assert nib.load(tmp_path / "map.nii").header.endianness == ">"
    np.testing.assert_array_equal(read_label_map(tmp_path / "map.nii", like=scan).array[0], voxels() * 300)


def test_an_axis_too_long_for_nifti_1_takes_nifti_2(tmp_path: Path):
    long = Scan(np.zeros((1, 40000, 1, 2), np.uint8), np.eye(4), "series")
    write_label_map(tmp_path / "map.nii.gz", long.array[0], long)
    assert read_label_map(tmp_path / "map.nii.gz", like=long).spatial_shape == (40000, 1, 2)


def test_maps_come_back_as_channels_in_the_frame_of_their_scan(
    make_nifti: MakeNifti, tmp_path: Path, oriented_affine: np.ndarray, file_space: Workspace
):
    scan = read_scan(make_nifti(voxels(), oriented_affine))
    maps = np.random.default_rng(1).random((3, *SHAPE), np.float32)
    for like in (scan, Scan(scan.array, scan.affine, "series")):
        write_map(tmp_path / "maps.nii.gz", maps, like, workspace=file_space)
        back = read_scan(tmp_path / "maps.nii.gz", channels=3)
        np.testing.assert_array_equal(back.array, maps)
        assert grid_difference(scan, back) is None
        assert back.array.dtype == np.float32
        write_map(tmp_path / "map.nii", maps[1].astype(np.float64), like)
        np.testing.assert_array_equal(read_scan(tmp_path / "map.nii").array[0], maps[1])
    np.testing.assert_array_equal(nib.load(tmp_path / "maps.nii.gz").get_fdata()[..., 2], maps[2])
    np.testing.assert_array_equal(scan.affine, back.affine)


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

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from segmentation import SkipSegError
from segmentation.scans import Scan, find_scans, read_label_map, read_scan, scan_geometry, write_label_map, write_map
from segmentation.scans.metaimage import metaimage_layout, read_metaimage, write_metaimage
from segmentation.scans.workspace import Workspace

# As SimpleITK 2.5.7 wrote a volume of spacing (0.5, 1.5, 3), origin (1, 2, 3) and a permuted direction.
HEADER = """ObjectType = Image
NDims = 3
BinaryData = True
BinaryDataByteOrderMSB = False
CompressedData = False
TransformMatrix = 0 1 0 0 0 1 1 0 0
Offset = 1 2 3
CenterOfRotation = 0 0 0
AnatomicalOrientation = AIR
ElementSpacing = 0.5 1.5 3
DimSize = 4 3 2
ElementType = MET_SHORT
ElementDataFile = LOCAL
"""
VALUES = list(range(24))  # the value at (i, j, k) is i + 4 j + 12 k: the first axis runs fastest
RAS = [[0, 0, -3.0, -1], [-0.5, 0, 0, -2], [0, 1.5, 0, 3], [0, 0, 0, 1]]  # of HEADER, by hand


def mha(tmp_path: Path, voxels: bytes = struct.pack("<24h", *VALUES), name: str = "scan.mha", **fields: str) -> Path:
    """A file with HEADER's fields, some of them changed; a field set to "" is left out."""
    lines = dict(line.split(" = ") for line in HEADER.splitlines())
    last = {"ElementDataFile": lines.pop("ElementDataFile")}
    header = "".join(f"{key} = {value}\n" for key, value in (lines | last | fields).items() if value)
    order = sorted(header.splitlines(keepends=True), key=lambda line: line.startswith("ElementDataFile"))
    (tmp_path / name).write_bytes("".join(order).encode() + voxels)
    return tmp_path / name


def volume(array: np.ndarray) -> list[int]:
    """Values of shape (I, J, K) in the order of the file."""
    return [int(array[i, j, k]) for k in range(2) for j in range(3) for i in range(4)]


# Reading


@pytest.mark.parametrize("workspace", [None, Workspace(limit=0)], ids=["memory", "file"])
def test_values_and_place_are_read_as_itk_wrote_them(tmp_path: Path, workspace: Workspace | None):
    scan = read_metaimage(mha(tmp_path), workspace=workspace)
    assert (scan.array.shape, scan.array.dtype) == ((1, 4, 3, 2), np.int16)
    assert volume(scan.array[0]) == VALUES
    assert scan.affine.tolist() == RAS
    assert scan.notes == ()


@pytest.mark.parametrize(
    ("kind", "code", "dtype"),
    [
        ("MET_CHAR", "b", "int8"), ("MET_UCHAR", "B", "uint8"),
        ("MET_SHORT", "h", "int16"), ("MET_USHORT", "H", "uint16"),
        ("MET_INT", "i", "int32"), ("MET_UINT", "I", "uint32"),
        ("MET_LONG", "i", "int32"), ("MET_ULONG", "I", "uint32"),
        ("MET_LONG_LONG", "q", "int64"), ("MET_ULONG_LONG", "Q", "uint64"),
        ("MET_FLOAT", "f", "float32"), ("MET_DOUBLE", "d", "float32"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("big", [False, True], ids=["little", "big"])
@pytest.mark.parametrize("packed", [None, 15, 31], ids=["raw", "zlib", "gzip"])
def test_every_type_byte_order_and_packing_is_read(tmp_path, kind, code, dtype, big, packed):
    voxels = struct.pack(f"{'>' if big else '<'}24{code}", *VALUES)
    if packed:
        packer = zlib.compressobj(wbits=packed)
        voxels = packer.compress(voxels) + packer.flush()
    changed = {"ElementType": kind, "BinaryDataByteOrderMSB": str(big), "CompressedData": str(packed is not None)}
    scan = read_metaimage(mha(tmp_path, voxels, **changed))
    assert scan.array.dtype == np.dtype(dtype)
    assert scan.array.dtype.isnative
    assert volume(scan.array[0]) == VALUES


def test_blocks_that_split_a_voxel_are_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for module in ("blocks", "metaimage"):
        monkeypatch.setattr(f"segmentation.scans.{module}.BLOCK_BYTES", 5)
    path = mha(tmp_path, zlib.compress(struct.pack("<24h", *VALUES)), CompressedData="True")
    assert volume(read_metaimage(path).array[0]) == VALUES
    assert volume(read_metaimage(mha(tmp_path)).array[0]) == VALUES


def test_older_names_of_fields_are_understood(tmp_path: Path):
    renamed = {"TransformMatrix": "", "Offset": "", "Orientation": "0 1 0 0 0 1 1 0 0", "Position": "1 2 3"}
    assert read_metaimage(mha(tmp_path, **renamed)).affine.tolist() == RAS


def test_a_file_without_orientation_is_noted(tmp_path: Path):
    scan = read_metaimage(mha(tmp_path, TransformMatrix=""))
    assert scan.affine.tolist() == [[-0.5, 0, 0, -1], [0, -1.5, 0, -2], [0, 0, 3, 3], [0, 0, 0, 1]]
    assert "no orientation" in scan.notes[0]


def test_a_shear_is_noted(tmp_path: Path):
    path = mha(tmp_path, TransformMatrix="1 0 0 0.28 0.96 0 0 0 1")
    assert "16.26 degrees off a right angle" in read_metaimage(path).notes[0]  # asin(0.28)


def test_channels_beside_each_other_are_read_when_their_number_is_given(tmp_path: Path):
    voxels = struct.pack("<48h", *[value + 100 * channel for value in VALUES for channel in range(2)])
    path = mha(tmp_path, voxels, ElementNumberOfChannels="2")
    scan = read_metaimage(path, channels=2)
    assert volume(scan.array[0]) == VALUES
    assert volume(scan.array[1] - 100) == VALUES
    for channels in (None, 3):
        with pytest.raises(SkipSegError, match="how many channels"):
            read_metaimage(path, channels=channels)


def test_channels_behind_each_other_are_read_when_their_number_is_given(tmp_path: Path):
    axes = {"NDims": "4", "DimSize": "4 3 2 2", "Offset": "1 2 3 0", "ElementSpacing": "0.5 1.5 3 1"}
    voxels = struct.pack("<48h", *VALUES, *[value + 100 for value in VALUES])
    path = mha(tmp_path, voxels, TransformMatrix="0 1 0 0 0 0 1 0 1 0 0 0 0 0 0 1", **axes)
    scan = read_metaimage(path, channels=2)
    assert volume(scan.array[0]) == VALUES
    assert volume(scan.array[1] - 100) == VALUES
    assert scan.affine.tolist() == RAS
    with pytest.raises(SkipSegError, match="how many channels"):
        read_metaimage(path)


def test_a_picture_has_rows_first_and_may_have_colours(tmp_path: Path):
    axes = {"NDims": "2", "DimSize": "4 2", "TransformMatrix": "1 0 0 1", "Offset": "0 0", "ElementSpacing": "0.2 0.2"}
    path = mha(tmp_path, bytes(range(24)), ElementType="MET_UCHAR", ElementNumberOfChannels="3", **axes)
    scan = read_metaimage(path)
    assert scan.array[:, 1, 2].tolist() == [18, 19, 20]  # the seventh pixel: row 1, column 2
    assert (scan.array.shape, scan.affine.tolist()) == ((3, 2, 4), np.eye(4).tolist())
    assert metaimage_layout(path).grid.shape == (2, 4)


def test_the_header_alone_gives_the_grid(tmp_path: Path):
    layout = metaimage_layout(mha(tmp_path, b"", ElementType="MET_DOUBLE", BinaryDataByteOrderMSB="True"))
    assert (layout.grid.shape, layout.grid.affine.tolist()) == ((4, 3, 2), RAS)
    assert (layout.channels, layout.dtype) == (1, np.float32)


# Writing


def test_a_label_map_comes_back_for_every_orientation(oriented_affine: np.ndarray, tmp_path: Path):
    labels = np.random.default_rng(0).integers(0, 400, (9, 7, 5)).astype(np.uint16)
    write_metaimage(tmp_path / "map.mha", labels, Scan(labels[None], oriented_affine, "scan"), np.uint16)
    back = read_metaimage(tmp_path / "map.mha")
    np.testing.assert_array_equal(back.array[0], labels)
    np.testing.assert_allclose(back.affine, oriented_affine, rtol=0, atol=1e-12)


def test_the_written_bytes_are_what_itk_expects(tmp_path: Path):
    scan = read_metaimage(mha(tmp_path))
    write_metaimage(tmp_path / "map.mha", scan.array[0], scan, np.uint8)
    header, _, packed = (tmp_path / "map.mha").read_bytes().partition(b"LOCAL\n")
    fields = dict(line.split(" = ") for line in header.decode().splitlines())
    assert zlib.decompress(packed) == bytes(VALUES)
    assert int(fields["CompressedDataSize"]) == len(packed)
    assert fields["DimSize"] == "4 3 2"
    assert [float(word) for word in fields["TransformMatrix"].split()] == [0, 1, 0, 0, 0, 1, 1, 0, 0]
    assert [float(word) for word in fields["Offset"].split()] == [1, 2, 3]
    assert [float(word) for word in fields["ElementSpacing"].split()] == [0.5, 1.5, 3]


def test_the_mask_of_a_picture_lies_where_the_picture_lies(tmp_path: Path):
    axes = {"NDims": "2", "DimSize": "6 4", "TransformMatrix": "1 0 0 1", "Offset": "7 8", "ElementSpacing": "0.2 0.3"}
    scan = read_metaimage(mha(tmp_path, **axes))
    write_metaimage(tmp_path / "map.mha", scan.array[0], scan, np.uint8)
    text = (tmp_path / "map.mha").read_bytes().partition(b"LOCAL\n")[0].decode()
    assert all(f"{name} = {axes[name]}\n" in text for name in axes)
    np.testing.assert_array_equal(read_metaimage(tmp_path / "map.mha").array, scan.array)


def test_the_mask_of_a_picture_of_another_format_is_written(tmp_path: Path):
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    write_metaimage(tmp_path / "map.mha", labels, Scan(labels[None], np.eye(4), "photo.png"), np.uint8)
    np.testing.assert_array_equal(read_metaimage(tmp_path / "map.mha").array[0], labels)


@pytest.mark.parametrize("shape", [(4, 3, 2), (5, 4)], ids=["volume", "picture"])
def test_maps_of_fractions_are_written_too(tmp_path: Path, shape: tuple[int, ...]):
    maps = np.random.default_rng(0).random((3, *shape)).astype(np.float32)
    like = Scan(np.zeros((1, *shape)), np.eye(4), "scan")
    write_map(tmp_path / "maps.mha", maps, like)
    write_map(tmp_path / "map.mha", maps[0], like)
    np.testing.assert_array_equal(read_scan(tmp_path / "maps.mha", channels=3).array, maps)
    np.testing.assert_array_equal(read_scan(tmp_path / "map.mha").array, maps[:1])


def test_the_file_ending_leads_here(tmp_path: Path):
    path = mha(tmp_path)
    scan = read_scan(path)
    assert scan_geometry(path).affine.tolist() == RAS
    write_label_map(tmp_path / "map.mha", scan.array[0], scan)
    assert volume(read_label_map(tmp_path / "map.mha", like=scan).array[0]) == VALUES
    assert list(find_scans(tmp_path)) == ["map", "scan"]


@pytest.mark.parametrize("dims", [2, 3])
def test_one_file_a_channel_is_stacked(tmp_path: Path, dims: int):
    axes = (
        {} if dims == 3 else {"NDims": "2", "DimSize": "6 4", "TransformMatrix": "", "Offset": "", "ElementSpacing": ""}
    )
    paths = [mha(tmp_path, name=f"scan_000{index}.mha", **axes) for index in range(2)]
    scan = read_scan(paths)
    assert scan.array.shape == ((2, 4, 3, 2) if dims == 3 else (2, 4, 6))
    np.testing.assert_array_equal(scan.array[1], read_scan(paths[1]).array[0])


def test_voxels_are_read_into_an_array_that_is_given(tmp_path: Path):
    two = np.zeros((2, 4, 3, 2), np.int16)
    scan = read_metaimage(mha(tmp_path), into=two[1:])
    assert scan.array.base is two
    assert volume(two[1]) == VALUES
    assert not two[0].any()


def test_the_same_map_gives_the_same_bytes(tmp_path: Path):
    scan = read_metaimage(mha(tmp_path))
    for name in ("a.mha", "b.mha"):
        write_metaimage(tmp_path / name, scan.array[0], scan, np.uint8)
    assert (tmp_path / "a.mha").read_bytes() == (tmp_path / "b.mha").read_bytes()


# What is refused


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"ElementDataFile": "scan.raw"}, "another file"),
        ({"ElementDataFile": "LIST"}, "another file"),
        ({"ElementDataFile": ""}, "ends early"),
        ({"ObjectType": "Tube"}, "ObjectType = Tube"),
        ({"BinaryData": "False"}, "BinaryData = False"),
        ({"HeaderSize": "-1"}, "HeaderSize = -1"),
        ({"DistanceUnits": "um"}, "DistanceUnits = um"),
        ({"ElementToIntensityFunctionSlope": "2"}, "Slope = 2"),
        ({"ElementType": "MET_STRING"}, "MET_STRING"),
        ({"ElementType": ""}, "it has no ElementType"),
        ({"NDims": "2"}, "do not fit"),
        ({"NDims": "1", "DimSize": "24"}, "2-D or 3-D"),
        ({"NDims": "five"}, "five"),
        ({"DimSize": "4 3 0"}, "do not fit"),
        ({"DimSize": "4 -3 -2"}, "do not fit"),
        ({"DimSize": "400000 300000 200000"}, "claims"),
        ({"DimSize": "4 3 1"}, "claims 24 bytes of voxels, 48 are there"),
        ({"DimSize": "9999999 9999999 9999999", "CompressedData": "True"}, "a file of 48 cannot hold"),
        ({"CompressedData": "True", "CompressedDataSize": "47"}, "does not fit"),
        ({"CompressedData": "perhaps"}, "neither True nor False"),
        ({"CompressedData": "True"}, "cannot be read as MetaImage"),
        ({"ElementSpacing": "0.5 1.5 0"}, "spacing"),
        ({"ElementSpacing": "0.5 1.5"}, "3 numbers are expected"),
        ({"Offset": "1 2 nan"}, "3 numbers are expected"),
        ({"TransformMatrix": "0 2 0 0 0 1 1 0 0"}, "directions"),
        ({"TransformMatrix": "1 0 0 1 0 0 0 0 1"}, "does not span a volume"),
        ({"Position": "1 2 3"}, "Offset twice"),
    ],
)  # fmt: skip
def test_a_header_that_means_something_else_is_refused(tmp_path: Path, fields: dict[str, str], words: str):
    with pytest.raises(SkipSegError, match=words) as error:
        read_metaimage(mha(tmp_path, **fields))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("packed", [False, True], ids=["raw", "zlib"])
def test_a_file_cut_anywhere_or_with_a_tail_is_refused(tmp_path: Path, packed: bool):
    voxels = struct.pack("<24h", *VALUES)
    path = mha(tmp_path, zlib.compress(voxels) if packed else voxels, CompressedData=str(packed))
    whole = path.read_bytes()
    for content in (*(whole[:length] for length in range(len(whole))), whole + b"\0"):
        path.write_bytes(content)
        with pytest.raises(SkipSegError, match=r"scan\.mha"):
            read_metaimage(path)


def test_flipped_bits_of_compressed_voxels_give_no_other_voxels(tmp_path: Path):
    start = len(mha(tmp_path, b"", CompressedData="True").read_bytes())
    path = mha(tmp_path, zlib.compress(struct.pack("<24h", *VALUES)), CompressedData="True")
    whole = path.read_bytes()
    refused = 0
    for bit in range(8 * start, 8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            read = volume(read_metaimage(path).array[0])
        except SkipSegError:
            refused += 1
        else:
            assert read == VALUES  # a bit of padding
    assert refused > 0.9 * 8 * (len(whole) - start)


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path):
    path = mha(tmp_path, zlib.compress(bytes(50_000_000)), CompressedData="True")
    with pytest.raises(SkipSegError, match="more voxels than its header claims"):
        read_metaimage(path)


def test_something_else_is_refused(tmp_path: Path):
    for content in (b"", b"\0" * 5000, b"GIF89a", b"a = b\n" * 3, bytes(range(256)) * 99):
        (tmp_path / "scan.mha").write_bytes(content)
        with pytest.raises(SkipSegError, match=r"scan\.mha cannot be read as MetaImage"):
            read_metaimage(tmp_path / "scan.mha")
    (tmp_path / "scan.mha").write_text("".join(f"key{number} = 1\n" for number in range(2000)))
    with pytest.raises(SkipSegError, match="more than 1000 lines"):
        read_metaimage(tmp_path / "scan.mha")


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(SkipSegError, match=r"none\.mha does not exist"):
        read_metaimage(tmp_path / "none.mha")


def test_a_full_disk_is_no_fault_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    space = Workspace(limit=0)
    monkeypatch.setattr(space, "zeros", full)
    with pytest.raises(SkipSegError, match=r"No space left on device\); free disk space"):
        read_metaimage(mha(tmp_path), workspace=space)

import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segmentation import SkipSegError
from segmentation.scans import Scan, read_label_map, read_scan, scan_geometry, write_label_map, write_map
from segmentation.scans.workspace import Workspace

GRAY = np.random.default_rng(0).integers(0, 256, (49, 67), dtype=np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (49, 67, 3), dtype=np.uint8)


def save(image: Image.Image, path: Path, **options) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize("ending", [".png", ".tif", ".tiff", ".bmp", ".PNG"])
def test_gray_and_colour_are_read_as_stored(tmp_path: Path, ending: str):
    gray = read_scan(save(Image.fromarray(GRAY), tmp_path / f"gray{ending}"))
    np.testing.assert_array_equal(gray.array, GRAY[None])
    colour = read_scan(save(Image.fromarray(COLOUR), tmp_path / f"colour{ending}"))
    np.testing.assert_array_equal(colour.array, np.moveaxis(COLOUR, -1, 0))
    assert (colour.spatial_dims, colour.spatial_shape, colour.spacing_mm) == (2, (49, 67), (1, 1))
    assert (colour.orientation, colour.affine.tolist()) == ("", np.eye(4).tolist())
    assert scan_geometry(tmp_path / f"colour{ending}").shape == (49, 67)


@pytest.mark.parametrize(
    ("mode", "channels", "dtype"),
    [("RGBA", 3, np.uint8), ("LA", 1, np.uint8), ("P", 3, np.uint8), ("1", 1, np.uint8), ("CMYK", 3, np.uint8)],
)
def test_other_modes_become_gray_or_colour(tmp_path: Path, mode: str, channels: int, dtype: type):
    ending = ".tif" if mode == "CMYK" else ".png"
    scan = read_scan(save(Image.fromarray(COLOUR).convert(mode), tmp_path / f"picture{ending}"))
    assert scan.array.shape == (channels, 49, 67)
    assert scan.array.dtype == dtype


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "1", "I;16", "F"])
def test_rows_by_rows_nothing_changes(tmp_path: Path, file_space: Workspace, tiny_blocks: None, mode: str):
    image = Image.fromarray(GRAY.astype(np.uint16) * 200) if mode == "I;16" else Image.fromarray(COLOUR).convert(mode)
    path = save(image, tmp_path / ("picture.tif" if mode == "F" else "picture.png"))
    stored = Image.open(path)
    stored = np.asarray(stored.convert({"RGBA": "RGB", "LA": "L", "P": "RGB"}.get(mode, mode)))
    scan = read_scan(path, workspace=file_space)
    np.testing.assert_array_equal(scan.array, stored[None] if stored.ndim == 2 else np.moveaxis(stored, -1, 0))
    assert file_space.spilled == 1


def test_a_claim_that_the_file_cannot_hold_is_refused_before_memory_is_taken(tmp_path: Path):
    path = save(Image.fromarray(GRAY), tmp_path / "scan.png")
    content = bytearray(path.read_bytes())
    content[16:24] = (12_000).to_bytes(4) * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4)
    path.write_bytes(content)
    with pytest.raises(SkipSegError, match=r"scan\.png .*claims 18000000 bytes"):
        read_scan(path)


def test_a_map_is_written_as_floating_point(tmp_path: Path):
    like, values = Scan(GRAY[None], np.eye(4), "picture"), np.random.default_rng(0).random((49, 67))
    write_map(tmp_path / "map.tif", values, like, ("lesion",))
    np.testing.assert_array_equal(read_scan(tmp_path / "map.tif").array[0], values.astype(np.float32))
    with pytest.raises(SkipSegError, match="a picture's file holds one map, got 2; write one a class"):
        write_map(tmp_path / "maps.tif", np.stack([values] * 2), like)
    with pytest.raises(SkipSegError, match=r"write one of \.tif, \.tiff"):
        write_map(tmp_path / "map.png", values, like)
    assert [path.name for path in tmp_path.iterdir()] == ["map.tif"]


def test_one_bit_masks_hold_0_and_1(tmp_path: Path):
    path = save(Image.fromarray(GRAY > 127), tmp_path / "mask.png")
    np.testing.assert_array_equal(read_label_map(path).array[0], GRAY > 127)


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_sixteen_bit_gray_is_kept(tmp_path: Path, ending: str):
    values = GRAY.astype(np.uint16) * 257
    scan = read_scan(save(Image.fromarray(values), tmp_path / f"deep{ending}"))
    assert scan.array.dtype == np.uint16
    np.testing.assert_array_equal(scan.array[0], values)


def test_floating_point_tiff_is_kept(tmp_path: Path):
    values = GRAY.astype(np.float32) / 7
    scan = read_scan(save(Image.fromarray(values), tmp_path / "float.tif", compression="tiff_lzw"))
    np.testing.assert_array_equal(scan.array[0], values)


def test_sixteen_bit_colour_is_refused_rather_than_halved(tmp_path: Path):
    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4) + kind + content + zlib.crc32(kind + content).to_bytes(4)

    header = (2).to_bytes(4) + (2).to_bytes(4) + bytes([16, 2, 0, 0, 0])
    rows = zlib.compress((b"\0" + bytes(12)) * 2)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    (tmp_path / "deep.png").write_bytes(content)
    with pytest.raises(SkipSegError, match="16-bit colour"):
        read_scan(tmp_path / "deep.png")


def test_a_stack_of_pages_is_refused(tmp_path: Path):
    pages = [Image.fromarray(GRAY), Image.fromarray(GRAY)]
    path = save(pages[0], tmp_path / "stack.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(SkipSegError, match="2 pages"):
        read_scan(path)
    with pytest.raises(SkipSegError, match="2 pages"):
        scan_geometry(path)


@pytest.mark.parametrize("ending", [".png", ".tif", ".bmp", ".jpg"])
@pytest.mark.parametrize("kept", [0, 5, 60, -900])
def test_a_truncated_picture_is_refused(tmp_path: Path, ending: str, kept: int):
    path = save(Image.fromarray(GRAY), tmp_path / f"cut{ending}")
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(SkipSegError, match=r"cut\.") as error:
        read_scan(path)
    assert "\n" not in str(error.value)


def test_a_missing_picture_is_refused(tmp_path: Path):
    with pytest.raises(SkipSegError, match=r"none\.png"):
        read_scan(tmp_path / "none.png")


@pytest.mark.parametrize("ending", [".png", ".tif", ".tiff", ".bmp"])
def test_label_values_are_written_as_gray_levels(tmp_path: Path, ending: str):
    like = Scan(GRAY[None], np.eye(4), "picture")
    write_label_map(tmp_path / f"map{ending}", GRAY % 4, like)
    back = read_label_map(tmp_path / f"map{ending}", like=like)
    assert back.array.dtype == np.uint8
    np.testing.assert_array_equal(back.array[0], GRAY % 4)


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_many_labels_take_sixteen_bits(tmp_path: Path, ending: str):
    like = Scan(GRAY[None], np.eye(4), "picture")
    write_label_map(tmp_path / f"map{ending}", GRAY * np.int64(200), like)
    back = read_label_map(tmp_path / f"map{ending}", like=like)
    assert back.array.dtype == np.uint16
    np.testing.assert_array_equal(back.array[0], GRAY * np.int64(200))


def test_formats_that_would_change_values_are_refused(tmp_path: Path):
    like = Scan(GRAY[None], np.eye(4), "picture")
    with pytest.raises(SkipSegError, match="JPEG changes"):
        write_label_map(tmp_path / "map.jpg", GRAY, like)
    with pytest.raises(SkipSegError, match="JPEG changes"):
        read_label_map(save(Image.fromarray(GRAY), tmp_path / "mask.jpg"))
    with pytest.raises(SkipSegError, match="BMP holds labels up to 255"):
        write_label_map(tmp_path / "map.bmp", GRAY * np.int64(3), like)
    assert [path.name for path in tmp_path.iterdir()] == ["mask.jpg"]


def test_a_colour_mask_is_read_only_when_it_is_gray(tmp_path: Path):
    gray = np.repeat(GRAY[..., None], 3, axis=-1)
    np.testing.assert_array_equal(read_label_map(save(Image.fromarray(gray), tmp_path / "a.png")).array, GRAY[None])
    with pytest.raises(SkipSegError, match="colour picture"):
        read_label_map(save(Image.fromarray(COLOUR), tmp_path / "b.png"))

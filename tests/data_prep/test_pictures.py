import numpy as np
import pytest
from PIL import Image

from data_prep.pictures import as_mask, file_in, read_manifest, read_mask, read_pages, read_picture
from segmentation import SkipSegError


def test_manifest_gives_its_rows(tmp_path):
    (tmp_path / "manifest.csv").write_text("id,image,more\na,b,c\n")
    assert read_manifest(tmp_path, ["id", "image"]) == [{"id": "a", "image": "b", "more": "c"}]


@pytest.mark.parametrize(
    ("text", "message"),
    [("id,image\na,b\n", "lacks column mask; it has id, image"), ("", "lacks column id, image, mask; it has none")],
)
def test_manifest_without_a_column_is_refused(tmp_path, text, message):
    (tmp_path / "manifest.csv").write_text(text)
    with pytest.raises(SkipSegError, match=message):
        read_manifest(tmp_path, ["id", "image", "mask"])


def test_missing_manifest_is_refused(tmp_path):
    with pytest.raises(SkipSegError, match=r"manifest\.csv does not exist"):
        read_manifest(tmp_path, ["id"])


@pytest.mark.parametrize("relative", ["../secret.png", "/etc/passwd"])
def test_manifest_cannot_name_files_outside_its_folder(tmp_path, relative):
    (tmp_path / "secret.png").touch()
    (tmp_path / "inner").mkdir()
    with pytest.raises(SkipSegError, match="outside its folder"):
        file_in(tmp_path / "inner", relative)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(SkipSegError, match=r"images/1\.png is missing"):
        file_in(tmp_path, "images/1.png")


def test_pages_of_a_stack(tmp_path):
    pages = np.random.default_rng(0).integers(0, 256, (3, 9, 11), dtype=np.uint8)
    first, *rest = (Image.fromarray(page) for page in pages)
    first.save(tmp_path / "stack.tif", save_all=True, append_images=rest)
    np.testing.assert_array_equal(read_pages(tmp_path / "stack.tif", "L")[:, 0], pages)


def test_alpha_is_dropped_and_gray_is_tripled(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 11, 4), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "alpha.png")
    np.testing.assert_array_equal(
        read_picture(tmp_path / "alpha.png", "RGB").array, np.moveaxis(pixels[..., :3], -1, 0)
    )
    Image.fromarray(pixels[..., 0]).save(tmp_path / "gray.png")
    assert (read_picture(tmp_path / "gray.png", "RGB").array == pixels[..., 0]).all()


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n"])
def test_unreadable_picture_is_refused(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(SkipSegError, match=r"a\.png is not a readable picture"):
        read_pages(tmp_path / "a.png", "L")


def test_truncated_picture_is_refused(tmp_path, draw):
    draw(tmp_path / "a.png", "gray", 0)
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:900])
    with pytest.raises(SkipSegError, match=r"a\.png is not a readable picture"):
        read_pages(tmp_path / "a.png", "L")


@pytest.mark.parametrize(("dtype", "mode"), [(np.uint16, "I;16"), (np.int32, "I"), (np.float32, "F")])
def test_more_than_8_bits_are_refused_and_not_clipped(tmp_path, dtype, mode):
    Image.fromarray(np.full((9, 11), 300, dtype)).save(tmp_path / "a.tif")
    with pytest.raises(SkipSegError, match=rf"a\.tif has pixels of mode {mode}, .* scale them to 0 to 255"):
        read_pages(tmp_path / "a.tif", "L")


def test_enormous_picture_is_refused(tmp_path, draw, monkeypatch):
    draw(tmp_path / "a.png", "gray", 0)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(SkipSegError, match=r"a\.png is not a readable picture \(.* exceeds limit"):
        read_pages(tmp_path / "a.png", "L")


@pytest.mark.parametrize("ending", ["png", "gif", "tif"])
@pytest.mark.parametrize("mode", ["L", "1"])
def test_mask_of_any_picture_format(tmp_path, ending, mode):
    inside = np.random.default_rng(0).random((9, 11)) > 0.5
    Image.fromarray(inside.astype(np.uint8) * 255).convert(mode).save(tmp_path / f"a.{ending}")
    np.testing.assert_array_equal(read_mask(tmp_path / f"a.{ending}"), inside)


def test_mask_with_gray_values_is_refused(tmp_path):
    np.testing.assert_array_equal(as_mask(np.array([0, 1, 1], np.uint8), tmp_path), [False, True, True])
    with pytest.raises(SkipSegError, match=r"gray values \[0, 128, 255\]"):
        as_mask(np.array([0, 128, 255], np.uint8), tmp_path)

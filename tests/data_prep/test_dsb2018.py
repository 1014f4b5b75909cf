import shutil

import numpy as np
import pytest
from PIL import Image

import data_prep
from data_prep.dsb2018 import modality
from segmentation import SkipSegError
from segmentation.scans import read_scan


@pytest.fixture
def official(tmp_path, draw):
    """Three pictures with an alpha channel, as the official files have, and two nuclei each, in an archive."""
    pixels = {
        "dark": np.full((49, 67, 3), 20, np.uint8),
        "bright": np.full((49, 67, 3), 200, np.uint8),
        "purple": np.full((57, 49, 3), (150, 60, 160), np.uint8),
    }
    for name, picture in pixels.items():
        folder = tmp_path / "stage1_train" / name
        draw(folder / "masks" / "a.png", "mask", 1, picture.shape[:2])
        draw(folder / "masks" / "b.png", "mask", 2, picture.shape[:2])
        (folder / "images").mkdir()
        opaque = np.full((*picture.shape[:2], 1), 255, np.uint8)
        Image.fromarray(np.concatenate([picture, opaque], axis=-1)).save(folder / "images" / f"{name}.png")
    return tmp_path / "stage1_train"


@pytest.mark.parametrize("nested", [True, False], ids=["archive with its folder", "archive without"])
def test_official_archive_unites_nuclei_and_tells_the_modality(tmp_path, official, nested):
    base = "stage1_train" if nested else None
    archive = shutil.make_archive(str(tmp_path / "bundle"), "zip", tmp_path if nested else official, base)
    source = tmp_path / "stage1_train.zip"
    (tmp_path / archive).rename(source)
    dataset = data_prep.prepare("dsb2018", tmp_path / "out", source)
    assert [(case.name, case.stratum) for case in dataset.cases] == [
        ("bright", "brightfield-49x67"),
        ("dark", "fluo-49x67"),
        ("purple", "stained-57x49"),
    ]
    for case in dataset.cases:
        masks = [np.asarray(Image.open(official / case.name / "masks" / f"{which}.png")) > 0 for which in "ab"]
        assert case.patient == case.name
        assert case.label is not None
        np.testing.assert_array_equal(read_scan(case.label).array[0], masks[0] | masks[1])
        assert read_scan(case.images[0]).array.shape[0] == 3


def test_listed_layout_makes_gray_pictures_colour(tmp_path, draw, write_manifest):
    gray = draw(tmp_path / "made" / "images" / "a.png", "gray", 0)
    draw(tmp_path / "made" / "masks" / "a.png", "mask", 0)
    row = {"id": "a", "image": "images/a.png", "mask": "masks/a.png", "modality": "fluo", "h": 49, "w": 67}
    write_manifest(tmp_path / "made", [row])
    (case,) = data_prep.prepare("dsb2018", tmp_path / "out", tmp_path / "made").cases
    np.testing.assert_array_equal(read_scan(case.images[0]).array, np.stack([gray] * 3))
    assert case.stratum == "fluo-49x67"


def test_faults_are_named(tmp_path, official, draw):
    draw(official / "dark" / "masks" / "b.png", "mask", 0, (57, 49))
    with pytest.raises(SkipSegError, match="the masks of dark differ in size"):
        data_prep.prepare("dsb2018", tmp_path / "out", official)
    for mask in (official / "dark" / "masks").iterdir():
        mask.unlink()
    with pytest.raises(SkipSegError, match="dark holds no masks"):
        data_prep.prepare("dsb2018", tmp_path / "out", official)


def test_black_picture_is_fluorescence():
    assert modality(np.zeros((3, 5, 5), np.uint8)) == "fluo"

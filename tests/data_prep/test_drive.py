import numpy as np
import pytest
from PIL import Image

import data_prep
from segmentation import SkipSegError
from segmentation.scans import read_scan

IDS = ("21", "22", "23")


@pytest.fixture
def drawn(draw, tmp_path):
    """Photograph, vessels and field of view of each id, in both layouts."""
    rows = {}
    for number, name in enumerate(IDS):
        kinds = {"image": ("colour", number), "mask": ("mask", 10 + number), "fov": ("mask", 20 + number)}
        rows[name] = {kind: draw(tmp_path / "made" / kind / f"{name}.png", *how) for kind, how in kinds.items()}
    return rows


@pytest.fixture
def listed(drawn, tmp_path, write_manifest):
    kinds = ("image", "mask", "fov")
    write_manifest(tmp_path / "made", [{"id": i, **{k: f"{k}/{i}.png" for k in kinds}} for i in drawn])
    return tmp_path / "made"


@pytest.fixture
def official(drawn, tmp_path):
    patterns = {
        "image": "images/{}_training.tif",
        "mask": "1st_manual/{}_manual1.gif",
        "fov": "mask/{}_training_mask.gif",
    }
    for name, arrays in drawn.items():
        for kind, pattern in patterns.items():
            path = tmp_path / "source" / "DRIVE" / "training" / pattern.format(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(arrays[kind]).save(path)
    return tmp_path / "source"


@pytest.mark.parametrize("layout", ["listed", "official"])
def test_vessels_inside_the_field_of_view_and_ignore_outside(tmp_path, drawn, layout, request):
    dataset = data_prep.prepare("drive", tmp_path / "out", request.getfixturevalue(layout))
    assert dataset.ignore_label == 2
    assert [case.patient for case in dataset.cases] == ["pat21", "pat22", "pat23"]
    for case, arrays in zip(dataset.cases, drawn.values(), strict=True):
        np.testing.assert_array_equal(read_scan(case.images[0]).array, np.moveaxis(arrays["image"], -1, 0))
        assert case.label is not None
        label_map = read_scan(case.label).array[0]
        np.testing.assert_array_equal(label_map == 2, arrays["fov"] == 0)
        np.testing.assert_array_equal(label_map == 1, (arrays["mask"] > 0) & (arrays["fov"] > 0))
        assert set(np.unique(label_map)) == {0, 1, 2}


def test_both_layouts_give_the_same_pictures(tmp_path, listed, official, tree):
    folders = [
        data_prep.prepare("drive", tmp_path / name, source).root for name, source in (("a", listed), ("b", official))
    ]
    assert tree(folders[0] / "labelsTr") == tree(folders[1] / "labelsTr")
    assert tree(folders[0] / "imagesTr") == tree(folders[1] / "imagesTr")


def test_missing_mask_is_named(tmp_path, official):
    next(official.rglob("22_manual1.gif")).unlink()
    with pytest.raises(SkipSegError, match=r"holds 0 files 1st_manual/22_manual1"):
        data_prep.prepare("drive", tmp_path / "out", official)


def test_missing_column_is_named(tmp_path, listed, write_manifest):
    write_manifest(listed, [{"id": "21", "image": "image/21.png", "mask": "mask/21.png"}])
    with pytest.raises(SkipSegError, match="lacks column fov"):
        data_prep.prepare("drive", tmp_path / "out", listed)


@pytest.mark.parametrize("train", ["train", "Training", ""])
def test_the_test_part_is_left_out(tmp_path, listed, write_manifest, train):
    rows = [{"id": i, **{kind: f"{kind}/{i}.png" for kind in ("image", "mask", "fov")}} for i in IDS]
    write_manifest(listed, [row | {"split": part} for row, part in zip(rows, ("test", train, train), strict=True)])
    dataset = data_prep.prepare("drive", tmp_path / "out", listed)
    assert [case.name for case in dataset.cases] == ["drive_22", "drive_23"]
    write_manifest(listed, [row | {"split": "test"} for row in rows])
    with pytest.raises(SkipSegError, match="has no row with split 'train'"):
        data_prep.prepare("drive", tmp_path / "other", listed)


def test_masks_of_two_sizes_are_refused(tmp_path, listed, draw):
    draw(listed / "fov" / "21.png", "mask", 0, (57, 49))
    with pytest.raises(SkipSegError, match=r"21\.png is \(49, 67\) and 21\.png is \(57, 49\)"):
        data_prep.prepare("drive", tmp_path / "out", listed)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_real_photographs(tmp_path, shared_data):
    dataset = data_prep.prepare("drive", tmp_path / "out", shared_data / "drive_retina")
    assert len(dataset.cases) == 20
    shares = []
    for case in dataset.cases:
        assert case.label is not None
        label_map = read_scan(case.label).array[0]
        assert label_map.shape == (584, 565)
        shares.append((label_map == 1).sum() / label_map.size)
    assert np.mean(shares) == pytest.approx(0.087, abs=0.005)

import numpy as np
import pytest
from PIL import Image

import data_prep
from data_prep.busi import duplicate_groups
from segmentation import SkipSegError
from segmentation.scans import read_scan


@pytest.fixture
def official(tmp_path, draw):
    """Two benign pictures, one with two masks; a malignant copy of the first in another size; a normal one."""
    root = tmp_path / "source" / "Dataset_BUSI_with_GT"
    draw(root / "benign" / "benign (1).png", "colour", 1)
    draw(root / "benign" / "benign (1)_mask.png", "mask", 1)
    draw(root / "benign" / "benign (10).png", "colour", 2)
    draw(root / "benign" / "benign (10)_mask.png", "mask", 2)
    draw(root / "benign" / "benign (10)_mask_1.png", "mask", 3)
    (root / "malignant").mkdir()
    copy = Image.open(root / "benign" / "benign (1).png").resize((134, 98), Image.Resampling.BICUBIC)
    copy.save(root / "malignant" / "malignant (7).png")
    draw(root / "malignant" / "malignant (7)_mask.png", "mask", 4, (98, 134))
    draw(root / "normal" / "normal (2).png", "colour", 5)
    Image.new("1", (67, 49)).save(root / "normal" / "normal (2)_mask.png")
    return tmp_path / "source"


def test_official_layout_unites_masks_and_groups_copies(tmp_path, official):
    dataset = data_prep.prepare("busi", tmp_path / "out", official)
    assert [(case.name, case.patient, case.stratum) for case in dataset.cases] == [
        ("benign_001", "benign_001", "benign"),
        ("benign_010", "benign_010", "benign"),
        ("malignant_007", "benign_001", "malignant"),
        ("normal_002", "normal_002", "normal"),
    ]
    labels = [read_scan(case.label).array[0] for case in dataset.cases if case.label]
    folder = official / "Dataset_BUSI_with_GT" / "benign"
    masks = [np.asarray(Image.open(folder / f"benign (10)_mask{end}.png")) > 0 for end in ("", "_1")]
    np.testing.assert_array_equal(labels[1], masks[0] | masks[1])
    assert labels[1].sum() > max(mask.sum() for mask in masks)
    assert labels[3].max() == 0
    assert read_scan(dataset.cases[0].images[0]).array.shape == (1, 49, 67)


@pytest.fixture
def listed(tmp_path, draw):
    for number in range(3):
        draw(tmp_path / "made" / "images" / f"{number}.png", "gray", max(number, 1))
        draw(tmp_path / "made" / "masks" / f"{number}.png", "mask", number)
    return tmp_path / "made"


@pytest.mark.parametrize(
    ("group", "patients"),
    [({}, ["c0", "c0", "c2"]), ({"dup_group": "g9"}, ["g9", "g9", "g9"])],
    ids=["found anew", "from the manifest"],
)
def test_listed_layout(tmp_path, listed, write_manifest, group, patients):
    rows = [
        {"id": f"c{i}", "image": f"images/{i}.png", "mask": f"masks/{i}.png", "cls": "benign", **group}
        for i in range(3)
    ]
    write_manifest(listed, rows)
    dataset = data_prep.prepare("busi", tmp_path / "out", listed)
    assert [case.patient for case in dataset.cases] == patients


def test_copies_are_found_through_others_and_flat_pictures_stay_apart(tmp_path, draw):
    noise = np.random.default_rng(0).normal(0, 1, (3, 32, 32))
    chain = [noise[0], noise[0] + 0.3 * noise[1], noise[0] + 0.6 * noise[1]]
    correlation = np.corrcoef([picture.ravel() for picture in chain])
    assert correlation[0, 1] > 0.95 < correlation[1, 2]
    assert correlation[0, 2] < 0.9
    paths = []
    for number, picture in enumerate([noise[2], *chain, np.zeros((32, 32)), np.zeros((32, 32))]):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(np.clip(128 + 30 * picture, 0, 255).astype(np.uint8)).save(paths[-1])
    assert duplicate_groups(paths) == [0, 1, 1, 1, 4, 5]
    assert duplicate_groups([]) == []


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder, draw: (folder / "benign (1)_mask.png").unlink(), "no number or no mask"),
        (lambda folder, draw: draw(folder / "benign (10)_mask_1.png", "mask", 0, (57, 49)), "differ in size"),
        (lambda folder, draw: draw(folder / "benign (1)_mask.png", "gray", 0), "holds gray values"),
    ],
)
def test_faulty_masks_are_refused(tmp_path, official, draw, spoil, message):
    spoil(official / "Dataset_BUSI_with_GT" / "benign", draw)
    with pytest.raises(SkipSegError, match=message):
        data_prep.prepare("busi", tmp_path / "out", official)
    assert not (tmp_path / "out").exists()

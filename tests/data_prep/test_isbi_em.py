import zipfile

import numpy as np
import pytest
from PIL import Image

import data_prep
from segmentation import SkipSegError
from segmentation.runs import read_json
from segmentation.scans import read_scan


@pytest.fixture
def stacks(draw, tmp_path):
    """Thirty slices and their membranes, shapes ``(30, rows, columns)``."""
    kinds = ("gray", "mask")
    return [np.stack([draw(tmp_path / "made" / k / f"{i:02d}.png", k, i) for i in range(30)]) for k in kinds]


@pytest.fixture
def listed(stacks, tmp_path, write_manifest):
    rows = [{"id": i, "image": f"gray/{i:02d}.png", "mask": f"mask/{i:02d}.png", "slice": i} for i in range(30)]
    write_manifest(tmp_path / "made", rows)
    return tmp_path / "made"


@pytest.fixture
def official(stacks, tmp_path):
    """The challenge's archive: two TIFF stacks, labels white inside cells."""
    archive = tmp_path / "ISBI-2012-challenge.zip"
    with zipfile.ZipFile(archive, "w") as bundle:
        for name, pages in (("train-volume.tif", stacks[0]), ("train-labels.tif", 255 - stacks[1])):
            first, *rest = (Image.fromarray(page) for page in pages)
            first.save(tmp_path / name, save_all=True, append_images=rest)
            bundle.write(tmp_path / name, f"ISBI-2012-challenge/{name}")
    return archive


@pytest.mark.parametrize("layout", ["listed", "official"])
def test_membrane_is_one_whichever_way_the_source_paints_it(tmp_path, stacks, layout, request):
    dataset = data_prep.prepare("isbi-em", tmp_path / "out", request.getfixturevalue(layout))
    assert len(dataset.cases) == 30
    assert {case.patient for case in dataset.cases} == {"stack1"}
    for number, case in enumerate(dataset.cases):
        np.testing.assert_array_equal(read_scan(case.images[0]).array[0], stacks[0][number])
        assert case.label is not None
        np.testing.assert_array_equal(read_scan(case.label).array[0], stacks[1][number] > 0)
    assert not list(tmp_path.glob(".*"))


def test_split_keeps_blocks_apart(tmp_path, listed):
    dataset = data_prep.prepare("isbi-em", tmp_path / "out", listed)
    splits = read_json(tmp_path / "out" / "splits.json")
    (fold,) = splits["folds"]
    names = [case.name for case in dataset.cases]
    train, held_out = ([names.index(name) for name in fold[part]] for part in ("train", "val"))
    assert train == list(range(20))
    assert held_out == [22, 23, 24, 27, 28, 29]
    assert splits["grouping"] == "contiguous blocks"


def test_incomplete_stacks_are_refused(tmp_path, listed, write_manifest, draw):
    rows = [{"id": i, "image": f"gray/{i:02d}.png", "mask": f"mask/{i:02d}.png", "slice": i} for i in range(29)]
    write_manifest(listed, rows)
    with pytest.raises(SkipSegError, match="lists 29 slices; expected slice 0 to 29"):
        data_prep.prepare("isbi-em", tmp_path / "out", listed)
    for name in ("train-volume.tif", "train-labels.tif"):
        draw(tmp_path / "short" / name, "mask", 0)
    with pytest.raises(SkipSegError, match=r"\(1, 49, 67\) and \(1, 49, 67\); expected 30 slices"):
        data_prep.prepare("isbi-em", tmp_path / "out", tmp_path / "short")

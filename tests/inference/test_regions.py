"""Regions found slab by slab are those of the whole mask."""

import itertools

import numpy as np
import pytest
from scipy import ndimage

from segmentation.inference import regions as regions_module
from segmentation.inference.regions import Regions, class_boxes, memory_order, slabs


def regions_of(mask, other, corners):
    return Regions(mask.shape, mask.__getitem__, lambda part: [mask[part], mask[part] & other[part]], corners=corners)


@pytest.mark.parametrize(
    ("shape", "density"), [((40, 31), 0.4), ((40, 31), 0.6), ((17, 11, 13), 0.12), ((9, 8, 7), 0.3)]
)
@pytest.mark.parametrize("corners", [True, False])
@pytest.mark.parametrize("planes", [1, 2, 5, 1000])
def test_regions_are_those_of_the_whole_mask(monkeypatch, shape, density, corners, planes):
    rng = np.random.default_rng(planes)
    mask, other = rng.random(shape) < density, rng.random(shape) < 0.5
    monkeypatch.setattr(regions_module, "SLAB_VOXELS", planes * int(np.prod(shape[1:])))
    found = regions_of(mask, other, corners)
    structure = np.ones((3,) * mask.ndim) if corners else None
    whole, number = ndimage.label(mask, structure)
    expected = [(np.sum(whole == n), np.sum((whole == n) & other)) for n in range(1, number + 1)]
    assert sorted(map(tuple, found.counts.T)) == sorted(expected)
    large = np.zeros_like(mask)
    for part, voxels in found.where(found.counts[0] >= 3):
        large[part] = voxels
    sizes = np.bincount(whole.ravel())
    sizes[0] = 0
    np.testing.assert_array_equal(large, (sizes >= 3)[whole])


def test_pieces_that_meet_three_slabs_later_are_one(monkeypatch):
    monkeypatch.setattr(regions_module, "SLAB_VOXELS", 1)
    horseshoe = np.array([[1, 0, 1], [1, 0, 1], [1, 0, 1], [1, 1, 1]], bool)
    assert regions_of(horseshoe, horseshoe, corners=False).counts.tolist() == [[9], [9]]


@pytest.mark.parametrize("shift", list(itertools.product((-1, 0, 1), repeat=2)))
def test_every_diagonal_between_slabs_counts_with_corners_only(monkeypatch, shift):
    monkeypatch.setattr(regions_module, "SLAB_VOXELS", 1)
    mask = np.zeros((2, 3, 3), bool)
    mask[0, 1, 1] = mask[1, 1 + shift[0], 1 + shift[1]] = True
    assert regions_of(mask, mask, corners=True).counts.shape == (2, 1)
    assert regions_of(mask, mask, corners=False).counts.shape == (2, 1 if shift == (0, 0) else 2)


def test_empty_masks_have_no_regions():
    for shape in ((0, 4), (4, 0), (3, 3)):
        empty = np.zeros(shape, bool)
        found = regions_of(empty, empty, corners=True)
        assert found.counts.shape == (2, 0)
        assert list(found.where(np.zeros(0, bool))) == []


def test_boxes_hold_each_class_in_whichever_slabs_it_lies(monkeypatch):
    rng = np.random.default_rng(0)
    label_map = rng.choice(np.arange(6, dtype=np.uint8), (12, 9, 7), p=[0.96, 0.01, 0.01, 0.01, 0.01, 0.0])
    whole = {value + 1: box for value, box in enumerate(ndimage.find_objects(label_map)) if box}
    monkeypatch.setattr(regions_module, "SLAB_VOXELS", 100)
    assert class_boxes(label_map, {1, 3, 5}) == {value: whole[value] for value in (1, 3)}
    assert class_boxes(label_map, set()) == {}


def test_slabs_cover_an_array_once():
    parts = list(slabs((10, 2**20)))
    assert [part.start for part in parts] == [0, 2, 4, 6, 8]
    assert parts[-1].stop == 10
    assert list(slabs((3, 2**22))) == [slice(0, 1), slice(1, 2), slice(2, 3)], "a plane is never cut"


def test_arrays_are_walked_as_they_lie_in_memory():
    array = np.zeros((4, 3, 5))
    for axes in itertools.permutations(range(3)):
        view = array.transpose(axes)[::-1, :, ::-1]
        assert np.abs(view.transpose(memory_order(view)).strides).tolist() == list(array.strides)

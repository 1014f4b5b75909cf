"""Steps after the network: what each does to a map, however the map lies in memory and in space."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
from scipy import ndimage

from segmentation import SkipSegError
from segmentation.inference import regions as regions_module
from segmentation.inference.postprocess import Step, apply_steps, common_steps
from segmentation.scans.workspace import Workspace

LARGEST, FILL = Step("keep_largest", 1), Step("fill_holes", 1)


def applied(label_map, *steps, spacing_mm=None):
    return apply_steps(np.array(label_map, np.uint8), steps, spacing_mm or (1.0,) * np.ndim(label_map))


def reference_steps(label_map, steps, voxel_mm3):
    """The same steps by whole-array operations."""
    result = label_map.copy()
    for step in steps:
        mask = result == step.label
        if step.kind == "fill_holes":
            holes, number = ndimage.label(ndimage.binary_fill_holes(mask) & ~mask)
            for hole in (holes == n for n in range(1, number + 1)):
                if not result[hole].any():
                    result[hole] = step.label
            continue
        components, number = ndimage.label(mask, np.ones((3,) * mask.ndim))
        sizes = [int(np.sum(components == n)) for n in range(1, number + 1)]
        for n, size in enumerate(sizes, start=1):
            if size < max(sizes) if step.kind == "keep_largest" else size * voxel_mm3 < step.minimum_mm3:
                result[components == n] = 0
    return result


def random_map(shape, seed):
    """Smooth noise cut into three classes, with holes and crumbs of each."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=shape), 0.8)
    return np.digitize(field, np.quantile(field, [0.5, 0.7, 0.9])).astype(np.uint8)


@pytest.mark.parametrize("shape", [(60, 47), (23, 19, 17)])
@pytest.mark.parametrize("seed", range(4))
def test_steps_equal_a_second_implementation(monkeypatch, shape, seed):
    monkeypatch.setattr(regions_module, "SLAB_VOXELS", 500)
    label_map = random_map(shape, seed)
    spacing_mm = (0.5, 2.0, 1.5)[: len(shape)]
    voxel_mm3 = float(np.prod(spacing_mm))
    steps = [
        Step("remove_small", 2, minimum_mm3=7 * voxel_mm3),
        FILL,
        Step("fill_holes", 3),
        Step("keep_largest", 3),
        Step("remove_small", 1, minimum_mm3=3.5 * voxel_mm3),
        Step("fill_holes", 2),
    ]
    for count in range(1, len(steps) + 1):
        expected = reference_steps(label_map, steps[:count], voxel_mm3)
        np.testing.assert_array_equal(apply_steps(label_map.copy(), steps[:count], spacing_mm), expected)
    assert not np.array_equal(expected, label_map)


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
def test_a_turned_map_gives_the_turned_result(axes):
    label_map = random_map((14, 11, 9), seed=9)
    spacing_mm = (0.7, 1.1, 3.0)
    steps = [FILL, Step("remove_small", 2, minimum_mm3=9.0), LARGEST, Step("keep_largest", 3)]
    expected = apply_steps(label_map.copy(), steps, spacing_mm)
    for flips in itertools.product((1, -1), repeat=3):
        turn = tuple(slice(None, None, flip) for flip in flips)
        turned = label_map.transpose(axes)[turn]
        for copied in (turned.copy(), turned.copy(order="F"), label_map.copy().transpose(axes)[turn]):
            found = apply_steps(copied, steps, [spacing_mm[axis] for axis in axes])
            np.testing.assert_array_equal(found, expected.transpose(axes)[turn])


def test_diagonal_neighbours_are_one_component_and_no_way_out_of_a_hole():
    diagonal = [[1, 0, 0, 0, 0], [0, 1, 0, 0, 1]]
    np.testing.assert_array_equal(applied(diagonal, LARGEST), [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0]])
    ring = [[0, 1, 0], [1, 0, 1], [0, 1, 0]]
    np.testing.assert_array_equal(applied(ring, FILL), [[0, 1, 0], [1, 1, 1], [0, 1, 0]])


def test_equally_large_components_all_stay():
    label_map = [[1, 1, 0, 1, 1], [0, 0, 0, 0, 0], [1, 0, 2, 0, 0]]
    np.testing.assert_array_equal(applied(label_map, LARGEST), [[1, 1, 0, 1, 1], [0, 0, 0, 0, 0], [0, 0, 2, 0, 0]])


def test_a_component_of_just_the_least_volume_stays():
    label_map = [[1, 0, 1, 1, 0, 1, 1, 1]]
    size = 0.1 * 0.7  # of a pixel; three of them are not 3 * 0.07 in floating point
    small = Step("remove_small", 1, minimum_mm3=3 * size)
    assert applied(label_map, small, spacing_mm=(0.1, 0.7)).tolist() == [[0, 0, 0, 0, 0, 1, 1, 1]]
    assert applied(label_map, Step("remove_small", 1, minimum_mm3=0.2101), spacing_mm=(0.1, 0.7)).sum() == 0


def test_a_hole_that_holds_another_class_stays():
    label_map = np.ones((5, 11), np.uint8)
    label_map[1:4, 1:4] = 0
    label_map[2, 2] = 2
    label_map[2, 6:10] = 0
    filled = applied(label_map, FILL)
    np.testing.assert_array_equal(filled[:, :5], label_map[:, :5])
    assert (filled[:, 5:] == 1).all()


def test_what_reaches_the_border_of_the_scan_is_no_hole():
    label_map = np.ones((4, 4, 4), np.uint8)
    label_map[1, 1, 1] = label_map[2, 2, 3] = 0
    filled = applied(label_map, FILL)
    assert filled[1, 1, 1] == 1
    assert filled[2, 2, 3] == 0


def test_a_class_in_one_slice_is_open_unless_the_scan_is_one_slice():
    ring = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], np.uint8)
    among_others = np.stack([np.zeros_like(ring), ring, np.zeros_like(ring)], axis=1)
    np.testing.assert_array_equal(applied(among_others, FILL), among_others)
    assert applied(ring[:, None], FILL).all()
    line = np.array([[1, 0, 1]], np.uint8)
    np.testing.assert_array_equal(applied(line, FILL), line)
    np.testing.assert_array_equal(applied(line[None], FILL), line[None])


def test_the_map_itself_changes_and_absent_classes_do_not_matter():
    label_map = np.array([[1, 0, 2], [0, 0, 2]], np.uint16)
    assert apply_steps(label_map, [Step("remove_small", 1, 2.0), Step("keep_largest", 900)], (1, 1)) is label_map
    assert label_map.tolist() == [[0, 0, 2], [0, 0, 2]]
    assert apply_steps(label_map, [], (1, 1)) is label_map


def test_an_array_in_a_file_gives_the_same(tmp_path):
    space = Workspace(limit=0, folder=tmp_path)
    label_map = random_map((40, 30, 20), seed=3)
    stored = space.zeros((20, 40, 30), np.uint8).transpose(1, 2, 0)
    stored[...] = label_map
    steps = [FILL, LARGEST, Step("fill_holes", 2), Step("remove_small", 3, 5.0)]
    np.testing.assert_array_equal(
        apply_steps(stored, steps, (1, 1, 1), space), apply_steps(label_map, steps, (1, 1, 1))
    )
    assert space.spilled == 1


LARGE = """
import resource, numpy as np
from segmentation.inference.postprocess import Step, apply_steps
from segmentation.scans.workspace import Workspace
space = Workspace(limit=0)
label_map = space.zeros((400, 512, 512), np.uint8).transpose(2, 1, 0)[::-1]
for z in range(400):
    label_map[100:-100, 100:-100, z] = 1
    label_map[z + 50, z + 60, z] = 2
    label_map[300, 300, z] = 0 if 0 < z < 399 else 1
    if z % 8 == 0: space.release()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
steps = [Step("keep_largest", 1), Step("keep_largest", 2), Step("fill_holes", 1), Step("remove_small", 2, 5.0)]
apply_steps(label_map, steps, (1, 1, 1), space)
assert label_map[300, 300, 200] == 1
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.slow
def test_memory_stays_that_of_a_slab_whatever_the_size_of_the_map():
    done = subprocess.run([sys.executable, "-c", LARGE], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 80, "MiB; the map has 100, and its components as int32 would take 400"


@pytest.mark.parametrize(
    ("values", "word"),
    [
        (("largest", 1), "must be one of keep_largest, remove_small, fill_holes"),
        (("keep_largest", 0), "above 0, got 0"),
        (("keep_largest", True), "above 0, got True"),
        (("keep_largest", 1, 5.0), "0 for other steps"),
        (("remove_small", 1), "above 0 for remove_small"),
        (("remove_small", 1, float("inf")), "above 0 for remove_small"),
        (("remove_small", 1, float("nan")), "above 0 for remove_small"),
    ],
)
def test_steps_without_sense_are_refused(values, word):
    with pytest.raises(SkipSegError, match=word):
        Step(*values)


def test_maps_that_are_none_are_refused():
    with pytest.raises(SkipSegError, match="integer labels, got dtype float32"):
        apply_steps(np.zeros((3, 3), np.float32), [LARGEST], (1, 1))
    with pytest.raises(SkipSegError, match="spacing_mm must be 2 positive numbers"):
        apply_steps(np.zeros((3, 3), np.uint8), [LARGEST], (1, 1, 1))


def test_steps_come_back_from_plain_data():
    for step in (LARGEST, Step("remove_small", 3, 12.5)):
        assert Step.from_plain(step.to_plain()) == step
    with pytest.raises(SkipSegError, match="is not a step of post-processing"):
        Step.from_plain({"kind": "keep_largest", "class": 1})


def described(*steps, keep_largest=None):
    old = {} if keep_largest is None else {"keep_largest": keep_largest}
    labels = {"background": 0, "organ": 1, "lesion": 2}
    return {"labels": labels, **old, "postprocess": {"steps": [step.to_plain() for step in steps]}}


def test_several_models_take_what_all_of_them_recorded():
    small, smaller = Step("remove_small", 2, 8.0), Step("remove_small", 2, 3.0)
    models = [described(LARGEST, small, FILL), described(smaller, FILL, Step("keep_largest", 2))]
    assert common_steps(models) == [smaller, FILL]
    assert common_steps(models[:1]) == [LARGEST, small, FILL]
    assert common_steps([*models, described()]) == []
    assert common_steps([{"labels": {}}]) == [], "a model from before there were steps"


def test_a_training_told_to_keep_the_largest_always_does():
    model = described(FILL, keep_largest=True)
    both = [Step("keep_largest", 1), Step("keep_largest", 2)]
    assert common_steps([model]) == [*both, FILL]
    assert common_steps([model], chosen=False) == both
    assert common_steps([described(FILL, keep_largest=False)], chosen=False) == []


@pytest.mark.parametrize("wrong", [{"keep_largest": True}, {"postprocess": {"steps": 3}}, {"postprocess": []}])
def test_descriptions_without_sense_are_refused(wrong):
    with pytest.raises(SkipSegError, match=r"model\.json does not hold steps"):
        common_steps([wrong])

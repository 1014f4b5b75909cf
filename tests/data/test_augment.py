import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from segmentation.config import AugmentSettings
from segmentation.data.augment import NoAugmentation, VolumeAugmentation, VolumeChange, build_augmentation
from segmentation.data.augment_pictures import _low_resolution, with_margin

STRONG = AugmentSettings(strength=2.0, flip_axes=[0, 1])
PATCHES = {2: (20, 26), 3: (9, 14, 12)}
IGNORE = 4


def patch(size: tuple[int, ...], channels: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Image over the whole range and labels 0, 2 and 4, in blocks."""
    rng = np.random.default_rng(seed)
    image = rng.random((channels, *size), np.float32)
    image[:, :3], image[:, -3:] = 0, 1
    labels = rng.choice([0, 2, IGNORE], tuple(-(-length // 4) for length in size)).astype(np.uint8)
    for axis in range(labels.ndim):
        labels = labels.repeat(4, axis)
    return image, labels[tuple(slice(length) for length in size)]


def changed(augmentation, channels: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """One drawn patch."""
    change = augmentation.draw(np.random.default_rng(seed))
    return change(*patch(change.size, channels))


@pytest.mark.parametrize(("dims", "channels"), [(2, 1), (2, 3), (2, 5), (3, 1), (3, 2)])
def test_images_stay_in_range_and_labels_hold_no_new_values(dims, channels):
    augmentation = build_augmentation(STRONG, PATCHES[dims])
    seen = set()
    for seed in range(40):
        image, target = changed(augmentation, channels, seed)
        assert (image.shape, target.shape) == ((channels, *PATCHES[dims]), PATCHES[dims])
        assert (image.dtype, target.dtype) == (np.float32, np.uint8)
        assert image.flags.c_contiguous
        assert target.flags.c_contiguous
        assert 0 <= image.min() <= image.max() <= 1
        seen |= set(np.unique(target))
    assert seen == {0, 2, IGNORE}


@pytest.mark.parametrize(("dims", "channels"), [(2, 1), (2, 5), (3, 2)])
def test_a_patch_depends_on_its_own_random_numbers_alone(dims, channels):
    first, second = (build_augmentation(STRONG, PATCHES[dims]) for _ in range(2))
    expected = [changed(first, channels, seed) for seed in range(12)]
    assert any(not np.array_equal(expected[0][0], other[0]) for other in expected[1:])
    np.random.seed(3)
    for seed in reversed(range(12)):
        again = changed(second, channels, seed)
        assert all(np.array_equal(a, b) for a, b in zip(again, expected[seed], strict=True))


@pytest.mark.parametrize("dims", [2, 3])
def test_strength_0_is_the_identity(dims):
    augmentation = build_augmentation(replace(STRONG, strength=0), PATCHES[dims])
    assert isinstance(augmentation, NoAugmentation)
    change = augmentation.draw(np.random.default_rng(0))
    assert change.size == augmentation.patch_size == PATCHES[dims]
    image, labels = patch(change.size, 2)
    assert all(given is back for given, back in zip((image, labels), change(image, labels), strict=True))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("size", [(24, 20, 16), (19, 23, 17), (18, 30, 22)])
def test_image_and_labels_move_together_and_a_patch_left_alone_comes_back(dims, size):
    """An image that shows its labels still shows them, and some patches are neither turned nor mirrored."""
    augmentation = build_augmentation(AugmentSettings(flip_axes=list(range(dims))), size[:dims])
    untouched = 0
    for seed in range(100):
        change = augmentation.draw(np.random.default_rng(seed))
        _, labels = patch(change.size, 1)
        image, target = change(labels[None] / np.float32(IGNORE), labels)
        means = [image[0][target == value].mean() for value in (0, 2, IGNORE) if (target == value).any()]
        assert means == sorted(means)
        margins = [(cut - wanted) // 2 for cut, wanted in zip(change.size, target.shape, strict=True)]
        middle = tuple(slice(m, m + wanted) for m, wanted in zip(margins, target.shape, strict=True))
        shown = np.rint(image[0] * IGNORE / 2) * 2
        untouched += np.array_equal(target, labels[middle]) and np.array_equal(target, shown)
    assert untouched >= 2


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("scale", [0.5, 0.55, 0.67, 0.95])
@pytest.mark.parametrize("size", [(64, 96), (97, 33)])
def test_a_lower_resolution_moves_nothing(channels, scale, size):
    """Each pixel of a slope still shows its own place, and a thin line stays where it is."""
    low = _low_resolution(scale, scale)
    for axis in (0, 1):
        slope = np.arange(size[axis], dtype=np.float32).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        picture = np.broadcast_to(slope / size[axis], (*size, channels)).copy()
        changed = low.apply(picture, scale=scale)
        assert changed.shape == picture.shape
        assert not np.array_equal(changed, picture)
        away = (changed - picture).take(range(2, size[axis] - 2), axis) * size[axis]
        assert abs(away).max() < 0.6
        assert abs(away.mean()) < 0.02


@pytest.mark.parametrize("strength", [0.001, 0.05, 2.0])
def test_pictures_change_at_every_strength(strength):
    augmentation = build_augmentation(AugmentSettings(strength=strength, flip_axes=[0]), (16, 16))
    for seed in range(20):
        change = augmentation.draw(np.random.default_rng(seed))
        image, _ = change(*patch(change.size, 1))
        assert image.shape == (1, 16, 16)


@pytest.mark.parametrize("dims", [2, 3])
def test_only_the_named_axes_are_mirrored(dims):
    augmentation = build_augmentation(AugmentSettings(flip_axes=[1], rotate_degrees=0, scale=0), PATCHES[dims])
    kept = turned = 0
    for seed in range(20):
        change = augmentation.draw(np.random.default_rng(seed))
        _, labels = patch(change.size, 1)
        _, target = change(np.full((1, *change.size), 0.5, np.float32), labels)
        margins = [(cut - size) // 2 for cut, size in zip(change.size, PATCHES[dims], strict=True)]
        middle = labels[tuple(slice(m, m + p) for m, p in zip(margins, PATCHES[dims], strict=True))]
        kept += np.array_equal(target, middle)
        turned += np.array_equal(target, np.flip(middle, 1))
    assert kept + turned == 20
    assert kept > 2 < turned


def test_flat_patches_turn_about_their_short_axis_alone():
    augmentation = build_augmentation(AugmentSettings(scale=0), (24, 24, 4))
    turned = 0
    for seed in range(12):
        change = augmentation.draw(np.random.default_rng(seed))
        layers = np.broadcast_to(np.arange(change.size[2], dtype=np.uint8), change.size)
        _, target = change(np.full((1, *change.size), 0.5, np.float32), layers)
        assert (target == target[0, 0]).all()
        turned += change.size[0] > 26
    assert turned > 3


def test_changes_come_as_often_and_reach_as_far_as_the_table_says():
    augmentation = build_augmentation(AugmentSettings(strength=0.5, flip_axes=[0]), (16, 16, 16))
    drawn = [augmentation.draw(np.random.default_rng(seed)) for seed in range(3000)]
    assert all(isinstance(change, VolumeChange) for change in drawn)
    found = {"turned": [c.matrix for c in drawn if c.matrix is not None], "mirrored": [c for c in drawn if c.mirrored]}
    for change in (step for c in drawn for step in c.changes):
        found.setdefault(change.func.__name__, []).append(change.keywords)
    shares = {"turned": 0.6, "mirrored": 0.5, "scale": 0.3, "shift": 0.3, "gamma": 0.3, "add_noise": 0.15, "blur": 0.15}
    assert {name: len(each) / 3000 for name, each in found.items()} == pytest.approx(shares, abs=0.04)
    reach = [
        ("scale", "factor", (0.9, 1.1)),
        ("shift", "offset", (-0.04, 0.04)),
        ("gamma", "exponent", (1 / 1.2, 1.2)),
        ("add_noise", "deviation", (0, 0.015)),
        ("blur", "sigmas", (0.3, 0.6)),
    ]
    for name, key, (low, high) in reach:
        values = np.ravel([each[key] for each in found[name]])
        assert (values.min(), values.max()) == pytest.approx((low, high), abs=0.02 * (high - low))
    steps = np.linalg.norm(found["turned"], axis=1)
    assert (steps.min(), steps.max()) == pytest.approx((0.9, 1.1), abs=0.002)
    angles = np.degrees(np.arcsin(np.array(found["turned"])[:, -2, -1] / steps[:, -1]))
    assert np.abs(angles).max() == pytest.approx(10, abs=1.5)


def test_a_turned_patch_reads_no_more_than_it_needs():
    augmentation = VolumeAugmentation(AugmentSettings(), (32, 32, 32))
    sizes = [augmentation.draw(np.random.default_rng(seed)).size for seed in range(200)]
    assert (32, 32, 32) in sizes
    assert max(map(max, sizes)) < 32 * 1.2 * (np.cos(np.pi / 9) + 2 * np.sin(np.pi / 9)) + 4
    enlarging = VolumeAugmentation(AugmentSettings(rotate_degrees=0), (32, 32, 32))
    assert min(min(enlarging.draw(np.random.default_rng(seed)).size) for seed in range(200)) < 32


def test_margins_are_even_and_about_a_half_at_most():
    for size in ((20, 26), (17, 33)):
        for settings in (AugmentSettings(), STRONG, AugmentSettings(rotate_degrees=5, scale=0.01)):
            margins = np.array(with_margin(settings, size)) - size
            assert (margins >= 0).all()
            assert (margins % 2 == 0).all()
            assert (margins <= 0.5 * np.array(size) + 2).all()
    assert with_margin(AugmentSettings(rotate_degrees=0, scale=0), (17, 33)) == (17, 33)


@pytest.mark.parametrize("value", [-0.1, 1.1])
def test_pictures_outside_of_the_range_are_refused(value):
    change = build_augmentation(STRONG, PATCHES[2]).draw(np.random.default_rng(0))
    image, labels = patch(change.size, 1)
    image[0, 5, 5] = value
    with pytest.raises(ValueError, match=r"images must be in \[0, 1\] here"):
        change(image, labels)


def test_nobody_is_asked_for_a_newer_version():
    code = (
        "import urllib.request as r\n"
        "def refuse(*args, **kwargs): raise SystemExit('asked the network')\n"
        "r.OpenerDirector.open = refuse\n"
        "from segmentation.config import AugmentSettings\n"
        "from segmentation.data.augment import build_augmentation\n"
        "build_augmentation(AugmentSettings(), (8, 8))\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "NO_ALBUMENTATIONS_UPDATE"}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")

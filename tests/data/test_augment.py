import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from segmentation.config import AugmentSettings
from segmentation.data.augment import NoAugmentation, VolumeAugmentation, build_augmentation, with_margin

STRONG = AugmentSettings(strength=2.0, flip_axes=[0, 1])
PATCHES = {2: (20, 26), 3: (9, 14, 12)}
IGNORE = 4


def patch(augmentation, channels: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Image over the whole range and labels 0, 2 and 4, in blocks."""
    rng = np.random.default_rng(seed)
    image = rng.random((channels, *augmentation.margin_size), np.float32)
    image[:, :3], image[:, -3:] = 0, 1
    labels = rng.choice([0, 2, IGNORE], tuple(-(-size // 4) for size in augmentation.margin_size)).astype(np.uint8)
    for axis in range(labels.ndim):
        labels = labels.repeat(4, axis)
    return image, labels[tuple(slice(size) for size in augmentation.margin_size)]


@pytest.mark.parametrize(("dims", "channels"), [(2, 1), (2, 3), (2, 5), (3, 1), (3, 2)])
def test_images_stay_in_range_and_labels_hold_no_new_values(dims, channels):
    augmentation = build_augmentation(STRONG, PATCHES[dims])
    seen = set()
    for seed in range(25):
        image, labels = patch(augmentation, channels, seed)
        kept = image.copy(), labels.copy()
        changed, target = augmentation(image, labels, np.random.default_rng(seed))
        assert (changed.shape, target.shape) == ((channels, *PATCHES[dims]), PATCHES[dims])
        assert (changed.dtype, target.dtype) == (np.float32, np.uint8)
        assert changed.flags.c_contiguous
        assert target.flags.c_contiguous
        assert 0 <= changed.min() <= changed.max() <= 1
        seen |= set(np.unique(target))
        np.testing.assert_array_equal(image, kept[0])
        np.testing.assert_array_equal(labels, kept[1])
    assert seen == {0, 2, IGNORE}


@pytest.mark.parametrize(("dims", "channels"), [(2, 1), (2, 5), (3, 2)])
def test_a_patch_depends_on_its_own_random_numbers_alone(dims, channels):
    first, second = (build_augmentation(STRONG, PATCHES[dims]) for _ in range(2))
    image, labels = patch(first, channels)
    expected = [first(image, labels, np.random.default_rng(seed)) for seed in range(12)]
    assert any(not np.array_equal(expected[0][0], other[0]) for other in expected[1:])
    np.random.seed(3)
    for seed in reversed(range(12)):
        again = second(image, labels, np.random.default_rng(seed))
        assert all(np.array_equal(a, b) for a, b in zip(again, expected[seed], strict=True))


@pytest.mark.parametrize("dims", [2, 3])
def test_strength_0_is_the_identity(dims):
    augmentation = build_augmentation(replace(STRONG, strength=0), PATCHES[dims])
    assert isinstance(augmentation, NoAugmentation)
    assert augmentation.patch_size == augmentation.margin_size == PATCHES[dims]
    image, labels = patch(augmentation, 2)
    changed, target = augmentation(image, labels, np.random.default_rng(0))
    assert changed is image
    assert target is labels


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("size", [(24, 20, 16), (19, 23, 17), (18, 30, 22)])
def test_image_and_labels_move_together_and_a_patch_left_alone_is_the_middle(dims, size):
    """An image that shows its labels still shows them, and some patches are neither turned nor mirrored."""
    settings = AugmentSettings(strength=1, flip_axes=list(range(dims)))
    augmentation = build_augmentation(settings, size[:dims])
    _, labels = patch(augmentation, 1)
    middle = tuple(
        slice((m - p) // 2, (m - p) // 2 + p) for m, p in zip(augmentation.margin_size, size[:dims], strict=True)
    )
    untouched = 0
    for seed in range(60 if dims == 2 else 40):
        image, target = augmentation(labels[None] / np.float32(IGNORE), labels, np.random.default_rng(seed))
        same = target == np.rint(image[0] * IGNORE / 2) * 2
        means = [image[0][target == value].mean() for value in (0, 2, IGNORE) if (target == value).any()]
        assert means == sorted(means)
        untouched += np.array_equal(target, labels[middle]) and bool(same.all())
    assert untouched >= 2


@pytest.mark.parametrize("dims", [2, 3])
def test_only_the_named_axes_are_mirrored(dims):
    settings = AugmentSettings(flip_axes=[1], rotate_degrees=0, scale=0)
    augmentation = build_augmentation(settings, PATCHES[dims])
    assert augmentation.margin_size == PATCHES[dims]
    _, labels = patch(augmentation, 1)
    image = np.full((1, *PATCHES[dims]), 0.5, np.float32)
    seen = [augmentation(image, labels, np.random.default_rng(seed))[1] for seed in range(20)]
    kept = sum(np.array_equal(target, labels) for target in seen)
    turned = sum(np.array_equal(target, np.flip(labels, 1)) for target in seen)
    assert kept + turned == 20
    assert kept > 2 < turned


def test_margins_are_even_and_about_a_half_at_most():
    for size in ((20, 26), (17, 33), (9, 64, 64), (40, 56, 41)):
        for settings in (AugmentSettings(), STRONG, AugmentSettings(rotate_degrees=5, scale=0.01)):
            margins = np.array(with_margin(settings, size)) - size
            assert (margins >= 0).all()
            assert (margins % 2 == 0).all()
            assert (margins <= 0.5 * np.array(size) + 2).all()
    assert with_margin(AugmentSettings(rotate_degrees=0, scale=0), (17, 33)) == (17, 33)


def test_flat_patches_turn_about_their_short_axis_alone():
    augmentation = VolumeAugmentation(AugmentSettings(scale=0), (24, 24, 4))
    layers = np.broadcast_to(np.arange(augmentation.margin_size[2], dtype=np.uint8), augmentation.margin_size)
    image = np.full((1, *augmentation.margin_size), 0.5, np.float32)
    for seed in range(12):
        _, target = augmentation(image, layers, np.random.default_rng(seed))
        assert (target == target[0, 0]).all()


@pytest.mark.parametrize("value", [-0.1, 1.1])
def test_pictures_outside_of_the_range_are_refused(value):
    augmentation = build_augmentation(STRONG, PATCHES[2])
    image, labels = patch(augmentation, 1)
    image[0, 5, 5] = value
    with pytest.raises(ValueError, match=r"images must be in \[0, 1\] here"):
        augmentation(image, labels, np.random.default_rng(0))


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

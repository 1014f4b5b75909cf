import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.transform import Rotation

from segmentation.data.planes import PlaneResampler, axis_weights, resample
from segmentation.data.preprocessing import Normalisation, Preprocessing
from segmentation.data.transforms import (
    canonical_zeros,
    plane_axis,
    prepare_image,
    prepare_label_map,
    resample_labels,
    restore_planes,
    stack_context,
    standardise,
    to_scan_frame,
)
from segmentation.scans import Scan, to_canonical
from segmentation.scans.workspace import Workspace

SHAPE = (9, 7, 11)
SPACING = (0.8, 1.5, 3.0)
IDENTITY = Normalisation("range", 0, 1, 0, 1)
ORIENTATIONS = list(itertools.product(itertools.permutations(range(3)), itertools.product((-1, 1), repeat=3)))
SLICE_AXES = [None, 0, 1, 2]


def oblique(order=(0, 1, 2), signs=(1, 1, 1), degrees: float = 11.0, spacing=SPACING) -> np.ndarray:
    """Affine whose voxel axis n runs along canonical axis ``order[n]``, turned by some degrees."""
    affine = np.eye(4)
    turn = Rotation.from_euler("xyz", (degrees, -degrees / 2, degrees / 3), degrees=True).as_matrix()
    for axis, (world, sign) in enumerate(zip(order, signs, strict=True)):
        affine[world, axis] = sign * spacing[axis]
    affine[:3, :3] = turn @ affine[:3, :3]
    affine[:3, 3] = (12, -7, 30)
    return affine


def prepare(spacing_mm, slice_axis=None, context: int = 0, channels: int = 1) -> Preprocessing:
    dims = 2 if slice_axis is not None else len(spacing_mm)
    return Preprocessing(dims, tuple(spacing_mm), slice_axis, context, (IDENTITY,) * channels)


def canonical_spacing(affine: np.ndarray) -> tuple[float, ...]:
    return to_canonical(Scan(np.zeros((1, *SHAPE)), affine)).spacing_mm


def as_probabilities(label_map: np.ndarray, classes: int = 3) -> np.ndarray:
    return np.stack([label_map == index for index in range(classes)]).astype(np.float32)


def restore_label_map(probabilities: np.ndarray, scan: Scan, preprocessing: Preprocessing) -> np.ndarray:
    """Most probable class of each voxel of ``scan``."""
    axis = plane_axis(scan, preprocessing)
    first = 0 if preprocessing.slice_axis is not None else axis
    planes = np.moveaxis(probabilities, first + 1, 0)
    decided = canonical_zeros(scan, axis, np.uint8, Workspace())
    for index, plane in enumerate(restore_planes(planes, preprocessing.prepared_shape(scan), scan, preprocessing)):
        decided[index] = plane.argmax(axis=0)
    return to_scan_frame(decided, scan, axis)


def random_labels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 3, SHAPE)


# There and back


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
@pytest.mark.parametrize("slice_axis", SLICE_AXES)
def test_a_mask_comes_back_in_the_scans_frame(order, signs, slice_axis):
    labels = random_labels()
    scan = Scan(labels[None] / 2, oblique(order, signs))
    preprocessing = prepare(canonical_spacing(scan.affine), slice_axis)
    image = prepare_image(scan, preprocessing)
    assert image.dtype == np.float32
    np.testing.assert_array_equal(
        restore_label_map(as_probabilities(np.rint(2 * image[0])), scan, preprocessing), labels
    )
    prepared = prepare_label_map(Scan(labels[None].astype(np.uint8), scan.affine), preprocessing, 3)
    np.testing.assert_array_equal(prepared, np.rint(2 * image[0]))
    assert preprocessing.array_spacing_mm[0] == preprocessing.spacing_mm[slice_axis or 0]


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS[::5])
@pytest.mark.parametrize("slice_axis", SLICE_AXES)
def test_a_resampled_mask_comes_back_where_it_was(order, signs, slice_axis):
    """A box of whole millimetres, prepared at another spacing, comes back but for voxels at its faces."""
    label_map = np.zeros(SHAPE, np.uint8)
    label_map[2:7, 1:4, 3:8] = 1
    scan = Scan(label_map[None], oblique(order, signs))
    fine = prepare((0.5, 0.5, 0.5), slice_axis)
    prepared = prepare_label_map(scan, fine, 2)
    assert prepared.shape == tuple(fine._front(fine.prepared_shape(scan)))
    restored = restore_label_map(as_probabilities(prepared, 2), scan, fine)
    np.testing.assert_array_equal(restored, label_map)
    coarse = replace(fine, spacing_mm=(1.7, 1.7, 1.7))
    restored = restore_label_map(as_probabilities(prepare_label_map(scan, coarse, 2), 2), scan, coarse)
    inner, outer = ndimage.binary_erosion(label_map), ndimage.binary_dilation(label_map, np.ones((3, 3, 3)))
    assert restored.shape == SHAPE
    assert (restored[inner] == 1).all()
    assert (restored[~outer] == 0).all()


def test_the_prepared_grid_has_the_wanted_spacing():
    scan = Scan(np.zeros((1, 40, 30, 20)), np.diag([-0.5, 1.0, 3.0, 1]))
    assert prepare((1.0, 1.0, 1.0)).prepared_shape(scan) == (20, 30, 60)
    assert prepare_image(scan, prepare((1.0, 1.0, 1.0), slice_axis=2)).shape == (1, 60, 20, 30)
    assert prepare((100, 100, 100)).prepared_shape(scan) == (1, 1, 1)
    assert prepare((1.0, 2.0, 3.0), slice_axis=1).array_spacing_mm == (2.0, 1.0, 3.0)


def test_a_ramp_stays_where_it_is_in_the_patient():
    """Intensity equal to the world's first coordinate: after resampling each voxel still says where it lies."""
    shape, affine = (24, 10, 8), np.diag([-1.0, 2.0, 3.0, 1.0])
    world = np.broadcast_to(-np.arange(24.0)[:, None, None], shape)
    image = prepare_image(Scan((world[None] + 23) / 23, affine), prepare((0.5, 2.0, 3.0)))[0]
    found = image[2:-2, 5, 4] * 23 - 23  # right to left of the middle, ends apart where nothing can be interpolated
    expected = np.linspace(-23 - 0.25, 0.25, 48)[2:-2]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_pictures_pass_through():
    picture = Scan(np.random.default_rng(0).random((3, 13, 17)), np.eye(4))
    preprocessing = prepare((1.0, 1.0), channels=3)
    np.testing.assert_allclose(prepare_image(picture, preprocessing), picture.array, atol=1e-7)
    labels = Scan(np.random.default_rng(1).integers(0, 3, (1, 13, 17)).astype(np.uint8), np.eye(4))
    prepared = prepare_label_map(labels, preprocessing, 3)
    np.testing.assert_array_equal(prepared, labels.array[0])
    np.testing.assert_array_equal(restore_label_map(as_probabilities(prepared), picture, preprocessing), prepared)


def test_ties_go_to_the_lower_class():
    even = np.full((3, *SHAPE), 1 / 3, np.float32)
    scan = Scan(np.zeros((1, *SHAPE)), np.diag([1.0, 1, 1, 1]))
    assert not restore_label_map(even, scan, prepare((1.0, 1.0, 1.0))).any()


def test_preprocessing_survives_json():
    preprocessing = Preprocessing(2, (1.0, 0.5, 4.0), 2, 1, (Normalisation("window", -100, 240, 0.4, 0.2),))
    assert Preprocessing.from_plain(json.loads(json.dumps(preprocessing.to_plain()))) == preprocessing
    assert preprocessing.network_channels == 3


# Intensities


def test_windows_map_their_ends_and_cut_off_the_rest():
    window = Normalisation("window", -100, 300)
    assert window.apply(np.array([-2000, -100, 100, 300, 3000], np.int16)).tolist() == [0, 0, 0.5, 1, 1]
    assert Normalisation("range", 0, 255).apply(np.array([0, 51, 255], np.uint8)).tolist() == pytest.approx([0, 0.2, 1])


@given(st.floats(0.1, 1e4), st.floats(-1e4, 1e4))
def test_zscores_do_not_depend_on_the_scanners_scale(gain, offset):
    x = np.random.default_rng(0).normal(size=(20, 20, 20))
    x[0, 0, 0] = 1e3
    first, second = (Normalisation("zscore").apply(a) for a in (x, gain * x + offset))
    np.testing.assert_allclose(first, second, atol=1e-3)
    assert first.dtype == np.float32
    assert first.max() == 1


def test_zscores_stand_for_five_deviations():
    x = np.random.default_rng(0).normal(3, 2, 10_000)
    mapped = Normalisation("zscore").apply(x)
    np.testing.assert_allclose(mapped, ((x - x.mean()) / x.std() + 5) / 10, atol=1e-5)


@pytest.mark.parametrize("value", [0, 1, -1024, 4095, 65535])
@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_a_constant_image_becomes_one_half(value, dtype):
    mapped = Normalisation("zscore").apply(np.full((31, 33), value, dtype))
    np.testing.assert_array_equal(mapped, np.float32(0.5))


# Resampling


@pytest.mark.parametrize("shape", [(13, 9), (5, 8, 7)])
def test_upsampling_is_linear_interpolation_at_voxel_centres(shape):
    x = np.random.default_rng(0).random(shape).astype(np.float32)
    new = tuple(2 * size + 1 for size in shape)
    places = np.meshgrid(*((np.arange(n) + 0.5) * o / n - 0.5 for o, n in zip(shape, new, strict=True)), indexing="ij")
    expected = ndimage.map_coordinates(x, places, order=1, mode="nearest")
    np.testing.assert_allclose(resample(x, new), expected, atol=1e-5)


def test_downsampling_smooths_first():
    stripes = np.tile(np.float32([0, 1]), 32)[None].repeat(16, axis=0)
    small = resample(stripes, (16, 16))
    assert np.abs(small - 0.5).max() < 0.1
    assert np.abs(resample(stripes + 0.0, (8, 64)) - stripes[:8]).max() < 1e-6
    x = np.random.default_rng(0).random((24, 20)).astype(np.float32)
    smooth = ndimage.gaussian_filter(x, (0.5, 0.0), mode="nearest", truncate=4)
    expected = torch.nn.functional.interpolate(torch.from_numpy(smooth)[None, None], (12, 20), mode="bilinear")[0, 0]
    np.testing.assert_allclose(resample(x, (12, 20)), expected, atol=1e-5)


@settings(max_examples=40)
@given(st.tuples(*[st.integers(1, 12)] * 3), st.tuples(*[st.integers(1, 12)] * 3), st.floats(-3, 3))
def test_resampling_keeps_constants_and_the_range(old, new, value):
    constant = resample(np.full(old, value, np.float32), new)
    assert constant.shape == new
    np.testing.assert_allclose(constant, value, atol=1e-5)
    x = np.random.default_rng(0).random(old).astype(np.float32)
    y = resample(x, new)
    assert x.min() - 1e-6 <= y.min() <= y.max() <= x.max() + 1e-6


def test_resampling_leaves_its_input_alone():
    x = np.random.default_rng(0).random((6, 7)).astype(np.float32)
    kept = x.copy()
    same = resample(x, (6, 7))
    same += 1
    resample(x, (3, 9))
    np.testing.assert_array_equal(x, kept)


@settings(max_examples=40)
@given(st.tuples(*[st.integers(2, 14)] * 2), st.tuples(*[st.integers(1, 20)] * 2))
def test_resampled_labels_hold_no_new_values(old, new):
    labels = np.random.default_rng(0).choice([0, 2, 3], old).astype(np.uint8)
    resampled = resample_labels(labels, new, classes=3)
    assert resampled.shape == new
    assert resampled.dtype == np.uint8
    assert set(np.unique(resampled)) <= {0, 2, 3}
    assert (resample_labels(np.full(old, 3, np.uint8), new, classes=3) == 3).all()


def test_resampled_labels_repeat_exactly_under_whole_factors():
    labels = np.random.default_rng(0).integers(0, 4, (6, 5)).astype(np.uint8)
    np.testing.assert_array_equal(resample_labels(labels, (18, 15), 3)[1::3, 1::3], labels)


def test_the_ignore_label_survives_preparation():
    labels = np.zeros((1, 20, 20, 20), np.uint8)
    labels[:, :10] = 2
    labels[:, 10:, :10] = 1
    prepared = prepare_label_map(Scan(labels, np.eye(4)), prepare((2.0, 2.0, 2.0)), classes=2)
    assert (prepared[:5] == 2).all()
    assert (prepared[5:, :5] == 1).all()
    assert (prepared[5:, 5:] == 0).all()


# What the network sees


def test_context_is_the_neighbouring_slices_in_order():
    image = np.arange(2 * 4).reshape(2, 4, 1, 1)  # channel 0: slices 0 1 2 3, channel 1: slices 4 5 6 7
    stack = stack_context(image, range(4), context=1)
    assert stack.shape == (4, 6, 1, 1)
    assert stack[..., 0, 0].tolist() == [[0, 4, 0, 4, 1, 5], [0, 4, 1, 5, 2, 6], [1, 5, 2, 6, 3, 7], [2, 6, 3, 7, 3, 7]]
    np.testing.assert_array_equal(stack_context(image, [2], 0)[0], image[:, 2])


def test_standardising_follows_the_order_of_channels_and_slices():
    two = (Normalisation("range", 0, 1, 0.2, 0.5), Normalisation("range", 0, 1, 0.6, 0.1))
    preprocessing = Preprocessing(2, (1.0, 1.0, 1.0), 2, 1, two)
    images = torch.full((2, 6, 3, 4), 0.7)
    assert standardise(images, preprocessing)[0, :, 0, 0].tolist() == pytest.approx([1, 1] * 3)


# Plane by plane


@settings(max_examples=40)
@given(st.tuples(*[st.integers(1, 14)] * 3), st.tuples(*[st.integers(1, 14)] * 3))
def test_planes_come_as_early_as_they_can_and_no_more_are_held_than_needed(old, new):
    volume = np.random.default_rng(0).random(old).astype(np.float32)
    resampler = PlaneResampler(old, new)
    weights = axis_weights(old[0], new[0])
    given = []
    for index, plane in enumerate(volume):
        given += list(resampler.push(plane))
        ready = sum(weights[[row]].indices.max() <= index for row in range(new[0]))
        assert len(given) == ready
        assert len(resampler._held) <= int(np.diff(weights.indptr).max()) + max(1, old[0] // new[0]) + 1
    np.testing.assert_array_equal(np.stack(given), resample(volume, new))


def test_weights_of_an_axis_sum_to_one_and_turn_with_it():
    for old, new in itertools.product((1, 2, 5, 17, 40), repeat=2):
        weights = axis_weights(old, new).toarray()
        np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
        np.testing.assert_allclose(weights, weights[::-1, ::-1], atol=1e-6)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("slice_axis", SLICE_AXES)
@pytest.mark.parametrize("scheme", ["range", "zscore"])
def test_a_workspace_of_files_changes_nothing(tmp_path, order, slice_axis, scheme):
    array = np.asarray(np.random.default_rng(0).random((2, *SHAPE)).astype(np.float32), order=order)
    scan = Scan(array, oblique((2, 0, 1), (1, -1, 1)))
    entry = Normalisation(scheme, -4, 5) if scheme == "zscore" else IDENTITY
    preprocessing = replace(prepare((1.1, 1.0, 2.0), slice_axis, channels=2), normalisation=(entry, entry))
    space = Workspace(limit=0, folder=tmp_path)
    spilled = prepare_image(scan, preprocessing, space)
    np.testing.assert_array_equal(spilled, prepare_image(scan, preprocessing))
    assert space.spilled == 1


@pytest.mark.parametrize("scheme", ["range", "zscore"])
def test_air_stays_one_value_when_a_scan_is_resampled(scheme):
    array = np.full((2, 31, 29, 27), 0.3, np.float32)
    array[0, 20:, 20:, 20:] = np.random.default_rng(0).random((11, 9, 7))
    array[1] = 0.7 * array[0]
    entry = Normalisation(scheme, -4, 5) if scheme == "zscore" else IDENTITY
    preprocessing = replace(prepare((0.83, 1.07, 0.91), channels=2), normalisation=(entry, entry))
    image = prepare_image(Scan(array, np.eye(4)), preprocessing)
    for channel in image[:, :20, :12, :15]:
        assert len(np.unique(channel)) == 1

"""What the check measures is what plain numpy measures over whole arrays, whatever their layout in memory."""

import hashlib
import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from scipy import ndimage

from segmentation.data import facts as facts_module
from segmentation.data.coarse import COARSENINGS, coarse_kept, coarse_steps
from segmentation.data.facts import PERCENTILES, Intensities, inspect_case
from segmentation.data.layouts import open_dataset
from segmentation.scans import read_label_map, read_scan


def plain_intensities(values):
    flat = values.ravel()
    flat = flat[np.isfinite(flat)]
    sample = flat[:: -(-flat.size // facts_module._MOST_SAMPLES)].astype(np.float64)
    moments = float(sample.mean()), float(sample.std())
    percentiles = tuple(np.percentile(sample, PERCENTILES).tolist())
    return Intensities(flat.size, float(flat.min()), float(flat.max()), *moments, percentiles) if flat.size else None


def plain_hash(array):
    return hashlib.sha256(f"{array.dtype.str} {array.shape}".encode() + array.tobytes()).hexdigest()


@pytest.mark.parametrize("dims", [2, 3])
def test_facts_of_a_case_are_those_of_its_whole_arrays(make_dataset, tmp_path, monkeypatch, dims):
    monkeypatch.setattr(facts_module, "_MOST_SAMPLES", 100)
    dataset = open_dataset(make_dataset(tmp_path / "data", dims=dims, patients=1, cases_each=1).root)
    (case,) = dataset.cases
    scan, labels = read_scan(case.images, len(dataset.channel_names)), read_label_map(case.label).array[0]
    found, _ = inspect_case(case, dataset)
    mask = np.isin(labels, list(dataset.foreground.values()))
    assert mask.any()
    assert found.image_sha256 == plain_hash(scan.array)
    assert found.label_sha256 == plain_hash(labels)
    assert found.image_intensities == tuple(map(plain_intensities, scan.array))
    assert found.foreground_intensities == tuple(plain_intensities(channel[mask]) for channel in scan.array)
    assert found.foreground == {name: int((labels == value).sum()) for name, value in dataset.foreground.items()}


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(40, 30), (12, 30, 20)])
def test_measures_do_not_depend_on_the_layout_in_memory(monkeypatch, shape, order):
    monkeypatch.setattr(facts_module, "_MOST_SAMPLES", 100)
    rng = np.random.default_rng(0)
    labels = np.asarray(rng.choice([0, 0, 0, 0, 0, 0, 1, 2, 300], shape).astype(np.uint16), order=order)
    values = np.asarray(rng.normal(size=shape).astype(np.float32), order=order)
    values[rng.random(shape) < 0.1] = np.nan
    stacked = np.asarray(np.stack([values, 2 * values]), order=order)
    assert facts_module._intensities(values) == plain_intensities(values)
    assert facts_module._voxel_hash(labels) == plain_hash(labels)
    assert facts_module._voxel_hash(stacked) == plain_hash(stacked)
    assert facts_module._count_values(labels) == {value: int((labels == value).sum()) for value in (0, 1, 2, 300)}
    components, _ = ndimage.label(labels == 1, np.ones((3,) * len(shape)))
    expected = int((np.bincount(components.ravel())[1:] < 2 ** len(shape)).sum())
    assert facts_module._tiny_components(labels == 1) == expected > 0
    assert facts_module._tiny_components(labels == 9) == 0


def test_nothing_finite_has_no_distribution():
    assert facts_module._intensities(np.full((2, 3), np.nan, np.float32)) is None
    assert facts_module._intensities(np.zeros((0,), np.int16)) is None


def test_an_ignored_voxel_is_no_foreground(make_dataset, tmp_path):
    dataset = make_dataset(tmp_path / "data", dims=3, patients=1, cases_each=1)
    dataset = replace(dataset, labels={"background": 0, "organ": 1, "ignore": 2})
    (case,) = dataset.cases
    labels = read_label_map(case.label).array[0]
    assert (labels == 2).any()
    found, _ = inspect_case(case, dataset)
    assert found.foreground_intensities[0].voxels == (labels == 1).sum()


def dice_and_found(mask, share, steps):
    """What is left of a mask when every block, of which a share is inside, is decided by half."""
    coarse = share >= 0.5
    for axis, step in enumerate(steps):
        coarse = np.repeat(coarse, step, axis)
    coarse = coarse[tuple(map(slice, mask.shape))]
    components, count = ndimage.label(mask, np.ones((3,) * mask.ndim))
    parts = [components == number for number in range(1, count + 1)]
    large = [part for part in parts if part.sum() >= 2**mask.ndim] or parts
    return (
        2 * (coarse & mask).sum() / (coarse.sum() + mask.sum()),
        np.mean([(coarse & part).sum() >= part.sum() / 2 for part in large]),
    )


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("size", [48, 41])
@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0), (0.8, 0.8, 0.8), (3.0, 0.7, 0.7)])
def test_what_is_kept_is_that_of_voxels_filled_by_majority(spacing_mm, size, order):
    rng = np.random.default_rng(1)
    shape = (size,) * len(spacing_mm)
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), 2)
    mask = np.asarray(smooth > smooth.std(), order=order)
    mask[:5] = mask[:, -7:] = False  # the box of the mask starts and ends anywhere
    for factor, found in zip(COARSENINGS, coarse_kept(mask, spacing_mm), strict=True):
        steps = coarse_steps(spacing_mm, factor)
        padded = np.pad(mask.astype(float), [(0, -n % step) for n, step in zip(shape, steps, strict=True)])
        filled = np.pad(np.ones(shape), [(0, -n % step) for n, step in zip(shape, steps, strict=True)])
        split = [n for whole, step in zip(padded.shape, steps, strict=True) for n in (whole // step, step)]
        inside, whole = (a.reshape(split).sum(axis=tuple(range(1, 2 * mask.ndim, 2))) for a in (padded, filled))
        assert found == pytest.approx(min(dice_and_found(mask, inside / whole, steps)), abs=1e-4)


def test_thick_things_keep_their_shape_in_coarse_voxels_and_thin_ones_do_not():
    square, line, point = np.zeros((3, 96, 96), bool)
    square[24:72, 24:72] = line[:, 48] = point[50, 50] = True
    assert coarse_kept(square, (1.0, 1.0)) == (1.0,) * 5  # its edges are those of all voxels
    assert coarse_kept(line, (1.0, 1.0)) == (0.6667, 0.0, 0.0, 0.0, 0.0)
    assert coarse_kept(point, (1.0, 1.0)) == (0.0,) * 5
    assert coarse_kept(line, (1.0, 8.0)) == (1.0,) * 5  # thick across, so only coarsened along
    assert coarse_kept(np.ones((33, 33, 1), bool), (1.0, 1.0, 1.0)) == (1.0,) * 5  # cut at the rim


def test_small_lesions_count_as_much_as_large_ones_and_stray_clicks_not_at_all():
    rows, columns = np.mgrid[:256, :256]
    organ = (rows - 64) ** 2 + (columns - 64) ** 2 < 50**2
    lesions = np.zeros((256, 256), bool)
    for place in range(20):
        lesions |= (rows - 200) ** 2 + (columns - 10 - 12 * place) ** 2 <= 1.5**2
    clicks = np.zeros((256, 256), bool)
    clicks[150:250:9, 150:250:9] = True
    assert coarse_kept(organ, (1.0, 1.0))[2] > 0.95
    assert coarse_kept(organ | lesions, (1.0, 1.0))[2] < 0.5
    assert coarse_kept(organ | clicks, (1.0, 1.0))[2] > 0.95


def test_only_classes_that_a_case_has_are_measured(make_dataset, tmp_path):
    made = make_dataset(tmp_path / "data", dims=2, patients=1, cases_each=1).root
    dataset = open_dataset(made)
    (case,) = dataset.cases
    found, _ = inspect_case(case, replace(dataset, labels={**dataset.labels, "absent": 9}))
    assert set(found.coarse_kept) == set(dataset.foreground)
    assert all(0 <= kept <= 1 for values in found.coarse_kept.values() for kept in values)
    assert type(found).from_plain(json.loads(json.dumps(asdict(found)))) == found

"""What the check measures is what plain numpy measures over whole arrays, whatever their layout in memory."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from segmentation.data import facts as facts_module
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

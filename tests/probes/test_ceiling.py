from dataclasses import replace

import numpy as np
import pytest

from segmentation.probes.ceiling import ceilings, probe, shrink_and_enlarge
from segmentation.probes.context import ProbeContext
from segmentation.probes.prepared import prepared_cases


def disc(radius: float, size: int = 64) -> np.ndarray:
    rows, columns = np.indices((size, size)) - size / 2
    return (np.hypot(rows, columns) < radius).astype(np.int64)


def by_hand(mask: np.ndarray, factor: int) -> np.ndarray:
    """Second implementation along one axis: block means, linear interpolation between block centres, above 1/2."""
    blocks = np.array([mask[start : start + factor].mean() for start in range(0, len(mask), factor)])
    centres = (np.arange(len(blocks)) + 0.5) * factor - 0.5
    return (np.interp(np.arange(len(mask)), centres, blocks) > 0.5).astype(int)


@pytest.mark.parametrize("size", [16, 17, 22])
@pytest.mark.parametrize("factor", [2, 4])
def test_one_axis_equals_the_second_implementation(size: int, factor: int):
    rng = np.random.default_rng(size)
    for _ in range(20):
        mask = (np.convolve(rng.standard_normal(size), np.ones(5), "same") > 0).astype(int)
        found = shrink_and_enlarge(mask[None, :], (1, factor), 2)[0]
        np.testing.assert_array_equal(found, by_hand(mask, factor))


def test_thin_structures_are_lost_where_compact_ones_stay():
    strides = [(2, 2)] * 3
    line = np.zeros((64, 64), np.int64)
    line[:, 31:33] = 1
    thin, compact = (ceilings(mask, strides, 2)[:, 0] for mask in (line, disc(20)))
    assert compact[-1] > 0.95
    assert thin[-1] < 0.3
    assert (np.diff(compact) < 0).all()


def test_strides_accumulate_and_may_differ_by_axis():
    mask = np.zeros((16, 16), np.int64)
    mask[:, 5] = 1  # one voxel along the last axis, all along the first
    assert ceilings(mask, [(2, 1), (2, 1)], 2).tolist() == [[1.0], [1.0]]
    assert ceilings(mask, [(2, 1), (2, 2)], 2).tolist() == [[1.0], [0.0]]


def test_slices_are_not_shrunk_against_each_other():
    volume = np.stack([disc(20), np.zeros((64, 64), np.int64), disc(10)])
    again = shrink_and_enlarge(volume, (1, 4, 4), 2)
    for before, after in zip(volume, again, strict=True):
        np.testing.assert_array_equal(after, shrink_and_enlarge(before, (4, 4), 2))
    flat = [ceilings(volume, [(2, 2), (2, 2)], 2)[-1, 0]]
    assert flat == [pytest.approx(2 * (volume * again).sum() / (volume.sum() + again.sum()))]


def test_volumes_are_shrunk_along_all_axes():
    volume = np.zeros((8, 8, 8), np.int64)
    volume[2:6, 2:6, 2:6] = 1
    # Linear interpolation leaves 3/4 cubed, below one half, of each of the 8 corners of 64 voxels.
    found = ceilings(volume, [(2, 2, 2), (2, 2, 2)], 2)
    assert found[:, 0].tolist() == [pytest.approx(2 * 56 / (56 + 64)), 0.0]


def test_classes_compete_and_an_absent_one_is_not_defined():
    labels = np.zeros((8, 8), np.int64)
    labels[:, 4:] = 2
    found = ceilings(labels, [(4, 4)], 3)
    assert np.isnan(found[0, 0])
    assert found[0, 1] == 1


def test_ignored_voxels_do_not_count():
    labels = np.zeros((8, 8), np.int64)
    labels[0:4, 0:4] = 1
    labels[7, :] = 2
    again = shrink_and_enlarge(labels, (4, 4), 2)
    inside = labels != 2
    expected = 2 * ((again == 1) & (labels == 1)).sum() / ((again == 1)[inside].sum() + 16)
    assert ceilings(labels, [(4, 4)], 2)[0, 0] == pytest.approx(expected)


def test_probe_puts_the_ceiling_beside_what_the_run_reaches(context: ProbeContext):
    result = probe(context)
    (case,) = result.values["cases"]
    for index, name in enumerate(context.classes):
        assert result.values["mean"][name]["L2"]["estimate"] == pytest.approx(result.values["cases"][case][1][index])
    assert result.figures[0].reference == result.values["dice_of_the_run"]
    assert result.figures[0].series[0].y[0] == 1.0


def test_a_class_that_no_drawn_case_holds_is_left_out(context: ProbeContext, monkeypatch: pytest.MonkeyPatch):
    (case,) = prepared_cases(context)
    first = np.where(np.asarray(case.labels) == 1, 1, 0)
    assert len(context.classes) > 1
    monkeypatch.setattr("segmentation.probes.ceiling.prepared_cases", lambda _: [replace(case, labels=first)])
    assert list(probe(context).values["mean"]) == [next(iter(context.classes))]

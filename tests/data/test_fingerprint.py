import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from segmentation.data.check import CheckReport, check_dataset
from segmentation.data.facts import CaseFacts, Intensities
from segmentation.data.fingerprint import ChannelFingerprint, Fingerprint, take_fingerprint
from segmentation.data.manifest import Dataset


def channel(name: str = "CT", **changes: float) -> ChannelFingerprint:
    values = {"low": -100, "high": 300, "mean": 50, "std": 80, "image_mean": -500, "image_std": 400, "largest": 2000}
    return ChannelFingerprint(name, **values | changes)


def fingerprint(spacing_mm=(1.0, 1.0, 1.0), low=None, channels=()) -> Fingerprint:
    return Fingerprint(
        len(spacing_mm), 4, 4, (9,) * len(spacing_mm), spacing_mm, low or spacing_mm, channels or (channel(),)
    )


def intensities(values: list[float]) -> Intensities:
    percentiles = tuple(np.percentile(values, (0.5, 5, 25, 50, 75, 95, 99.5)))
    return Intensities(
        len(values), min(values), max(values), float(np.mean(values)), float(np.std(values)), percentiles
    )


def facts(shape, spacing_mm, orientation, whole, inside=None) -> CaseFacts:
    found = (inside and intensities(inside),)
    return CaseFacts(shape, spacing_mm, orientation, "int16", "", "", {}, {}, (intensities(whole),), found)


def report(dataset: Dataset, *cases: CaseFacts) -> CheckReport:
    return CheckReport(dataset, {str(index): case for index, case in enumerate(cases)}, ())


def test_sizes_are_medians_along_the_patients_axes(volumes):
    """Three scans in three orders of axes, each of 30 x 20 x 10 voxels from right to left, back to front, up."""
    cases = [
        facts((30, 20, 10), (1.0, 2.0, 5.0), "RAS", [0, 1]),
        facts((10, 30, 20), (7.0, 1.2, 2.0), "ILP", [0, 1]),
        facts((20, 10, 32), (2.0, 6.0, 1.1), "PIR", [0, 1]),
    ]
    found = take_fingerprint(volumes, report(volumes, *cases))
    assert found.shape == (30, 20, 10)
    assert found.spacing_mm == (1.1, 2.0, 6.0)
    assert found.spacing_low_mm == pytest.approx((1.02, 2.0, 5.2))
    assert (found.cases, found.patients, found.spatial_dims) == (3, 3, 3)


@pytest.mark.parametrize(
    ("name", "sided"),
    [("left_kidney", True), ("Right Lung", True), ("kidney-L", True), ("rh", True)]
    + [(name, True) for name in ("LeftKidney", "kidneyLeft", "lkid", "RK")]
    + [(name, False) for name in ("Gland", "bright", "leftover", "vertebra L1", "tumour", "Anterior")],
)
def test_sides_are_known_by_the_names_of_the_classes(volumes, name, sided):
    dataset = replace(volumes, labels={"background": 0, "organ": 1, "rkid": 2, "LK": 3, "Grand": 4, name: 5})
    assert take_fingerprint(dataset, report(dataset, facts((2, 2, 1), (1.0,) * 3, "RAS", [0, 1]))).sided is sided


def test_intensities_are_pooled_over_cases_and_foreground_comes_first(volumes):
    first, second = [0.0, 1, 2, 3], [10.0, 30]
    cases = [facts((2, 2, 1), (1.0,) * 3, "RAS", first, [2.0, 3]), facts((2, 1, 1), (1.0,) * 3, "RAS", second)]
    found = take_fingerprint(volumes, report(volumes, *cases)).channels[0]
    assert (found.mean, found.std) == (2.5, 0.5)
    assert found.image_mean == pytest.approx(np.mean(first + second), rel=1e-5)
    assert found.image_std == pytest.approx(np.std(first + second), rel=1e-5)
    assert found.largest == 30
    assert (found.low, found.high) == pytest.approx(np.percentile([2, 3], (0.5, 99.5)))
    without = [facts((2, 2, 1), (1.0,) * 3, "RAS", first)]
    assert take_fingerprint(volumes, report(volumes, *without)).channels[0].mean == 1.5


def test_of_what_coarse_voxels_keep_the_worst_class_counts(volumes):
    dataset = replace(volumes, labels={"background": 0, "organ": 1, "vessel": 2, "absent": 3})
    plain = facts((2, 2, 1), (1.0,) * 3, "RAS", [0, 1])
    kept = [
        {"organ": (0.99, 0.9, 0.8, 0.7, 0.1), "vessel": (0.8, 0.7, 0.6, 0.5, 0.4)},
        {"organ": (0.97, 0.9, 0.8, 0.7, 0.1)},
        {},
    ]
    cases = [replace(plain, coarse_kept=values) for values in kept]
    assert take_fingerprint(dataset, report(dataset, *cases)).coarse_kept == (0.8, 0.7, 0.6, 0.5, 0.1)
    assert take_fingerprint(dataset, report(dataset, *cases[1:])).coarse_kept == (0.97, 0.9, 0.8, 0.7, 0.1)
    assert take_fingerprint(dataset, report(dataset, plain)).coarse_kept == ()


def test_what_is_kept_is_of_the_same_millimetres_in_every_case(volumes):
    dataset = replace(volumes, labels={"background": 0, "organ": 1})
    coarse, fine = (
        replace(facts((2, 2, 2), (size,) * 3, "RAS", [0, 1]), coarse_kept={"organ": kept})
        for size, kept in ((1.0, (0.9, 0.8, 0.7, 0.6, 0.5)), (0.5, (0.98, 0.96, 0.94, 0.92, 0.9)))
    )
    expected = [(0.9 + 0.94) / 2, (0.8 + 0.92) / 2, (0.7 + 0.9) / 2, (0.6 + 0.9) / 2, (0.5 + 0.9) / 2]
    found = take_fingerprint(dataset, report(dataset, coarse, coarse, fine, fine, coarse))
    assert found.spacing_mm == (1.0,) * 3
    np.testing.assert_allclose(
        found.coarse_kept, np.average([expected, (0.9, 0.8, 0.7, 0.6, 0.5)], 0, [4, 1]), atol=1e-4
    )


def test_a_fingerprint_of_an_earlier_version_is_known_by_what_it_holds():
    found = replace(fingerprint(), coarse_kept=(0.9,) * 5)
    earlier = Fingerprint.from_plain({name: value for name, value in found.to_plain().items() if name != "coarse_kept"})
    assert earlier.is_of(found)
    assert found.is_of(found)
    assert replace(found, sided=True).is_of(found), "names of sides are no data"
    assert not replace(earlier, cases=9).is_of(found)
    assert not replace(found, coarse_kept=(0.8,) * 5).is_of(found)


def test_a_real_dataset_is_measured(volumes):
    found = take_fingerprint(volumes, check_dataset(volumes))
    labels = [np.asarray(nib.load(case.label).dataobj) for case in volumes.cases]
    images = [np.asarray(nib.load(case.images[0]).dataobj) for case in volumes.cases]
    foreground = np.concatenate([i[m > 0] for i, m in zip(images, labels, strict=True)])
    assert found.shape == (30, 29, 13)
    assert found.spacing_mm == pytest.approx((np.hypot(0.9, 0.1), np.hypot(0.9, 0.1), 2.5), abs=1e-5)
    assert found.channels[0].mean == pytest.approx(foreground.mean(), rel=1e-4)
    assert found.channels[0].std == pytest.approx(foreground.std(), rel=1e-4)
    assert found.channels[0].image_mean == pytest.approx(np.concatenate([i.ravel() for i in images]).mean(), rel=1e-4)


def test_thick_slices_follow_the_finest_tenth():
    assert fingerprint((1.0, 1.0, 5.0), low=(0.5, 0.5, 2.0)).target_spacing_mm == (1.0, 1.0, 2.0)
    assert fingerprint((1.0, 1.0, 3.0), low=(0.5, 0.5, 2.0)).target_spacing_mm == (1.0, 1.0, 3.0)


def test_ct_gets_one_window_from_its_foreground():
    (window,), why = fingerprint().normalisation()
    assert (window.scheme, window.low, window.high, window.mean, window.std) == ("window", -100, 300, 0.375, 0.2)
    assert "Hounsfield" in why


def test_mr_is_scaled_scan_by_scan_and_channels_may_differ():
    found, why = fingerprint(channels=(channel("CT"), channel("T1"))).normalisation()
    assert [entry.scheme for entry in found] == ["window", "zscore"]
    assert "T1: intensities have no fixed scale" in why


@pytest.mark.parametrize(("largest", "high"), [(255, 255), (1, 255), (4095, 65535)])
def test_colours_keep_the_range_of_their_depth(largest, high):
    colours = tuple(channel(n, image_mean=51, image_std=25.5, largest=largest) for n in ("red", "Green", "blue"))
    found, why = fingerprint((1.0, 1.0), channels=colours).normalisation()
    assert {(entry.scheme, entry.low, entry.high) for entry in found} == {("range", 0, high)}
    assert found[0].mean == pytest.approx(51 / high, abs=1e-6)
    assert "colours" in why


@pytest.mark.parametrize("name", ["CT", "red"])
def test_a_constant_channel_never_divides_by_zero(name):
    flat = channel(name, low=7, high=7, mean=7, std=0, image_mean=7, image_std=0, largest=7)
    (entry,), _ = fingerprint(channels=(flat,)).normalisation()
    assert entry.high > entry.low
    assert entry.std > 0
    assert np.isfinite(entry.apply(np.full((3, 3), 7))).all()


def test_a_fingerprint_survives_json(volumes):
    found = take_fingerprint(volumes, check_dataset(volumes))
    assert Fingerprint.from_plain(json.loads(json.dumps(found.to_plain()))) == found

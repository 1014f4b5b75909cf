import json
import os
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from segmentation.data import check as check_module
from segmentation.data.alike import thumbnail
from segmentation.data.check import check_dataset
from segmentation.data.facts import PERCENTILES, inspect_case
from segmentation.data.layouts import open_dataset
from segmentation.runs import write_json


@pytest.fixture
def dataset(tmp_path, make_dataset):
    """Six volumes of three patients, to be spoilt."""
    return make_dataset(tmp_path, dims=3)


@pytest.fixture
def flat(tmp_path, make_dataset):
    """Six pictures of three patients, to be spoilt."""
    return make_dataset(tmp_path, dims=2)


def rewrite(path, change):
    """Store ``change(array)`` in place of a NIfTI file's array, in the same frame."""
    image = nib.load(path)
    nib.Nifti1Image(change(np.asarray(image.dataobj)), image.affine).to_filename(path)


def redraw(path, change):
    """Store ``change(array)`` in place of a picture."""
    Image.fromarray(change(np.asarray(Image.open(path)))).save(path)


def with_voxel(value, dtype=None):
    """Function that sets one voxel."""

    def change(array):
        array = array.astype(dtype or array.dtype)
        array[3, 4, 5] = value
        return array

    return change


def sole(report, code):
    """The only finding of a kind."""
    (finding,) = [finding for finding in report.findings if finding.code == code]
    return finding


def test_a_sound_dataset_has_no_errors(volumes):
    report = check_dataset(volumes)
    assert {finding.severity for finding in report.findings} <= {"note"}
    assert report.errors == ()
    assert list(report.facts) == [case.name for case in volumes.cases]


def test_facts_are_what_the_files_hold(volumes):
    case = volumes.cases[1]
    facts = check_dataset(volumes).facts[case.name]
    image, labels = nib.load(case.images[0]), np.asarray(nib.load(case.label).dataobj)
    voxels = np.asarray(image.dataobj)
    assert facts.shape == voxels.shape
    assert facts.spacing_mm == pytest.approx(image.header.get_zooms())
    assert facts.orientation == "LAS"
    assert facts.dtype == "int16"
    assert facts.foreground == {"organ": (labels == 1).sum(), "lesion": (labels == 2).sum()}
    (inside,) = facts.foreground_intensities
    assert inside.voxels == (labels > 0).sum()
    assert inside.percentiles == pytest.approx(np.percentile(voxels[labels > 0], PERCENTILES))
    assert (inside.mean, inside.std) == pytest.approx((voxels[labels > 0].mean(), voxels[labels > 0].std()))
    (everywhere,) = facts.image_intensities
    assert (everywhere.minimum, everywhere.maximum) == (voxels.min(), voxels.max())


def test_the_census_counts_what_differs(volumes):
    census = check_dataset(volumes).census()
    assert (census["cases"], census["labelled"], census["patients"]) == (6, 6, 3)
    assert census["shape"] == {"smallest": [25, 29, 13], "median": [30, 29, 13], "largest": [35, 29, 13]}
    assert census["orientation"] == {"LAS": 6}
    assert census["cases_with"] == {"organ": 6, "lesion": 6}


def test_ignored_voxels_are_no_foreground(flat):
    labels = {"background": 0, "organ": 1, "ignore": 2}
    facts = check_dataset(replace(flat, labels=labels)).facts["case_00"]
    organ = np.asarray(Image.open(flat.cases[0].label)) == 1
    assert facts.foreground == {"organ": organ.sum()}
    assert facts.foreground_intensities[0].voxels == organ.sum()


@pytest.mark.parametrize("kind", ["images", "label"])
def test_each_unreadable_file_is_named(dataset, kind):
    for case in dataset.cases[:2]:
        path = case.images[0] if kind == "images" else case.label
        path.write_bytes(path.read_bytes()[:400])
    report = check_dataset(dataset)
    assert [(finding.code, finding.cases) for finding in report.errors] == [
        ("unreadable", ("case_00",)),
        ("unreadable", ("case_01",)),
    ]
    assert all(finding.cases[0] in finding.message for finding in report.errors)
    assert ("case_00" in report.facts) == (kind == "label")


def test_a_label_map_of_another_shape_or_place_is_an_error(dataset):
    rewrite(dataset.cases[0].label, lambda array: array[:-1])
    path = dataset.cases[1].label
    image = nib.load(path)
    shifted = image.affine.copy()
    shifted[0, 3] += 5
    nib.Nifti1Image(np.asarray(image.dataobj), shifted).to_filename(path)
    errors = check_dataset(dataset).errors
    assert [(finding.code, finding.cases) for finding in errors] == [("grid", ("case_00",)), ("grid", ("case_01",))]
    assert "shape" in errors[0].message
    assert "position" in errors[1].message


def test_channels_on_different_grids_are_an_error(dataset):
    first = dataset.cases[0]
    other = first.images[0].with_name("case_00_0001.nii.gz")
    nib.Nifti1Image(np.zeros((5, 7, 3), np.int16), np.eye(4)).to_filename(other)
    cases = (replace(first, images=(*first.images, other)),)
    report = check_dataset(replace(dataset, channel_names=("CT", "PET"), cases=cases))
    assert sole(report, "grid").cases == ("case_00",)


def test_a_missing_channel_is_an_error(flat):
    finding = sole(check_dataset(replace(flat, channel_names=("red", "green"))), "channels")
    assert "1 channel(s) where the dataset names ['red', 'green']" in finding.message


def test_a_picture_among_volumes_is_an_error(flat):
    report = check_dataset(replace(flat, spatial_dims=3))
    assert "2 spatial axes where the dataset has 3" in sole(report, "dimensions").message


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_intensities_that_are_not_finite_are_an_error(dataset, value):
    rewrite(dataset.cases[2].images[0], with_voxel(value, np.float32))
    report = check_dataset(dataset)
    finding = sole(report, "not-finite")
    assert (finding.severity, finding.cases) == ("error", ("case_02",))
    json.dumps(report.to_plain(), allow_nan=False)


def test_an_image_without_finite_voxels_is_still_reported(dataset):
    rewrite(dataset.cases[2].images[0], lambda array: np.full(array.shape, np.nan, np.float32))
    report = check_dataset(dataset)
    assert sole(report, "not-finite").cases == ("case_02",)
    assert report.facts["case_02"].image_intensities == (None,)


def test_a_constant_image_is_a_warning(flat):
    redraw(flat.cases[4].images[0], np.zeros_like)
    finding = sole(check_dataset(flat), "constant")
    assert (finding.severity, finding.cases) == ("warning", ("case_04",))


@pytest.mark.parametrize(("value", "reason"), [(1.5, "whole numbers, got 1.5"), (np.nan, "NaN"), (-1, "start at 0")])
def test_label_values_that_are_none_are_an_error(dataset, value, reason):
    rewrite(dataset.cases[0].label, with_voxel(value, np.float32))
    finding = sole(check_dataset(dataset), "label-values")
    assert (finding.severity, finding.cases) == ("error", ("case_00",))
    assert reason in finding.message


def test_a_0_255_mask_is_an_error_until_its_remap_is_declared(flat):
    for case in flat.cases:
        redraw(case.label, lambda array: np.where(array > 0, np.uint8(255), np.uint8(0)))
    masks = replace(flat, labels={"background": 0, "lesion": 1})
    (finding,) = check_dataset(masks).errors
    assert (finding.code, len(finding.cases)) == ("label-values", 6)
    assert 'declare "label_remap": {"255": 1}' in finding.remedy
    declared = check_dataset(replace(masks, label_remap={255: 1}))
    assert declared.errors == ()
    assert declared.facts["case_00"].foreground["lesion"] > 0


def test_an_empty_mask_is_a_warning_and_all_of_them_an_error(flat):
    redraw(flat.cases[0].label, np.zeros_like)
    report = check_dataset(flat)
    assert (report.errors, sole(report, "empty-mask").cases) == ((), ("case_00",))
    for case in flat.cases:
        redraw(case.label, np.zeros_like)
    assert "all background" in sole(check_dataset(flat), "all-background").message


def test_a_class_that_no_case_shows_is_a_warning(flat):
    finding = sole(check_dataset(replace(flat, labels={**flat.labels, "cyst": 3})), "absent-class")
    assert finding.severity == "warning"
    assert "'cyst'" in finding.message


def test_tiny_components_are_counted_by_class(flat):
    def speckle(array):
        array = array.copy()
        array[0, 0] = array[1, 1] = array[1, 2] = 1  # one component of three: they touch at corners
        array[0, 40] = 2
        array[40:42, 0:2] = 2  # four pixels are no longer tiny
        return array

    redraw(flat.cases[0].label, speckle)
    report = check_dataset(flat)
    assert sole(report, "tiny-components").cases == ("case_00",)
    assert report.facts["case_00"].tiny_components == {"organ": 1, "lesion": 1}


def test_copies_are_found_by_their_voxels_whatever_their_header(dataset):
    first, second, third = dataset.cases[:3]  # patients 0, 0, 1
    for copy in (second, third):
        for source, target in ((first.images[0], copy.images[0]), (first.label, copy.label)):
            image = nib.load(source)
            image.header["descrip"] = copy.name
            image.to_filename(target)
    within = check_dataset(replace(dataset, cases=dataset.cases[:2]))
    assert (within.errors, sole(within, "duplicate").cases) == ((), ("case_00", "case_01"))
    across = sole(check_dataset(dataset), "duplicate")
    assert (across.severity, across.cases) == ("error", ("case_00", "case_01", "case_02"))
    assert "different patients" in across.message
    rewrite(second.label, np.zeros_like)
    assert "different label maps" in sole(check_dataset(dataset), "duplicate").message


def test_pictures_that_look_alike_under_different_patients_are_a_warning(tmp_path, make_dataset):
    dataset = make_dataset(tmp_path, dims=2, patients=9, cases_each=1)
    assert "look-alike" not in {finding.code for finding in check_dataset(dataset).findings}
    for number in (2, 5):
        array = np.asarray(Image.open(dataset.cases[number].images[0])).astype(int)
        noise = np.random.default_rng(number).integers(-3, 4, array.shape)
        changed = np.clip(array * 0.8 + 20 + noise, 0, 255).astype(np.uint8)
        Image.fromarray(changed).save(dataset.cases[number + 1].images[0])
    finding = sole(check_dataset(dataset), "look-alike")
    assert (finding.severity, finding.cases) == ("warning", ("case_02", "case_03", "case_05", "case_06"))
    assert "case_02 and case_03 (and pictures in 1 more group) look nearly alike" in finding.message
    two = replace(dataset.cases[3], patient=dataset.cases[2].patient)
    known = replace(dataset, cases=(*dataset.cases[:3], two, *dataset.cases[4:]))
    unlabelled = replace(known, cases=(*known.cases[:5], replace(known.cases[5], label=None), *known.cases[6:]))
    assert "look-alike" not in {finding.code for finding in check_dataset(unlabelled).findings}
    assert sole(check_dataset(known), "look-alike").cases == ("case_05", "case_06")


def test_too_many_pictures_to_look_for_alike_ones_are_told(flat, monkeypatch):
    monkeypatch.setattr(check_module, "MOST", 5)
    finding = sole(check_dataset(flat), "look-alike")
    assert (finding.severity, finding.message[:18]) == ("note", "6 pictures are too")


def test_a_picture_that_is_not_finite_has_a_thumbnail_without_a_word():
    picture = np.array([[[np.inf, 1.0], [np.nan, 1e300]], [[-np.inf, 2.0], [0.0, 3.0]]])
    assert len(thumbnail(picture)) == 2048


def test_an_intensity_outlier_is_a_note(tmp_path, make_dataset):
    dataset = make_dataset(tmp_path, dims=2, patients=9, cases_each=1)
    redraw(dataset.cases[7].images[0], lambda array: 255 - array // 8)
    finding = sole(check_dataset(dataset), "intensity-outlier")
    assert (finding.severity, finding.cases) == ("note", ("case_07",))


def test_no_outlier_is_named_where_most_cases_have_the_same_mean(tmp_path, make_dataset):
    dataset = make_dataset(tmp_path, dims=2, patients=9, cases_each=1)
    for case in dataset.cases[1:]:
        redraw(case.images[0], np.zeros_like)
    assert "intensity-outlier" not in {finding.code for finding in check_dataset(dataset).findings}


def test_a_patient_on_both_sides_of_fixed_splits_is_an_error(dataset):
    splits = {"folds": [{"train": ["case_00", "case_02"], "val": ["case_01"]}]}
    write_json(dataset.root / "splits.json", splits)
    finding = sole(check_dataset(dataset), "splits")
    assert finding.severity == "error"
    assert "'patient_0'" in finding.message


def test_unknown_patients_and_missing_labels_are_warnings(flat):
    content = json.loads((flat.root / "dataset.json").read_text())
    del content["patients"]
    write_json(flat.root / "dataset.json", content)
    flat.cases[3].label.unlink()
    report = check_dataset(open_dataset(flat.root))
    assert sole(report, "patients-unknown").severity == "warning"
    assert sole(report, "unlabelled").cases == ("case_03",)
    assert report.facts["case_03"].label_sha256 == ""
    assert "patients unknown" in report.text()


def test_the_report_is_the_same_from_the_cache_which_spares_the_reading(dataset, tmp_path, monkeypatch):
    rewrite(dataset.cases[0].label, with_voxel(7))
    fresh = check_dataset(dataset)
    assert check_dataset(dataset, cache=tmp_path / "cache") == fresh
    monkeypatch.setattr(check_module, "inspect_case", lambda case, dataset: pytest.fail("the case was read again"))
    again = check_dataset(dataset, cache=tmp_path / "cache")
    assert again == fresh
    assert again.to_plain() == fresh.to_plain()


def test_a_changed_file_or_meaning_is_looked_at_anew(dataset, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    assert check_dataset(dataset, cache=cache).errors == ()
    assert len(check_dataset(replace(dataset, labels={"background": 0, "organ": 1}), cache=cache).errors) > 0
    read = []

    def reading(case, dataset):
        read.append(case.name)
        return inspect_case(case, dataset)

    monkeypatch.setattr(check_module, "inspect_case", reading)
    path = dataset.cases[4].label
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))
    check_dataset(dataset, cache=cache)
    assert read == ["case_04"]


@pytest.mark.parametrize("kind", ["images", "label"])
def test_an_unreadable_file_is_tried_again(dataset, tmp_path, kind):
    path = dataset.cases[0].images[0] if kind == "images" else dataset.cases[0].label
    whole, stamp = path.read_bytes(), path.stat().st_mtime_ns
    path.write_bytes(bytes(len(whole)))
    os.utime(path, ns=(stamp, stamp))
    assert check_dataset(dataset, cache=tmp_path / "cache").errors
    path.write_bytes(whole)
    os.utime(path, ns=(stamp, stamp))
    assert check_dataset(dataset, cache=tmp_path / "cache").errors == ()


def test_json_is_deterministic_and_names_no_folder(dataset, tmp_path):
    dataset.cases[0].images[0].write_bytes(b"no image")
    first, second = (json.dumps(check_dataset(dataset).to_plain(), allow_nan=False) for _ in range(2))
    assert first == second
    assert str(tmp_path) not in first


def test_the_text_names_each_finding_and_its_remedy_once(flat):
    for case in flat.cases:
        redraw(case.label, lambda array: array * 9)
    text = check_dataset(flat).text()
    lines = text.splitlines()
    assert lines[0] == "tiny: 6 cases, 6 labelled, 3 patients"
    assert sum("label-values" in line for line in lines) == 1
    assert "'case_04' and 1 more" in text
    assert "label_remap" in text
    assert lines[-1].startswith("1 error, 0 warnings")

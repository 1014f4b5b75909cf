import json
from pathlib import Path

import pytest

from segmentation import SkipSegError
from segmentation.data.layouts import open_dataset
from segmentation.data.manifest import (
    Case,
    Dataset,
    name_few,
    parse_channel_names,
    parse_label_remap,
    parse_labels,
    write_dataset,
)

ORIGIN = Path("dataset.json")


def test_classes_foreground_and_ignore_label_of_a_dataset():
    labels = {"background": 0, "vessel": 1, "ignore": 2}
    dataset = Dataset("eyes", Path(), 2, ("red",), labels, ())
    assert dataset.classes == {"background": 0, "vessel": 1}
    assert dataset.foreground == {"vessel": 1}
    assert dataset.ignore_label == 2


def test_a_written_dataset_is_read_back_equal(volumes):
    assert open_dataset(volumes.root) == volumes


def test_unknown_patients_are_not_written_as_known(tmp_path):
    case = Case("a", (tmp_path / "a_0000.png",), tmp_path / "a.png", patient="a")
    labels = {"background": 0, "x": 1}
    write_dataset(Dataset("d", tmp_path, 2, ("gray",), labels, (case,), patients_known=False), ".png")
    assert "patients" not in json.loads((tmp_path / "dataset.json").read_text())


def test_labels_are_read_by_name_or_by_value():
    expected = {"background": 0, "anterior": 1, "posterior": 2}
    assert parse_labels({"posterior": 2, "background": 0, "anterior": 1}, ORIGIN) == expected
    assert parse_labels({"2": "posterior", "0": "background", "1": "anterior"}, ORIGIN) == expected


def test_labels_may_have_digits_as_names():
    assert parse_labels({"background": 0, "7": 1}, ORIGIN) == {"background": 0, "7": 1}


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({}, "must map class names"),
        ([0, 1], "must map class names"),
        ({"background": 0, "whole tumour": [1, 2]}, "'whole tumour' is a region of values"),
        ({"background": 0, "lesion": 255}, "without gaps.*label_remap"),
        ({"background": 0, "a": 1, "b": 1}, "without gaps"),
        ({"background": 1, "lesion": 0}, "background must be label 0"),
        ({"background": 0, "ignore": 1, "lesion": 2}, "'ignore' must have the highest value"),
        ({"background": 0, "ignore": 1}, "at least one class"),
        ({"background": 0}, "at least one class"),
        ({"background": 0, "lesion": True}, "whole numbers"),
        ({"background": 0, "lesion": 1.0}, "whole numbers"),
        ({"0": "background", "1": "a", "2": "a"}, "share a name"),
    ],
)
def test_bad_labels_are_refused(labels, message):
    with pytest.raises(SkipSegError, match=f"^dataset.json.*{message}"):
        parse_labels(labels, ORIGIN)


@pytest.mark.parametrize("remap", [{"x": 1}, {"255": "1"}, {"255": 1.5}, {"255": True}, 255, [255]])
def test_a_remap_that_is_no_map_of_whole_numbers_is_refused(remap):
    with pytest.raises(SkipSegError, match="must map whole numbers"):
        parse_label_remap(remap, {"background": 0, "lesion": 1}, ORIGIN)


def test_a_remap_to_an_unknown_label_is_refused():
    with pytest.raises(SkipSegError, match=r"leads to \[3\]"):
        parse_label_remap({"255": 3}, {"background": 0, "lesion": 1}, ORIGIN)


@pytest.mark.parametrize("names", [["T1", "FLAIR"], {"0": "T1", "1": "FLAIR"}, {"1": "FLAIR", "0": "T1"}])
def test_channel_names_come_in_the_order_of_their_numbers(names):
    assert parse_channel_names(names, ORIGIN) == ("T1", "FLAIR")


@pytest.mark.parametrize("names", [[], {}, {"1": "T1"}, {"0": "T1", "2": "FLAIR"}, "CT", None])
def test_bad_channel_names_are_refused(names):
    with pytest.raises(SkipSegError, match="must name channels"):
        parse_channel_names(names, ORIGIN)


def test_few_names_are_given_whole():
    assert name_few(["a", "b"]) == "'a', 'b'"

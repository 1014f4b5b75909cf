import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from segmentation import SkipSegError
from segmentation.evaluation.evaluate import CASE_COLUMNS, NO_PREDICTION, CasePair, evaluate, evaluate_folders
from segmentation.evaluation.pairs import find_masks, read_pair
from segmentation.metrics import score_case
from segmentation.runs import read_csv
from segmentation.scans import read_label_map, write_label_map

SETTINGS = {"labels": {"organ": 1, "lesion": 2}, "ignore_label": None, "tolerance_mm": 1.5, "overlays": 2}


def write_predictions(dataset, folder):
    """Each reference moved by as many voxels as its number says: the later the case, the worse."""
    for number, case in enumerate(dataset.cases):
        reference = read_label_map(case.label)
        moved = np.roll(reference.array[0], number, axis=1)
        write_label_map(folder / case.label.name, moved, reference)
    return folder


@pytest.fixture
def predictions(volumes, tmp_path):
    return write_predictions(volumes, tmp_path / "predictions")


@pytest.fixture
def pairs(volumes, predictions):
    return [CasePair(c.name, c.patient, predictions / c.label.name, c.label, c.images) for c in volumes.cases]


def contents(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_table_holds_the_scores_of_every_case(pairs, tmp_path):
    evaluate(pairs, tmp_path / "out", **SETTINGS)
    rows = read_csv(tmp_path / "out" / "cases.csv")
    assert tuple(rows[0]) == CASE_COLUMNS
    assert [(row["case"], row["class"]) for row in rows] == [(p.case, c) for p in pairs for c in ("organ", "lesion")]
    prediction, reference = read_pair(pairs[3])
    expected = score_case(prediction.array[0], reference.array[0], reference.spacing_mm, SETTINGS["labels"], None, 1.5)
    for row, wanted in zip(rows[6:8], expected, strict=True):
        assert row["patient"] == pairs[3].patient
        assert row["note"] == ""
        for key, value in wanted.items():
            assert row[key] == (str(round(value, 6)) if isinstance(value, float) else str(value))


def test_summary_is_what_is_returned(pairs, tmp_path):
    summary = evaluate(pairs, tmp_path, **SETTINGS)
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert (summary["cases"], summary["patients"], summary["unit"], summary["warnings"]) == (6, 3, "mm", [])
    assert list(summary["classes"]) == ["organ", "lesion"]


def test_same_masks_give_the_same_bytes(pairs, tmp_path):
    for name in ("one", "two"):
        evaluate(pairs, tmp_path / name, **SETTINGS)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    evaluate(pairs, tmp_path / "one", **SETTINGS)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_worst_cases_are_drawn_first_and_old_overlays_removed(pairs, tmp_path):
    evaluate(pairs, tmp_path, **SETTINGS | {"overlays": 6})
    names = sorted(file.name for file in (tmp_path / "overlays").iterdir())
    assert [name[:2] for name in names] == ["01", "02", "03", "04", "05", "06"]
    rows = read_csv(tmp_path / "cases.csv")
    dice = {case: sum(float(row["dice"]) for row in rows if row["case"] == case) for case in {r["case"] for r in rows}}
    assert [name[3:-4] for name in names] == sorted(dice, key=lambda case: dice[case])
    evaluate(pairs, tmp_path, **SETTINGS | {"overlays": 1})
    assert [file.name for file in (tmp_path / "overlays").iterdir()] == names[:1]
    first = names[0][:-4]
    assert sorted(file.name for file in (tmp_path / "volumes").iterdir()) == [
        f"{first}.json",
        f"{first}_errors.nii.gz",
        f"{first}_image.nii.gz",
    ]


def test_a_scan_that_does_not_fit_is_named_and_the_masks_are_drawn(pairs, volumes, tmp_path):
    pairs[5] = replace(pairs[5], images=volumes.cases[0].images)
    summary = evaluate(pairs, tmp_path, **SETTINGS)
    (warning,) = summary["warnings"]
    assert warning.startswith(f"the overlay of {pairs[5].case} shows no scan: scan and reference differ in shape")
    assert (tmp_path / "overlays" / f"01_{pairs[5].case}.png").is_file()


def test_a_scan_with_all_its_channels_in_one_file_is_drawn(pairs, volumes, predictions, tmp_path):
    scan = nib.nifti1.load(volumes.cases[5].images[0])
    both = np.stack([np.asarray(scan.dataobj)] * 2, axis=-1)
    for folder in ("labelsTr", "imagesTr"):
        (tmp_path / folder).mkdir()
    file = tmp_path / "imagesTr" / "case_05.nii.gz"
    nib.save(nib.Nifti1Image(both, scan.affine), file)
    assert evaluate([replace(pairs[5], images=[file], channels=2)], tmp_path / "out", **SETTINGS)["warnings"] == []
    assert (tmp_path / "out" / "volumes" / "01_case_05_image.nii.gz").is_file()
    reference = volumes.cases[5].label
    (tmp_path / "labelsTr" / reference.name).write_bytes(reference.read_bytes())
    description = {"modality": {"0": "T1", "1": "T2"}, "patients": {"case_05": "p"}}
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    summary = evaluate_folders(predictions, tmp_path / "labelsTr", tmp_path / "again", images=file.parent, overlays=1)
    assert [text for text in summary["warnings"] if "overlay" in text] == []


def test_pictures_are_scored_in_pixels(pictures, tmp_path):
    predictions = write_predictions(pictures, tmp_path / "predictions")
    pairs = [CasePair(c.name, c.patient, predictions / c.label.name, c.label, c.images) for c in pictures.cases]
    assert evaluate(pairs, tmp_path / "out", **SETTINGS)["unit"] == "px"
    assert read_csv(tmp_path / "out" / "cases.csv")[0]["volume_reference_ml"] == ""
    assert not (tmp_path / "out" / "volumes").exists()  # a picture needs none


def test_ignored_voxels_are_neither_scored_nor_drawn(tmp_path):
    reference = np.zeros((40, 50), np.uint8)
    reference[5:20, 5:20] = 1
    prediction = reference.copy()
    prediction[25:35, 25:45] = 1
    ignoring = reference.copy()
    ignoring[22:38, 22:48] = 2
    for name, array in (("prediction", prediction), ("reference", reference), ("ignoring", ignoring)):
        Image.fromarray(array).save(tmp_path / f"{name}.png")
    settings = {"labels": {"cell": 1}, "ignore_label": 2, "tolerance_mm": 1.0, "overlays": 1}
    ignored = CasePair("a", "a", tmp_path / "prediction.png", tmp_path / "ignoring.png")
    perfect = CasePair("a", "a", tmp_path / "reference.png", tmp_path / "reference.png")
    for pair, out in ((ignored, tmp_path / "ignored"), (perfect, tmp_path / "perfect")):
        evaluate([pair], out, **settings)
    assert contents(tmp_path / "ignored") == contents(tmp_path / "perfect")


def test_folders_take_their_meaning_from_the_dataset(volumes, predictions, tmp_path):
    labels = volumes.root / "labelsTr"
    summary = evaluate_folders(predictions, labels, tmp_path, images=volumes.root / "imagesTr", overlays=1)
    assert (list(summary["classes"]), summary["patients"], summary["warnings"]) == (["organ", "lesion"], 3, [])


def test_missing_and_unknown_predictions_are_counted_and_named(volumes, predictions, tmp_path):
    names = [case.label.name for case in volumes.cases]
    (predictions / names[1]).rename(predictions / "stranger.nii.gz")
    summary = evaluate_folders(predictions, volumes.root / "labelsTr", tmp_path, overlays=0)
    assert summary["warnings"] == [
        "without prediction, scored as an empty one (1): 'case_01'",
        "without reference, not scored (1): 'stranger'",
    ]
    assert summary["classes"]["organ"]["states"]["missed"] == 1
    rows = [row for row in read_csv(tmp_path / "cases.csv") if row["note"] == NO_PREDICTION]
    assert [(row["case"], row["dice"], row["state"]) for row in rows] == [("case_01", "0.0", "missed")] * 2


@pytest.fixture
def bare(volumes, predictions, tmp_path):
    """Predictions and references as another tool leaves them: no dataset.json, files of other formats beside."""
    references = tmp_path / "references"
    references.mkdir()
    for case in volumes.cases:
        (references / case.label.name).write_bytes(case.label.read_bytes())
    (references / "plans.json").write_text("{}")
    (references / ".hidden.nii.gz").write_text("")
    (predictions / "case_00.npz").write_text("")
    return predictions, references


def test_folders_without_a_dataset(bare, tmp_path):
    summary = evaluate_folders(*bare, tmp_path / "out", overlays=0)
    assert list(summary["classes"]) == ["label 1", "label 2"]
    assert (summary["cases"], summary["patients"]) == (6, 6)
    assert summary["warnings"][0].startswith("without a known patient, counted as one patient each (6): 'case_00'")


def test_arguments_go_before_what_is_found(bare, tmp_path):
    for file in bare[0].glob("*.nii.gz"):
        prediction = read_label_map(file)
        write_label_map(file, prediction.array[0] % 2, prediction)
    summary = evaluate_folders(
        *bare,
        tmp_path / "out",
        labels={"background": 0, "organ": 1, "ignore": 2},
        patients=dict.fromkeys([f"case_{number:02}" for number in range(6)], "one"),
        overlays=0,
    )
    assert list(summary["classes"]) == ["organ"]
    assert summary["patients"] == 1
    ignoring = evaluate_folders(*bare, tmp_path / "other", ignore_label=2, overlays=0)
    assert list(ignoring["classes"]) == ["label 1"]


def test_labels_that_are_given_go_before_ones_that_cannot_be_read(bare, tmp_path):
    labels = {"background": 0, "whole": [1, 2], "lesion": 2}
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels, "label_remap": {"9": 7}}))
    with pytest.raises(SkipSegError, match="overlapping regions"):
        evaluate_folders(*bare, tmp_path / "out", overlays=0)
    given = {"organ": 1, "lesion": 2}
    assert list(evaluate_folders(*bare, tmp_path / "out", labels=given, overlays=0)["classes"]) == list(given)


def test_stored_values_are_remapped(tmp_path):
    for folder, value in (("labelsTr", 255), ("predictions", 1)):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.full((9, 7), value, np.uint8)).save(tmp_path / folder / "a.png")
    description = {"labels": {"background": 0, "cell": 1}, "label_remap": {"255": 1}, "patients": {"a": "p"}}
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    summary = evaluate_folders(tmp_path / "predictions", tmp_path / "labelsTr", tmp_path / "out", overlays=0)
    assert summary["classes"]["cell"]["scores"]["dice"]["policy"]["estimate"] == 1


def test_formats_may_differ(volumes, predictions, tmp_path):
    case = volumes.cases[2]
    reference = read_label_map(case.label)
    write_label_map(tmp_path / "other" / f"{case.name}.nrrd", reference.array[0], reference)
    summary = evaluate_folders(tmp_path / "other", volumes.root / "labelsTr", tmp_path / "out", overlays=0)
    assert summary["classes"]["organ"]["states"] == {"both": 1, "missed": 5, "false_alarm": 0, "both_empty": 0}


def test_grids_that_differ_are_refused(pairs, tmp_path):
    image = nib.loadsave.load(pairs[2].prediction)
    shifted = image.affine.copy()
    shifted[0, 3] += 5
    nib.Nifti1Image(np.asarray(image.dataobj), shifted).to_filename(pairs[2].prediction)
    with pytest.raises(SkipSegError, match="case_02: prediction and reference differ in position"):
        evaluate(pairs, tmp_path, **SETTINGS)
    with pytest.raises(SkipSegError, match="case_00: prediction and reference differ in shape"):
        evaluate([replace(pairs[0], prediction=pairs[1].prediction)], tmp_path, **SETTINGS)
    assert not (tmp_path / "cases.csv").exists()


def test_unnamed_values_are_refused_by_case(pairs, tmp_path):
    with pytest.raises(SkipSegError, match=r"case_00: the prediction holds label values \[2\]"):
        evaluate(pairs, tmp_path, **SETTINGS | {"labels": {"organ": 1}})


def test_unreadable_masks_are_refused_by_case(pairs, tmp_path):
    pairs[1].prediction.write_bytes(b"no image")
    with pytest.raises(SkipSegError, match=r"^case_01: "):
        evaluate(pairs, tmp_path, **SETTINGS)


def test_nothing_to_score_is_refused(pairs, tmp_path):
    with pytest.raises(SkipSegError, match="got 0 cases"):
        evaluate([], tmp_path, **SETTINGS)
    with pytest.raises(SkipSegError, match="0 foreground classes"):
        evaluate(pairs, tmp_path, **SETTINGS | {"labels": {}})
    with pytest.raises(SkipSegError, match="unique, got more than one 'case_00'"):
        evaluate([pairs[0], *pairs], tmp_path, **SETTINGS)


def test_volumes_and_pictures_do_not_share_a_table(pairs, pictures, tmp_path):
    picture = CasePair("picture", "p", pictures.cases[0].label, pictures.cases[0].label)
    with pytest.raises(SkipSegError, match="score them apart"):
        evaluate([pairs[0], picture], tmp_path, **SETTINGS)


def test_folders_without_a_common_case_are_refused(volumes, pictures, tmp_path):
    (tmp_path / "predictions").mkdir()
    (tmp_path / "predictions" / "alien.png").write_bytes(pictures.cases[0].label.read_bytes())
    with pytest.raises(SkipSegError, match=r"no case in common: .*'alien'.*'case_00'"):
        evaluate_folders(tmp_path / "predictions", volumes.root / "labelsTr", tmp_path / "out")


def test_folders_without_masks_are_refused(tmp_path):
    with pytest.raises(SkipSegError, match="is no folder"):
        find_masks(tmp_path / "missing")
    with pytest.raises(SkipSegError, match="holds no label maps"):
        find_masks(tmp_path)
    for ending in (".png", ".nii.gz"):
        (tmp_path / f"case{ending}").touch()
    with pytest.raises(SkipSegError, match=r"case.nii.gz and case.png for one case"):
        find_masks(tmp_path)

"""One cell: train, segment, score; what stands already is kept."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from segmentation.ablation import score as score_module
from segmentation.ablation.cell import run_cell
from segmentation.ablation.ledger import is_done
from segmentation.ablation.study import expand, read_study
from segmentation.inference.postprocess import common_steps
from segmentation.inference.predictor import Predictor
from segmentation.runs import read_csv, read_json
from segmentation.scans import read_label_map


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


@pytest.fixture
def settings_of(tmp_path, write_study):
    """Function of a dataset and a folder name: settings of one cell."""

    def make(dataset, name):
        study = read_study(write_study(tmp_path, dataset, conditions={"a": {}}), None)
        return expand(study, tmp_path / name, None)[0].job.settings

    return make


@pytest.mark.parametrize("kind", ["pictures", "volumes"])
def test_cell_holds_model_masks_and_scores(request, settings_of, kind):
    dataset = request.getfixturevalue(kind)
    folder = run_cell(settings_of(dataset, "out"))
    assert is_done(folder)
    held_out = read_json(folder / "run.json")["val_cases"]
    rows = read_csv(folder / "evaluation" / "cases.csv")
    assert sorted({row["case"] for row in rows}) == sorted(held_out)
    assert {row["class"] for row in rows} == {"organ", "lesion"}
    cases = {case.name: case for case in dataset.cases}
    for name in held_out:
        if kind == "pictures":
            mask, scan = (
                np.array(Image.open(path)) for path in (folder / "predictions" / f"{name}.png", cases[name].images[0])
            )
        else:
            mask, scan = (nib.load(path) for path in (folder / "predictions" / f"{name}.nii.gz", cases[name].images[0]))
            np.testing.assert_array_equal(mask.affine, scan.affine)
        assert mask.shape == scan.shape
    timing = read_json(folder / "timing.json")
    assert {"train_seconds", "predict_seconds", "peak_memory_mb"} <= set(timing)


def test_finished_cell_is_left_as_it_is(pictures, settings_of):
    settings = settings_of(pictures, "out")
    folder = run_cell(settings)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert run_cell(settings) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.parametrize("moment", ["predict_cases", "choose_steps", "write_json", "evaluate"])
def test_interrupted_after_training_gives_the_same_bytes(pictures, settings_of, results, monkeypatch, moment):
    whole = run_cell(settings_of(pictures, "whole"))
    settings = settings_of(pictures, "out")
    real = getattr(score_module, moment)

    def deadly(*args, **kwargs):
        real(*args, **kwargs)
        raise Killed

    monkeypatch.setattr(score_module, moment, deadly)
    with pytest.raises(Killed):
        run_cell(settings)
    monkeypatch.undo()
    model = (settings.out / "model.safetensors").stat().st_mtime_ns
    run_cell(settings)
    assert (settings.out / "model.safetensors").stat().st_mtime_ns == model, "it was trained already"
    assert results(settings.out) == results(whole)


def with_crumbs(dataset, seen):
    """Stand-in for predicting cases: the annotation, and a piece of organ far from it, in each mask."""
    annotated = {case.name: np.array(Image.open(case.label)) for case in dataset.cases}

    def predict(predictor, cases, output, ending):
        seen.append(list(predictor.steps))
        output.mkdir(exist_ok=True)
        for name, _ in cases:
            annotated[name][:4, :4] = 1
            Image.fromarray(annotated[name]).save(output / f"{name}{ending}")
        return {name: output / f"{name}{ending}" for name, _ in cases}

    return predict


def test_held_out_cases_choose_steps_and_are_scored_without_them(make_dataset, tmp_path, settings_of, monkeypatch):
    dataset = make_dataset(tmp_path / "data", dims=2, patients=6, cases_each=1)
    settings, steps_applied = replace(settings_of(dataset, "out"), folds=2), []
    real = score_module.evaluate

    def deadly(*args, **kwargs):
        raise Killed

    monkeypatch.setattr(score_module, "predict_cases", with_crumbs(dataset, steps_applied))
    monkeypatch.setattr(score_module, "evaluate", deadly)
    with pytest.raises(Killed):
        run_cell(settings)
    before = (settings.out / "model.json").read_bytes()
    monkeypatch.setattr(score_module, "evaluate", real)
    folder = run_cell(settings)
    assert (folder / "model.json").read_bytes() == before
    assert steps_applied == [[], []], "neither at first nor when the steps stand in model.json"
    about = read_json(folder / "model.json")
    steps = [{"kind": "keep_largest", "label": 1, "minimum_mm3": 0.0}]
    assert about["postprocess"]["steps"] == steps
    assert (about["postprocess"]["cases"], about["postprocess"]["patients"]) == (3, 3)
    assert about["postprocess"]["dice_with_steps"] == 1
    published = read_json(folder / "evaluation" / "summary.json")["all"]["dice"]["policy"]["estimate"]
    assert published == about["postprocess"]["dice"] < 1
    assert Predictor.load(folder).steps == common_steps([about])
    case = next(c for c in dataset.cases if c.name == read_json(folder / "run.json")["val_cases"][0])
    assert read_label_map(folder / "predictions" / f"{case.name}.png").array[0, 0, 0] == 1

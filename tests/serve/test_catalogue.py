"""The models that are offered: found below a folder, read anew when they change, left out when they are damaged."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from segmentation.model.folder import read_description, write_description
from segmentation.runs import read_json, write_json
from segmentation.serve.catalogue import Catalogue
from tests.inference.test_predictor import write_model


def test_models_are_found_and_described(models: Path):
    catalogue = Catalogue(models)
    volumes, pictures = catalogue.models()
    assert (volumes.name, volumes.dims, pictures.name, pictures.dims) == ("lung/volumes", 3, "pictures", 2)
    assert [(label.name, label.value, label.colour) for label in volumes.labels] == [("bright", 1, "#D55E00")]
    assert volumes.channels == ["red"]
    assert "no medical device" in volumes.intended_use
    assert (volumes.scores, volumes.licence) == (None, None)
    assert catalogue.find("pictures") == (pictures, models / "pictures")
    assert catalogue.find("../models/pictures") is None


def test_a_folder_that_is_a_model_is_offered_itself(models: Path):
    assert [model.name for model in Catalogue(models / "pictures").models()] == ["pictures"]


def test_a_change_is_seen(tmp_path: Path):
    catalogue = Catalogue(tmp_path, fresh_s=0)
    assert catalogue.models() == []
    folder = write_model(tmp_path / "new", 2)
    assert [model.licence for model in catalogue.models()] == [None]
    write_description(folder, dict(read_json(folder / "model.json")) | {"dataset": {"licence": "CC BY 4.0"}})
    assert [model.licence for model in catalogue.models()] == ["CC BY 4.0"]
    shutil.rmtree(folder)
    assert catalogue.models() == []


def test_what_is_damaged_or_hidden_is_left_out(tmp_path: Path):
    for name in ("cut", "changed", "strange", "good", ".hidden"):
        write_model(tmp_path / name, 2)
    (tmp_path / "cut" / "model.safetensors").write_bytes(b"")
    (tmp_path / "changed" / "model.json").write_text("{}")
    about = dict(read_json(tmp_path / "strange" / "model.json"))
    write_description(tmp_path / "strange", {key: value for key, value in about.items() if key != "labels"})
    assert [model.name for model in Catalogue(tmp_path).models()] == ["good"]


def test_what_may_not_be_read_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(path: Path) -> Mapping[str, Any]:
        if path.name == "secret":
            raise PermissionError(13, "Permission denied")
        return read_description(path)

    for name in ("good", "secret"):
        write_model(tmp_path / name, 2)
    monkeypatch.setattr("segmentation.serve.catalogue.read_description", refuse)
    assert [model.name for model in Catalogue(tmp_path).models()] == ["good"]


def test_scores_of_a_run_are_shown(tmp_path: Path):
    folder = write_model(tmp_path / "run", 3)
    score = {"policy": {"estimate": 0.8, "low": 0.7, "high": 0.9, "n": 12, "method": "bootstrap"}}
    scores = dict.fromkeys(("dice", "nsd", "hd95_mm"), score)
    write_json(folder / "evaluation" / "summary.json", {"classes": {"bright": {"scores": scores}}})
    (model,) = Catalogue(tmp_path).models()
    assert model.scores == {"bright": {name: {"estimate": 0.8, "low": 0.7, "high": 0.9, "n": 12} for name in scores}}
    (folder / "evaluation" / "summary.json").write_text(json.dumps({"classes": []}))
    assert Catalogue(tmp_path).models()[0].scores is None

"""Words for people or one JSON document for machines, never both on standard output."""

import json
import sys

import pytest
import yaml

from segmentation import SkipSegError
from segmentation.cli import main
from segmentation.output import STANDARD_OUTPUT, Output
from segmentation.terminal import Table


def speak(output):
    output.say("done", Table([["a", "b"], ["1", "2"]]))
    print("a library speaks")
    output.give({"a": 1})


def test_people_are_told_and_nothing_else_is_written(capsys):
    with Output().opened() as output:
        speak(output)
    assert capsys.readouterr().out == "done\na  b\n-  -\n1  2\na library speaks\n"


def test_machines_get_one_document_and_nothing_else(capsys):
    before = sys.stdout
    with Output(STANDARD_OUTPUT).opened() as output:
        speak(output)
    said = capsys.readouterr()
    assert json.loads(said.out) == {"a": 1}
    assert said.err == "a library speaks\n"
    assert sys.stdout is before


def test_a_file_leaves_the_words(tmp_path, capsys):
    with Output(tmp_path / "new" / "found.json").opened() as output:
        speak(output)
    assert json.loads((tmp_path / "new" / "found.json").read_text()) == {"a": 1}
    assert capsys.readouterr().out.startswith("done\n")


@pytest.mark.parametrize("file", [None, "found.json"])
def test_what_fails_writes_no_document(tmp_path, capsys, file):
    def fail():
        with Output(tmp_path / file if file else STANDARD_OUTPUT).opened() as output:
            output.give({})
            raise SkipSegError("no")

    with pytest.raises(SkipSegError, match="no"):
        fail()
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def document(capsys):
    """Function of a command line: runs it with --json and gives status and document."""

    def run(*arguments):
        status = main([*map(str, arguments), "--json"])
        return status, json.loads(capsys.readouterr().out)

    return run


def test_commands_on_a_dataset(document, pictures, tmp_path):
    status, made = document("prepare", "phantom", "--out", tmp_path / "d", "--phantom.cases", 2, "--phantom.size", 32)
    assert (status, made["dataset"], made["cases"], made["patients"]) == (0, str(tmp_path / "d"), 2, 2)
    status, found = document("check", pictures.root)
    assert (status, found["census"]["cases"]) == (0, 6)
    status, plan = document("plan", pictures.root, "--out", tmp_path / "plan.json", "--device", "cpu")
    assert status == 0
    assert plan == {"plan": str(tmp_path / "plan.json"), **json.loads((tmp_path / "plan.json").read_text())}


def test_a_faulty_dataset_is_a_document_and_status_1(document, make_dataset, tmp_path):
    dataset = make_dataset(tmp_path / "d", dims=2)
    dataset.cases[0].images[0].write_bytes(b"no picture")
    status, found = document("check", dataset.root)
    assert status == 1
    assert found["findings"][0]["severity"] == "error"


def test_describe_gives_every_layer(document):
    status, found = document("describe", "--network.depth", 1, "--network.width", 4, "--size", "[32,32]")
    assert status == 0
    assert found["cost"]["parameters"] == sum(layer["parameters"] for layer in found["layers"]) > 0
    assert found["network"]["width"] == 4


def test_doctor_gives_its_findings(document):
    status, found = document("doctor")
    assert status == 0
    assert found[0]["topic"] == "SkipSeg"


def test_train_predict_evaluate_and_report(document, volume_model, volumes, tmp_path):
    settings = yaml.safe_load((volume_model / "config.yaml").read_text())
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    status, run = document("train", "--config", tmp_path / "run.yaml", "--out", tmp_path / "run", "--epochs", 1)
    assert (status, run["run"], run["state"]) == (0, str(tmp_path / "run"), "finished")
    assert run["evaluation"]["classes"]["organ"]["scores"]["dice"]["policy"]["n"] == 1
    status, found = document(
        "predict", "--model", tmp_path / "run", "--input", volumes.root / "imagesTr", "--output", tmp_path / "masks",
        "--backend", "torch",
    )  # fmt: skip
    assert (status, len(found["masks"])) == (0, 6)
    status, scores = document(
        "evaluate", "--predictions", tmp_path / "masks", "--references", volumes.root / "labelsTr",
        "--out", tmp_path / "scores", "--overlays", 0,
    )  # fmt: skip
    summary = json.loads((tmp_path / "scores" / "summary.json").read_text())
    assert (status, scores) == (0, {"out": str(tmp_path / "scores"), **summary})
    status, report = document("report", tmp_path / "run")
    assert (status, report["report"]) == (0, str(tmp_path / "run" / "report.html"))
    assert report["patients"]

"""The run browser shows what the folders say, at the moment it is asked."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from segmentation.runs import write_json, write_text
from segmentation.serve.browse import routes
from segmentation.training.lock import locked

HEADER = "epoch,step,learning_rate,train_loss,val_loss,val_dice\n"


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """A study of a finished, a running, a failed and a waiting run, and a run of its own."""
    study = tmp_path / "lung" / "study"
    runs = [{"id": f"none-f{fold}-s0", "condition": "none", "fold": fold, "seed": 0} for fold in range(4)]
    write_json(study / "study.json", {"name": "Lung", "question": "Do skips help?", "runs": runs, "conditions": {}})
    for run in runs[:3]:
        begin(study / "runs" / run["id"])
    done, _, failed = (study / "runs" / run["id"] for run in runs[:3])
    write_json(done / "evaluation" / "summary.json", {})
    write_json(done / "timing.json", {"train_seconds": 12.5})
    write_json(failed / "run.json", {"state": "failed", "error": "no memory"})
    write_json(failed / "attempts" / "1.json", {"began": "now", "error": "/data/jane/data/scan.nii.gz cannot be read"})
    begin(tmp_path / "alone")
    return tmp_path


def begin(folder: Path) -> None:
    write_json(folder / "run.json", {"state": "running", "dataset": "lung-ct", "patients": 4, "parameters": 1234})
    write_text(folder / "config.yaml", "epochs: 9\nout: /data/jane/runs\nnetwork: {depth: 3}\n")
    write_text(folder / "metrics.csv", HEADER + "0,4,0.1,1.5,,\n1,8,0.05,1.25,1.1,0.5\n")


class Asked:
    """The routes over a folder, asked without a server."""

    def __init__(self, top: Path | None) -> None:
        self.app = FastAPI()
        self.app.include_router(routes(top))

    def get(self, path: str) -> httpx.Response:
        async def send() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://x") as client:
                return await client.get(path)

        return asyncio.run(send())


def rows(studies: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {run["name"]: run for study in studies for run in study["runs"]}


def test_studies_are_listed_with_the_state_of_each_run(top: Path):
    with locked(top / "lung" / "study" / "runs" / "none-f1-s0" / "attempts"):
        studies = Asked(top).get("/api/studies").json()
    assert [(study["name"], study["question"]) for study in studies] == [("alone", None), ("Lung", "Do skips help?")]
    found = rows(studies)
    states = {name: found[f"none-f{fold}-s0"]["state"] for fold, name in enumerate("abcd")}
    assert list(states.values()) == ["finished", "running", "failed", "waiting"]
    running = found["none-f1-s0"]
    assert (running["epoch"], running["epochs"], running["val_dice"]) == (2, 9, 0.5)
    assert found["none-f2-s0"]["error"] == "scan.nii.gz cannot be read"
    assert (found["none-f3-s0"]["epoch"], found["none-f3-s0"]["epochs"]) == (0, None)


def test_a_run_tells_what_is_known_and_no_path(top: Path):
    asked = Asked(top)
    run = rows(asked.get("/api/studies").json())["none-f0-s0"]
    answer = asked.get(f"/api/runs/{run['id']}")
    details = answer.json()
    assert {key: details[key] for key in run} == run
    assert (details["study"], details["dataset"], details["patients"]) == ("Lung", "lung-ct", 4)
    assert (details["parameters"], details["train_seconds"]) == (1234, 12.5)
    assert details["settings"] == {"epochs": 9, "network.depth": 3}
    assert "jane" not in answer.text


def test_curves_grow_while_a_run_trains(top: Path):
    asked = Asked(top)
    for name, folder in (("alone", top / "alone"), ("none-f1-s0", top / "lung" / "study" / "runs" / "none-f1-s0")):
        run = rows(asked.get("/api/studies").json())[name]
        before = asked.get(f"/api/runs/{run['id']}/curves").json()
        assert before["columns"] == HEADER.strip().split(",")
        assert before["rows"] == [[0, 4, 0.1, 1.5, None, None], [1, 8, 0.05, 1.25, 1.1, 0.5]]
        write_text(folder / "metrics.csv", HEADER + "0,4,0.1,1.5,,\n1,8,0.05,1.25,1.1,0.5\n2,12,0.01,nan,1,0.75\n")
        assert asked.get(f"/api/runs/{run['id']}/curves").json()["rows"][2] == [2, 12, 0.01, None, 1, 0.75]
        assert asked.get(f"/api/runs/{run['id']}").json()["val_dice"] == 0.75


def test_a_run_without_curves_has_an_empty_table(top: Path):
    asked = Asked(top)
    run = rows(asked.get("/api/studies").json())["none-f3-s0"]
    assert asked.get(f"/api/runs/{run['id']}/curves").json() == {"columns": [], "rows": []}


def test_damaged_files_are_lived_with(top: Path):
    study = top / "lung" / "study"
    (study / "runs" / "none-f0-s0" / "metrics.csv").write_bytes(b"epoch,x\n1,abc\n\xff")
    (study / "runs" / "none-f1-s0" / "config.yaml").write_text(":\n- [")
    (top / "alone" / "run.json").write_text("[")
    asked = Asked(top)
    found = rows(asked.get("/api/studies").json())
    assert (found["none-f0-s0"]["epoch"], found["none-f1-s0"]["epochs"]) == (0, None)
    (study / "study.json").write_text("{")
    names = {each["name"]: each for each in asked.get("/api/studies").json()}
    assert names["study"]["question"] == "study.json cannot be read"


def test_nothing_is_read_outside_of_its_folder(top: Path):
    asked = Asked(top)
    for id in ("%2e%2e", "%2e%2e%2fstudy", "none-f0-s0", "0" * 16):
        assert asked.get(f"/api/runs/{id}").status_code == 404
    assert Asked(None).get("/api/studies").json() == []
    assert Asked(None).get("/api/runs/0").status_code == 404

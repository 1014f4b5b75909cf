"""``skipseg serve`` as it runs: jobs from upload to mask, limits, hostile uploads, and a kill in the middle."""

import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import nibabel as nib
import psutil
import pydicom
import pytest

from segmentation import SkipSegError
from segmentation.arguments import parse
from segmentation.cli import main
from segmentation.serve.server import token_of
from tests.inference.test_predictor import ask, write_series
from tests.serve.conftest import OPEN, Server, until, zipped
from tests.serve.test_intake import claiming, packed

MakeServer = Callable[..., Server]
TOKEN = "correct-horse-battery-staple"


# Whom it serves


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "scans.example"])
def test_another_address_needs_a_token(models: Path, host: str, capsys: pytest.CaptureFixture[str]):
    assert main(["serve", "--models", str(models), "--host", host]) == 1
    said = capsys.readouterr().err
    assert "so a token is needed: set SKIPSEG_TOKEN" in said


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost", "::1"])
def test_its_own_address_needs_none(models: Path, host: str):
    assert token_of(parse("serve", ["--models", str(models), "--host", host]).settings) is None


def test_a_token_comes_from_a_variable_or_an_option(models: Path, monkeypatch: pytest.MonkeyPatch):
    given = ["--models", str(models), "--host", "0.0.0.0"]
    assert token_of(parse("serve", [*given, "--token", TOKEN]).settings) == TOKEN
    monkeypatch.setenv("SKIPSEG_TOKEN", TOKEN)
    assert token_of(parse("serve", given).settings) == TOKEN
    monkeypatch.setenv("SKIPSEG_TOKEN", "short")
    with pytest.raises(SkipSegError, match="SKIPSEG_TOKEN must hold at least 16 printable characters"):
        token_of(parse("serve", given).settings)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--port", "0"], "port must be in"),
        (["--queue", "0"], "queue must be greater than 0"),
        (["--threads", "-1"], "threads must be at least 0"),
        (["--token", "short"], "token must be at least 16 printable characters"),
        (["--token", "spaces are not allowed here"], "token must be at least 16 printable characters"),
    ],
)
def test_wrong_settings_are_refused(models: Path, options: list[str], said: str):
    with pytest.raises(SkipSegError, match=said):
        parse("serve", ["--models", str(models), *options])


def test_missing_folders_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["serve", "--models", str(tmp_path / "none"), "--state", str(tmp_path / "state")]) == 1
    assert "is not a folder" in capsys.readouterr().err


def test_nobody_is_well_where_nobody_serves(models: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["serve", "--models", str(models), "--port", "9", "--check", "true"]) == 1
    assert "no server answers at 127.0.0.1:9" in capsys.readouterr().err


@pytest.mark.slow
def test_it_says_whether_it_is_well_and_shares_its_state_with_nobody(
    server: Server, models: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["serve", "--models", str(models), "--port", str(server.port), "--check", "true"]) == 0
    assert "is well; 0 of 32 jobs" in capsys.readouterr().out
    assert main(["serve", "--models", str(models), "--state", str(server.state), "--port", "65000"]) == 1
    assert "is in use by another process" in capsys.readouterr().err


@pytest.mark.slow
def test_a_token_opens_the_api(make_server: MakeServer, scans: dict[str, Path]):
    server = make_server(token=TOKEN, host="0.0.0.0")
    assert server.client.get("/").status_code == 200
    assert server.client.get("/api/models").status_code == 401
    assert server.upload(scans["nifti"]).status_code == 401
    assert not list((server.state / "uploads").iterdir())
    server.client.headers["authorization"] = f"Bearer {TOKEN}"
    assert server.client.get("/api/models").status_code == 200
    assert server.client.get("/api/models", headers={"host": "evil.example"}).status_code == 403
    assert server.client.post("/api/jobs", json={}, headers={"origin": "https://evil.example"}).status_code == 403
    assert TOKEN not in server.log.read_text()


# From an upload to a mask


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "model", "format", "ending"),
    [
        ("nifti", "lung/volumes", "nifti", ".nii.gz"),
        ("picture", "pictures", "png", ".png"),
        ("dicom", "lung/volumes", "nifti", ".nii.gz"),
    ],
)
def test_a_mask_is_that_of_predict(
    server: Server,
    models: Path,
    scans: dict[str, Path],
    tmp_path: Path,
    name: str,
    model: str,
    format: str,
    ending: str,
):
    job = server.segment(scans[name], model, uncertainty=True)
    assert (job["state"], job["error"], job["progress"], job["position"]) == ("done", None, 1.0, 0)
    answer = server.client.get(f"/api/jobs/{job['id']}/result", params={"format": format})
    (expected,) = ask(models / model, scans[name], tmp_path / "masks")
    assert answer.content == expected.read_bytes()
    assert answer.headers["content-disposition"] == f'attachment; filename="mask-{job["id"][:8]}{ending}"'
    for part in ("image", "mask", "uncertainty"):
        (tmp_path / f"{part}.nii.gz").write_bytes(server.client.get(f"/api/jobs/{job['id']}/{part}").content)
    shapes = {nib.nifti1.load(tmp_path / f"{part}.nii.gz").shape for part in ("image", "mask", "uncertainty")}
    assert len(shapes) == 1
    if name == "dicom":
        seg = server.client.get(f"/api/jobs/{job['id']}/result", params={"format": "dicom-seg"}).content
        assert seg[128:132] == b"DICM"
    wrong = server.client.get(f"/api/jobs/{job['id']}/result", params={"format": "png" if format != "png" else "nifti"})
    assert wrong.status_code == 422


@pytest.mark.slow
def test_a_finished_job_can_be_deleted(server: Server, scans: dict[str, Path]):
    job = server.segment(scans["nifti"])
    folder = server.state / "jobs" / job["id"]
    assert folder.is_dir()
    assert server.client.get(f"/api/jobs/{job['id']}/uncertainty").status_code == 404
    assert server.client.delete(f"/api/jobs/{job['id']}").status_code == 204
    assert not folder.exists()
    for path in ("", "/result", "/image"):
        assert server.client.get(f"/api/jobs/{job['id']}{path}").status_code == 404
    assert server.client.delete(f"/api/jobs/{job['id']}").status_code == 404


@pytest.mark.slow
def test_what_does_not_fit_together_is_refused(server: Server, scans: dict[str, Path]):
    picture, colour = (server.upload(scans[name]).json()["id"] for name in ("picture", "colour"))
    refusals = [
        (server.submit(picture), 422, "this model segments volumes, not pictures"),
        (server.submit(colour, "pictures"), 422, "the scan has 3 channels, this model reads 1: red"),
        (server.submit(picture, "none"), 404, "there is no such model"),
        (server.submit("0" * 32, "pictures"), 404, "there is no such upload"),
        (server.client.post("/api/jobs", json={"model": "pictures"}), 422, "body.upload: Field required"),
        (server.client.post("/api/jobs", content=b"<b>Doe</b>"), 422, "body"),
    ]
    for answer, status, reason in refusals:
        assert answer.status_code == status, answer.text
        assert reason in answer.json()["detail"]
        assert "Doe" not in answer.text


@pytest.mark.slow
def test_the_page_and_the_description_are_served(server: Server):
    assert "<title>SkipSeg</title>" in server.client.get("/").text
    assert server.client.get("/static/app.js").headers["content-type"].startswith("text/javascript")
    for name in ("none.js", "..%2fapi.py", "api.py", "%2e%2e"):
        assert server.client.get(f"/static/{name}").status_code == 404
    paths = server.client.get("/openapi.json").json()["paths"]
    assert {"/api/health", "/api/models", "/api/uploads", "/api/jobs", "/api/jobs/{id}", "/api/jobs/{id}/result",
            "/api/studies", "/api/runs/{id}", "/api/runs/{id}/curves"} <= set(paths)  # fmt: skip


# What is refused


def named_series(tmp_path: Path, **tags: Any) -> bytes:
    folder = write_series(tmp_path / "series")
    for file in folder.iterdir():
        slice = pydicom.dcmread(file)
        for keyword, value in tags.items():
            setattr(slice, keyword, value)
        slice.save_as(file)
    return zipped(folder)


@pytest.mark.slow
def test_hostile_uploads_are_refused_and_the_server_is_unharmed(
    make_server: MakeServer, scans: dict[str, Path], tmp_path: Path
):
    server = make_server(unpacked="64MB", upload="8MB")
    png = scans["picture"].read_bytes()
    claimed = struct.pack(">I4sIIBBBBBI", 13, b"IHDR", 100_000, 100_000, 8, 0, 0, 0, 0, 0)
    hostile = {
        "bomb": (packed(*[(f"{n}.dcm", bytes(9_000_000)) for n in range(9)]), 422),
        "escape": (packed(("../../../tmp/Doe^Jane.dcm", b"x")), 422),
        "polyglot": (png + packed(("Doe.dcm", b"x")), 415),
        "page in a picture": (png + b"\0" * 2000 + b"<script>alert('Doe')</script>", 415),
        "page": (b"<html>Doe</html>", 415),
        "program": (b"MZ" + bytes(500), 415),
        "nifti of 10 GB": (claiming((2000, 2000, 1300)), 422),
        "png of 10 GB": (b"\x89PNG\r\n\x1a\n" + claimed + bytes(64), 422),
        "cut": (scans["nifti"].read_bytes()[:3000], 422),
        "odd name": (named_series(tmp_path, PatientName="<b>Doe^Jane</b>", PixelSpacing=[0, 0]), 422),
    }
    before = psutil.Process(server.process.pid).memory_info().rss
    for name, (content, status) in hostile.items():
        answer = server.upload(content, "Doe^Jane/../../4711.nii.gz")
        assert answer.status_code == status, (name, answer.text)
        assert not re.search(r"Doe|Jane|4711|<|/", answer.json()["detail"]), answer.text
    too_large = server.upload(bytes(9_000_000))
    assert too_large.status_code == 413
    assert server.client.post("/api/uploads", content=b"x").status_code == 422
    assert server.client.post("/api/uploads", files={"other": b"x"}).status_code == 422
    assert list((server.state / "uploads").iterdir()) == list((server.state / "drafts").iterdir()) == []
    assert psutil.Process(server.process.pid).memory_info().rss - before < 64_000_000
    assert server.segment(scans["nifti"])["state"] == "done"


@pytest.mark.slow
def test_an_upload_that_breaks_off_leaves_nothing(make_server: MakeServer):
    server = make_server()
    head = "POST /api/uploads HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000\r\n"
    form = "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
    part = '--x\r\nContent-Disposition: form-data; name="file"; filename="Doe^Jane"\r\n\r\n'
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall((head + form + part + "Doe" * 1000).encode())
        until(lambda: len(list(server.state.glob("drafts/*"))) == 1, 10)
    until(lambda: not list(server.state.glob("drafts/*")), 10)
    assert server.client.get("/api/health").status_code == 200


@pytest.mark.slow
def test_a_patient_name_of_html_reaches_no_answer_and_no_log(server: Server, tmp_path: Path):
    scan = tmp_path / "Doe^Jane.zip"
    tags = {"PatientName": "<img src=x onerror=alert(1)>Doe^Jane", "PatientID": "4711", "SeriesDescription": "Doe"}
    scan.write_bytes(named_series(tmp_path, **tags))
    job = server.segment(scan)
    assert job["state"] == "done"
    text = server.client.get("/api/jobs").text + server.client.get(f"/api/jobs/{job['id']}").text
    image = server.client.get(f"/api/jobs/{job['id']}/image").content
    assert not re.search(rb"Doe|Jane|4711|onerror", text.encode() + image)


# Limits


@pytest.mark.slow
def test_a_full_queue_refuses_and_jobs_can_be_cancelled(make_server: MakeServer, scans: dict[str, Path]):
    server = make_server(queue=2)
    upload = server.upload(scans["large"]).json()["id"]
    first, second = (server.submit(upload).json() for _ in range(2))
    refused = server.submit(upload)
    assert (refused.status_code, refused.json()["detail"]) == (429, "the queue is full; ask again later")
    assert int(refused.headers["retry-after"]) > 0
    until(lambda: server.job(first["id"])["windows_done"] is not None, 60)
    assert 0 < server.job(first["id"])["progress"] < 1
    assert server.job(second["id"])["position"] == 1
    assert server.client.get(f"/api/jobs/{first['id']}/result").status_code == 409
    running = {worker.pid for worker in server.workers()}
    cancelled = server.client.delete(f"/api/jobs/{first['id']}")
    assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
    assert server.client.delete(f"/api/jobs/{second['id']}").json()["state"] == "cancelled"
    until(lambda: not running <= {worker.pid for worker in server.workers()}, 20)
    until(lambda: not list((server.state / "drafts").iterdir()), 20)
    last = server.submit(upload)
    assert last.status_code == 202
    assert server.client.delete(f"/api/jobs/{last.json()['id']}").status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"memory": "300MB"}, "more memory than the server allows|less than this network takes"),
        ({"minutes": 0.01}, r"more than the 0\.01 minutes that the server allows"),
    ],
)
def test_a_job_that_takes_too_much_fails_and_the_next_one_runs(
    make_server: MakeServer, scans: dict[str, Path], options: dict[str, Any], reason: str
):
    server = make_server(**options)
    job = server.segment(scans["large"])
    assert job["state"] == "failed"
    assert re.search(reason, job["error"])
    assert server.client.get("/api/health").json()["jobs"] == 0


@pytest.mark.slow
def test_results_and_uploads_expire(make_server: MakeServer, scans: dict[str, Path]):
    server = make_server(hours=8 / 3600)
    job = server.segment(scans["nifti"])
    assert job["state"] == "done"
    assert job["expires"] > job["created"]
    until(lambda: server.client.get(f"/api/jobs/{job['id']}").status_code == 404, 30)
    until(lambda: not list((server.state / "uploads").iterdir()), 30)
    assert not list((server.state / "jobs").iterdir())
    assert server.submit(job["upload"]).status_code == 404


# A kill


@pytest.mark.slow
@pytest.mark.timeout(900)  # it waits for jobs, which a busy machine computes slowly
def test_a_killed_server_loses_no_job_and_none_gets_a_wrong_result(
    make_server: MakeServer, models: Path, scans: dict[str, Path], tmp_path: Path
):
    server = make_server()
    expected = {name: ask(models / "lung/volumes", scans[name], tmp_path / name)[0] for name in ("nifti", "large")}
    uploads = {name: server.upload(scans[name]).json()["id"] for name in expected}
    first = server.segment(scans["nifti"])
    jobs = {server.submit(uploads[name]).json()["id"]: name for name in ("large", "nifti", "large")}
    running = next(iter(jobs))
    until(lambda: server.job(running)["windows_done"] is not None, 60)
    workers = server.workers()
    assert workers
    server.kill()
    until(lambda: not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in workers), 20)
    server.start()
    assert server.job(first["id"])["state"] == "done"
    assert all(server.job(id)["state"] in OPEN for id in jobs)
    for id, name in jobs.items():
        assert server.ended(id, 240)["state"] == "done"
        mask = server.client.get(f"/api/jobs/{id}/result").content
        assert mask == expected[name].read_bytes()
    assert sorted(folder.name for folder in (server.state / "jobs").iterdir()) == sorted([first["id"], *jobs])
    assert not list((server.state / "drafts").iterdir())
    assert len(server.client.get("/api/jobs").json()) == 1 + len(jobs)


@pytest.mark.slow
@pytest.mark.timeout(900)  # it waits for jobs, which a busy machine computes slowly
def test_it_ends_quickly_when_it_is_asked_to(make_server: MakeServer, scans: dict[str, Path]):
    server = make_server()
    job = server.submit(server.upload(scans["large"]).json()["id"]).json()
    until(lambda: server.job(job["id"])["windows_done"] is not None, 60)
    workers, began = server.workers(), time.monotonic()
    os.kill(server.process.pid, signal.SIGINT)
    server.process.wait(timeout=30)
    assert time.monotonic() - began < 20
    assert not any(worker.is_running() for worker in workers)
    server.start()
    assert server.ended(job["id"], 240)["state"] == "done"


# What its description allows


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nothing_that_its_description_allows_is_a_fault_of_the_server(
    make_server: MakeServer, scans: dict[str, Path], tmp_path: Path
):
    server = make_server(runs=scans["nifti"].parent)
    server.segment(scans["nifti"])
    address = f"http://127.0.0.1:{server.port}/openapi.json"
    command = [sys.executable, "-m", "schemathesis.cli", "run", address, "--checks", "not_a_server_error"]
    options = ["--max-examples", "50", "--seed", "0", "--suppress-health-check", "all", "--no-color"]
    ran = subprocess.run([*command, *options], capture_output=True, text=True, timeout=850, cwd=tmp_path)
    assert ran.returncode == 0, ran.stdout[-6000:]
    assert httpx.get(f"http://127.0.0.1:{server.port}/api/health").status_code == 200
    assert " 500 " not in server.log.read_text()

"""A server in a process of its own, models with random weights, and scans to send."""

import io
import re
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from PIL import Image

from tests.inference.test_predictor import write_model, write_series, write_volume

OPEN = ("queued", "running")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a model of volumes and one of pictures."""
    folder = tmp_path_factory.mktemp("models")
    write_model(folder / "lung" / "volumes", 3)
    write_model(folder / "pictures", 2)
    return folder


@pytest.fixture(scope="session")
def scans(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small scan of each kind, and a volume that takes some seconds, by name."""
    folder = tmp_path_factory.mktemp("scans")
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50), np.uint8)
    Image.fromarray(pixels).save(folder / "picture.png")
    Image.fromarray(np.stack([pixels] * 3, axis=-1)).save(folder / "colour.png")
    archive = folder / "series.zip"
    archive.write_bytes(zipped(write_series(folder / "series")))
    return {
        "nifti": write_volume(folder / "volume.nii.gz"),
        "large": write_volume(folder / "large.nii.gz", shape=(72, 72, 32)),
        "picture": folder / "picture.png",
        "colour": folder / "colour.png",
        "dicom": archive,
    }


def zipped(folder: Path) -> bytes:
    """A zip archive of the files of a folder, in a folder that is called like a patient."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, f"Doe_Jane/{file.name}")
    return stream.getvalue()


class Server:
    """A server that runs; :meth:`kill` and :meth:`start` it again."""

    def __init__(self, models: Path, folder: Path, **options: Any) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.state = folder / "state"
        self.log = folder / "log.txt"
        given = {"backend": "torch", "device": "cpu", "threads": 1, "rate": 10_000} | options
        self.command = [
            sys.executable, "-m", "segmentation", "serve", "--models", str(models), "--state", str(self.state),
            "--port", str(self.port), *(f"--{name}={value}" for name, value in given.items()),
        ]  # fmt: skip
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60)
        self.start()

    def start(self) -> None:
        with self.log.open("a") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)
        until(self._is_well, 60)

    def _is_well(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.client.get("/api/health").status_code == 200
        except httpx.TransportError:
            return False

    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=30)
        self.client.close()

    def upload(self, content: bytes | Path, name: str = "Doe^Jane.bin") -> httpx.Response:
        data = content.read_bytes() if isinstance(content, Path) else content
        return self.client.post("/api/uploads", files={"file": (name, data)})

    def submit(self, upload: str, model: str = "lung/volumes", **options: Any) -> httpx.Response:
        return self.client.post("/api/jobs", json={"upload": upload, "model": model, **options})

    def job(self, id: str) -> dict[str, Any]:
        return self.client.get(f"/api/jobs/{id}").json()

    def ended(self, id: str, seconds: float = 120) -> dict[str, Any]:
        until(lambda: self.job(id)["state"] not in OPEN, seconds)
        return self.job(id)

    def segment(self, scan: Path, model: str = "lung/volumes", **options: Any) -> dict[str, Any]:
        """Upload, submit and wait."""
        upload = self.upload(scan)
        assert upload.status_code == 201, upload.text
        job = self.submit(upload.json()["id"], model, **options)
        assert job.status_code == 202, job.text
        return self.ended(job.json()["id"])


def until(is_so: Callable[[], bool], seconds: float) -> None:
    """Wait for something to become so."""
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


@pytest.fixture(scope="session")
def make_server(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[Callable[..., Server]]:
    """Start a server with options; all are ended after the tests, and none has failed inwardly."""
    made: list[Server] = []

    def make(**options: Any) -> Server:
        made.append(Server(models, tmp_path_factory.mktemp("server"), **options))
        return made[-1]

    yield make
    for server in made:
        if server.process.poll() is None:
            server.stop()
        log = server.log.read_text()
        assert not re.search(r"Traceback|internal|Internal| met ", log), log
        assert not re.search(r"Doe|Jane|Nobody|4711", log), log


@pytest.fixture(scope="session")
def server(make_server: Callable[..., Server]) -> Server:
    """A server that tests share."""
    return make_server()

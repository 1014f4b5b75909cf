"""A server with two small models of volumes and one of pictures, as `skipseg serve` starts it, to test its page."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom

from segmentation.config import TrainSettings
from segmentation.data.manifest import Dataset
from segmentation.plain import from_plain

NAMES = {
    "nifti": "scan.nii.gz", "large": "large.nii.gz", "series": "series", "dicom": "series.zip", "picture": "photo.png"
}  # fmt: skip


@dataclass(frozen=True)
class Room:
    """Folders of a server under test."""

    models: Path
    runs: Path
    state: Path


def train_tiny(dataset: Dataset, out: Path, epochs: int = 6, **network: object) -> Path:
    """Train a network of one level for a few seconds: enough to find both classes."""
    from segmentation.training.train import train  # seconds, which most test rooms need not spend

    plain = {
        "dataset": str(dataset.root), "out": str(out), "folds": 0, "epochs": epochs, "steps_per_epoch": 10,
        "threads": 1, "device": "cpu", "network": {"depth": 1, "width": 4, **network},
    }  # fmt: skip
    if dataset.spatial_dims == 3:
        plain["data"] = {"patch_size": [16, 16, 16], "batch_size": 2}
    return train(from_plain(TrainSettings, plain))


def furnish(folder: Path, volumes: Dataset, pictures: Dataset) -> Room:
    """Make the models, and a folder of runs with one that is still training."""
    room = Room(folder / "models", folder / "runs", folder / "state")
    for skip in ("concat", "none"):
        train_tiny(volumes, room.models / skip, long_skip=skip)
    train_tiny(pictures, room.models / "photo")
    train_tiny(volumes, room.runs / "growing", epochs=2)
    return room


def write_scans(folder: Path, volumes: Dataset, picture: Path, write_series: Callable[..., Path]) -> dict[str, Path]:
    """Scans to send: a volume, a large one, a series as files and zipped, and a picture."""
    case = volumes.cases[0].images[0]
    scans = {name: folder / f"{stem}" for name, stem in NAMES.items()}
    folder.mkdir(parents=True)
    shutil.copy(case, scans["nifti"])
    shutil.copy(picture, scans["picture"])
    image = nib.load(case)
    voxels = np.asanyarray(image.dataobj)
    nib.Nifti1Image(np.tile(voxels, (4, 4, 6)), image.affine).to_filename(scans["large"])
    write_series(scans["series"], voxels, [2.5 * index for index in range(voxels.shape[2])])
    complete_series(scans["series"])
    zip_series(scans["series"], scans["dicom"])
    return scans


def complete_series(folder: Path) -> None:
    """Add to slices what a DICOM segmentation must repeat."""
    for file in folder.iterdir():
        slice_ = pydicom.dcmread(file)
        slice_.StudyInstanceUID, slice_.FrameOfReferenceUID = "1.2.4", "1.2.5"
        slice_.save_as(file)


def zip_series(series: Path, target: Path) -> None:
    """Pack the slices of a series."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(series.iterdir()):
            archive.write(file, f"study/{file.name}")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def running(room: Room, *options: str, environment: Mapping[str, str] | None = None) -> Iterator[str]:
    """Run ``skipseg serve`` and give the address of its page once it answers."""
    port = free_port()
    command = [sys.executable, "-m", "segmentation", "serve", f"--models={room.models}", f"--runs={room.runs}"]
    command += [f"--state={room.state}", f"--port={port}", "--threads=1", *options]
    log = room.state.parent / f"server-{port}.log"
    with log.open("wb") as stream:
        server = subprocess.Popen(command, stdout=stream, stderr=stream, env={**os.environ, **(environment or {})})
        try:
            wait_for(f"http://127.0.0.1:{port}/api/health", server, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(30)


def wait_for(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the server answers, up to two minutes."""
    end = time.monotonic() + 120
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, TimeoutError):
            time.sleep(0.2)
    raise AssertionError(f"the server did not start: {log.read_text()}")

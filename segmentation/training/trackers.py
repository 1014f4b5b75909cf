"""Trackers that a training may report to: TensorBoard, MLflow, Weights & Biases. Thin adapters, without PyTorch.

RUN/tensorboard/     event files of TensorBoard
RUN/wandb/           what Weights & Biases keeps, uploaded at once or later by ``wandb sync``
mlflow.db            beside the run folder, shared by all runs there, unless MLFLOW_TRACKING_URI names a server

MLflow and Weights & Biases are no extra of ours: their requirements are many, and they are loaded only when asked for.
"""

import importlib
import io
import netrc
import os
import re
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segmentation import SkipSegError

PROJECT = "skipseg"
"""Experiment of MLflow and project of Weights & Biases."""

REMEDIES = {
    "tensorboard": "pip install 'skipseg[track]'",
    "mlflow": "pip install mlflow",
    "wandb": "pip install wandb",
}
"""Tracker, which is also the name of its package, to what installs it."""


class Tracker(Protocol):
    """Where curves and pictures of one training go.

    Attributes:
        run: What the tracker calls the training; another tracker of the same name appends to it.
    """

    run: str

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add one point to each curve."""
        ...

    def picture(self, step: int, name: str, pixels: NDArray[np.uint8]) -> None:
        """Add a picture, shape ``(rows, columns)``."""
        ...

    def close(self, finished: bool) -> None:
        """Write what is not written yet."""
        ...


def require_tracker(name: str) -> None:
    """Refuse a tracker that is not installed; ``"none"`` needs nothing.

    Raises:
        SkipSegError: With the command that installs it.

    Examples:
        >>> require_tracker("none")
    """
    if name != "none" and find_spec(name) is None:
        raise SkipSegError(f"track {name} needs the package {name}, which is not installed; run: {REMEDIES[name]}")


def open_tracker(name: str, folder: Path, about: Mapping[str, Any], run: str | None) -> Tracker:
    """Open a tracker for the training in ``folder``.

    Args:
        name: One of :data:`REMEDIES`.
        folder: Run folder.
        about: Settings of the training, by dotted name; they go to the tracker with a new run.
        run: What the tracker calls the training, to append to it; ``None`` begins anew.
    """
    match name:
        case "mlflow":
            return MLflow(folder, about, run)
        case "wandb":
            return WandB(folder, about, run)
        case _:
            return TensorBoard(folder / "tensorboard", run)


class TensorBoard:
    """Event files; each opening adds one."""

    def __init__(self, folder: Path, run: str | None) -> None:
        # An extra, whose message types are made when they are loaded: a type checker does not see them.
        self._event = importlib.import_module("tensorboard.compat.proto.event_pb2").Event
        self._summary = importlib.import_module("tensorboard.compat.proto.summary_pb2").Summary
        writers = importlib.import_module("tensorboard.summary.writer.event_file_writer")
        if run is None:
            for earlier in folder.glob("events.out.tfevents.*"):
                earlier.unlink()
        self.run = folder.name
        self._writer = writers.EventFileWriter(str(folder))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add one point to each curve."""
        self._write(step, [self._summary.Value(tag=name, simple_value=value) for name, value in values.items()])

    def picture(self, step: int, name: str, pixels: NDArray[np.uint8]) -> None:
        """Add a picture, shape ``(rows, columns)``."""
        png = io.BytesIO()
        Image.fromarray(pixels).save(png, format="PNG")
        size = {"height": pixels.shape[0], "width": pixels.shape[1], "colorspace": 1}
        image = self._summary.Image(**size, encoded_image_string=png.getvalue())
        self._write(step, [self._summary.Value(tag=name, image=image)])

    def _write(self, step: int, values: list[Any]) -> None:
        """Write an event, so that a page that is open shows it."""
        self._writer.add_event(self._event(wall_time=time.time(), step=step, summary=self._summary(value=values)))
        self._writer.flush()

    def close(self, finished: bool) -> None:
        """Close the file."""
        self._writer.close()


class MLflow:
    """A run in a database of MLflow; by its client, which leaves the active run of a user's own program alone."""

    def __init__(self, folder: Path, about: Mapping[str, Any], run: str | None) -> None:
        mlflow = importlib.import_module("mlflow")
        self._entities = importlib.import_module("mlflow.entities")
        place = folder.parent.resolve()
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{place / 'mlflow.db'}"
        self._client = mlflow.MlflowClient(tracking_uri=uri)
        if run is None:
            found = self._client.create_run(self._experiment(place), run_name=folder.name)
            self.run = str(found.info.run_id)
            parameters = [self._entities.Param(_name(key), str(value)[:500]) for key, value in about.items()]
            self._client.log_batch(self.run, params=parameters[:100])
        else:
            self.run = run
            self._client.update_run(run, status="RUNNING")

    def _experiment(self, place: Path) -> str:
        """Number of the experiment, which is made by the first run."""
        known = self._client.get_experiment_by_name(PROJECT)
        if known is not None:
            return known.experiment_id
        local = not os.environ.get("MLFLOW_TRACKING_URI")
        return self._client.create_experiment(PROJECT, (place / "mlflow").as_uri() if local else None)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add one point to each curve."""
        now = int(1000 * time.time())
        points = [self._entities.Metric(_name(key), value, now, step) for key, value in values.items()]
        self._client.log_batch(self.run, metrics=points)

    def picture(self, step: int, name: str, pixels: NDArray[np.uint8]) -> None:
        """Add a picture, shape ``(rows, columns)``."""
        self._client.log_image(self.run, Image.fromarray(pixels), key=_name(name), step=step)

    def close(self, finished: bool) -> None:
        """Say how the run ended."""
        self._client.set_terminated(self.run, "FINISHED" if finished else "KILLED")


class WandB:
    """A run of Weights & Biases: offline without a key or a network, else at once."""

    def __init__(self, folder: Path, about: Mapping[str, Any], run: str | None) -> None:
        self._wandb = importlib.import_module("wandb")
        self._run = self._wandb.init(
            project=PROJECT,
            name=folder.name,
            id=run,
            resume="allow" if run else None,
            config=dict(about),
            dir=str(folder),
            mode=os.environ.get("WANDB_MODE") or ("online" if can_reach_wandb() else "offline"),
            settings=self._wandb.Settings(console="off", silent=True, save_code=False, disable_git=True),
        )
        self.run = str(self._run.id)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add one point to each curve."""
        self._run.log(dict(values), step=step)

    def picture(self, step: int, name: str, pixels: NDArray[np.uint8]) -> None:
        """Add a picture, shape ``(rows, columns)``."""
        self._run.log({name: self._wandb.Image(Image.fromarray(pixels))}, step=step)

    def close(self, finished: bool) -> None:
        """Hand over what is not handed over yet."""
        self._run.finish(exit_code=0 if finished else 1)


def can_reach_wandb() -> bool:
    """Tell whether there is a key for Weights & Biases, and its server answers within three seconds."""
    address = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai")
    host, key = address.hostname or "", os.environ.get("WANDB_API_KEY")
    with suppress(OSError, netrc.NetrcParseError):
        key = key or netrc.netrc().authenticators(host)
    try:
        socket.create_connection((host, address.port or 443), timeout=3).close()
    except OSError:
        return False
    return bool(key)


def _name(text: str) -> str:
    """A name that MLflow takes.

    Examples:
        >>> _name("dice/left (ventricle)")
        'dice/left _ventricle_'
    """
    return re.sub(r"[^\w./ -]", "_", text)

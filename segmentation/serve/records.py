"""What the server knows of an upload and of a job, and the folders that hold their files."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from segmentation.runs import is_draft

RAW = "raw"
"""File of an upload's folder as it was received."""

IMAGE, MASK, UNCERTAINTY = "image.nii.gz", "mask.nii.gz", "uncertainty.nii.gz"
"""Files for the viewer; the mask of a volume is that of ``skipseg predict`` itself."""

PICTURE_MASK, SEGMENTATION = "mask.png", "mask.dcm"
"""Files to download."""

State = Literal["queued", "running", "done", "failed", "cancelled"]


class QueueFullError(Exception):
    """As many jobs wait or run as are allowed."""


class MissingError(Exception):
    """There is no such upload or job."""


@dataclass(frozen=True)
class Upload:
    """A scan that was received and read.

    Attributes:
        id: Random.
        bytes: On the disk.
        facts: What the reader found, as of :func:`segmentation.serve.intake.take_in`.
        created, expires: Seconds since 1970.
    """

    id: str
    bytes: int
    facts: Mapping[str, Any]
    created: float
    expires: float


@dataclass(frozen=True)
class Job:
    """A scan to segment.

    Attributes:
        number: Grows with each job: the order of the queue.
        id: Random.
        upload: Id of the scan.
        model: Name of the model.
        uncertainty: Whether a map of it is wanted.
        state: How far it is.
        attempt: How often it was started.
        created, expires: Seconds since 1970; what is not finished never expires.
        seconds: That it took.
        error: Why it failed.
        result: What was found, as of :func:`segmentation.serve.segment.segment`.
    """

    number: int
    id: str
    upload: str
    model: str
    uncertainty: bool
    state: State
    attempt: int
    created: float
    seconds: float | None
    expires: float | None
    error: str | None
    result: Mapping[str, Any]


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and not is_draft(file))


def flush(folder: Path) -> None:
    """Have all files of a folder on the disk."""
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())


def publish(draft: Path, target: Path) -> None:
    """Give a folder, whose files are on the disk, its final place in one step."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(target, ignore_errors=True)
    draft.rename(target)
    for folder in (target, target.parent):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

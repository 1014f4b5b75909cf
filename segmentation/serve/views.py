"""What the API answers: the OpenAPI description is made from these classes."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from segmentation.serve.records import Job, MissingError, State, Upload
from segmentation.serve.runner import Runner
from segmentation.serve.store import Store

Kind = Literal["nifti", "nrrd", "dicom", "picture"]
Format = Literal["nifti", "dicom-seg", "png"]


@dataclass(frozen=True)
class HealthView:
    """The server runs.

    Attributes:
        status: ``"ok"``.
        version: Of SkipSeg.
        token: Whether other requests need one.
        upload_bytes: Largest upload.
        jobs: That wait or run.
        queue: How many may.
    """

    status: Literal["ok"]
    version: str
    token: bool
    upload_bytes: int
    jobs: int
    queue: int


@dataclass(frozen=True)
class UploadView:
    """A scan that was received and read.

    Attributes:
        id: Random.
        kind: What it is.
        size: In bytes.
        dims: Spatial axes.
        shape: Voxels along each.
        spacing_mm: Distance between voxel centres (pixels for a picture).
        channels: How many.
        expires: When it is deleted, ISO 8601.
    """

    id: str
    kind: Kind
    size: int
    dims: int
    shape: list[int]
    spacing_mm: list[float]
    channels: int
    expires: str


@dataclass(frozen=True)
class NewJob:
    """A job that is asked for.

    Attributes:
        upload: Id of the scan.
        model: Name of the model.
        uncertainty: Whether a map of it is wanted.
    """

    upload: str
    model: str
    uncertainty: bool = False


@dataclass(frozen=True)
class JobView:
    """A job as it stands.

    Attributes:
        id: Random.
        upload, model: What is segmented by what.
        kind: What the scan is; None once it is deleted.
        state: How far the job is.
        progress: In [0, 1].
        position: Jobs ahead of it.
        created, expires: ISO 8601; what is not finished never expires.
        error: Why it failed.
        formats: In which its mask can be downloaded.
        volumes_ml: Of each class; None for a picture.
        voxels: Of each class.
        labels: Value of each class in the mask.
        warnings: What to know about the scan or the result.
        seconds: That it took.
        windows_done, windows: Of the network over the scan, while it runs.
        seconds_left: Of computing windows.
        steps: Of post-processing, once they are done; None if that is not known.
        has_uncertainty: Whether there is a map of it.
    """

    id: str
    upload: str
    model: str
    kind: Kind | None
    state: State
    progress: float
    position: int
    created: str
    expires: str | None
    error: str | None
    formats: list[Format]
    volumes_ml: dict[str, float | None]
    voxels: dict[str, int]
    labels: dict[str, int]
    warnings: list[str] = field(default_factory=list)
    seconds: float | None = None
    windows_done: int | None = None
    windows: int | None = None
    seconds_left: float | None = None
    steps: list[str] | None = None
    has_uncertainty: bool = False


@dataclass(frozen=True)
class Refusal:
    """Why a request is refused.

    Attributes:
        detail: One sentence.
    """

    detail: str


def view_upload(upload: Upload) -> UploadView:
    """An upload as the API shows it."""
    facts = {name: upload.facts[name] for name in ("kind", "dims", "shape", "spacing_mm", "channels")}
    return UploadView(id=upload.id, size=upload.bytes, expires=_time(upload.expires), **facts)


def view_job(job: Job, store: Store, runner: Runner) -> JobView:
    """A job as the API shows it."""
    done, progress = job.state == "done", runner.progress(job.id)
    known = progress.total > 0 and job.state == "running"
    voxels = job.result.get("voxels", {})
    return JobView(
        id=job.id,
        upload=job.upload,
        model=job.model,
        kind=job.result.get("kind") or _kind(job, store),
        state=job.state,
        progress=1.0 if done else round(progress.share, 4) if known else 0.0,
        position=store.ahead_of(job) if job.state == "queued" else 0,
        created=_time(job.created),
        expires=None if job.expires is None else _time(job.expires),
        error=job.error,
        formats=list(job.result.get("formats", {})),
        volumes_ml=job.result.get("volumes_ml", {}),
        voxels=voxels,
        labels=job.result.get("labels") or {name: value for value, name in enumerate(voxels, 1)},
        warnings=job.result.get("warnings", []),
        seconds=job.seconds,
        windows_done=progress.done if known else None,
        windows=progress.total if known else None,
        seconds_left=progress.seconds_left if known else None,
        steps=job.result.get("steps"),
        has_uncertainty=job.result.get("has_uncertainty", False),
    )


def _kind(job: Job, store: Store) -> Kind | None:
    """What the scan of a job is."""
    try:
        return store.upload(job.upload).facts["kind"]
    except MissingError:
        return None


def _time(seconds: float) -> str:
    """A time for people and programs."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")

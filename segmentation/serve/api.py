"""The API: uploads, jobs and their results."""

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Header, HTTPException, Request, Response
from fastapi.responses import FileResponse

from segmentation import __version__
from segmentation.serve.catalogue import Catalogue, Model
from segmentation.serve.process import StoppedError, TaskError
from segmentation.serve.receive import BusyError, FormError, Receiver
from segmentation.serve.records import IMAGE, MASK, UNCERTAINTY, Job, MissingError, QueueFullError, Upload
from segmentation.serve.runner import Runner
from segmentation.serve.store import Store
from segmentation.serve.views import Format, HealthView, JobView, NewJob, Refusal, UploadView, view_job, view_upload

_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            }
        },
    }
}
_NIFTI = "application/gzip"
_TYPES = {"nifti": _NIFTI, "dicom-seg": "application/dicom", "png": "image/png"}
_BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
_RETRY_QUEUE, _RETRY_UPLOAD = "10", "2"
"""Seconds after which to ask again."""


@dataclass(frozen=True)
class Parts:
    """What the API is made of."""

    store: Store
    catalogue: Catalogue
    runner: Runner
    receiver: Receiver
    upload_bytes: int
    needs_token: bool


def routes(parts: Parts) -> APIRouter:
    """Make the routes of uploads, jobs and models."""
    router = APIRouter(prefix="/api")
    _add_general(router, parts)
    _add_jobs(router, parts)
    _add_results(router, parts)
    return router


def _refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Documentation of what a route may refuse."""
    return {status: {"model": Refusal} for status in (401, 403, *statuses)}


def _add_general(router: APIRouter, parts: Parts) -> None:
    """Add what is known without a scan, and uploads."""

    @router.get("/health", summary="Whether the server is well")
    def health() -> HealthView:
        store = parts.store
        return HealthView(
            "ok", __version__, parts.needs_token, parts.upload_bytes, jobs=store.open_jobs(), queue=store.queue
        )

    @router.get("/models", summary="The models that scans can be segmented with", responses=_refusals(429))
    def models() -> list[Model]:
        return parts.catalogue.models()

    @router.post(
        "/uploads",
        status_code=201,
        summary="Send a scan: NIfTI, NRRD, PNG, TIFF, JPEG, or a zip archive of one DICOM series",
        responses=_refusals(408, 413, 415, 422, 429, 503, 507),
        openapi_extra=_FORM,
    )
    async def upload(
        request: Request,
        content_type: Annotated[str, Header(include_in_schema=False)] = "",
    ) -> UploadView:
        return view_upload(await _received(parts, request, content_type))


async def _received(parts: Parts, request: Request, content_type: str) -> Upload:
    """Take an upload in, or refuse it."""
    try:
        return await parts.receiver.receive(content_type, request.stream())
    except FormError:
        raise HTTPException(422, "send one file as the field `file` of a multipart form") from None
    except BusyError:
        headers = {"retry-after": _RETRY_UPLOAD}
        raise HTTPException(429, "no room for more uploads at present; send it again later", headers) from None
    except TimeoutError:
        raise HTTPException(408, "nothing came any more; send it again") from None
    except StoppedError:
        raise HTTPException(503, "the server ends; send it again") from None
    except OSError:
        raise HTTPException(507, "the disk of the server is full") from None
    except TaskError as error:
        raise HTTPException(415 if error.kind == "UnknownTypeError" else 422, str(error)) from None


def _add_jobs(router: APIRouter, parts: Parts) -> None:
    """Add the jobs."""

    @router.post("/jobs", status_code=202, summary="Segment a scan", responses=_refusals(404, 422, 429))
    def submit(wanted: NewJob) -> JobView:
        model = _model(parts, wanted.model)
        try:
            _check_fits(parts.store.upload(wanted.upload), model)
            job = parts.store.add_job(wanted.upload, wanted.model, wanted.uncertainty)
        except MissingError:
            raise HTTPException(404, "there is no such upload; it may have expired, send it again") from None
        except QueueFullError:
            headers = {"retry-after": _RETRY_QUEUE}
            raise HTTPException(429, "the queue is full; ask again later", headers) from None
        parts.runner.wake()
        return _view(parts, job)

    @router.get("/jobs", summary="All jobs, the newest first", responses=_refusals(429))
    def jobs() -> list[JobView]:
        return [_view(parts, job) for job in parts.store.jobs()]

    @router.get("/jobs/{id}", summary="How far a job is", responses=_refusals(404, 429))
    def job(id: str) -> JobView:
        return _view(parts, _job(parts, id))

    @router.delete(
        "/jobs/{id}",
        summary="Cancel a job that waits or runs (200), or delete one that has ended (204)",
        responses={204: {"description": "Deleted"}, **_refusals(404, 429)},
        response_model=JobView,
    )
    def cancel(id: str) -> Any:
        before = _job(parts, id)
        after = parts.store.cancel(id)
        if before.state in ("queued", "running"):
            return _view(parts, after)
        parts.store.delete_job(id)
        return Response(status_code=204)


def _add_results(router: APIRouter, parts: Parts) -> None:
    """Add the files of finished jobs."""

    def binary(*types: str) -> dict[int | str, dict[str, Any]]:
        return {200: {"content": dict.fromkeys(types, _BINARY)}, **_refusals(404, 409, 422, 429)}

    @router.get(
        "/jobs/{id}/result",
        summary="The mask, in the frame of the scan, as `skipseg predict` writes it",
        response_class=Response,
        responses=binary(*_TYPES.values()),
    )
    def result(id: str, format: Format = "nifti") -> FileResponse:
        job = _finished(parts, id)
        name = job.result["formats"].get(format)
        if name is None:
            there = ", ".join(job.result["formats"])
            raise HTTPException(422, f"this mask can be had as {there}, not as {format}")
        return _file(parts, job, name, _TYPES[format], f"mask-{id[:8]}{name.removeprefix('mask')}")

    def viewed(route: str, name: str, summary: str) -> None:
        def file(id: str) -> FileResponse:
            return _file(parts, _finished(parts, id), name, _NIFTI, f"{route}-{id[:8]}.nii.gz")

        path = f"/jobs/{{id}}/{route}"
        router.get(path, summary=summary, response_class=Response, responses=binary(_NIFTI), name=route)(file)

    viewed("image", IMAGE, "The scan as NIfTI, for a viewer; a picture is a volume of one slice")
    viewed("mask", MASK, "The mask as NIfTI, for a viewer; of a picture a volume of one slice")
    viewed("uncertainty", UNCERTAINTY, "The entropy of the prediction as NIfTI, for a viewer")


def _view(parts: Parts, job: Job) -> JobView:
    """A job as the API shows it."""
    return view_job(job, parts.store, parts.runner)


def _model(parts: Parts, name: str) -> Model:
    """A model, or a refusal."""
    found = parts.catalogue.find(name)
    if found is None:
        raise HTTPException(404, "there is no such model; GET /api/models lists them")
    return found[0]


def _check_fits(upload: Upload, model: Model) -> None:
    """Refuse a scan that a model was not made for."""
    kinds = {2: "pictures", 3: "volumes"}
    if upload.facts["dims"] != model.dims:
        raise HTTPException(422, f"this model segments {kinds[model.dims]}, not {kinds[upload.facts['dims']]}")
    if upload.facts["channels"] != len(model.channels):
        has, names = upload.facts["channels"], ", ".join(model.channels)
        raise HTTPException(422, f"the scan has {has} channels, this model reads {len(model.channels)}: {names}")


def _job(parts: Parts, id: str) -> Job:
    """A job, or a refusal."""
    try:
        return parts.store.job(id)
    except MissingError:
        raise HTTPException(404, "there is no such job; it may have expired") from None


def _finished(parts: Parts, id: str) -> Job:
    """A job that has a result, or a refusal."""
    job = _job(parts, id)
    if job.state != "done":
        raise HTTPException(409, f"this job has no result: it is {job.state}")
    return job


def _file(parts: Parts, job: Job, name: str, kind: str, shown: str) -> FileResponse:
    """A file of a finished job, or a refusal."""
    path = parts.store.job_folder(job.id) / name
    if not path.is_file():
        raise HTTPException(404, "this job has no such map")
    return FileResponse(path, media_type=kind, filename=shown)

"""The application: routes, what stands before them, and what lives as long as it does."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from segmentation import __version__
from segmentation.config import ServeSettings
from segmentation.data.hardware import hardware_of
from segmentation.inference.memory import parse_bytes
from segmentation.runs import user_cache
from segmentation.serve import api, browse, page
from segmentation.serve.catalogue import Catalogue
from segmentation.serve.guard import GoneError, Guard, Rules, TooLargeError
from segmentation.serve.receive import Receiver
from segmentation.serve.runner import Runner, Work
from segmentation.serve.store import Store

_ABOUT = """Segment scans by trained models. Send a scan, ask for a job, follow it, and fetch the mask.

A token, where the server needs one, goes into the header `Authorization: Bearer TOKEN`. Not a medical device."""


def build(settings: ServeSettings, token: str | None) -> Guard:
    """Make the application of ``skipseg serve``.

    Args:
        settings: As given.
        token: That requests must carry; None if none is needed.

    Raises:
        SkipSegError: If an amount of memory is none.
    """
    upload_bytes = parse_bytes(settings.upload)
    store = Store(state_folder(settings), settings.queue, 3600 * settings.hours)
    device = hardware_of(settings.device)
    work = Work(settings.memory, settings.minutes, settings.threads, settings.backend, device)
    catalogue = Catalogue(settings.models)
    runner = Runner(store, catalogue, work, settings.workers)
    receiver = Receiver(store, parse_bytes(settings.unpacked), parse_bytes(settings.storage))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        runner.start()
        yield
        runner.stop()
        receiver.stop()
        store.close()

    # FastAPI's own pages of documentation load scripts from elsewhere.
    app = FastAPI(
        title="SkipSeg", version=__version__, description=_ABOUT, docs_url=None, redoc_url=None, lifespan=lifespan
    )
    app.include_router(
        api.routes(api.Parts(store, catalogue, runner, receiver, upload_bytes, needs_token=token is not None))
    )
    app.include_router(browse.routes(settings.runs))
    app.include_router(page.routes())
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(TooLargeError, _too_large)
    app.add_exception_handler(GoneError, _gone)
    app.add_exception_handler(Exception, _failed)
    return Guard(app, Rules(token, settings.names, settings.rate, upload_bytes))


def state_folder(settings: ServeSettings) -> Path:
    """Folder for what the server remembers."""
    return settings.state or user_cache() / "serve"


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    """Say what is wrong with a request, without repeating it."""
    assert isinstance(error, RequestValidationError)
    wrong = [f"{'.'.join(str(part) for part in each['loc'])}: {each['msg']}" for each in error.errors()]
    return JSONResponse({"detail": "; ".join(wrong)}, 422)


async def _too_large(request: Request, error: Exception) -> JSONResponse:
    """Refuse a body that grew too large on its way."""
    return JSONResponse({"detail": "the request is larger than this server takes"}, 413)


async def _gone(request: Request, error: Exception) -> JSONResponse:
    """Answer nobody."""
    return JSONResponse({"detail": "the request broke off"}, 400)


async def _failed(request: Request, error: Exception) -> JSONResponse:
    """Say that the fault is ours; the guard logs where it was."""
    return JSONResponse({"detail": "internal error"}, 500)

"""The files of the page: a fixed table of names, so that no name of a request ever becomes a path."""

from collections.abc import Mapping
from pathlib import Path

from fastapi import APIRouter, HTTPException, Response
from fastapi.responses import RedirectResponse

from segmentation.report.viewer import viewer_assets

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
_STYLES = ("report.css", "charts.css")


def routes() -> APIRouter:
    """Make the routes of the page and of what it is made of."""
    router = APIRouter(include_in_schema=False)
    files = _files()

    @router.get("/")
    def page() -> Response:
        return _answer(files, "index.html")

    @router.get("/static/{name}")
    def static(name: str) -> Response:
        return _answer(files, name)

    @router.get("/docs")
    def documentation() -> Response:
        return RedirectResponse("/openapi.json")

    return router


def _answer(files: Mapping[str, bytes], name: str) -> Response:
    """A file, or a refusal."""
    if name not in files:
        raise HTTPException(404, "there is no such file")
    headers = {"content-encoding": "gzip"} if name == "niivue.js" else {}
    return Response(files[name], media_type=_TYPES[Path(name).suffix], headers=headers)


def _files() -> dict[str, bytes]:
    """Name to content of every file that may be asked for."""
    here = Path(__file__).parent
    own = {path.name: path.read_bytes() for path in (here / "page").iterdir() if path.suffix in _TYPES}
    shared = {name: (here.parent / "report" / name).read_bytes() for name in _STYLES}
    assets = viewer_assets()
    if assets is None:
        return own | shared
    viewer = {
        "viewer.js": assets.script.encode(),
        "viewer.css": assets.style.encode(),
        "niivue.js": assets.niivue,
        "niivue-licence.txt": assets.licence.encode(),
    }
    return own | shared | viewer

"""One server for all tests of the page; a test fails if the page complains or calls another machine."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from segmentation.data.manifest import Dataset
from tests.browser import Opened, browser, open_page
from tests.serve.page.server import Room, furnish, running, write_scans

__all__ = ["browser", "open_page"]


@pytest.fixture(scope="session")
def room(volumes: Dataset, pictures: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Room:
    """Folders of models and runs."""
    return furnish(tmp_path_factory.mktemp("serve"), volumes, pictures)


@pytest.fixture(scope="session")
def scans(
    volumes: Dataset, pictures: Dataset, write_series: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Files to send."""
    return write_scans(tmp_path_factory.mktemp("scans") / "in", volumes, pictures.cases[0].images[0], write_series)


@pytest.fixture(scope="session")
def address(room: Room) -> Iterator[str]:
    """Address of the server's page."""
    with running(room, "--rate=1000") as found:
        yield found


@pytest.fixture
def visit(open_page: Callable[..., Opened]) -> Iterator[Callable[..., Opened]]:
    """A function that opens a page, which must stay quiet: but for refusals with the statuses that were foreseen."""
    visits: list[tuple[Opened, set[int]]] = []

    def visiting(address: str, *, refusals: tuple[int, ...] = (), **options: Any) -> Opened:
        opened = open_page(address, **{"width": 1280, "height": 900, **options})
        visits.append((opened, set(refusals)))
        return opened

    yield visiting
    for opened, refusals in visits:
        statuses = {error: re.search(r"responded with a status of (\d+)", error) for error in opened.errors}
        assert [error for error, found in statuses.items() if not (found and int(found[1]) in refusals)] == []
        assert {urlsplit(request).hostname for request in opened.requests} == {"127.0.0.1"}


@pytest.fixture
def page(visit: Callable[..., Opened], address: str, request: pytest.FixtureRequest) -> Any:
    """The page, opened; ``@pytest.mark.parametrize("page", [{...}], indirect=True)`` gives it other options."""
    opened = visit(address, **getattr(request, "param", {}))
    opened.page.wait_for_selector(".cards")
    return opened.page


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder for pictures of the page: SKIPSEG_SCREENSHOTS, or one that is forgotten."""
    given = os.environ.get("SKIPSEG_SCREENSHOTS")
    folder = Path(given) if given else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder

"""A browser for tests of pages: the system's Chromium without a window, and what a page reports while it is open."""

import io
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

CHROMIUM = shutil.which("chromium")

ARGUMENTS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
"""WebGL by software, so that volumes are drawn on any machine."""

WAIT_MS = 60_000
"""How long a step may take on a busy machine."""


@dataclass
class Opened:
    """A page, the errors it reported and the addresses it asked for; its own blobs and data: addresses left out."""

    page: Page
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")  # not longer: while Playwright runs, no test in this thread can call asyncio.run
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium: apt-get install chromium")
    expect.set_options(timeout=WAIT_MS)
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield launched
        launched.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Opened]]:
    """A function that opens an address in a window of its own, after running ``script`` in it."""
    contexts: list[Any] = []

    def opening(
        address: str,
        *,
        width: int = 900,
        height: int = 800,
        scheme: Literal["light", "dark"] = "light",
        script: str = "",
    ) -> Opened:
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        opened = Opened(page)
        page.on("console", lambda message: message.type == "error" and opened.errors.append(message.text))
        page.on("pageerror", lambda error: opened.errors.append(str(error)))
        page.on("request", lambda request: _own(request.url) or opened.requests.append(request.url))
        if script:
            page.add_init_script(script)
        page.goto(address)
        return opened

    yield opening
    for context in contexts:
        context.close()


def pixels(shown: Locator | Page) -> NDArray[np.int16]:
    """What is drawn, shape ``(rows, columns, 3)``, 0 to 255."""
    with Image.open(io.BytesIO(shown.screenshot())) as picture:
        return np.asarray(picture.convert("RGB"), np.int16)


def _own(address: str) -> bool:
    """Whether an address is part of the page that asks for it."""
    return address.startswith(("blob:", "data:"))

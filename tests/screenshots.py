"""Pictures of a report in Chromium, as README shows them and as eyes should check them.

``python -m tests.screenshots runs/demo/report.html --out pictures`` writes pictures for each width and colour scheme:
``top-1600-light.png`` is what opens, ``viewer-...`` the viewer with the worst case that has a volume, and ``page-...``
the whole page.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from tests.browser import ARGUMENTS, CHROMIUM, WAIT_MS

WIDTHS = (400, 900, 1600)
SCHEMES = ("light", "dark")
TALLEST = 8_000
"""Pixels of a picture; below 8192 Chromium, which draws by software here, begins the page again."""


def shoot(browser: Browser, report: Path, out: Path, widths: Sequence[int] = WIDTHS) -> Iterator[Path]:
    """Write the pictures of a report and give their paths."""
    out.mkdir(parents=True, exist_ok=True)
    for width in widths:
        for scheme in SCHEMES:
            context = browser.new_context(viewport={"width": width, "height": width * 5 // 8}, color_scheme=scheme)
            page = context.new_page()
            page.goto(report.resolve().as_uri())
            yield from _pictures(page, out, f"{width}-{scheme}.png")
            context.close()


def _pictures(page: Page, out: Path, name: str) -> Iterator[Path]:
    """The window as it opens, and the page, in pieces where it is tall."""
    page.screenshot(path=out / f"top-{name}")
    yield out / f"top-{name}"
    if (opener := page.locator("button[data-volume]:visible").first).count():
        opener.click()
        page.locator("#viewer [data-state=ready]").wait_for(timeout=WAIT_MS)
        page.wait_for_timeout(1000)  # until it has drawn
        page.locator("#viewer").screenshot(path=out / f"viewer-{name}")
        yield out / f"viewer-{name}"
        page.locator("#viewer-close").click()
    width, height = page.evaluate("[innerWidth, document.documentElement.scrollHeight]")
    for piece, top in enumerate(range(0, height, TALLEST)):
        path = out / f"page-{piece}-{name}"
        clip = {"x": 0, "y": top, "width": width, "height": min(TALLEST, height - top)}
        page.screenshot(path=path, full_page=True, clip=clip)
        yield path


def main() -> None:
    """Read the command line and write the pictures."""
    parser = argparse.ArgumentParser(prog="python -m tests.screenshots", description=__doc__)
    parser.add_argument("report", type=Path, help="report.html")
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures")
    parser.add_argument("--widths", type=int, nargs="+", default=WIDTHS, help="widths of the window in pixels")
    asked = parser.parse_args()
    if CHROMIUM is None:
        parser.error("no Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        for path in shoot(browser, asked.report, asked.out, asked.widths):
            print(path)
        browser.close()


if __name__ == "__main__":
    main()

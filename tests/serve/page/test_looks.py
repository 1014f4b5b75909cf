"""How the page of `skipseg serve` looks and reads: screenshots, widths, and the rules of accessibility by axe-core."""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.serve.page.test_flow import FINISH, choose, segment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

WIDTHS = (400, 900, 1600)


def show_start(page: Page, address: str, scans) -> None:
    choose(page, scans["nifti"], "concat")


def show_refusal(page: Page, address: str, scans) -> None:
    page.route("**/api/uploads*", lambda route: route.fulfill(status=413, json={"detail": ""}))
    page.set_input_files("#scan", scans["nifti"])
    page.get_by_role("alert").wait_for()


def show_progress(page: Page, address: str, scans) -> None:
    choose(page, scans["large"], "concat", "none")
    page.get_by_role("button", name="Segment with both models").click()
    expect(page.locator(".progress p.quiet").first).to_have_text(re.compile("window"), timeout=FINISH)


def show_result(page: Page, address: str, scans) -> None:
    segment(page, scans["nifti"], "concat")


def show_comparison(page: Page, address: str, scans) -> None:
    segment(page, scans["nifti"], "concat", "none")
    expect(page.get_by_role("heading", name="Compared")).to_be_visible(timeout=FINISH)


def show_picture(page: Page, address: str, scans) -> None:
    segment(page, scans["picture"], "photo")


def show_jobs(page: Page, address: str, scans) -> None:
    segment(page, scans["nifti"], "concat")
    page.get_by_role("link", name="Segment another scan").click()
    page.locator("table.jobs tbody tr").first.wait_for()


def show_runs(page: Page, address: str, scans) -> None:
    page.goto(f"{address}/#/runs")
    page.get_by_role("link", name="growing").wait_for()


def show_run(page: Page, address: str, scans) -> None:
    show_runs(page, address, scans)
    page.get_by_role("link", name="growing").click()
    page.locator(".chart svg").first.wait_for()


VIEWS = {
    "start": show_start,
    "refusal": show_refusal,
    "progress": show_progress,
    "result": show_result,
    "comparison": show_comparison,
    "picture": show_picture,
    "jobs": show_jobs,
    "runs": show_runs,
    "run": show_run,
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", VIEWS)
def test_view_is_accessible_and_fits_every_width(visit, address, scans, screenshots, view, scheme):
    page = visit(address, scheme=scheme, refusals=(413,)).page
    page.wait_for_selector(".cards")
    VIEWS[view](page, address, scans)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(300)  # the viewer draws anew
        page.screenshot(path=screenshots / f"{view}-{scheme}-{width}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        found = Axe().run(page).response["violations"]
        faults = [(each["id"], [node["html"] for node in each["nodes"]]) for each in found if is_serious(each)]
        assert faults == []


def is_serious(violation) -> bool:
    return violation["impact"] in ("serious", "critical")

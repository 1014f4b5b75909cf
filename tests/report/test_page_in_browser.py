"""The report in a real browser: everything is drawn, nothing is loaded, nothing sticks out, everybody can read it."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image

from segmentation.report.notebook import open_study
from segmentation.report.page import write_report
from tests.browser import browser, open_page
from tests.report.probed import add_probes
from tests.screenshots import SCHEMES, WIDTHS, shoot

__all__ = ["browser", "open_page"]  # fixtures

pytestmark = pytest.mark.slow

ARMS = {
    name: {"parameters": size, "macs": 1000 * size, "channels": [4, 8], "matched": "none", "matched_to": None}
    for name, size in (("concat", 482_113), ("add", 460_000), ("none", 449_345))
}

SECTIONS = (
    "result", "patients", "differences", "sample", "cost", "measures", "pictures", "training", "probes", "data",
    "protocol", "methods", "reproduce",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(study_writer, tmp_path_factory):
    """A study with all that a report can show: classes, seeds, budgets, probes, pictures, missing runs."""
    folder = study_writer(
        tmp_path_factory.mktemp("browser") / "study",
        ("concat", "add", "none"),
        patients=8,
        folds=2,
        seeds=(0, 1, 2),
        classes=("organ", "lesion"),
        contrasts=(("concat", "none"), ("concat", "add")),
        arms=ARMS,
        skip=("c1-f1-s2",),
    )
    add_probes(folder)
    return folder


@pytest.fixture(scope="module")
def report(folder):
    return write_report(folder)


def serious_faults(page):
    """Rules of axe-core that are broken seriously or critically, with the elements."""
    found = Axe().run(page).response["violations"]
    return {
        each["id"]: [node["target"] for node in each["nodes"]][:4]
        for each in found
        if each["impact"] in ("serious", "critical")
    }


def test_every_section_and_figure_is_there_without_error_or_request(open_page, report):
    opened = open_page(report.as_uri())
    page = opened.page
    assert [page.locator(f"section#{name}").count() for name in SECTIONS] == [1] * len(SECTIONS)
    drawn = page.locator("svg.fluid, .relief svg").evaluate_all(
        "all => all.map(each => [each.getBoundingClientRect().width, each.childElementCount])"
    )
    assert len(drawn) > 30
    assert all(width > 30 and children > 0 for width, children in drawn)
    kinds = {name: page.locator(f"#probes .{name}").count() for name in ("heatmap", "surface", "relief")}
    assert kinds == {"heatmap": 2 + 3 + 1 + 1, "surface": 3, "relief": 3}
    assert page.locator("#cost .chart.lines").count() >= 2
    assert page.locator("#patients .patient-line").count() == 8
    assert opened.errors == []
    assert [address for address in opened.requests if address != report.as_uri()] == []


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_screen(open_page, report, width):
    page = open_page(report.as_uri(), width=width).page
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", [400, 1600])
def test_no_serious_accessibility_fault(open_page, report, scheme, width):
    page = open_page(report.as_uri(), width=width, scheme=scheme).page
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert serious_faults(page) == {}


@pytest.mark.parametrize("clipboard", ["{ writeText: async (text) => { window.copied = text; } }", "undefined"])
def test_the_methods_are_copied_by_keyboard(open_page, report, clipboard):
    page = open_page(report.as_uri()).page
    page.evaluate(f"Object.defineProperty(navigator, 'clipboard', {{ value: {clipboard} }})")
    page.evaluate("document.addEventListener('copy', () => { window.copied = getSelection().toString(); })")
    button = page.get_by_role("button", name="Copy the text")
    button.focus()
    page.keyboard.press("Enter")
    page.wait_for_function("document.getElementById('methods-text-said').textContent")
    said = page.locator("#methods-text-said").inner_text()
    assert said in ("Copied.", "Selected: press Ctrl+C or \u2318C.")
    assert page.evaluate("window.copied ?? getSelection().toString()").startswith("Data: lung-ct")


def test_everything_that_acts_is_reached_by_tab(open_page, report):
    page = open_page(report.as_uri()).page
    reached = set()
    for _ in range(120):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate("document.activeElement.tagName + (document.activeElement.textContent || '').slice(0, 20)")
        )
    assert any(each.startswith("ASkip to the result") for each in reached)
    assert any(each.startswith("BUTTONCopy the text") for each in reached)
    assert sum(each.startswith("SUMMARY") for each in reached) >= 3


def test_on_paper_details_are_open_and_colours_are_light(open_page, report):
    page = open_page(report.as_uri(), scheme="dark").page
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator("nav").is_hidden()
    assert page.locator(".copy").is_hidden()
    assert page.locator("#reproduce details table").last.is_visible()
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_pictures_of_every_width_and_scheme(browser, report, tmp_path):
    paths = list(shoot(browser, report, tmp_path / "pictures"))
    assert {path.name for path in paths if path.name.startswith("top")} == {
        f"top-{width}-{scheme}.png" for width in WIDTHS for scheme in SCHEMES
    }
    for path in paths:
        with Image.open(path) as picture:
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 50, f"{path.name} is blank"


def test_a_notebook_cell_is_styled_and_leaves_the_rest_alone(open_page, folder, tmp_path):
    cell = open_study(folder)._repr_html_()
    notebook = tmp_path / "notebook.html"
    notebook.write_text(f"<!doctype html><title>n</title><body style='margin: 7px'><p id=o>outside</p>{cell}</body>")
    opened = open_page(notebook.as_uri())
    page = opened.page
    assert page.evaluate("getComputedStyle(document.body).marginTop") == "7px"
    assert page.evaluate("getComputedStyle(document.getElementById('o')).maxWidth") == "none"
    assert page.evaluate("getComputedStyle(document.querySelector('.skipseg .verdict')).borderLeftStyle") == "solid"
    assert page.evaluate("getComputedStyle(document.querySelector('.skipseg .c1')).color") == "rgb(200, 80, 10)"
    assert opened.errors == []

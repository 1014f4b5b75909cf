"""The volume viewer of a report, looked at in a browser."""

import re
from itertools import pairwise

import numpy as np
import pytest
from playwright.sync_api import expect

from segmentation.evaluation.overlays import COLOURS
from segmentation.report.page import write_report
from tests.browser import browser, open_page, pixels
from tests.report.volumes import add_volumes

__all__ = ["browser", "open_page"]  # fixtures

pytestmark = pytest.mark.slow

CLASSES = ("liver", "spleen")

NO_WEBGL = """
const real = HTMLCanvasElement.prototype.getContext;
HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {
  return kind.startsWith("webgl") ? null : real.call(this, kind, ...rest);
};
"""


@pytest.fixture(scope="module")
def report(study_writer, tmp_path_factory):
    """Address of a report of six cases with volumes of two classes."""
    folder = study_writer(tmp_path_factory.mktemp("viewer") / "study", classes=CLASSES)
    add_volumes(folder, CLASSES)
    return write_report(folder).as_uri()


@pytest.fixture
def shown(open_page, report):
    """The page with the volume of its first case open."""
    opened = open_page(report, height=900)
    open_volume(opened.page)
    return opened


def open_volume(page, number=0):
    page.locator("button[data-volume]").nth(number).click()
    expect(page.locator("#viewer [data-state=ready]")).to_be_visible()


def drawn(page):
    """The picture after NiiVue has had time to draw it, without its rounded corners, shape (rows, columns, 3)."""
    page.locator("#viewer").evaluate("dialog => dialog.scrollTo(0, 0)")
    page.wait_for_timeout(200)
    return pixels(page.locator("#viewer canvas"))[8:-8, 8:-8]


def coloured(picture, kind):
    """How many pixels tend towards a colour of the overlay: where the grey scan lies below, its hue stays."""
    colour = np.array(COLOURS[kind])
    hue = picture - picture.mean(axis=-1, keepdims=True)
    wanted = colour - colour.mean()
    along = hue @ wanted / np.linalg.norm(wanted)
    off = np.linalg.norm(hue - along[..., None] * wanted / np.linalg.norm(wanted), axis=-1)
    return int(((along > 25) & (off < 0.35 * along)).sum())


def slide(page, name, value):
    slider = page.locator(f"#viewer input[name={name}]")
    slider.evaluate("(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input')); }", value)


def test_three_planes_and_a_rendering_are_drawn(shown):
    picture = drawn(shown.page)
    rows, columns = np.flatnonzero(picture.max(axis=(1, 2)) > 8), np.flatnonzero(picture.max(axis=(0, 2)) > 8)
    inside = picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    for half in np.array_split(inside, 2, axis=0):
        for quarter in np.array_split(half, 2, axis=1):
            assert quarter.std() > 10
    for kind in ("agreement (TP)", "false alarm (FP)", "missed (FN)"):
        assert coloured(picture, kind) > 50, kind
    assert shown.errors == []
    assert [address for address in shown.requests if not address.endswith("report.html")] == []


def test_each_button_opens_its_own_case_and_condition(open_page, report):
    page = open_page(report).page
    cases = page.locator("#pictures .case h3").all_inner_texts()
    pictures = []
    for number, condition in ((0, "concat"), (3, "none")):
        open_volume(page, number)
        case = cases[number // 2].split()[0]
        assert page.locator("#viewer-title").inner_text() == case
        assert case in page.locator("#viewer canvas").get_attribute("aria-label")
        expect(page.get_by_role("radio", name=condition)).to_be_checked()
        pictures.append(drawn(page))
        page.keyboard.press("Escape")
        expect(page.locator("#viewer")).to_be_hidden()
        assert page.locator("#viewer canvas").count() == 0
        expect(page.locator("button[data-volume]").nth(number)).to_be_focused()
    assert pictures[0].shape == pictures[1].shape
    assert np.abs(pictures[0] - pictures[1]).mean() > 1  # noise of its own


def test_opacity_and_masks_change_the_overlay_alone(shown):
    page = shown.page
    full = coloured(drawn(page), "agreement (TP)")
    slide(page, "opacity", 0)
    without = drawn(page)
    assert full > 50
    assert coloured(without, "agreement (TP)") == 0
    assert without.std() > 10
    slide(page, "opacity", 1)
    assert coloured(drawn(page), "agreement (TP)") >= full
    page.get_by_role("radio", name="no mask").check()
    np.testing.assert_array_equal(drawn(page), without)
    page.get_by_role("radio", name="none").check()
    assert coloured(drawn(page), "agreement (TP)") > 50


def test_a_class_is_hidden_and_shown_by_its_box(shown):
    page = shown.page
    before = drawn(page)
    boxes = page.get_by_role("checkbox", name=re.compile("agreement"))
    assert boxes.count() == len(CLASSES)
    for box in boxes.all():
        box.uncheck()
    hidden = drawn(page)
    assert coloured(hidden, "agreement (TP)") == 0
    assert coloured(hidden, "missed (FN)") > 50
    boxes.first.check()
    some = coloured(drawn(page), "agreement (TP)")
    boxes.last.check()
    assert 0 < some < coloured(drawn(page), "agreement (TP)") == coloured(before, "agreement (TP)")


def test_window_and_level_change_the_scan(shown):
    page = shown.page
    page.get_by_role("radio", name="no mask").check()
    page.get_by_role("button", name="Axial").click()
    before = drawn(page)
    level = page.locator("#viewer input[name=level]")
    slide(page, "level", level.get_attribute("max"))
    darker = drawn(page)
    assert darker.mean() < before.mean() - 5
    slide(page, "level", level.get_attribute("min"))
    assert drawn(page).mean() > before.mean() + 5
    slide(page, "level", np.mean([float(level.get_attribute(end)) for end in ("min", "max")]))
    slide(page, "width", page.locator("#viewer input[name=width]").get_attribute("min"))
    assert drawn(page).std() > before.std()  # nearly black and white


def test_layouts_are_told_apart_and_marked(shown):
    page = shown.page
    pictures = {}
    for name in ("Planes", "Axial", "Coronal", "Sagittal", "3-D"):
        button = page.get_by_role("button", name=name, exact=True)
        button.click()
        expect(button).to_have_attribute("aria-pressed", "true")
        assert page.locator("#viewer button[aria-pressed=true]").count() == 1
        pictures[name] = drawn(page)
        assert pictures[name].std() > 10
    for first, second in pairwise(pictures.values()):
        assert (first != second).any(axis=-1).mean() > 0.05


def test_the_keyboard_moves_the_crosshair_and_turns_the_volume(shown):
    page = shown.page
    place = page.locator("#viewer output")
    expect(page.locator("#viewer canvas")).to_be_focused()

    def mm():
        return [float(found) for found in re.findall(r"-?\d+\.\d", place.inner_text())[:3]]

    start = mm()
    for key, change in (("ArrowLeft", [1.5, 0, 0]), ("ArrowUp", [0, 1.5, 0]), ("PageUp", [0, 0, 3])):
        page.keyboard.press(key)
        assert np.subtract(mm(), start) == pytest.approx(change, abs=0.11)
        start = mm()
    page.get_by_role("button", name="Coronal").click()
    page.locator("#viewer canvas").focus()
    page.keyboard.press("ArrowDown")
    assert np.subtract(mm(), start) == pytest.approx([0, 0, -3], abs=0.11)
    page.get_by_role("button", name="3-D").click()
    page.locator("#viewer canvas").focus()
    before = drawn(page)
    page.keyboard.press("ArrowRight")
    assert (drawn(page) != before).any(axis=-1).mean() > 0.05
    for key in ("v", "?", "c", "m"):  # keys of NiiVue itself do nothing
        page.keyboard.press(key)
    assert shown.errors == []


def test_the_wheel_moves_through_slices(shown):
    page = shown.page
    page.get_by_role("button", name="Axial").click()
    page.locator("#viewer canvas").focus()
    before = page.locator("#viewer output").inner_text()
    page.locator("#viewer canvas").hover()
    page.mouse.wheel(0, 120)
    expect(page.locator("#viewer output")).not_to_have_text(before)


def test_without_webgl_a_sentence_says_so(open_page, report):
    opened = open_page(report, script=NO_WEBGL)
    opened.page.locator("button[data-volume]").first.click()
    expect(opened.page.locator("#viewer-place")).to_contain_text("this browser offers no WebGL 2")
    assert opened.errors == []


@pytest.mark.parametrize("width", [400, 900, 1600])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_viewer_fits_the_screen(open_page, report, tmp_path, width, scheme):
    opened = open_page(report, width=width, scheme=scheme)
    open_volume(opened.page)
    drawn(opened.page)
    opened.page.screenshot(path=tmp_path / f"viewer-{width}-{scheme}.png")
    dialog = opened.page.locator("#viewer")
    assert dialog.evaluate("box => box.scrollWidth <= box.clientWidth")
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    assert opened.errors == []

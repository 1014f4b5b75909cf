"""The page of `skipseg serve` in Chromium: from a scan to a mask on the disk, and everything that may go wrong."""

import base64
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from segmentation.metrics import dice_per_class
from segmentation.runs import write_text
from segmentation.training.lock import locked
from tests.browser import pixels
from tests.serve.page.server import running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

FINISH = 600_000
"""Milliseconds for a job on a busy machine."""


def choose(page: Page, file: Path, *models: str) -> None:
    """Send a file and choose models."""
    page.set_input_files("#scan", file)
    expect(page.locator(".sent")).to_contain_text("voxels" if file.suffix != ".png" else "pixels", timeout=FINISH)
    for model in models:
        page.get_by_label(model, exact=True).check()


def segment(page: Page, file: Path, *models: str) -> None:
    """Send a file, and wait until every model has segmented it and the viewer shows it."""
    choose(page, file, *models)
    page.get_by_role("button", name=re.compile("^Segment")).click()
    expect(page.locator(".downloads")).to_have_count(len(models), timeout=FINISH)
    expect(page.locator('[data-state="ready"]')).to_have_count(len(models), timeout=FINISH)


def download(where: Page | Locator, name: str, folder: Path) -> Path:
    """Press a button that downloads; the file, under the name that it comes with."""
    page = where.page if isinstance(where, Locator) else where
    with page.expect_download() as started:
        where.get_by_role("button", name=f"Download {name}").click()
    target = folder / started.value.suggested_filename
    started.value.save_as(target)
    return target


def predict(model: Path, scan: Path, out: Path, ending: str) -> Path:
    """The mask that `skipseg predict` writes."""
    command = [sys.executable, "-m", "segmentation", "predict", f"--model={model}", f"--input={scan}"]
    subprocess.run([*command, f"--output={out}", f"--format={ending}", "--threads=1"], check=True, capture_output=True)
    (mask,) = (file for file in out.iterdir() if file.name.endswith(ending))
    return mask


def coloured_pixels(page: Page, at: int = 0) -> int:
    """Pixels of a viewer that are not gray: where the mask lies over the scan."""
    page.wait_for_timeout(500)
    return int((np.ptp(pixels(page.locator(".skipseg-stage canvas").nth(at)), axis=-1) > 40).sum())


def test_a_volume_goes_in_and_the_mask_of_predict_comes_out(page, room, scans, tmp_path):
    segment(page, scans["nifti"], "concat")
    mask = download(page, "NIfTI", tmp_path)
    assert mask.name == "scan_concat.nii.gz"
    expected = predict(room.models / "concat", scans["nifti"], tmp_path / "predicted", "nii.gz")
    ours, theirs = nib.load(mask), nib.load(expected)
    np.testing.assert_array_equal(np.asanyarray(ours.dataobj), np.asanyarray(theirs.dataobj))
    np.testing.assert_array_equal(ours.affine, theirs.affine)


def test_sizes_are_those_of_the_mask(page, scans, tmp_path):
    segment(page, scans["nifti"], "concat")
    mask = nib.load(download(page, "NIfTI", tmp_path))
    voxels = np.asanyarray(mask.dataobj)
    for value, name in enumerate(("organ", "lesion"), 1):
        row = page.get_by_role("row", name=re.compile(f"^{name}"))
        count = int((voxels == value).sum())
        volume = count * abs(np.linalg.det(mask.affine[:3, :3])) / 1000
        expect(row.get_by_role("cell").last).to_have_text(f"{count:,}")
        shown = float(row.get_by_role("cell").first.inner_text().replace(",", ""))
        assert shown == pytest.approx(volume, rel=6e-3, abs=0.5 if volume >= 100 else 1e-4)


def test_the_mask_lies_over_the_scan_and_classes_can_be_hidden(page, scans):
    segment(page, scans["nifti"], "concat")
    shown = coloured_pixels(page)
    for name in ("organ", "lesion"):
        page.locator(".skipseg-bar").get_by_label(name).uncheck()
    hidden = coloured_pixels(page)
    assert shown > 500
    assert hidden < shown / 4  # the crosshair stays


@pytest.mark.parametrize("form", ["sform", "qform"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_every_kind_of_nifti_is_read(page, kind, order, form):
    values = np.random.default_rng(0).integers(-900, 900, (5, 4, 3)).astype(np.int16)
    turn = nib.eulerangles.euler2mat(0.3, -0.2, 1.1)
    affine = nib.affines.from_matvec(turn @ np.diag([-0.7, 1.2, 3.0]), [9, -7, 5])
    image = kind(values, affine, kind.header_class(endianness=order))
    image.set_sform(affine, int(form == "sform"))
    image.set_qform(affine, int(form == "qform"))
    read = """async (text) => {
        const { readNifti } = await import("/static/nifti.js");
        const found = await readNifti(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer);
        return { size: found.size, values: [...found.values], affine: found.affine };
    }"""
    found = page.evaluate(read, base64.b64encode(image.to_bytes()).decode())
    assert found["size"] == [5, 4, 3]
    assert found["values"] == values.ravel(order="F").tolist()
    np.testing.assert_allclose(found["affine"], affine[:3], atol=1e-4)


def test_a_zipped_series_becomes_a_dicom_segmentation(page, room, scans, tmp_path):
    segment(page, scans["dicom"], "concat")
    made = pydicom.dcmread(download(page, "DICOM SEG", tmp_path))
    assert made.Modality == "SEG"
    assert made.PatientName == "Doe^Jane"
    mask = download(page, "NIfTI", tmp_path)
    expected = predict(room.models / "concat", scans["series"], tmp_path / "predicted", "nii.gz")
    np.testing.assert_array_equal(nib.load(mask).get_fdata(), nib.load(expected).get_fdata())
    assert "Doe" not in page.content()


def test_the_mask_of_a_picture_is_that_of_predict(page, room, scans, tmp_path):
    segment(page, scans["picture"], "photo")
    expect(page.get_by_role("columnheader", name="Pixels")).to_be_visible()
    mask = download(page, "PNG", tmp_path)
    expected = predict(room.models / "photo", scans["picture"], tmp_path / "predicted", "png")
    np.testing.assert_array_equal(np.asarray(Image.open(mask)), np.asarray(Image.open(expected)))


@pytest.mark.parametrize("width", [1280, 400])
def test_a_picture_is_shown_as_it_is_and_not_mirrored(page, tmp_path, width):
    picture = np.full((60, 80), 30, np.uint8)
    picture[5:25, 8:32] = 250  # towards the upper left
    Image.fromarray(picture).save(tmp_path / "corner.png")
    page.set_viewport_size({"width": width, "height": 900})
    segment(page, tmp_path / "corner.png", "photo")
    page.get_by_label("Overlay").fill("0")
    page.wait_for_timeout(500)
    bright = pixels(page.locator(".skipseg-stage canvas")).mean(axis=-1) > 180
    rows, columns = np.nonzero(bright)
    assert len(rows) > 100
    assert rows.mean() < bright.shape[0] / 2
    assert columns.mean() < bright.shape[1] / 2


def test_two_models_stand_side_by_side(page, room, scans, tmp_path):
    segment(page, scans["nifti"], "concat", "none")
    expect(page.get_by_role("heading", name="Compared")).to_be_visible(timeout=FINISH)
    masks = [
        np.asanyarray(nib.load(predict(room.models / each, scans["nifti"], tmp_path / each, "nii.gz")).dataobj)
        for each in ("concat", "none")
    ]
    for name, score in zip(("organ", "lesion"), dice_per_class(*masks, num_classes=3)[1:], strict=True):
        row = page.locator(".both").get_by_role("row", name=re.compile(f"^{name}"))
        expect(row.get_by_role("cell").last).to_have_text("in neither" if np.isnan(score) else f"{score:.3f}")
    assert coloured_pixels(page, 0) > 500
    boxes = [page.locator(".result").nth(at).bounding_box() for at in (0, 1)]
    assert boxes[0]["x"] < boxes[1]["x"]
    assert boxes[0]["y"] == pytest.approx(boxes[1]["y"], abs=1)


def test_views_of_two_models_move_together(page, scans):
    segment(page, scans["nifti"], "concat", "none")
    expect(page.get_by_role("heading", name="Compared")).to_be_visible(timeout=FINISH)
    places = page.locator(".skipseg-bar output")
    before = places.nth(1).inner_text()
    page.locator(".skipseg-stage canvas").first.focus()
    page.keyboard.press("PageUp")
    expect(places.nth(1)).not_to_have_text(before)
    place = [places.nth(at).inner_text().partition(" mm")[0] for at in (0, 1)]
    assert place[0] == place[1]


def test_a_reload_in_the_middle_goes_on_showing_the_job(page, scans):
    choose(page, scans["large"], "concat")
    page.get_by_role("button", name="Segment", exact=True).click()
    expect(page.locator(".progress progress")).to_be_visible()
    page.reload()
    expect(page.get_by_role("heading", name="large.nii.gz")).to_be_visible()
    expect(page.locator(".progress progress")).to_be_visible()
    expect(page.locator(".downloads")).to_be_visible(timeout=FINISH)


def test_progress_tells_windows(page, scans):
    choose(page, scans["large"], "concat")
    page.get_by_role("button", name="Segment", exact=True).click()
    expect(page.locator(".progress p.quiet")).to_have_text(
        re.compile(r"computing, \d+ %, window \d+ of \d+"), timeout=FINISH
    )
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".result .note")).to_contain_text("cancelled", timeout=FINISH)


def test_a_job_can_be_found_and_deleted_in_the_list(page, scans):
    segment(page, scans["nifti"], "concat")
    page.get_by_role("link", name="Segment another scan").click()
    row = page.locator("table.jobs tbody tr").first
    expect(row).to_contain_text("scan.nii.gz")
    expect(row).to_contain_text("done")
    count = page.locator("table.jobs tbody tr").count()
    row.get_by_role("button", name="Delete scan.nii.gz, concat").click()
    expect(page.locator("table.jobs tbody tr")).to_have_count(count - 1)


def test_a_hostile_name_is_text(page, scans, tmp_path):
    name = "<img src=x onerror=alert(1)>.nii.gz"
    (tmp_path / name).write_bytes(scans["nifti"].read_bytes())
    page.on("dialog", lambda dialog: pytest.fail("the name was run"))
    segment(page, tmp_path / name, "concat")
    expect(page.get_by_role("heading", level=1)).to_have_text(name)
    page.get_by_role("link", name="Segment another scan").click()
    expect(page.locator("table.jobs tbody tr").first).to_contain_text(name)
    assert page.locator("img").count() == 0


def test_the_uncertainty_can_be_laid_over_the_scan(page, scans):
    choose(page, scans["nifti"], "concat")
    page.get_by_label("Also map where the model is unsure").check()
    page.get_by_role("button", name="Segment", exact=True).click()
    expect(page.locator('[data-state="ready"]')).to_be_visible(timeout=FINISH)
    for name in ("organ", "lesion"):
        page.locator(".skipseg-bar").get_by_label(name).uncheck()
    without = coloured_pixels(page)
    page.get_by_label("Uncertainty").check()
    assert coloured_pixels(page) > without + 500


@pytest.mark.parametrize("page", [{"refusals": (415,)}], indirect=True, ids=[""])
def test_a_file_of_no_known_kind_is_refused_politely(page, tmp_path):
    (tmp_path / "letter.nii.gz").write_text("Dear server")
    page.set_input_files("#scan", tmp_path / "letter.nii.gz")
    expect(page.get_by_role("alert")).to_contain_text("This kind of file cannot be read here", timeout=FINISH)
    expect(page.get_by_role("button", name="Segment", exact=True)).to_be_disabled()


@pytest.mark.parametrize("page", [{"refusals": (422,)}], indirect=True, ids=[""])
def test_a_cut_off_file_is_refused_with_its_reason(page, scans, tmp_path):
    (tmp_path / "cut.nii.gz").write_bytes(scans["nifti"].read_bytes()[:-500])
    page.set_input_files("#scan", tmp_path / "cut.nii.gz")
    expect(page.get_by_role("alert")).to_contain_text("The server could not use this: ", timeout=FINISH)


@pytest.mark.parametrize("page", [{"refusals": (413, 429)}], indirect=True, ids=[""])
@pytest.mark.parametrize(
    ("status", "headers", "words"),
    [(413, {}, "larger than the server takes"), (429, {"Retry-After": "7"}, "try again in 7 s")],
    ids=["too large", "too many"],
)
def test_limits_are_told_politely(page, scans, status, headers, words):
    page.route("**/api/uploads*", lambda route: route.fulfill(status=status, headers=headers, json={"detail": ""}))
    page.set_input_files("#scan", scans["nifti"])
    expect(page.get_by_role("alert")).to_contain_text(words)


@pytest.mark.parametrize("size", [0, 3_000_000], ids=["empty", "too large"])
def test_what_the_server_would_refuse_is_not_sent(page, tmp_path, size):
    page.route("**/api/health", lambda route: route.fulfill(json={"upload_bytes": 2_000_000}))
    page.route("**/api/uploads*", lambda route: pytest.fail("it was sent"))
    page.reload()
    (tmp_path / "scan.nii.gz").write_bytes(bytes(size))
    page.set_input_files("#scan", tmp_path / "scan.nii.gz")
    words = "This file has 3.0 MB, and the server takes up to 2.0 MB." if size else "This file is empty."
    expect(page.get_by_role("alert")).to_have_text(words)


def test_a_model_that_cannot_read_the_scan_says_why(page, scans):
    choose(page, scans["nifti"])
    expect(page.get_by_label("photo", exact=True)).to_be_disabled()
    expect(page.locator(".card", has_text="photo")).to_contain_text("Reads pictures, and this scan is a volume.")


def test_keyboard_alone_is_enough(page, scans):
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="To the content")).to_be_focused()
    choose(page, scans["nifti"])
    page.locator("#scan").focus()
    page.keyboard.press("Tab")
    expect(page.get_by_label("concat", exact=True)).to_be_focused()
    page.keyboard.press("Space")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("scan.nii.gz", timeout=FINISH)
    expect(page.get_by_role("heading", level=1)).to_be_focused()


def test_without_webgl_slices_take_the_place_of_the_viewer(visit, address, scans):
    without = """HTMLCanvasElement.prototype.getContext = (get => function (kind, ...rest) {
        return kind.startsWith("webgl") ? null : get.call(this, kind, ...rest);
    })(HTMLCanvasElement.prototype.getContext);"""
    page = visit(address, script=without).page
    choose(page, scans["nifti"], "concat")
    page.get_by_role("button", name="Segment", exact=True).click()
    expect(page.locator(".slices canvas")).to_be_visible(timeout=FINISH)
    expect(page.locator(".stage")).to_contain_text("Slices are shown instead")
    expect(page.locator(".slices output")).to_have_text(re.compile(r"Slice \d+ of \d+"))
    assert (np.ptp(pixels(page.locator(".slices canvas")), axis=-1) > 40).sum() > 500


def test_a_server_that_wants_its_token_gets_it(visit, room, tmp_path):
    secret = "a-token-of-enough-characters"
    apart = replace(room, state=tmp_path / "state")
    with running(apart, environment={"SKIPSEG_TOKEN": secret}) as address:
        page = visit(address, refusals=(401, 429)).page
        for attempt in ("a-token-that-is-simply-wrong", secret):
            page.get_by_role("textbox", name="Token").fill(attempt)
            page.get_by_role("button", name="Continue").click()
        expect(page.get_by_label("concat", exact=True)).to_be_visible()
        page.reload()
        expect(page.get_by_label("concat", exact=True)).to_be_visible()
        assert page.evaluate("localStorage.length") == 0
        assert secret not in page.content()


def test_the_curves_of_a_training_grow_while_one_looks(page, address, room):
    run = room.runs / "growing"
    with locked(run / "attempts"):
        page.goto(f"{address}/#/runs")
        expect(page.get_by_role("row", name=re.compile("^growing"))).to_contain_text("running")
        page.get_by_role("link", name="growing").click()
        points = page.locator(".chart").first.locator("circle")
        expect(points).to_have_count(2 * 2)
        rows = (run / "metrics.csv").read_text().splitlines()
        write_text(run / "metrics.csv", "\n".join([*rows, re.sub("^1,", "2,", rows[-1])]) + "\n")
        expect(points).to_have_count(2 * 3, timeout=20_000)
        write_text(run / "metrics.csv", "\n".join(rows) + "\n")

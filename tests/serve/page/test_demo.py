"""The real lung CT of `make demo` and its two models, as NIfTI and as a zipped DICOM series."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from playwright.sync_api import expect

from tests.serve.page.server import Room, complete_series, running, zip_series
from tests.serve.page.test_flow import FINISH, coloured_pixels, download, predict, segment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

AIR_HU = -1024


@pytest.fixture(scope="module")
def demo(root: Path) -> Path:
    """Folder of the demo's runs."""
    folder = root / "runs" / "demo" / "runs"
    if len(list(folder.glob("*-f0-*/model.json"))) < 2:
        pytest.skip("no demo here: run `make demo`")
    return folder


@pytest.fixture(scope="module")
def scan(root: Path) -> Path:
    """The patient that the demo's first fold left out."""
    return root / "runs" / "data" / "lung-ct" / "imagesTr" / "pat_1_0000.nii.gz"


@pytest.fixture(scope="module")
def names(demo: Path) -> list[str]:
    """The models of the first fold, concat and none."""
    return sorted(path.parent.name for path in demo.glob("*-f0-*/model.json"))


@pytest.fixture(scope="module")
def demo_address(demo: Path, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("demo")
    with running(Room(demo, demo.parent, folder / "state")) as found:
        yield found


def write_dicom(scan: Path, write_series, folder: Path) -> Path:
    """The voxels of a CT as a DICOM series in Hounsfield units, of the same spacing."""
    image = nib.load(scan)
    voxels = np.asanyarray(image.dataobj).round().clip(AIR_HU).astype(int)
    across, along, up = (float(size) for size in image.header.get_zooms()[:3])
    write_series(folder, voxels - AIR_HU, [up * index for index in range(voxels.shape[2])])
    for file in folder.iterdir():
        slice_ = pydicom.dcmread(file)
        slice_.RescaleIntercept, slice_.PixelSpacing, slice_.SliceThickness = AIR_HU, [along, across], up
        slice_.save_as(file)
    complete_series(folder)
    return folder


def test_the_real_scan_and_both_models_side_by_side(visit, demo, demo_address, scan, names, screenshots, tmp_path):
    page = visit(demo_address).page
    page.wait_for_selector(".cards")
    segment(page, scan, *names)
    expect(page.get_by_role("heading", name="Compared")).to_be_visible(timeout=FINISH)
    assert all(coloured_pixels(page, at) > 200 for at in (0, 1))
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for width in (400, 900, 1600):
            page.set_viewport_size({"width": width, "height": 900})
            page.wait_for_timeout(300)
            page.screenshot(path=screenshots / f"demo-{scheme}-{width}.png", full_page=True)
    for at, name in enumerate(names):
        mask = download(page.locator(".result").nth(at), "NIfTI", tmp_path)
        expected = nib.load(predict(demo / name, scan, tmp_path / name, "nii.gz"))
        np.testing.assert_array_equal(np.asanyarray(nib.load(mask).dataobj), np.asanyarray(expected.dataobj))


def test_the_real_scan_as_a_zipped_series(visit, demo, demo_address, scan, names, write_series, tmp_path):
    series = write_dicom(scan, write_series, tmp_path / "series")
    zip_series(series, tmp_path / "series.zip")
    page = visit(demo_address).page
    page.wait_for_selector(".cards")
    segment(page, tmp_path / "series.zip", names[0])
    assert coloured_pixels(page) > 200
    mask = nib.load(download(page, "NIfTI", tmp_path))
    expected = nib.load(predict(demo / names[0], series, tmp_path / "predicted", "nii.gz"))
    np.testing.assert_array_equal(np.asanyarray(mask.dataobj), np.asanyarray(expected.dataobj))
    made = pydicom.dcmread(download(page, "DICOM SEG", tmp_path))
    assert made.Modality == "SEG"
    assert (mask.get_fdata() > 0).any()

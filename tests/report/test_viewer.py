import gzip
import importlib.util
import re
from importlib import metadata

import pytest

from segmentation.report import viewer
from segmentation.report.viewer import viewer_assets


@pytest.fixture
def assets():
    found = viewer_assets()
    assert found is not None
    return found


@pytest.fixture
def fresh():
    """Forget what was found before and after."""
    viewer_assets.cache_clear()
    yield
    viewer_assets.cache_clear()


def test_niivue_comes_from_the_wheel_once_and_not_twice(assets):
    module = gzip.decompress(assets.niivue).decode()
    assert re.search(r"export\{\w+ as default\};?\s*$", module)
    assert "niivue" in module
    assert len(module) < 3_000_000  # the wheel's file is twice as long
    assert len(assets.niivue) < 900_000
    assert assets.version == metadata.version("ipyniivue")


def test_the_licence_goes_along(assets):
    assert "BSD 2-Clause" in assets.licence
    assert "Redistributions in binary form must reproduce the above copyright" in assets.licence


def test_scripts_define_the_viewer_and_cannot_end_their_element(assets):
    assert assets.script.index("const SkipSegNiiVue") < assets.script.index("SkipSegViewer =")
    assert "</script" not in assets.script.lower()
    assert "</style" not in assets.style.lower()
    assert not re.search(r"\b(eval|Function|fetch|innerHTML)\b", assets.script)  # loads and runs nothing


def test_the_parts_are_the_same_each_time(assets, fresh):
    assert viewer_assets() == assets


def test_without_the_wheel_there_is_no_viewer(monkeypatch, fresh):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert viewer_assets() is None


def test_a_wheel_without_its_bundle_is_none(monkeypatch, fresh, tmp_path):
    empty = importlib.util.spec_from_file_location("ipyniivue", tmp_path / "__init__.py")
    monkeypatch.setattr(viewer.importlib.util, "find_spec", lambda name: empty)
    assert viewer_assets() is None

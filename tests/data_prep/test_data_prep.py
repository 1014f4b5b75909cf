import subprocess
import sys
from pathlib import Path

import pytest

import data_prep
from segmentation import SkipSegError

BY_HAND = ("drive", "isbi-em", "busi", "dsb2018")


def test_unknown_source_lists_the_known_ones(tmp_path):
    with pytest.raises(SkipSegError, match="unknown source 'lungs'; choose one of lung-ct, phantom, msd-hippocampus"):
        data_prep.prepare("lungs", tmp_path / "out")


def test_every_source_has_a_module_and_its_terms():
    for name, source in data_prep.SOURCES.items():
        assert Path(data_prep.__file__).with_name(f"{source.module}.py").is_file(), name
        assert source.summary
        assert source.licence


@pytest.mark.parametrize("name", BY_HAND)
def test_source_by_hand_says_where_to_get_it(tmp_path, name):
    with pytest.raises(SkipSegError, match=r"get it from https://.* --source; expected .*manifest\.csv"):
        data_prep.prepare(name, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [*BY_HAND, "lung-ct", "msd-hippocampus"])
def test_folder_of_something_else_is_refused(tmp_path, name):
    (tmp_path / "source").mkdir()
    with pytest.raises(SkipSegError, match="the source holds none of"):
        data_prep.prepare(name, tmp_path / "out", tmp_path / "source")
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


def test_options_and_source_are_refused_where_they_mean_nothing(tmp_path):
    with pytest.raises(SkipSegError, match="drive takes no options, got seed"):
        data_prep.prepare("drive", tmp_path / "out", tmp_path, {"seed": 1})
    with pytest.raises(SkipSegError, match="phantom is made, not read"):
        data_prep.prepare("phantom", tmp_path / "out", tmp_path)


def test_current_folder_is_no_dataset_to_create(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SkipSegError, match="current folder"):
        data_prep.prepare("phantom", Path())


def test_importing_the_package_loads_nothing_heavy(root):
    code = "import data_prep, sys; print(sorted({'numpy', 'nibabel', 'scipy', 'torch'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"

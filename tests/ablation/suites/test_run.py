import inspect
from dataclasses import replace

import pytest

from segmentation import SkipSegError
from segmentation.ablation import suites
from segmentation.ablation.suites.names import ABOUT
from segmentation.ablation.suites.run import find_suites, load_suite, run_suites
from segmentation.cli import main
from segmentation.config import SuiteSettings
from segmentation.runs import read_json, write_json


def test_every_suite_module_is_listed(request):
    modules = {
        p.stem.replace("_", "-")
        for p in request.path.parents[3].joinpath("segmentation/ablation/suites").glob("s[0-9]*.py")
    }
    assert modules == set(ABOUT)
    assert suites.__doc__


@pytest.mark.parametrize("name", ABOUT)
def test_suite_says_what_it_claims_and_when_it_passes(name):
    module, suite = load_suite(name)
    assert suite.name == name
    assert suite.claim
    assert suite.pass_rule
    assert suite.title
    assert {"cpu", "smoke"} <= set(suite.grid) or (suite.study and set(suite.grid) == {"gpu"})
    assert inspect.getdoc(__import__(module, fromlist=["x"])).startswith(f"{name[:3]}: ")


@pytest.mark.parametrize("name", ["s00", "s00-scalar-chain", "scalar-chain"])
def test_find_suite_by_number_and_name(name):
    assert [suite.name for _, suite in find_suites(name, "cpu")] == ["s00-scalar-chain"]


def test_all_leaves_out_what_the_size_or_a_missing_dataset_forbids():
    assert len(find_suites("all", "cpu")) == 16
    assert len(find_suites("all", "gpu", with_data=True)) == 18


def test_unknown_suite_and_size():
    with pytest.raises(SkipSegError, match=r"there is no suite 's99'; the suites are s00-scalar-chain"):
        find_suites("s99", "cpu")
    with pytest.raises(SkipSegError, match="s17-drozdzal runs at size gpu, not cpu"):
        find_suites("s17", "cpu")


def test_suite_on_real_data_asks_for_it(tmp_path):
    with pytest.raises(SkipSegError, match="give a dataset folder with --dataset"):
        run_suites(SuiteSettings(name="s16", size="gpu", out=tmp_path / "out"))


def test_result_is_written_and_a_rerun_gives_the_same(tmp_path, capsys):
    command = ["suite", "s00", "--size", "smoke", "--out", str(tmp_path / "s00")]
    assert main(command) == 0
    result = read_json(tmp_path / "s00" / "result.json")
    assert result["verdict"] == "pass"
    assert {"suite", "claim", "grid", "readouts", "pass_rule", "verdict"} <= set(result)
    assert (tmp_path / "s00" / "report.html").is_file()
    assert "pass" in capsys.readouterr().out
    assert main(command) == 0
    assert read_json(tmp_path / "s00" / "result.json") == result


def test_folder_of_another_suite_is_refused(tmp_path):
    run_suites(SuiteSettings(name="s00", size="smoke", out=tmp_path))
    with pytest.raises(SkipSegError, match="holds s00-scalar-chain at size smoke; choose"):
        run_suites(SuiteSettings(name="s01", size="smoke", out=tmp_path))


def test_dataset_for_a_suite_without_data_is_refused(tmp_path):
    with pytest.raises(SkipSegError, match="leave out --dataset"):
        run_suites(SuiteSettings(name="s00", size="smoke", out=tmp_path / "out", dataset=tmp_path))


def test_folder_of_a_study_is_refused(tmp_path):
    write_json(tmp_path / "protocol.json", {"name": "mine"})
    with pytest.raises(SkipSegError, match="holds a study; choose another folder"):
        run_suites(SuiteSettings(name="s00", size="smoke", out=tmp_path))


def test_folder_of_something_else_is_refused(tmp_path):
    write_json(tmp_path / "mine.json", {})
    with pytest.raises(SkipSegError, match="is not a suite"):
        run_suites(SuiteSettings(name="s00", size="smoke", out=tmp_path))


def test_suite_whose_tasks_have_changed_is_refused(tmp_path, monkeypatch):
    run_suites(SuiteSettings(name="s00", size="smoke", out=tmp_path))
    module, suite = load_suite("s00-scalar-chain")
    harder = [{**cell, "x": 2.0} for cell in suite.cells(suite.grid["smoke"])]
    monkeypatch.setattr(f"{module}.SUITE", replace(suite, cells=lambda grid: harder))
    with pytest.raises(SkipSegError, match="another claim, grid, rule or task"):
        run_suites(SuiteSettings(name="s00", size="smoke", out=tmp_path))

import pytest

from segmentation.ablation.suites.run import find_suites
from segmentation.cli import main
from segmentation.runs import read_json


@pytest.mark.slow
@pytest.mark.timeout(1800)  # ten minutes on two free cores
def test_every_suite_runs_at_smoke_size_into_one_report(tmp_path):
    assert main(["suite", "all", "--size", "smoke", "--out", str(tmp_path)]) == 0
    expected = [suite.name for _, suite in find_suites("all", "smoke")]
    assert len(expected) == 16
    page = (tmp_path / "report.html").read_text()
    for name in expected:
        result = read_json(tmp_path / name / "result.json")
        assert result["verdict"] in ("pass", "fail", "inconclusive")
        assert result["readouts"]
        assert result["reading"]
        assert result["figures"], f"{name} shows no picture"
        assert name in page

"""``skipseg probe``: one file a kind, kept while it stands, and one line where something is wrong."""

import inspect
import shutil
from dataclasses import replace
from importlib import import_module

import pytest

from segmentation import SkipSegError
from segmentation.arguments import parse
from segmentation.cli import main
from segmentation.config import ProbeSettings
from segmentation.figures import Figure
from segmentation.probes import gradients, kinds
from segmentation.probes.context import ProbeResult
from segmentation.probes.kinds import KINDS, choose_kinds, list_kinds
from segmentation.probes.run import probe
from segmentation.runs import read_json, write_json, write_text


@pytest.fixture
def run(picture_run, tmp_path):
    """A copy of the run that a test may add to."""
    return shutil.copytree(picture_run, tmp_path / "run")


def few(run, *kinds, **options):
    return ProbeSettings(run, kind=list(kinds), device="cpu", threads=1, **{"batches": 2, "cases": 1, **options})


def test_every_kind_has_a_module_with_a_definition_and_a_probe():
    for kind in KINDS:
        module = import_module(f"segmentation.probes.{kind}")
        assert len(module.__doc__) > 100, kind
        assert list(inspect.signature(module.probe).parameters) == ["context"], kind


def test_file_holds_values_definition_and_figures(run):
    (path,) = probe(few(run, "gradients"))
    assert path == run / "probes" / "gradients.json"
    content = read_json(path)
    assert content["definition"] == gradients.__doc__.strip()
    assert content["run"] == read_json(run / "run.json")["hash"]
    assert content["settings"] == {"batches": 2, "cases": 1, "seed": 0}
    assert content["values"]["after training"]["V"] < 5
    assert [Figure.from_plain(figure).kind for figure in content["figures"]] == ["lines"] * 3


def test_what_stands_is_kept_and_what_does_not_is_done_again(run, monkeypatch):
    calls = []

    def count(context):
        calls.append(context.options.seed)
        return ProbeResult({"nothing": float("nan")}, [], "")

    monkeypatch.setattr(gradients, "probe", count)
    settings = few(run, "gradients")
    (path,) = probe(settings)
    assert probe(settings) == [path]
    assert read_json(path)["values"] == {"nothing": None}
    assert calls == [0]
    probe(replace(settings, seed=7))
    write_text(path, "{damaged")
    probe(replace(settings, seed=7))
    probe(replace(settings, seed=7))
    assert calls == [0, 7, 7]


def test_all_passes_over_what_the_run_has_nothing_for(run, monkeypatch, caplog):
    monkeypatch.setattr(kinds, "KINDS", {name: KINDS[name] for name in ("updates", "noise")})
    (run / "updates.csv").unlink()
    assert [path.stem for path in probe(few(run, "all"))] == ["noise"]
    assert "updates left out" in caplog.text
    assert not (run / "probes" / "updates.json").exists()


def test_a_named_kind_that_the_run_has_nothing_for_is_said_when_the_others_are_written(run, capsys):
    (run / "updates.csv").unlink()
    arguments = ["--kind=updates,noise,frozen", "--batches=2", "--cases=1", "--device=cpu", "--threads=1"]
    assert main(["probe", str(run), *arguments]) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith(f"skipseg: updates cannot be measured on {run}: ")
    assert "--track_updates" in said
    written = [run / "probes" / f"{kind}.json" for kind in ("frozen", "noise")]
    assert said.endswith(f"; written: {written[0]}, {written[1]}")
    assert sorted((run / "probes").iterdir()) == written
    with pytest.raises(SkipSegError, match=r"; written: nothing$"):
        probe(few(run, "updates"))


@pytest.mark.parametrize("fewer", [{"batches": 1}, {"cases": 1}, {"batches": 9, "cases": 1}, {"cases": 1, "seed": 7}])
def test_a_result_of_more_batches_or_cases_is_kept_and_said(run, monkeypatch, caplog, fewer):
    monkeypatch.setattr(gradients, "probe", lambda context: ProbeResult({}, [], ""))
    settings = few(run, "gradients", batches=2, cases=2)
    (path,) = probe(settings)
    before = path.read_bytes()
    assert probe(replace(settings, **fewer)) == [path]
    assert path.read_bytes() == before
    (record,) = caplog.records
    assert "gradients, measured on more batches or cases than asked for now" in record.getMessage()
    caplog.clear()
    probe(replace(settings, cases=3))
    assert read_json(path)["settings"] == {"batches": 2, "cases": 3, "seed": 0}
    assert caplog.records == []


def test_a_larger_result_of_another_run_is_replaced(run, monkeypatch):
    monkeypatch.setattr(gradients, "probe", lambda context: ProbeResult({}, [], ""))
    (path,) = probe(few(run, "gradients", cases=2))
    write_json(path, read_json(path) | {"run": "another"})
    probe(few(run, "gradients", cases=1))
    assert read_json(path)["settings"]["cases"] == 1


def test_unknown_kind_is_refused_with_the_choices(run):
    with pytest.raises(SkipSegError, match="no probe 'gradiant'; the kinds are gradients, updates,"):
        probe(few(run, "noise", "gradiant"))
    with pytest.raises(SkipSegError, match="no probe was asked for"):
        choose_kinds([])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ["all"]),
        (["--kind", "noise"], ["noise"]),
        (["--kind", "noise,frozen"], ["noise", "frozen"]),
        (["--kind=noise", "--seed", "3", "--kind", "frozen"], ["noise", "frozen"]),
        (["--kind", "[noise, frozen]"], ["noise", "frozen"]),
    ],
)
def test_kinds_on_the_command_line(arguments, expected):
    assert parse("probe", ["run", *arguments]).settings.kind == expected


def test_command(run, capsys):
    assert main(["probe", str(run), "--kind", "noise", "--batches=2", "--device=cpu", "--threads=1"]) == 0
    assert capsys.readouterr().out.strip() == str(run / "probes" / "noise.json")
    assert main(["probe", str(run / "probes")]) == 1
    assert "holds no run.json" in capsys.readouterr().err
    assert main(["probe", "--help"]) == 0
    assert list_kinds() in capsys.readouterr().out

"""``skipseg probe``: one file a kind, kept while it stands, and one line where something is wrong."""

import inspect
import shutil
from dataclasses import replace
from importlib import import_module

import pytest

from segmentation import SkipSegError
from segmentation.cli import main, parse
from segmentation.config import ProbeSettings
from segmentation.figures import Figure
from segmentation.probes import gradients, kinds
from segmentation.probes.context import ProbeResult
from segmentation.probes.kinds import KINDS, choose_kinds, list_kinds
from segmentation.probes.run import probe
from segmentation.runs import read_json, write_text


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
    with pytest.raises(SkipSegError, match="--track_updates true"):
        probe(few(run, "all", "updates"))
    assert not (run / "probes" / "updates.json").exists()


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
    assert parse("probe", ["run", *arguments]).kind == expected


def test_command(run, capsys):
    assert main(["probe", str(run), "--kind", "noise", "--batches=2", "--device=cpu", "--threads=1"]) == 0
    assert capsys.readouterr().out.strip() == str(run / "probes" / "noise.json")
    assert main(["probe", str(run / "probes")]) == 1
    assert "holds no run.json" in capsys.readouterr().err
    assert main(["probe", "--help"]) == 0
    assert list_kinds() in capsys.readouterr().out

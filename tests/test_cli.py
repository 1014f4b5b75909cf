"""The command line: what it says, and with which status it ends."""

import csv
import errno
import json
import shutil
from dataclasses import fields, replace

import pytest
import torch
import yaml

from segmentation import SkipSegError, __version__, config, plain
from segmentation.arguments import parse
from segmentation.cli import main, overview
from segmentation.commands import COMMANDS, Command


@pytest.fixture
def stub(monkeypatch):
    """Function of an exception or status: makes ``skipseg doctor`` end with it."""

    def make(outcome):
        def run(_, output):
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome

        monkeypatch.setitem(COMMANDS, "doctor", Command("", "", (), run))

    return make


def test_overview_names_every_command(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out and command.summary in out for name, command in COMMANDS.items())
    assert out.strip() == overview()


def test_nothing_asked_shows_the_overview_and_is_wrong(capsys):
    assert main([]) == 2
    assert capsys.readouterr().out.strip() == overview()


@pytest.mark.parametrize("option", ["-V", "--version"])
def test_version(capsys, option):
    assert main([option]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_each_command_explains_every_setting(capsys, name):
    assert main([name, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: skipseg {name}")
    settings = COMMANDS[name].settings
    for item in fields(getattr(config, settings)) if settings else ():
        assert f"--{item.name}" in out
    assert "--config" in out


def test_help_lists_choices_and_explains(capsys):
    main(["train", "--help"])
    out = " ".join(capsys.readouterr().out.split())
    assert "--network.long_skip {concat,add,mean,mul,max,gated," in out
    assert "Long skip connection from encoder to decoder" in out


def test_unknown_command(capsys):
    assert main(["trian"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == f"skipseg: there is no command 'trian'; the commands are {', '.join(COMMANDS)}\n"


WRONG = {
    "unknown setting": (["train", "d", "--out", "o", "--netwrk.depth", "2"], "netwrk"),
    "unknown choice": (
        ["train", "d", "--out", "o", "--network.long_skip", "conat"],
        "one of concat, add, mean",
    ),
    "wrong type": (["train", "d", "--out", "o", "--epochs", "many"], "epochs"),
    "out of range": (["train", "d", "--out", "o", "--optim.ema_decay", "1.5"], "ema_decay must be in [0, 1), got 1.5"),
    "axis from the end": (["train", "d", "--out", "o", "--augment.flip_axes", "[-1]"], "flip_axes must name axes"),
    "axis named twice": (["train", "d", "--out", "o", "--augment.flip_axes", "[0, 0]"], "each once, got [0, 0]"),
    "negative": (["train", "d", "--out", "o", "--augment.scale", "-0.1"], "scale must be at least 0, got -0.1"),
    "negative decay": (["train", "d", "--out", "o", "--optim.weight_decay", "-1"], "weight_decay must be at least 0"),
    "negative context": (["train", "d", "--out", "o", "--data.context_slices", "-1"], "context_slices must be at"),
    "zero": (["train", "d", "--out", "o", "--epochs", "0"], "epochs must be greater than 0, got 0"),
    "missing setting": (["train", "d"], "out"),
    "stray word": (["check", "d", "e"], "e"),
    "wrong overlap": (["predict", "--model", "m", "--input", "i", "--output", "o", "--overlap", "1"], "overlap"),
    "unknown repair": (["predict", "--model", "m", "--input", "i", "--output", "o", "--repair", "[gap]"], "gaps"),
    "no settings at all": (["doctor", "--epochs", "3"], "epochs"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrongly_asked_is_one_line_and_status_2(capsys, case):
    arguments, named = WRONG[case]
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("skipseg: ")
    assert said.err.count("\n") == 1
    assert named in said.err
    assert f"skipseg {arguments[0]} --help" in said.err


# Settings from files

CALLS = {
    "prepare": (["phantom"], {"out": "o", "phantom": {"cases": 3}}),
    "check": (["d"], {"cache": "c"}),
    "plan": (["d"], {"device": "cpu"}),
    "train": (["d"], {"out": "o", "network": {"depth": 2, "long_skip_levels": {0: "none"}}}),
    "predict": ([], {"model": "m", "input": "i", "output": "o", "repair": ["gaps"]}),
    "evaluate": ([], {"predictions": "p", "references": "r", "out": "o", "labels": {"background": 0, "a": 1}}),
    "ablate": (["s.yaml"], {"out": "o", "workers": 2}),
    "report": ([], {"folder": "o"}),
}


@pytest.mark.parametrize("name", CALLS)
def test_every_command_reads_a_settings_file(tmp_path, name):
    positional, content = CALLS[name]
    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump(content))
    settings = plain.to_plain(parse(name, [*positional, "--config", str(path)]).settings)
    given = dict(plain.flatten(content))
    flat = dict(plain.flatten(settings))
    assert {key: flat[key] for key in given} == given
    assert [str(flat[field]) for field in COMMANDS[name].positional if field not in content] == positional


@pytest.mark.parametrize("content", ["colour: red\n", "network: {colour: red}\n", "epochs: many\n", "- 1\n", "a: [\n"])
def test_wrong_settings_file_is_one_line_and_status_2(tmp_path, capsys, content):
    (tmp_path / "settings.yaml").write_text(content)
    assert main(["train", "d", "--out", "o", "--config", str(tmp_path / "settings.yaml")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_missing_settings_file(tmp_path, capsys):
    assert main(["train", "d", "--out", "o", "--config", str(tmp_path / "nowhere.yaml")]) == 2
    assert "nowhere.yaml" in capsys.readouterr().err


def test_options_win_over_the_file(tmp_path):
    (tmp_path / "settings.yaml").write_text("epochs: 3\nnetwork: {depth: 2, width: 8}\n")
    given = ["d", "--out", "o", "--config", str(tmp_path / "settings.yaml"), "--network.depth", "4"]
    settings = parse("train", given).settings
    assert (settings.epochs, settings.network.depth, settings.network.width) == (3, 4, 8)


# How a command ends


@pytest.mark.parametrize("status", [0, 1])
def test_status_is_the_commands(stub, capsys, status):
    stub(status)
    assert main(["doctor"]) == status
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (SkipSegError("two\nlines  of it"), "two lines of it"),
        (
            KeyboardInterrupt(),
            "interrupted; give the same command again: "
            "prepare, train, predict, probe, ablate and suite continue where they stopped",
        ),
        (OSError(errno.ENOSPC, "No space left on device", "runs/a"), "No space left on device: runs/a"),
        (OSError("odd"), "odd"),
    ],
)
def test_failure_is_one_line_and_status_1(stub, capsys, problem, said):
    stub(problem)
    assert main(["doctor"]) == 1
    assert capsys.readouterr() == ("", f"skipseg: {said}\n")


def on_the_cpu() -> None:
    torch.empty(2**60, dtype=torch.uint8)


def on_the_gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def in_python() -> None:
    raise MemoryError


@pytest.mark.parametrize("allocate", [on_the_cpu, on_the_gpu, in_python])
def test_lack_of_memory_is_no_bug(stub, capsys, allocate):
    with pytest.raises((MemoryError, RuntimeError)) as caught:
        allocate()
    stub(caught.value)
    assert main(["doctor"]) == 1
    assert capsys.readouterr().err == "skipseg: out of memory; close other programs\n"


def test_lack_of_memory_in_a_training_says_what_takes_less(monkeypatch, capsys):
    def run(*_):
        raise MemoryError

    monkeypatch.setitem(COMMANDS, "train", replace(COMMANDS["train"], run=run))
    assert main(["train", "d", "--out", "o"]) == 1
    less = "a smaller data.patch_size or data.batch_size"
    assert capsys.readouterr().err == f"skipseg: out of memory; close other programs, or give {less}\n"


def test_closed_pipe_is_silent(stub, capsys):
    stub(BrokenPipeError())
    assert main(["doctor"]) == 1
    assert capsys.readouterr().err == ""


def test_bug_is_one_line_and_keeps_its_traceback(stub, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    stub(ZeroDivisionError("oops"))
    assert main(["doctor"]) == 1
    (log,) = tmp_path.glob("skipseg-error-*.log")
    assert capsys.readouterr().err == f"skipseg: internal error, ZeroDivisionError: oops; details are in {log}\n"
    assert "Traceback" in log.read_text()


# Commands that print what they found


def test_check_prints_the_census_and_writes_json(pictures, tmp_path, capsys):
    assert main(["check", str(pictures.root), "--json", str(tmp_path / "check.json")]) == 0
    out = capsys.readouterr().out
    assert out.startswith("tiny: 6 cases, 6 labelled, 3 patients\n")
    assert "0 errors" in out
    assert json.loads((tmp_path / "check.json").read_text())["census"]["cases"] == 6


def test_plan_gives_each_value_with_its_reason(pictures, tmp_path, capsys):
    assert main(["plan", str(pictures.root), "--out", str(tmp_path / "plan.json"), "--device", "cpu"]) == 0
    header, _, *lines, path = capsys.readouterr().out.splitlines()
    assert header.split() == ["setting", "value", "why"]
    assert path == str(tmp_path / "plan.json")
    settings = json.loads((tmp_path / "plan.json").read_text())["settings"]
    for line, (name, entry) in zip(lines, settings.items(), strict=False):
        assert line.startswith(name)
        assert line.endswith(entry["why"])
    assert lines[-1].startswith("normalisation")


def test_evaluate_refuses_masks_scored_against_themselves(pictures, tmp_path, capsys):
    folder = str(pictures.root / "labelsTr")
    assert main(["evaluate", "--predictions", folder, "--references", folder, "--out", str(tmp_path / "out")]) == 1
    assert "three folders" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_evaluate_prints_a_table_with_the_policy(pictures, tmp_path, capsys):
    references = pictures.root / "labelsTr"
    predictions = shutil.copytree(references, tmp_path / "masks")
    assert main(["evaluate", "--predictions", str(predictions), "--references", str(references),
                 "--out", str(tmp_path / "out"), "--tolerance_mm", "1.5", "--overlays", "0"]) == 0  # fmt: skip
    title, _, header, _, organ, lesion, _, policy, path = capsys.readouterr().out.splitlines()
    assert title == "6 cases of 3 patients: means over patients"
    assert header.split("  ")[0] == "class"
    assert "Surface Dice at 1.5 px" in header
    assert organ.split() == ["organ", "1.000", "1.000", "1.000", "0.0", "1.000", "to", "1.000", "0", "0"]
    assert lesion.startswith("lesion")
    assert header.index("Dice") + len("Dice") == organ.index("1.000") + len("1.000"), "numbers end below each other"
    assert policy.startswith("Empty masks: ")
    assert path == str(tmp_path / "out")
    with (tmp_path / "out" / "cases.csv").open() as stream:
        assert len(list(csv.DictReader(stream))) == 12


def test_evaluate_warns_of_missing_predictions(pictures, tmp_path, capsys):
    (tmp_path / "masks").mkdir()
    first = sorted((pictures.root / "labelsTr").iterdir())[0]
    (tmp_path / "masks" / first.name).write_bytes(first.read_bytes())
    assert main(["evaluate", "--predictions", str(tmp_path / "masks"), "--references", str(first.parent),
                 "--out", str(tmp_path / "out"), "--overlays", "0"]) == 0  # fmt: skip
    assert "without prediction, scored as an empty one (5): 'case_01'" in capsys.readouterr().out

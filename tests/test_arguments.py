"""What stands after a command: words and options in any order, switches without values."""

from dataclasses import is_dataclass
from pathlib import Path
from typing import get_type_hints

import pytest

from segmentation import SkipSegError, config
from segmentation.arguments import arrange, parse, switches
from segmentation.cli import main
from segmentation.commands import COMMANDS
from segmentation.config import TrainSettings
from segmentation.output import STANDARD_OUTPUT
from segmentation.plain import from_plain, words

TRAIN = ["d", "--out", "o"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--mirror"], True),
        (["--mirror", "true"], True),
        (["--mirror=true"], True),
        (["--mirror", "--fold", "1"], True),
        (["--no-mirror"], False),
        (["--mirror", "false"], False),
        (["--mirror=no"], False),
        (["--mirror", "--no-mirror"], False),
        ([], False),
    ],
)
def test_a_switch_needs_no_value(given, expected):
    assert parse("train", [*TRAIN, *given]).settings.mirror is expected


def test_a_switch_that_may_stay_open():
    given = ["--model", "m", "--input", "i"]
    assert [parse("predict", [*given, *more]).settings.mirror for more in ([], ["--mirror"], ["--no-mirror"])] == [
        None, True, False,
    ]  # fmt: skip


def test_a_switch_of_a_group():
    network = parse("train", [*TRAIN, "--network.deep_supervision", "--network.no-input_skip"]).settings.network
    assert (network.deep_supervision, network.input_skip) == (True, False)


def test_a_switch_takes_no_word_that_belongs_elsewhere():
    settings = parse("train", ["--mirror", "d", "--out", "o"]).settings
    assert (settings.mirror, settings.dataset) == (True, Path("d"))


def test_a_wrong_value_of_a_switch_is_refused():
    with pytest.raises(SkipSegError, match="mirror must be true or false; got maybe; see"):
        parse("train", [*TRAIN, "--mirror=maybe"])


def test_a_setting_that_is_no_switch_cannot_be_negated():
    with pytest.raises(SkipSegError, match="no-epochs"):
        parse("train", [*TRAIN, "--no-epochs"])


def test_every_switch_of_every_command_works_without_value():
    kinds = [getattr(config, command.settings) for command in COMMANDS.values() if command.settings]
    named = {name for kind in kinds for name in switches(kind)}
    assert {"overwrite", "network.zero_last", "phantom.oblique", "deterministic"} <= named
    for name in switches(config.TrainSettings):
        group, _, last = name.rpartition(".")
        for given, expected in ((f"--{name}", True), (f"--{group}{'.' * bool(group)}no-{last}", False)):
            owner = parse("train", [*TRAIN, given]).settings
            assert getattr(getattr(owner, group) if group else owner, last) is expected


@pytest.mark.parametrize("given", [["--epochs", "3", "d", "--out", "o"], ["--out", "o", "--epochs", "3", "d"]])
def test_words_may_stand_after_options(given):
    settings = parse("train", given).settings
    assert (settings.dataset, settings.out, settings.epochs) == (Path("d"), Path("o"), 3)


def test_a_word_wins_over_a_file_of_settings(tmp_path):
    (tmp_path / "settings.yaml").write_text("dataset: other\nout: o\n")
    file = ["--config", str(tmp_path / "settings.yaml")]
    assert [str(parse("train", given).settings.dataset) for given in (["d", *file], [*file, "d"])] == ["d", "d"]


def test_a_forgotten_value_is_not_taken_from_the_next_option():
    with pytest.raises(SkipSegError, match="--out: expected one argument"):
        parse("train", ["d", "--out", "--epochs", "3"])


def test_a_negative_number_is_a_value():
    with pytest.raises(SkipSegError, match="seed must be in"):
        parse("train", [*TRAIN, "--seed", "-1"])


@pytest.mark.parametrize(
    ("given", "json", "dataset"),
    [
        (["d"], None, "d"),
        (["d", "--json"], STANDARD_OUTPUT, "d"),
        (["--json", "d"], STANDARD_OUTPUT, "d"),
        (["--json", "found.json", "d"], Path("found.json"), "d"),
        (["d", "--json=found"], Path("found"), "d"),
    ],
)
def test_json_goes_to_standard_output_or_to_a_file(given, json, dataset):
    asked = parse("check", given)
    assert (asked.json, asked.settings.dataset) == (json, Path(dataset))


def test_every_command_has_json(capsys):
    for name in COMMANDS:
        assert main([name, "--help"]) == 0
        assert "--json [FILE.json]" in capsys.readouterr().out


def test_lists_are_given_in_any_way():
    assert arrange(["--kind", "a", "--kind=b,c"], (), frozenset()) == ["--kind=a", "--kind=b,c"]
    assert parse("probe", ["--kind", "a", "run", "--kind=b,c"]).settings.kind == ["a", "b", "c"]
    assert parse("predict", ["--model", "a", "--input", "i", "--model", "b"]).settings.models == [Path("a"), Path("b")]


# Help


def test_help_shows_how_to_switch_off(capsys):
    main(["predict", "--help"])
    said = capsys.readouterr().out
    assert "--overwrite, --no-overwrite" in said
    main(["train", "--help"])
    assert "--network.input_skip, --network.no-input_skip" in capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_help_names_no_type_of_python(capsys, name):
    main([name, "--help"])
    said = capsys.readouterr().out
    assert not [word for word in ("Literal[", "<class", "| null", "Union", "type: int", "type: str") if word in said]


PLAIN = {
    "minutes": (["plan", "d", "--minutes", "nan"], "minutes must be a number; got nan"),
    "endless": (["plan", "d", "--minutes", "inf"], "minutes must be a number; got inf"),
    "number": (["train", *TRAIN, "--epochs", "many"], "epochs must be a whole number; got many"),
    "choice of numbers": (["train", *TRAIN, "--data.dims", "4"], "data.dims must be one of 2, 3; got 4"),
    "list": (["train", *TRAIN, "--data.patch_size", "16"], "data.patch_size must be a list of whole numbers; got 16"),
    "real number": (["train", *TRAIN, "--optim.learning_rate", "x"], "optim.learning_rate must be a number; got x"),
    "mapping": (
        ["train", *TRAIN, "--network.convs_levels", "3"],
        "network.convs_levels must be a mapping of whole numbers, each to a whole number; got 3",
    ),
}


@pytest.mark.parametrize("case", PLAIN)
def test_a_wrong_value_is_answered_in_plain_words(capsys, case):
    arguments, said = PLAIN[case]
    assert main(arguments) == 2
    assert capsys.readouterr().err == f"skipseg: {said}; see `skipseg {arguments[0]} --help`\n"


def test_every_type_of_a_setting_has_words():
    for name in config.__all__:
        for field, hint in get_type_hints(getattr(config, name)).items() if is_dataclass(getattr(config, name)) else ():
            assert (words(hint) == "a group of settings") == is_dataclass(hint), field


@pytest.mark.parametrize("group", ["network", "data", "optim", "augment"])
def test_a_group_in_which_all_is_commented_out_is_named(tmp_path, group):
    file = tmp_path / "settings.yaml"
    file.write_text(f"epochs: 3\n{group}:\n#  depth: 3\n")
    said = f"{group} is a group in which nothing stands; remove it"
    with pytest.raises(SkipSegError, match=said):
        parse("train", ["dataset", "--out=run", f"--config={file}"])
    with pytest.raises(SkipSegError, match=said):
        from_plain(TrainSettings, {"dataset": "dataset", "out": "run", group: None})
    nested = {"dataset": ".", "out": ".", "network": None, "network.depth": 3}
    assert from_plain(TrainSettings, nested).network.depth == 3


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf"])
def test_numbers_must_be_finite(value):
    with pytest.raises(SkipSegError, match=r"network\.long_skip_scale must be a finite number"):
        parse("train", ["dataset", "--out=run", f"--network.long_skip_scale={value}"])


@pytest.mark.parametrize(
    "asked", [["probe", "run", "--threads=-1"], ["predict", "--threads=-1", "--model=m", "--input=scan"]]
)
def test_threads_are_no_negative_number(asked):
    with pytest.raises(SkipSegError, match="threads must be at least 0, got -1"):
        parse(asked[0], asked[1:])


def test_a_seed_is_one_that_every_library_takes():
    with pytest.raises(SkipSegError, match="seed must be in"):
        parse("probe", ["run", "--seed=-1"])


def test_a_list_may_be_written_as_json():
    assert parse("probe", ["run", '--kind=["gradients", "lesion"]']).settings.kind == ["gradients", "lesion"]

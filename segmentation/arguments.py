"""What stands after a command: words and options in any order, read into its settings, each checked."""

import json
import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from segmentation import SkipSegError, config
from segmentation.commands import COMMANDS
from segmentation.output import STANDARD_OUTPUT

_OPTION = re.compile(r"--?[A-Za-z]")
_TRUTH = ("true", "false", "yes", "no", "null")
_WITHOUT_VALUE = ("-h", "--help", "--print_config")


@dataclass(frozen=True)
class Asked:
    """What a user asks a command for.

    Attributes:
        settings: Its settings object; ``None`` for a command without settings.
        json: Where the result goes as JSON, see :class:`segmentation.output.Output`.
    """

    settings: Any
    json: Path | None = None


def parse(name: str, arguments: Sequence[str]) -> Asked:
    """Read and check what stands after a command.

    Args:
        name: A command.
        arguments: What stands after it.

    Raises:
        SkipSegError: If a setting is unknown, missing or wrong.
        SystemExit: After ``--help``.
    """
    # jsonargparse takes longer to import than `skipseg --help` may take.
    from jsonargparse import ArgumentError

    from segmentation.model.presets import with_preset
    from segmentation.plain import explain, refuse_odd

    command = COMMANDS[name]
    kind = getattr(config, command.settings) if command.settings else None
    parser = _parser(name, kind)
    given = arrange(arguments, command.positional, frozenset(switches(kind)))
    given = _join_lists(_join_lists(given, "kind", ","), "repair", ",")
    if name == "predict":
        given = _join_lists(given, "model")
    try:
        # Only what was given: the rest comes from the preset, and then from the defaults.
        plain = parser.parse_args(given, defaults=False).as_dict()
        values = vars(parser.instantiate(parser.parse_object(refuse_odd(kind, with_preset(plain)))))
        values.pop("config", None)
        target = values.pop("json", None)
        return Asked(kind(**values) if kind else None, target)
    except (ArgumentError, TypeError, SkipSegError) as error:
        said = explain(error, kind)
        raise SkipSegError(f"{' '.join(said.split())}; see `skipseg {name} --help`") from None


def _parser(name: str, kind: Any) -> Any:
    """The parser of a command's options, and its help."""
    from argparse import RawDescriptionHelpFormatter

    from jsonargparse import ArgumentParser, DefaultHelpFormatter, set_parsing_settings

    from segmentation.plain import words

    class Formatter(RawDescriptionHelpFormatter, DefaultHelpFormatter):
        """Help in plain words: a switch without value, a type without Python's names."""

        def _format_action_invocation(self, action: Any) -> str:
            if action.dest in switches(kind):
                group, _, last = action.dest.rpartition(".")
                return f"--{action.dest}, --{group}{'.' * bool(group)}no-{last}"
            return super()._format_action_invocation(action)

        def _get_type_str(self, action: Any) -> str | None:
            hint = getattr(action, "_typehint", None)
            shown = hint is None or action.dest in switches(kind) or str(action.metavar).startswith("{")
            return None if shown else words(hint)

    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    command = COMMANDS[name]
    shown = " ".join(field.upper() for field in command.positional)
    usage = f"skipseg {name} {shown} [options]".replace("  ", " ")
    parser = ArgumentParser(
        exit_on_error=False, prog=f"skipseg {name}", usage=usage, description=command.summary,
        epilog=command.ending(), formatter_class=Formatter,
    )  # fmt: skip
    parser.add_argument("--config", action="config", help="YAML file of settings; later ones and options win")
    told = "Print the result as one JSON document, and nothing else; with a name that ends in .json, into that file"
    parser.add_argument("--json", type=Path | None, metavar="[FILE.json]", help=told)
    if kind:
        parser.add_class_arguments(kind, as_group=False)
    return parser


def switches(kind: Any, prefix: str = "") -> Iterator[str]:
    """Dotted names of the settings of ``kind`` that are true or false.

    Examples:
        >>> list(switches(config.PhantomSettings))
        ['oblique']
    """
    for name, hint in get_type_hints(kind).items() if kind else ():
        if is_dataclass(hint):
            yield from switches(hint, f"{prefix}{name}.")
        elif hint is bool or bool in get_args(hint):
            yield prefix + name


def arrange(given: Sequence[str], positional: Sequence[str], switches: frozenset[str]) -> list[str]:
    """Write every option as ``--name=value`` and give the words among them their names.

    A switch needs no value: ``--name`` is true, ``--no-name`` false; ``--json`` takes the next word only if it ends
    in ``.json``. Words come last, so that they win over a file of settings.

    Examples:
        >>> arrange(["--overwrite", "a", "--depth", "3", "--no-fast"], ["scan"], frozenset({"overwrite", "fast"}))
        ['--overwrite=true', '--depth=3', '--fast=false', '--scan=a']
    """
    rest, options, free = deque(given), list[str](), list[str]()
    while rest:
        part = rest.popleft()
        name, equals, _ = part.partition("=")
        negated = re.sub(r"^--((?:\w+\.)*)no-", r"--\1", name)
        if not _OPTION.match(part):
            free.append(part)
        elif equals or name in _WITHOUT_VALUE:
            options.append(part)
        elif name == "--json":
            options.append(f"{name}={rest.popleft() if rest and rest[0].endswith('.json') else STANDARD_OUTPUT}")
        elif name[2:] in switches:
            options.append(f"{name}={rest.popleft() if rest and rest[0].lower() in _TRUTH else 'true'}")
        elif negated != name and negated[2:] in switches:
            options.append(f"{negated}=false")
        elif rest and not _OPTION.match(rest[0]):
            options.append(f"{name}={rest.popleft()}")
        else:
            options.append(part)
    named = {option.partition("=")[0] for option in options}
    open_fields = [field for field in positional if f"--{field}" not in named]
    taken = [f"--{field}={word}" for field, word in zip(open_fields, free, strict=False)]
    return [*options, *taken, *free[len(open_fields) :]]


def _join_lists(given: Sequence[str], name: str, separator: str = "") -> list[str]:
    """Write an option that was given several times as one list: ``--kind=a --kind=b`` becomes ``--kind=["a", "b"]``.

    With a ``separator`` each value may hold several: ``--kind=a,b``.
    """
    chosen = [part for part in given if part.startswith(f"--{name}=")]
    values = [part.partition("=")[2] for part in chosen]
    if separator:
        values = [word.strip(" \"'") for value in values for word in value.strip("[]").split(separator)]
    rest = [part for part in given if part not in chosen]
    return [*rest, f"--{name}={json.dumps(values)}"] if values else rest

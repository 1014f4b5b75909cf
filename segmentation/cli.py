"""The command line: a command, its settings, the stage that it runs.

``skipseg --help`` reads nothing but this table. A command's settings are parsed and checked before the stage
and its libraries are imported. Exit status: 0 done, 1 could not be done, 2 wrongly asked.
"""

import sys
import traceback
from collections.abc import Sequence
from typing import Any

from segmentation import SkipSegError, __version__
from segmentation.commands import COMMANDS, Command


def overview() -> str:
    """The text of ``skipseg --help``."""
    lines = [f"  {name:10} {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            f"SkipSeg {__version__}: train, ablate and deploy biomedical segmentation U-Nets.",
            "",
            "usage: skipseg COMMAND [options]",
            "",
            *lines,
            "",
            "`skipseg COMMAND --help` lists the options of a command, each with its choices and default.",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: What stands after ``skipseg``; from the command line if not given.

    Returns:
        Exit status: 0 done, 1 could not be done, 2 wrongly asked.

    Examples:
        >>> main(["--version"])
        0.1.0
        0
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print(overview())
        return 0 if given else 2
    if given[0] in ("-V", "--version"):
        print(__version__)
        return 0
    if given[0] not in COMMANDS:
        return _complain(f"there is no command {given[0]!r}; the commands are {', '.join(COMMANDS)}", 2)
    command = COMMANDS[given[0]]
    try:
        settings = parse(given[0], given[1:])
    except SkipSegError as error:
        return _complain(str(error), 2)
    except SystemExit as stop:
        return int(stop.code or 0)
    return _run(command, settings)


def _run(command: Command, settings: Any) -> int:
    """Run a command; whatever goes wrong is said in one line."""
    try:
        return command.run(settings)
    except SkipSegError as error:
        return _complain(str(error), 1)
    except KeyboardInterrupt:
        return _complain(
            "interrupted; give the same command again: "
            "prepare, train, predict, probe, ablate and suite continue where they stopped",
            1,
        )
    except BrokenPipeError:
        return 1
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        return _complain(f"{error.strerror or error}{where}", 1)
    except Exception as error:
        if _is_lack_of_memory(error):
            return _complain("out of memory; a smaller data.patch_size or data.batch_size needs less", 1)
        # A bug of ours: the user gets one line, and the traceback is kept for us.
        return _complain(f"internal error, {type(error).__name__}: {error}; details are in {_keep_traceback()}", 1)


def _is_lack_of_memory(error: Exception) -> bool:
    """Tell whether Python, PyTorch on a GPU, or PyTorch on a CPU ran out of memory."""
    # PyTorch's own kinds are known by name and words: importing it here would cost seconds.
    kind, words = type(error).__name__, str(error)
    return isinstance(error, MemoryError) or kind == "OutOfMemoryError" or "can't allocate memory" in words


def _keep_traceback() -> str:
    """Write the traceback of the current exception to a file of its own and name it."""
    import tempfile

    with tempfile.NamedTemporaryFile("w", prefix="skipseg-error-", suffix=".log", delete=False) as log:
        log.write(traceback.format_exc())
    return log.name


def _complain(message: str, status: int) -> int:
    """Say what is wrong in one line on standard error."""
    print(f"skipseg: {' '.join(message.split())}", file=sys.stderr)
    return status


def parse(name: str, arguments: Sequence[str]) -> Any:
    """Read and check the settings of a command.

    Args:
        name: A command.
        arguments: What stands after it.

    Returns:
        Its settings object, or ``None`` for a command without settings.

    Raises:
        SkipSegError: If a setting is unknown, missing or wrong.
        SystemExit: After ``--help``.
    """
    # jsonargparse takes longer to import than `skipseg --help` may take.
    from argparse import RawDescriptionHelpFormatter

    from jsonargparse import ArgumentError, ArgumentParser, DefaultHelpFormatter, set_parsing_settings

    from segmentation import config
    from segmentation.model.presets import with_preset
    from segmentation.plain import explain

    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    command = COMMANDS[name]
    shown = " ".join(field.upper() for field in command.positional)
    usage = f"skipseg {name} {shown} [options]".replace("  ", " ")
    parser = ArgumentParser(
        exit_on_error=False, prog=f"skipseg {name}", usage=usage, description=command.summary,
        epilog=command.ending(),
        formatter_class=type("Formatter", (RawDescriptionHelpFormatter, DefaultHelpFormatter), {}),
    )  # fmt: skip
    parser.add_argument("--config", action="config", help="YAML file of settings; later ones and options win")
    if command.settings:
        parser.add_class_arguments(getattr(config, command.settings), as_group=False)
    given = list(arguments)
    for index, field in enumerate(command.positional):
        if index < len(given) and not given[index].startswith("-"):
            given[index] = f"--{field}={given[index]}"
    given = _join_lists(_join_lists(given, "kind", ","), "repair", ",")
    if name == "predict":
        given = _join_lists(given, "model")
    try:
        # Only what was given: the rest comes from the preset, and then from the defaults.
        plain = parser.parse_args(given, defaults=False).as_dict()
        values = vars(parser.instantiate(parser.parse_object(with_preset(plain))))
        values.pop("config", None)
        return getattr(config, command.settings)(**values) if command.settings else None
    except (ArgumentError, SkipSegError) as error:
        said = explain(error, getattr(config, command.settings)) if command.settings else str(error)
        raise SkipSegError(f"{' '.join(said.split())}; see `skipseg {name} --help`") from None


def _join_lists(given: Sequence[str], name: str, separator: str = "") -> list[str]:
    """Write an option that was given several times as one list: ``--kind a --kind b`` becomes ``--kind=["a", "b"]``.

    With a ``separator`` each value may hold several: ``--kind a,b``.
    """
    # Standard library, but `skipseg --help` needs none of it.
    import json

    rest = list(given)
    words: list[str] = []
    while (at := next((i for i, part in enumerate(rest) if part.partition("=")[0] == f"--{name}"), None)) is not None:
        _, equals, value = rest.pop(at).partition("=")
        value = value if equals else rest.pop(at) if at < len(rest) else ""
        words += [word.strip() for word in value.strip("[]").split(separator)] if separator else [value]
    return [*rest, f"--{name}={json.dumps(words)}"] if words else rest


if __name__ == "__main__":
    sys.exit(main())

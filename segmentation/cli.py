"""The command line: a command, its settings, the stage that it runs.

``skipseg --help`` reads nothing but this table. A command's settings are parsed and checked before the stage
and its libraries are imported. Exit status: 0 done, 1 could not be done, 2 wrongly asked.
"""

import sys
import traceback
from collections.abc import Sequence
from typing import Any

from segmentation import SettingsError, SkipSegError, __version__, is_lack_of_memory
from segmentation.commands import COMMANDS
from segmentation.output import Output
from segmentation.progress import close_bars

_NEEDS_LESS = {
    "train": "a smaller data.patch_size or data.batch_size",
    "ablate": "a smaller data.patch_size or data.batch_size in the study file",
    "predict": "--batch_size 1 or less --memory",
}
"""What may be given where memory is short."""


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
        0.2.0
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
    # Types and settings take longer to read than `skipseg --help` may take.
    from segmentation.arguments import parse

    try:
        asked = parse(given[0], given[1:])
    except SkipSegError as error:
        return _complain(str(error), 2)
    except SystemExit as stop:
        return int(stop.code or 0)
    return _run(given[0], asked.settings, Output(asked.json))


def _run(name: str, settings: Any, output: Output) -> int:
    """Run a command; whatever goes wrong is said in one line."""
    try:
        with output.opened():
            try:
                return COMMANDS[name].run(settings, output)
            finally:
                close_bars()
    except SettingsError as error:
        return _complain(str(error), 2)
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
        if is_lack_of_memory(error):
            less = f", or give {_NEEDS_LESS[name]}" if name in _NEEDS_LESS else ""
            return _complain(f"out of memory; close other programs{less}", 1)
        # A bug of ours: the user gets one line, and the traceback is kept for us.
        return _complain(f"internal error, {type(error).__name__}: {error}; details are in {_keep_traceback()}", 1)


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


if __name__ == "__main__":
    sys.exit(main())

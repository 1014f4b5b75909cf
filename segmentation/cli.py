"""The command line: a command, its settings, the stage that it runs.

``skipseg --help`` reads nothing but this table. A command's settings are parsed and checked before the stage
and its libraries are imported. Exit status: 0 done, 1 could not be done, 2 wrongly asked.
"""

import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from segmentation import SkipSegError, __version__


@dataclass(frozen=True)
class Command:
    """A command.

    Attributes:
        summary: One line for the overview.
        settings: Its class in :mod:`segmentation.config`; empty for none.
        positional: Settings that may be given without their names, in order.
        run: Does the work; returns the exit status.
    """

    summary: str
    settings: str
    positional: tuple[str, ...]
    run: Callable[[Any], int]


def _prepare(settings: Any) -> int:
    from data_prep import prepare

    options = vars(settings.phantom) if settings.name == "phantom" else {}
    dataset = prepare(settings.name, settings.out, settings.source, options)
    print(f"{len(dataset.cases)} cases in {settings.out}")
    return 0


def _check(settings: Any) -> int:
    from segmentation.data.check import check_dataset
    from segmentation.data.layouts import open_dataset
    from segmentation.runs import user_cache, write_json

    report = check_dataset(open_dataset(settings.dataset), cache=(settings.cache or user_cache()) / "checks")
    print(report.text())
    if settings.json:
        write_json(settings.json, report.to_plain())
    return 1 if report.errors else 0


def _plan(settings: Any) -> int:
    from segmentation.data.plan import plan_dataset

    path, plan = plan_dataset(settings)
    for name, choice in plan.choices.items():
        print(f"{name:22} {choice.value!s:20} {choice.why}")
    print(f"{'normalisation':22} {'':20} {plan.normalisation_why}\n{path}")
    return 0


def _train(settings: Any) -> int:
    from segmentation.ablation.cell import run_cell

    print(run_cell(settings))
    return 0


def _predict(settings: Any) -> int:
    from segmentation.inference.predictor import predict

    for mask in predict(settings):
        print(mask)
    return 0


def _evaluate(settings: Any) -> int:
    from segmentation.evaluation.evaluate import evaluate_folders

    given = {name: getattr(settings, name) for name in ("images", "labels", "ignore_label", "tolerance_mm", "overlays")}
    summary = evaluate_folders(settings.predictions, settings.references, settings.out, patients=None, **given)
    print(_summary_table(summary))
    print(settings.out)
    return 0


def _summary_table(summary: Any) -> str:
    """Lay out what ``evaluate`` found: a row for each class, what to know about it, and the policy."""
    from segmentation.report.tables import clean, interval, measure_label, number

    measures = ("dice", "iou", "nsd", "hd95_mm")
    about = {"length_unit": summary["unit"], "tolerance_mm": [summary["tolerance_mm"]]}
    rows = [["class", *(measure_label(m, about) for m in measures), "Dice, 95% CI", "missed", "false alarms"]]
    for name, found in summary["classes"].items():
        scores = {measure: found["scores"][measure]["policy"] for measure in measures}
        means = [number(score["estimate"], measure) for measure, score in scores.items()]
        states = [str(found["states"][state]) for state in ("missed", "false_alarm")]
        rows.append([clean(name), *means, interval(scores["dice"]), *states])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    title = f"{summary['cases']} cases of {summary['patients']} patients: means over patients"
    table = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join([title, "", *table, "", *map(clean, summary["warnings"]), summary["policy"]])


def _ablate(settings: Any) -> int:
    from segmentation.ablation.launch import ablate

    return _write_report(ablate(settings))


def _report(settings: Any) -> int:
    return _write_report(settings.folder)


def _write_report(folder: Any) -> int:
    from segmentation.report.page import write_report
    from segmentation.report.tables import terminal_table
    from segmentation.runs import read_json

    page = write_report(folder)
    print(terminal_table(read_json(page.with_name("results.json"))))
    print(page)
    return 0


def _doctor(settings: Any) -> int:
    from segmentation.doctor import diagnose

    healthy, text = diagnose()
    print(text)
    return 0 if healthy else 1


COMMANDS: dict[str, Command] = {
    "prepare": Command("turn a public source into a dataset folder", "PrepareSettings", ("name",), _prepare),
    "check": Command("look for all that would spoil a training", "CheckSettings", ("dataset",), _check),
    "plan": Command("choose resolution, patch, network and length for a dataset", "PlanSettings", ("dataset",), _plan),
    "train": Command("train a network and score it on the patients left out", "TrainSettings", ("dataset",), _train),
    "predict": Command("segment scans with a trained network", "PredictSettings", (), _predict),
    "evaluate": Command("score a folder of masks, of any tool", "EvaluateSettings", (), _evaluate),
    "ablate": Command("run a study and compare its conditions", "AblateSettings", ("study",), _ablate),
    "report": Command("write the page of a study or a run", "ReportSettings", ("folder",), _report),
    "doctor": Command("say what this machine has and what is missing", "", (), _doctor),
}  # fmt: skip


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
            "interrupted; give the same command again: prepare, train and ablate continue where they stopped", 1
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
    from jsonargparse import ArgumentError, ArgumentParser, set_parsing_settings

    from segmentation import config

    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    command = COMMANDS[name]
    shown = " ".join(field.upper() for field in command.positional)
    usage = f"skipseg {name} {shown} [options]".replace("  ", " ")
    parser = ArgumentParser(exit_on_error=False, prog=f"skipseg {name}", usage=usage, description=command.summary)
    parser.add_argument("--config", action="config", help="YAML file of settings; later ones and options win")
    if command.settings:
        parser.add_class_arguments(getattr(config, command.settings), as_group=False)
    given = list(arguments)
    for index, field in enumerate(command.positional):
        if index < len(given) and not given[index].startswith("-"):
            given[index] = f"--{field}={given[index]}"
    try:
        values = vars(parser.instantiate(parser.parse_args(given)))
        values.pop("config", None)
        return getattr(config, command.settings)(**values) if command.settings else None
    except (ArgumentError, SkipSegError) as error:
        raise SkipSegError(f"{' '.join(str(error).split())}; see `skipseg {name} --help`") from None


if __name__ == "__main__":
    sys.exit(main())

"""The commands: the settings of each, and the stage that it runs. Libraries are imported when a command runs."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from segmentation.output import Output
from segmentation.terminal import Table


@dataclass(frozen=True)
class Command:
    """A command.

    Attributes:
        summary: One line for the overview.
        settings: Its class in :mod:`segmentation.config`; empty for none.
        positional: Settings that may be given without their names, in order.
        run: Does the work and says what came of it; returns the exit status.
        ending: Text that its help ends with.
    """

    summary: str
    settings: str
    positional: tuple[str, ...]
    run: Callable[[Any, Output], int]
    ending: Callable[[], str] = str


def _presets() -> str:
    """List the presets."""
    from segmentation.model.presets import ABOUT

    return "\n".join(["presets:", *(f"  {name:18} {about}" for name, about in ABOUT.items())])


def _prepare(settings: Any, output: Output) -> int:
    from data_prep import prepare

    options = vars(settings.phantom) if settings.name == "phantom" else {}
    dataset = prepare(settings.name, settings.out, settings.source, options)
    output.say(f"{len(dataset.cases)} cases in {settings.out}")
    patients = len({case.patient for case in dataset.cases})
    about = {"name": dataset.name, "licence": dataset.licence, "cases": len(dataset.cases), "patients": patients}
    output.give({"dataset": str(settings.out), **about})
    return 0


def _check(settings: Any, output: Output) -> int:
    from segmentation.data.check import check_dataset
    from segmentation.data.layouts import open_dataset
    from segmentation.runs import user_cache

    report = check_dataset(open_dataset(settings.dataset), cache=(settings.cache or user_cache()) / "checks")
    output.say(*report.parts())
    output.give(report.to_plain())
    return 1 if report.errors else 0


def _plan(settings: Any, output: Output) -> int:
    from segmentation.data.plan import plan_dataset

    if settings.minutes:
        import psutil

        from segmentation.training.pace import plan_in_time

        path, plan = plan_in_time(settings, psutil.Process().create_time())
    else:
        path, plan = plan_dataset(settings)
    rows = [[name, str(choice.value), choice.why] for name, choice in plan.choices.items()]
    rows.append(["normalisation", "", plan.normalisation_why])
    output.say(Table([["setting", "value", "why"], *rows]), path)
    output.give({"plan": str(path), **plan.to_plain()})
    return 0


def _train(settings: Any, output: Output) -> int:
    from segmentation.ablation.cell import run_cell
    from segmentation.report.tables import summary_table
    from segmentation.runs import read_json

    folder = run_cell(settings)
    scored = folder / "evaluation" / "summary.json"
    summary = read_json(scored) if scored.exists() else None  # of several machines the first one scores
    output.say(*(summary_table(summary) if summary else ()), folder)
    output.give({"run": str(folder), **read_json(folder / "run.json"), "evaluation": summary})
    return 0


def _describe(settings: Any, output: Output) -> int:
    from segmentation.model.describe import describe, describe_plain

    output.say(*describe(settings))
    output.give(describe_plain(settings))
    return 0


def _predict(settings: Any, output: Output) -> int:
    from segmentation.inference.predict import predict

    masks = list[str]()
    for mask in predict(settings):
        output.say(mask)
        masks.append(str(mask))
    output.give({"masks": masks})
    return 0


def _export(settings: Any, output: Output) -> int:
    from segmentation.inference.export import export

    return _made(export(settings), output)


def _import(settings: Any, output: Output) -> int:
    from segmentation.inference.foreign import import_nnunet

    return _made(import_nnunet(settings), output)


def _made(path: Path, output: Output) -> int:
    """Say what was written."""
    output.say(path)
    output.give({"out": str(path)})
    return 0


def _evaluate(settings: Any, output: Output) -> int:
    from segmentation.evaluation.evaluate import evaluate_folders
    from segmentation.report.tables import summary_table

    given = {name: getattr(settings, name) for name in ("images", "labels", "ignore_label", "tolerance_mm", "overlays")}
    summary = evaluate_folders(settings.predictions, settings.references, settings.out, patients=None, **given)
    output.say(*summary_table(summary), settings.out)
    output.give({"out": str(settings.out), **summary})
    return 0


def _kinds() -> str:
    """List the kinds of probes."""
    from segmentation.probes.kinds import list_kinds

    return list_kinds()


def _probe(settings: Any, output: Output) -> int:
    from segmentation.probes.run import probe

    paths = probe(settings)
    output.say(*paths)
    output.give({"files": [str(path) for path in paths]})
    return 0


def _suite(settings: Any, output: Output) -> int:
    from segmentation.ablation.suites.run import run_suites

    run_suites(settings)
    return _write_suite_page(settings.out, output)


def _suites() -> str:
    """List the suites."""
    from segmentation.ablation.suites.names import ABOUT

    return "\n".join(["suites:", *(f"  {name:22} {about}" for name, about in ABOUT.items())])


def _ablate(settings: Any, output: Output) -> int:
    from segmentation.ablation.launch import ablate
    from segmentation.ablation.ledger import read_ledger, summarise
    from segmentation.plain import to_plain

    # The report's libraries take seconds to import, and while runs are worked on this process does nothing else.
    libraries = ("segmentation.report.page", "statsmodels.regression.mixed_linear_model")
    folder = ablate(settings, lambda: [import_module(name) for name in libraries])
    if settings.launcher != "none":
        return _write_report(folder, output)
    ledger = read_ledger(folder)
    output.say(summarise(ledger), folder)
    output.give({"study": str(folder), "runs": [to_plain(entry) for entry in ledger]})
    return 0


def _report(settings: Any, output: Output) -> int:
    from segmentation.report.suites import is_suite_folder

    write = _write_suite_page if is_suite_folder(settings.folder) else _write_report
    return write(settings.folder, output)


def _write_report(folder: Path, output: Output) -> int:
    """Write the page of a study or of a run."""
    from segmentation.report.page import write_report
    from segmentation.report.tables import terminal_table
    from segmentation.runs import read_json

    page = write_report(folder)
    results = read_json(page.with_name("results.json"))
    output.say(*terminal_table(results), page)
    output.give({"report": str(page), **results})
    return 0


def _serve(settings: Any, output: Output) -> int:
    from segmentation.serve.server import check, serve

    if not settings.check:
        return serve(settings)
    health = check(settings)
    output.say(f"SkipSeg {health['version']} is well; {health['jobs']} of {health['queue']} jobs")
    output.give(health)
    return 0


def _write_suite_page(folder: Path, output: Output) -> int:
    """Write the page of a suite or of many."""
    from segmentation.report.suites import read_results, suite_table, write_suite_page

    page = write_suite_page(folder)
    results = [result for _, result in read_results(folder)]
    output.say(*suite_table(results), page)
    output.give({"report": str(page), "suites": results})
    return 0


def _doctor(settings: Any, output: Output) -> int:
    from segmentation.doctor import as_parts, diagnose
    from segmentation.plain import to_plain

    findings = diagnose()
    output.say(*as_parts(findings))
    output.give([to_plain(finding) for finding in findings])
    return 1 if any(finding.needed for finding in findings) else 0


COMMANDS: dict[str, Command] = {
    "prepare": Command("turn a public source into a dataset folder", "PrepareSettings", ("name",), _prepare),
    "check": Command("look for all that would spoil a training", "CheckSettings", ("dataset",), _check),
    "plan": Command("choose resolution, patch, network and length for a dataset", "PlanSettings", ("dataset",), _plan),
    "describe": Command("say what a network is made of and what it costs", "DescribeSettings", (), _describe, _presets),
    "train": Command("train a network and score it on the patients left out", "TrainSettings", ("dataset",), _train,
                     _presets),
    "predict": Command("segment scans with a trained network", "PredictSettings", (), _predict),
    "export": Command("write a trained network for other programs", "ExportSettings", ("model",), _export),
    "import": Command("read a network that nnU-Net trained", "ImportSettings", ("source",), _import),
    "evaluate": Command("score a folder of masks, of any tool", "EvaluateSettings", (), _evaluate),
    "probe": Command("look into a trained network", "ProbeSettings", ("run",), _probe, _kinds),
    "ablate": Command("run a study and compare its conditions", "AblateSettings", ("study",), _ablate),
    "suite": Command("test a claim about skip connections", "SuiteSettings", ("name",), _suite, _suites),
    "report": Command("write the page of a study, a run or suites", "ReportSettings", ("folder",), _report),
    "serve": Command("serve a web page that segments scans", "ServeSettings", (), _serve),
    "doctor": Command("say what this machine has and what is missing", "", (), _doctor),
}  # fmt: skip

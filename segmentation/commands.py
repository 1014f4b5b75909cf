"""The commands: the settings of each, and the stage that it runs. Libraries are imported when a command runs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Command:
    """A command.

    Attributes:
        summary: One line for the overview.
        settings: Its class in :mod:`segmentation.config`; empty for none.
        positional: Settings that may be given without their names, in order.
        run: Does the work; returns the exit status.
        ending: Text that its help ends with.
    """

    summary: str
    settings: str
    positional: tuple[str, ...]
    run: Callable[[Any], int]
    ending: Callable[[], str] = str


def _presets() -> str:
    """List the presets."""
    from segmentation.model.presets import ABOUT

    return "\n".join(["presets:", *(f"  {name:18} {about}" for name, about in ABOUT.items())])


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

    if settings.minutes:
        import psutil

        from segmentation.training.pace import plan_in_time

        path, plan = plan_in_time(settings, psutil.Process().create_time())
    else:
        path, plan = plan_dataset(settings)
    for name, choice in plan.choices.items():
        print(f"{name:22} {choice.value!s:20} {choice.why}")
    print(f"{'normalisation':22} {'':20} {plan.normalisation_why}\n{path}")
    return 0


def _train(settings: Any) -> int:
    from segmentation.ablation.cell import run_cell

    print(run_cell(settings))
    return 0


def _describe(settings: Any) -> int:
    from segmentation.model.describe import describe

    print(describe(settings))
    return 0


def _predict(settings: Any) -> int:
    from segmentation.inference.predict import predict

    for mask in predict(settings):
        print(mask, flush=True)
    return 0


def _export(settings: Any) -> int:
    from segmentation.inference.export import export

    print(export(settings))
    return 0


def _import(settings: Any) -> int:
    from segmentation.inference.foreign import import_nnunet

    print(import_nnunet(settings))
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


def _kinds() -> str:
    """List the kinds of probes."""
    from segmentation.probes.kinds import list_kinds

    return list_kinds()


def _probe(settings: Any) -> int:
    from segmentation.probes.run import probe

    for path in probe(settings):
        print(path)
    return 0


def _suite(settings: Any) -> int:
    from segmentation.ablation.suites.run import run_suites
    from segmentation.report.suites import suite_table, write_suite_page

    run_suites(settings)
    page = write_suite_page(settings.out)
    print(suite_table(settings.out))
    print(page)
    return 0


def _suites() -> str:
    """List the suites."""
    from segmentation.ablation.suites.names import ABOUT

    return "\n".join(["suites:", *(f"  {name:22} {about}" for name, about in ABOUT.items())])


def _ablate(settings: Any) -> int:
    from segmentation.ablation.launch import ablate
    from segmentation.ablation.ledger import read_ledger, summarise

    folder = ablate(settings)
    if settings.launcher == "none":
        print(f"{summarise(read_ledger(folder))}\n{folder}")
        return 0
    return _write_report(folder)


def _report(settings: Any) -> int:
    from segmentation.report.suites import is_suite_folder, suite_table, write_suite_page

    if not is_suite_folder(settings.folder):
        return _write_report(settings.folder)
    page = write_suite_page(settings.folder)
    print(suite_table(settings.folder))
    print(page)
    return 0


def _write_report(folder: Any) -> int:
    from segmentation.report.page import write_report
    from segmentation.report.tables import terminal_table
    from segmentation.runs import read_json

    page = write_report(folder)
    print(terminal_table(read_json(page.with_name("results.json"))))
    print(page)
    return 0


def _serve(settings: Any) -> int:
    from segmentation.serve.server import check, serve

    return check(settings) if settings.check else serve(settings)


def _doctor(settings: Any) -> int:
    from segmentation.doctor import diagnose

    healthy, text = diagnose()
    print(text)
    return 0 if healthy else 1


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

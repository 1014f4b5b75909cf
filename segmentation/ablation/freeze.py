"""Freeze a study before it runs: its protocol, study.json with every run, and the settings of each run."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segmentation import SkipSegError
from segmentation.ablation.ledger import is_done
from segmentation.ablation.protocol import register
from segmentation.ablation.study import Run, StudySettings
from segmentation.plain import flatten, nest, to_plain
from segmentation.runs import content_hash, read_json, write_json
from segmentation.training.job import VOLATILE, Job
from segmentation.training.record import open_run, read_config


def freeze(study: StudySettings, runs: Sequence[Run], out: Path) -> None:
    """Register the study, write study.json, and freeze the settings of each run in its folder.

    A study may grow, but what it holds may not change: see :mod:`segmentation.ablation.protocol`.

    Args:
        study: What to declare.
        runs: All of its runs.
        out: Study folder, which exists.

    Raises:
        SkipSegError: If the folder holds another study, or something else.
    """
    _refuse_changes(runs, out)
    job = runs[0].job
    about = {
        "name": study.name,
        "question": study.question,
        "dataset": describe_dataset(job),
        "primary_metric": study.primary_metric,
        "alpha": study.alpha,
        "margin": study.settled_margin,
        "split": {"method": job.splits.method, "hash": job.splits.hash},
        "rotate_folds": study.rotate_folds,
    }
    plan = {
        "base": _json(nest(study.base)),
        "conditions": {name: _json(settings) for name, settings in study.all_conditions().items()},
        "seeds": sorted({run.job.settings.seed for run in runs}),
        "folds": sorted({run.job.settings.fold for run in runs}),
    }
    contrasts = [[*pair, expected] for pair, expected in study.all_contrasts()]
    declared = about | plan | {"contrasts": contrasts, "runs": [run.id for run in runs]}
    finished = sum(is_done(run.folder) for run in runs)
    listed = [
        {"id": run.id, "condition": run.condition, "fold": run.job.settings.fold, "seed": run.job.settings.seed}
        for run in runs
    ]
    registered = register(out, declared, finished)
    arms = _arms(runs, study.match_to or next(iter(study.all_conditions())))
    content = about | plan | registered | {"arms": arms, "runs": listed}
    write_json(out / "study.json", content | {"hash": content_hash(content)})
    for run in runs:
        if not (run.folder / "run.json").exists():
            open_run(run.folder, run.job, registered["protocol"])


def _refuse_changes(runs: Sequence[Run], out: Path) -> None:
    """Refuse runs of a standing study that are no longer asked for, because a setting of theirs has changed."""
    if not (out / "study.json").exists():
        return
    asked = {(run.condition, run.job.settings.fold, run.job.settings.seed): run for run in runs}
    for known in read_json(out / "study.json")["runs"]:
        run = asked.get((known["condition"], known["fold"], known["seed"]))
        frozen = out / "runs" / known["id"] / "config.yaml"
        if run is None or run.id == known["id"] or not frozen.exists():
            continue
        before, now = (dict(flatten(to_plain(each))) for each in (read_config(frozen), run.job.settings))
        names = [name for name, value in now.items() if name not in VOLATILE and before[name] != value]
        changed = ", ".join(f"{name} ({before[name]}, now {now[name]})" for name in names)
        raise SkipSegError(
            f"{out} holds a study whose condition {run.condition!r} has another "
            f"{changed or 'dataset, plan or version of SkipSeg'}; a study may only grow; choose another folder"
        )


def _arms(runs: Sequence[Run], reference: str) -> dict[str, Any]:
    """Condition to what its network costs, and to which condition its budget was matched."""
    jobs = {run.condition: run.job for run in runs}
    return {
        name: {
            "parameters": job.cost.parameters,
            "macs": job.cost.macs,
            "activation_bytes": job.cost.activation_bytes,
            "channels": job.settings.network.channels(),
            "matched": job.matched,
            "matched_to": None if job.matched == "none" else reference,
        }
        for name, job in jobs.items()
    }


def _json(settings: Any) -> Any:
    """Settings as JSON reads them back: its keys are text."""
    return json.loads(json.dumps(to_plain(settings)))


def describe_dataset(job: Job) -> dict[str, Any]:
    """What the report says about the data."""
    dataset = job.dataset
    return {
        "name": dataset.name,
        "hash": job.dataset_hash,
        "licence": dataset.licence,
        "notice": dataset.notice,
        "citation": dataset.citation,
        "source": dataset.source,
        "patients": len({case.patient for case in dataset.cases}),
        "cases": len(dataset.cases),
        "labels": dict(dataset.labels),
    }

"""Suites on real data: the cells are the runs of a study, which the study engine freezes, runs and keeps."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from segmentation import SkipSegError
from segmentation.ablation.launch import ablate
from segmentation.ablation.suites.suite import Found
from segmentation.config import AblateSettings, SuiteSettings
from segmentation.runs import read_csv, read_json, write_text


def run_study(content: Mapping[str, Any], folder: Path, settings: SuiteSettings) -> tuple[Found, float]:
    """Run a study in ``folder``, or what is missing of it.

    Args:
        content: What a study file holds, without the dataset.
        folder: Where study.yaml and the study lie.
        settings: Name the dataset and the number of workers.

    Returns:
        Each run, as ``condition``, ``fold`` and ``seed``, with ``dice``: patient to mean Dice; and the seconds that
        training, prediction and scoring took.

    Raises:
        SkipSegError: If no dataset is given, or runs failed.
    """
    if settings.dataset is None:
        raise SkipSegError(f"{settings.name} runs on real data; give a dataset folder with --dataset")
    path = folder / "study.yaml"
    write_text(path, yaml.safe_dump({**content, "dataset": settings.dataset.as_posix()}, sort_keys=False))
    study = ablate(AblateSettings(study=path, out=folder / "study", workers=settings.workers))
    found: list[tuple[dict[str, Any], dict[str, Any]]] = []
    seconds = 0.0
    for run in read_json(study / "study.json")["runs"]:
        place = study / "runs" / run["id"]
        timing = read_json(place / "timing.json")
        seconds += sum(timing.get(f"{stage}_seconds", 0.0) for stage in ("train", "predict", "score"))
        found.append((run, {"dice": patient_dice(place)}))
    return found, seconds


def patient_dice(run: Path) -> dict[str, float]:
    """Mean Dice of each held-out patient of a run: over classes, then cases; empty pairs are left out."""
    cases: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for row in read_csv(run / "evaluation" / "cases.csv"):
        if row["dice"]:
            cases[row["patient"], row["case"]].append(float(row["dice"]))
    patients: defaultdict[str, list[float]] = defaultdict(list)
    for (patient, _), values in cases.items():
        patients[patient].append(fmean(values))
    return {patient: fmean(values) for patient, values in patients.items()}

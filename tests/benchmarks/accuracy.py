"""Dice on held-out patients against wall time, from raw files: ``skipseg plan --minutes`` and ``train``, and nnU-Net.

    python -m tests.benchmarks.accuracy --minutes 5 15 45 --source DIR --build-peers

DIR holds public sources by the names of :data:`SOURCES`, as `skipseg prepare --source` reads them; ``--dataset`` takes
datasets that are prepared already. Without either, phantoms are segmented, and the rows say so.

Both programs start with a folder in nnU-Net's layout and an empty cache, have all cores, hold out the same patients,
and have the same minutes for all they do: reading, planning, preparing, training, and predicting the held-out cases;
ours also scores them within the time. nnU-Net is held to it by :mod:`tests.benchmarks.nnunet_accuracy`, which says how.
Should ours take longer than it was given, nnU-Net is given as much.
Both are then scored by the same code, on the files that they wrote, in the geometry of the scans.
"""

import argparse
import os
import shutil
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from data_prep import prepare
from segmentation.data.layouts import open_dataset
from segmentation.data.manifest import Dataset
from segmentation.evaluation.evaluate import CasePair, evaluate
from segmentation.runs import read_json, write_json
from tests.benchmarks.measure import Measured, run_measured
from tests.benchmarks.rows import Options, Row, run

ROOT = Path(__file__).parents[2]
SOURCES = {"msd-hippocampus": "msd_hippocampus", "drive": "drive_retina", "busi": "busi_breast_us"}
"""Name of a dataset to that of its folder in the folder of sources."""
PHANTOMS = {
    "small": {"task": "blob", "spatial_dims": 2, "cases": 10, "size": 32},
    "full": {"task": "lesion", "spatial_dims": 3, "cases": 40, "size": 48},
}
MOMENT = ["--epochs", "1", "--steps_per_epoch", "2"]
"""What a training is cut to with ``--size small``."""


def rows(
    options: Options, minutes: Sequence[float] = (5,), source: Path | None = None, datasets: Sequence[Path] = ()
) -> list[Row]:
    """Dice and wall time of ours and of nnU-Net, for each dataset and each time."""
    found: list[Row] = []
    for name, dataset in find_datasets(options, source, datasets).items():
        for given in minutes:
            work = options.work / "accuracy" / f"{name}-{given:g}"
            shutil.rmtree(work, ignore_errors=True)
            dice, wall, split = ours(dataset, given, work, MOMENT if options.size == "small" else [])
            peer_dice, peer_wall = (
                theirs(options.nnunet, dataset, max(given, wall / 60), work, split) if options.nnunet else (None,) * 2
            )
            peer = "nnU-Net" if options.nnunet else None
            about = f"{name}, held-out fold, {given:g} min"
            found.append(Row(f"{about}, Dice", dice, "", peer_dice, peer, target=1.0, better="more"))
            found.append(Row(f"{about}, wall time", wall, "s", peer_wall, peer))
    return found


def find_datasets(options: Options, source: Path | None, datasets: Sequence[Path]) -> dict[str, Path]:
    """Datasets in nnU-Net's layout, by name: those given, those that ``source`` has, or a phantom."""
    found = {open_dataset(folder).name: folder for folder in datasets}
    wanted = {name: source / folder for name, folder in SOURCES.items() if source and (source / folder).is_dir()}
    if not found and not wanted:
        name = f"phantom-{options.size}"
        prepare("phantom", options.work / "data" / name, None, PHANTOMS[options.size])
        return {name: options.work / "data" / name}
    for name, folder in wanted.items():
        found[name] = options.work / "data" / name
        prepare(name, found[name], folder)
    return found


def ours(dataset: Path, minutes: float, work: Path, more: Sequence[str]) -> tuple[float, float, dict[str, list[str]]]:
    """Plan and train; Dice, seconds, and which cases were learnt from and held out."""
    start = [sys.executable, "-m", "segmentation"]
    shared = ["--device", "cpu", "--cache", work / "cache"]
    plan, folder = work / "plan.json", work / "run"
    planned = command([*start, "plan", dataset, "--minutes", f"{minutes:g}", "--out", plan, *shared], work / "plan.txt")
    trained = command([*start, "train", dataset, "--plan", plan, "--out", folder, *shared, *more], work / "train.txt")
    record = read_json(folder / "run.json")
    split = {"train": record["train_cases"], "val": record["val_cases"]}
    dice = score(open_dataset(dataset), split["val"], folder / "predictions", work / "ours")
    return dice, planned.wall_s + trained.wall_s, split


def theirs(python: Path, dataset: Path, minutes: float, work: Path, split: dict[str, list[str]]) -> tuple[float, float]:
    """nnU-Net on the same cases, held to the same time; Dice and seconds."""
    raw, masks = work / "nnunet" / "raw" / "Dataset001_Same", work / "nnunet" / "masks"
    raw.parent.mkdir(parents=True)
    raw.symlink_to(dataset.absolute())
    write_json(work / "split.json", [split])
    opened = open_dataset(dataset)
    configuration = "2d" if opened.spatial_dims == 2 else "3d_fullres"
    script = [python, Path(__file__).with_name("nnunet_accuracy.py"), raw.name, configuration]
    deadline = time.time() + 60 * minutes
    folders = {f"nnUNet_{name}": str(work / "nnunet" / name) for name in ("raw", "preprocessed", "results")}
    env = folders | {"nnUNet_def_n_proc": str(os.cpu_count()), "PYTHONPATH": ""}
    measured = command([*script, f"{deadline}", work / "split.json", masks], work / "nnunet.txt", env)
    return score(opened, split["val"], masks, work / "theirs"), measured.wall_s


def command(words: Sequence[str | Path], log: Path, env: dict[str, str] | None = None) -> Measured:
    """Measure a command that must succeed."""
    measured = run_measured(words, log, {"PYTHONPATH": str(ROOT)} if env is None else env)
    if measured.status:
        ending = "\n".join(log.read_text(errors="replace").splitlines()[-12:])
        raise SystemExit(f"{' '.join(map(str, words))}\nended with status {measured.status}:\n{ending}")
    return measured


def score(dataset: Dataset, names: Sequence[str], masks: Path, out: Path) -> float:
    """Mean Dice over classes, each the mean over the held-out patients."""
    of_case = {path.name.partition(".")[0]: path for path in masks.iterdir()}
    cases = {case.name: case for case in dataset.cases}
    pairs = [
        CasePair(name, cases[name].patient, of_case.get(name), label, cases[name].images, dataset.label_remap)
        for name in names
        if (label := cases[name].label)
    ]
    summary: dict[str, Any] = evaluate(
        pairs, out, labels=dataset.foreground, ignore_label=dataset.ignore_label, tolerance_mm=1.0, overlays=0
    )
    scores = [about["scores"]["dice"]["policy"]["estimate"] for about in summary["classes"].values()]
    return sum(scores) / len(scores)


def main(arguments: Sequence[str] | None = None) -> int:
    """Read what this benchmark alone is told, and run it."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--minutes", type=float, nargs="+", default=[5.0])
    parser.add_argument("--source", type=Path)
    parser.add_argument("--dataset", type=Path, nargs="+", default=[])
    given, rest = parser.parse_known_args(arguments)
    return run(partial(rows, minutes=given.minutes, source=given.source, datasets=given.dataset), rest)


if __name__ == "__main__":
    raise SystemExit(main())

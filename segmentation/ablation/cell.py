"""One cell of a study, and the only unit of work: train from a frozen file, segment the held-out cases, score them."""

import time
from pathlib import Path

from segmentation.ablation.ledger import is_done
from segmentation.config import TrainSettings
from segmentation.data.layouts import open_dataset
from segmentation.evaluation.evaluate import CasePair, evaluate
from segmentation.inference.predictor import Predictor, mask_ending, predict_cases, resolve_device
from segmentation.runs import read_json, write_json
from segmentation.training.ranks import first_rank
from segmentation.training.record import read_config
from segmentation.training.train import peak_memory_mb, train

OVERLAYS = 6
"""Overlays of each run."""


def run_cell(settings: TrainSettings) -> Path:
    """Train, segment and score; what stands already is kept.

    Returns:
        The run folder, with ``predictions/`` and ``evaluation/`` beside the model.
    """
    folder = train(settings)
    if is_done(folder) or first_rank(settings).node:
        return folder  # of several machines the first one scores
    started = time.perf_counter()
    record = read_json(folder / "run.json")
    dataset = open_dataset(settings.dataset)
    cases = {case.name: case for case in dataset.cases}
    held_out = [cases[name] for name in record["val_cases"]]
    predictor = Predictor.load(folder, device=resolve_device(settings.device))
    ending = mask_ending(held_out[0].images, "same")
    masks = predict_cases(predictor, [(c.name, c.images) for c in held_out], folder / "predictions", ending)
    pairs = [
        CasePair(c.name, c.patient, masks[c.name], c.label, c.images, dataset.label_remap) for c in held_out if c.label
    ]
    frozen = read_config(folder / "config.yaml")
    evaluate(
        pairs,
        folder / "evaluation",
        labels=dataset.foreground,
        ignore_label=dataset.ignore_label,
        tolerance_mm=frozen.tolerance_mm or 1.0,
        overlays=OVERLAYS,
    )
    timing = read_json(folder / "timing.json") if (folder / "timing.json").exists() else {}
    spent = {"predict_seconds": round(time.perf_counter() - started, 1), "peak_memory_mb": peak_memory_mb()}
    write_json(folder / "timing.json", timing | spent)
    return folder

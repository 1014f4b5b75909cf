"""What follows a training: segment the held-out cases, choose the steps of post-processing, score."""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from segmentation.config import TrainSettings
from segmentation.data.hardware import peak_memory
from segmentation.data.layouts import open_dataset
from segmentation.data.manifest import Dataset
from segmentation.evaluation.evaluate import CasePair, evaluate
from segmentation.evaluation.pairs import read_pair
from segmentation.inference.backend_torch import resolve_device
from segmentation.inference.choose import HeldOut, Maps, choose_steps
from segmentation.inference.endings import mask_ending
from segmentation.inference.predict import predict_cases
from segmentation.inference.predictor import Predictor
from segmentation.model.folder import read_description, write_description
from segmentation.runs import read_json, write_json
from segmentation.training.record import read_config

OVERLAYS = 6
"""Overlays of each run."""


def score_run(folder: Path, settings: TrainSettings) -> None:
    """Score a finished training on the cases that it left out.

    Args:
        folder: The run folder; ``predictions/`` and ``evaluation/`` come beside the model.
        settings: Of the training.
    """
    started = time.perf_counter()
    record = read_json(folder / "run.json")
    dataset = open_dataset(settings.dataset)
    cases = {case.name: case for case in dataset.cases}
    held_out = [cases[name] for name in record["val_cases"]]
    predictor = Predictor.load(folder, device=resolve_device(settings.device), postprocess=False)
    ending = mask_ending(held_out[0].images, "same")
    masks = predict_cases(predictor, [(c.name, c.images) for c in held_out], folder / "predictions", ending)
    predicted = time.perf_counter()
    remap, channels = dataset.label_remap, len(dataset.channel_names)
    pairs = [
        CasePair(c.name, c.patient, masks[c.name], c.label, c.images, remap, channels) for c in held_out if c.label
    ]
    _record_steps(folder, pairs, dataset)
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
    spent = {
        "predict_seconds": round(predicted - started, 2),
        "score_seconds": round(time.perf_counter() - predicted, 2),
        "peak_memory_mb": round(peak_memory() / 2**20),
    }
    write_json(folder / "timing.json", timing | spent)


def _record_steps(folder: Path, pairs: Sequence[CasePair], dataset: Dataset) -> None:
    """Write what the held-out cases choose into model.json; the hash of the weights in it stays."""
    cases = [HeldOut(pair.patient, partial(_read, pair)) for pair in pairs]
    chosen = choose_steps(cases, dataset.foreground, dataset.ignore_label)
    write_description(folder, {**read_description(folder), "postprocess": chosen})


def _read(pair: CasePair) -> Maps:
    """Prediction, reference and spacing of one case."""
    prediction, reference = read_pair(pair)
    return prediction.array[0], reference.array[0], reference.spacing_mm

"""Patches of SkipSeg's own loader. Arguments: FOLDER, PATCH like 128,128,128, BATCH, COUNT, and "disk" or "memory".

Prepares FOLDER/raw, as a training would, and answers one line for each line that it reads.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import torch
from torch import Tensor

from segmentation.config import AugmentSettings, DataSettings
from segmentation.data import datamodule
from segmentation.data.cache import CachedCase, cache_cases
from segmentation.data.layouts import open_dataset
from segmentation.data.preprocessing import Normalisation, Preprocessing
from tests.benchmarks.phantoms import SPACING_MM
from tests.benchmarks.worker import claim_output, timed

DATASET = "Dataset001_Loader"


def prepare(folder: Path, dims: int) -> tuple[list[CachedCase], Preprocessing]:
    """Prepared arrays of the raw data set, slices for 2-D; those that stand are taken."""
    dataset = open_dataset(folder / "raw" / DATASET)
    window = Normalisation("window", -200.0, 300.0)
    preprocessing = Preprocessing(dims, SPACING_MM["ct"], 2 if dims == 2 else None, 0, (window,))
    return cache_cases(dataset, dataset.cases, preprocessing, folder / "cache"), preprocessing


def batches(folder: Path, patch: Sequence[int], batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Training batches of one epoch after another."""
    cases, preprocessing = prepare(folder, len(patch))
    settings = AugmentSettings(flip_axes=list(range(len(patch))))
    data = DataSettings(patch_size=list(patch), batch_size=batch)
    module = datamodule.PatchDataModule(cases, [], preprocessing, data, settings, 100, seed=0)
    while True:
        yield from module.train_dataloader()
        module.sampler.set_epoch(module.sampler.epoch + 1)


def main(folder: Path, patch: Sequence[int], batch: int, count: int, source: str) -> None:
    """Answer with the seconds that a patch took."""
    answers = claim_output()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    if source == "disk":
        datamodule.MEMORY_SHARE = 0.0
    stream = batches(folder, patch, batch)
    for _ in sys.stdin:
        with timed(answers, count):
            for _ in range(count // batch):
                next(stream)


if __name__ == "__main__":
    sizes = [int(size) for size in sys.argv[2].split(",")]
    main(Path(sys.argv[1]), sizes, int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])

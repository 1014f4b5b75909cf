"""A training small enough for a test, and what of a run folder must be equal between equal runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segmentation.ablation.study import merge
from segmentation.config import NetworkSettings, OptimSettings, TrainSettings
from segmentation.data.manifest import Dataset
from segmentation.data.preprocessing import Normalisation, Preprocessing
from segmentation.model.storage import Architecture
from segmentation.plain import from_plain, nest
from segmentation.training.task import SegmentationTask

MAY_DIFFER = {"timing.json", "config.yaml", "plan.json", "last.ckpt", "log.txt"}
"""Seconds, the folder's own name, and what only a resume reads."""


@pytest.fixture(scope="session")
def tiny() -> Callable[..., TrainSettings]:
    """Function of a dataset, a run folder and changes (dotted names): settings of a training of a second."""

    def make(dataset: Dataset, out: Path, changes: dict[str, Any] | None = None) -> TrainSettings:
        dims = (changes or {}).get("data.dims", dataset.spatial_dims)
        plain = {
            "dataset": str(dataset.root),
            "out": str(out),
            "folds": 0,
            "epochs": 2,
            "steps_per_epoch": 2,
            "threads": 1,
            "device": "cpu",
            "network": {"depth": 1, "width": 4},
            "data": {"patch_size": [16] * dims, "batch_size": 2},
        }
        return from_plain(TrainSettings, merge(plain, nest(changes or {})))

    return make


@pytest.fixture(scope="session")
def results() -> Callable[[Path], dict[str, bytes]]:
    """Function of a run folder: each file that two equal runs must have in common, with its bytes."""

    def read(folder: Path) -> dict[str, bytes]:
        files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in MAY_DIFFER)
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}

    return read


@pytest.fixture
def make_task() -> Callable[..., SegmentationTask]:
    """Function of optimisation and network settings: a task on pictures with one channel and three classes."""

    def make(optim: OptimSettings | None = None, network: NetworkSettings | None = None) -> SegmentationTask:
        network = network or NetworkSettings(depth=1, width=4)
        built = Architecture(network, 2, 1, 3, [[2, 2]] * (network.depth or 1), [[3, 3]] * ((network.depth or 1) + 1))
        preprocessing = Preprocessing(2, (1.0, 1.0), None, 0, (Normalisation("range", 0.0, 255.0, mean=0.4, std=0.2),))
        return SegmentationTask(built.build(), optim or OptimSettings(), preprocessing, 3, total_steps=10)

    return make

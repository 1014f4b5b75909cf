"""A finished run small enough for a test, opened for probes; shared by the whole session, so copy before changing."""

from pathlib import Path

import pytest
import torch

from segmentation.config import ProbeSettings, TrainSettings
from segmentation.data.manifest import Dataset
from segmentation.plain import from_plain
from segmentation.probes.context import ProbeContext
from segmentation.training.train import train


@pytest.fixture(scope="session")
def picture_run(pictures: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder of a 2-D network of depth 2 that was trained for a moment, with its updates recorded."""
    plain = {
        "dataset": str(pictures.root),
        "out": str(tmp_path_factory.mktemp("probes") / "run"),
        "folds": 0,
        "epochs": 2,
        "steps_per_epoch": 2,
        "threads": 1,
        "device": "cpu",
        "network": {"depth": 2, "width": 4},
        "data": {"patch_size": [16, 16], "batch_size": 2},
        "optim": {"ema_decay": 0.0},
        "track_updates": True,
    }
    return train(from_plain(TrainSettings, plain))


@pytest.fixture(scope="session")
def context(picture_run: Path) -> ProbeContext:
    """``picture_run`` opened with two batches and one held-out case."""
    torch.set_num_threads(1)
    return ProbeContext.open(ProbeSettings(picture_run, batches=2, cases=1, device="cpu"))

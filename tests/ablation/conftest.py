"""A study small enough for a test."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from segmentation.data.manifest import Dataset
from tests.benchmarks.study import MAY_DIFFER, without_times


@pytest.fixture(scope="session")
def write_study() -> Callable[..., Path]:
    """Function of a folder, a dataset and changed entries: a study file of two conditions on one fold."""

    def write(folder: Path, dataset: Dataset, **changes: Any) -> Path:
        content = {
            "name": "tiny",
            "dataset": str(dataset.root),
            "base": {
                "folds": 0,
                "epochs": 2,
                "steps_per_epoch": 2,
                "device": "cpu",
                "network": {"depth": 1, "width": 4},
                "data": {"patch_size": [16] * dataset.spatial_dims, "batch_size": 2},
            },
            "conditions": {"concat": {"network.long_skip": "concat"}, "none": {"network.long_skip": "none"}},
            "folds": [0],
        }
        path = folder / "study.yaml"
        kept = {key: value for key, value in (content | changes).items() if value is not None}
        path.write_text(yaml.safe_dump(kept, sort_keys=False))
        return path

    return write


@pytest.fixture(scope="session")
def results() -> Callable[[Path], dict[str, bytes]]:
    """Function of a study folder: each file that two equal studies must have in common, with its bytes."""

    def read(folder: Path) -> dict[str, bytes]:
        files = sorted(path for path in folder.rglob("*") if path.is_file() and not MAY_DIFFER & set(path.parts))
        # A frozen file names its own folder.
        place = str(folder).encode()
        return {path.relative_to(folder).as_posix(): without_times(path).replace(place, b"") for path in files}

    return read

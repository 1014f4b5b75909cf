"""Tiny made-up sources in the layouts of the real ones, and a look at every byte of a folder."""

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

SHAPE = (49, 67)


@pytest.fixture(scope="session")
def tree() -> Callable[[Path], dict[str, bytes]]:
    """Function that reads a folder: relative path to bytes."""
    return lambda folder: {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="session")
def draw() -> Callable[..., np.ndarray]:
    """Function that writes a picture of random gray or colour values, or of a mask, and gives its pixels."""
    return _draw


@pytest.fixture(scope="session")
def write_manifest() -> Callable[[Path, Sequence[Mapping[str, Any]]], None]:
    """Function that writes rows as manifest.csv."""
    return _write_manifest


def _draw(path: Path, kind: str, seed: int, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if kind == "mask":
        pixels = np.zeros(shape, np.uint8)
        row, column = rng.integers(5, 20, 2)
        pixels[row : row + 11, column : column + 17] = 255
    else:
        pixels = rng.integers(0, 256, shape if kind == "gray" else (*shape, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def _write_manifest(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with (folder / "manifest.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)

"""Pairs of masks with structure: two overlapping ellipsoids and some stray voxels."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

Masks = tuple[NDArray[np.bool_], NDArray[np.bool_]]


def _masks(shape: tuple[int, ...], seed: int, stray: float = 0.002) -> Masks:
    """Prediction and reference of the given shape; the same seed gives the same masks."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij"))
    centre = rng.uniform(-0.3, 0.3, (2, len(shape)) + (1,) * len(shape))
    radius = rng.uniform(0.3, 0.7, (2, len(shape)) + (1,) * len(shape))
    prediction, reference = (((grid - centre) / radius) ** 2).sum(axis=1) < 1
    return prediction ^ (rng.random(shape) < stray), reference


@pytest.fixture(scope="session")
def make_masks() -> Callable[..., Masks]:
    """Function ``(shape, seed, stray=0.002)`` that makes a prediction and a reference."""
    return _masks

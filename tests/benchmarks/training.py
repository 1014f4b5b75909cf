"""Train nnU-Net's network for a moment on patches of one scan, so that masks have surfaces and not noise."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from tests.benchmarks.nnunet_model import PlainConvUNet, make_plans, network_plan, write_model
from tests.benchmarks.phantoms import CHANNELS, LABELS

RATE = 1e-2
WEIGHTS = (0.5, 1.0, 3.0)
"""Of the classes in the loss: the last is rare."""
PATCH = 48
"""Voxels along each axis of a training patch, at most three quarters of the window."""
SMALL_SHARE = 0.8
"""Share of the steps with such patches; the others take three quarters of the window, as statistics depend on size."""


def train_network(
    kind: str,
    scan: NDArray[np.int16],
    labels: NDArray[np.uint8],
    window: Sequence[int],
    widths: Sequence[int],
    steps: int,
    spacing_mm: Sequence[float],
    folder: Path,
) -> None:
    """Train, and write nnU-Net's model folder.

    Args:
        kind: Of the scan.
        scan: Intensities, shape ``(C, X, Y, Z)``.
        labels: Shape ``(X, Y, Z)``.
        window: Voxels along (z, y, x).
        widths: Channels of the levels.
        steps: Steps of training.
        spacing_mm: Along (x, y, z).
        folder: For the model.
    """
    intensities = [_intensities(channel[labels > 0]) for channel in scan]
    levels = len(widths)
    plan = network_plan(widths, [[1] * 3, *[[2] * 3] * (levels - 1)], [[3] * 3] * levels)
    plans = make_plans(plan, window, spacing_mm[::-1], intensities)
    torch.manual_seed(0)
    network = PlainConvUNet(plan, len(scan), len(LABELS[kind]))
    optimiser = torch.optim.AdamW(network.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    rng = np.random.default_rng(0)
    largest = 3 * min(window) // 4
    places = [np.argwhere(labels[::4, ::4, ::4] == value) * 4 for value in range(len(LABELS[kind]))]
    for step in range(steps):
        size, batch = (min(PATCH, largest), 2) if step < SMALL_SHARE * steps else (largest, 1)
        cuts = [_cut(scan, labels, places[rng.integers(len(places))], size, rng) for _ in range(batch)]
        x = torch.from_numpy(np.stack([_normalised(image, intensities) for image, _ in cuts]))
        y = torch.from_numpy(np.stack([truth for _, truth in cuts]).astype(np.int64))
        optimiser.zero_grad()
        F.cross_entropy(network(x), y, torch.tensor(WEIGHTS)).backward()
        optimiser.step()
        schedule.step()
    write_model(folder, network, plans, CHANNELS[kind], LABELS[kind])


def _intensities(values: NDArray[np.int16]) -> dict[str, float]:
    """What nnU-Net's fingerprint keeps of a channel, over the foreground; the window is wide enough to hold it all."""
    low, high = (float(value) for value in np.percentile(values, [0.5, 99.5]))
    reach = high - low
    mean, std = float(values.mean()), float(values.std())
    return {"mean": mean, "std": std, "percentile_00_5": low - 2 * reach, "percentile_99_5": high + reach}


def _normalised(image: NDArray[np.int16], intensities: Sequence[dict[str, float]]) -> NDArray[np.float32]:
    """CT normalisation of shape ``(C, *S)``."""
    channels = [
        (np.clip(channel, found["percentile_00_5"], found["percentile_99_5"]) - found["mean"]) / found["std"]
        for channel, found in zip(image, intensities, strict=True)
    ]
    return np.stack(channels).astype(np.float32)


def _cut(
    scan: NDArray[np.int16], labels: NDArray[np.uint8], places: NDArray[Any], size: int, rng: np.random.Generator
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Cut a patch about one of ``places``, its axes turned to (z, y, x)."""
    centre = places[rng.integers(len(places))]
    starts = [int(np.clip(c - size // 2, 0, n - size)) for c, n in zip(centre, labels.shape, strict=True)]
    part = tuple(slice(start, start + size) for start in starts)
    return scan[(slice(None), *part)].transpose(0, 3, 2, 1), labels[part].transpose(2, 1, 0)

"""Volumes for the studies of these tests, written as evaluation writes them."""

from pathlib import Path

import numpy as np

from segmentation.evaluation.volumes import write_volume

AFFINE = np.array([[-1.5, 0, 0, 30.0], [0, 1.5, 0, -20], [0, 0, 3, 10], [0, 0, 0, 1]])
SHAPE = (40, 36, 20)


def add_volumes(study: Path, classes=("tumour",)) -> None:
    """Beside every overlay of a study, a scan of noise with a bright box, half found and half missed."""
    labels = {name: value for value, name in enumerate(classes, start=1)}
    for overlay in sorted(study.glob("runs/*/evaluation/overlays/*.png")):
        image = scan_of(overlay.stem)
        reference = np.zeros(SHAPE, np.uint8)
        reference[10:22, 8:24, 6:14] = 1 + np.arange(16)[None, :, None] * len(classes) // 16
        prediction = np.roll(reference, 6, axis=0)
        folder = overlay.parents[1] / "volumes"
        write_volume(folder, overlay.stem, image, prediction, reference, AFFINE, labels)


def scan_of(name: str) -> np.ndarray:
    """Noise of its own for each case."""
    rng = np.random.default_rng(sum(name.encode()))
    image = rng.normal(0, 60, SHAPE)
    image[10:22, 8:24, 6:14] += 400
    return image.astype(np.float32)

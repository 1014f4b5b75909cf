"""The computation that all others are compared with: every window, in fp32, by PyTorch, in one process, no shortcuts.

Windows of the model's size, evenly spread, neighbours sharing at least half; probabilities blended by a Gaussian of an
eighth of the window, at least a thousandth; the largest wins. It is written without our inference code.
Arguments: MODEL OUTPUT IMAGE...
"""

import itertools
import math
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from segmentation.data.preprocessing import Preprocessing
from segmentation.model.storage import load_model
from tests.benchmarks.phantoms import write_volume


def main(model: Path, output: Path, images: list[Path]) -> None:
    """Segment one scan whose spacing is the model's, given as one file a channel."""
    stored = load_model(model)
    about = stored.description
    channels = Preprocessing.from_plain(about["preprocessing"]).normalisation
    volumes = [nib.load(path) for path in images]
    scan = torch.stack(
        [
            (torch.from_numpy(volume.get_fdata(dtype=np.float32)).clamp(c.low, c.high) - c.low) / (c.high - c.low)
            for volume, c in zip(volumes, channels, strict=True)
        ]
    )
    shape = scan.shape[1:]
    window = [min(pair) for pair in zip(about["patch_size"], shape, strict=True)]
    mean, std = (torch.tensor([getattr(c, name) for c in channels]).view(-1, 1, 1, 1) for name in ("mean", "std"))
    axes = [_starts(size, part) for size, part in zip(shape, window, strict=True)]
    weight = _gaussian(window)
    total, norm = torch.zeros(len(about["labels"]), *shape), torch.zeros(shape)
    with torch.inference_mode():
        for corner in itertools.product(*axes):
            place = tuple(slice(start, start + part) for start, part in zip(corner, window, strict=True))
            logits = stored.network(((scan[(slice(None), *place)] - mean) / std)[None])
            total[(slice(None), *place)] += logits[0].softmax(dim=0) * weight
            norm[place] += weight
    mask = (total / norm).argmax(dim=0).to(torch.uint8).numpy()
    write_volume(output, mask, volumes[0].header.get_zooms()[:3])


def _starts(size: int, part: int) -> list[int]:
    """First voxels of the windows along an axis."""
    steps = math.ceil((size - part) / (part // 2))
    return [round(index * (size - part) / steps) for index in range(steps + 1)] if steps else [0]


def _gaussian(window: list[int]) -> torch.Tensor:
    """Weights of a window's voxels, shape ``window``."""
    axes = [torch.exp(-0.5 * ((torch.arange(n) - (n - 1) / 2) / (n / 8)).double() ** 2) for n in window]
    weight = axes[0][:, None, None] * axes[1][:, None] * axes[2]
    return (weight / weight.max()).clamp(min=1e-3).float()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), [Path(name) for name in sys.argv[3:]])

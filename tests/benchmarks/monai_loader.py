"""Patches of a plain MONAI pipeline: CacheDataset in memory, a random crop, and the transforms that SkipSeg's are like.

Arguments: FOLDER of prepared arrays, PATCH like 128,128,128, BATCH, COUNT. Answers one line for each that it reads.
"""

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from monai import transforms as mt
from monai.data.dataloader import DataLoader
from monai.data.dataset import CacheDataset
from torch.utils.data import RandomSampler

from tests.benchmarks.worker import claim_output, timed

KEYS = ("image", "label")


def pipeline(patch: Sequence[int]) -> Any:
    """Probabilities and ranges of SkipSeg at strength 1; the crop is larger, so that a turned patch shows no border."""
    dims = len(patch)
    margin = [size + 2 * math.ceil(size / 4) for size in patch]
    cut = margin if dims == 3 else [*margin, 1]
    angle = math.radians(20)
    contrast, shift, noise, largest = (0.25, 0.15, 0.06, 1.2) if dims == 2 else (0.2, 0.08, 0.03, 0.9)
    sigma = dict.fromkeys(("sigma_x", "sigma_y", "sigma_z")[:dims], (0.3, largest))
    return mt.Compose(
        [
            mt.LoadImaged(KEYS, ensure_channel_first=True),
            mt.EnsureTyped(KEYS, dtype=(torch.float32, torch.uint8)),
            mt.SpatialPadd(KEYS, cut, mode="edge"),
            mt.FgBgToIndicesd("label"),
            mt.RandCropByPosNegLabeld(
                KEYS, "label", cut, fg_indices_key="label_fg_indices", bg_indices_key="label_bg_indices"
            ),
            mt.SelectItemsd(KEYS),
            *([] if dims == 3 else [mt.SqueezeDimd(KEYS, dim=-1)]),
            mt.RandAffined(
                KEYS,
                prob=0.6,
                rotate_range=[angle] * (3 if dims == 3 else 1),
                scale_range=[0.2] * dims,
                spatial_size=patch,
                mode=("bilinear", "nearest"),
                padding_mode="border",
            ),
            mt.CenterSpatialCropd(KEYS, patch),
            *(mt.RandFlipd(KEYS, prob=0.5, spatial_axis=axis) for axis in range(dims)),
            mt.RandScaleIntensityd("image", factors=contrast, prob=0.3),
            mt.RandShiftIntensityd("image", offsets=shift, prob=0.3),
            mt.RandAdjustContrastd("image", prob=0.3, gamma=(1 / 1.4, 1.4)),
            mt.RandGaussianNoised("image", prob=0.15, std=noise),
            mt.RandGaussianSmoothd("image", prob=0.15, **sigma),
            *(
                []
                if dims == 3
                else [
                    mt.RandSimulateLowResolutiond("image", prob=0.1, zoom_range=(0.5, 0.95), upsample_mode="bilinear")
                ]
            ),
        ]
    )


def main(folder: Path, patch: Sequence[int], batch: int, count: int) -> None:
    """Answer with the seconds that a patch took."""
    answers = claim_output()
    torch.set_num_threads(1)
    names = sorted(folder.glob("*_image.npy"))
    files = [{"image": str(name), "label": str(name).replace("_image", "_label")} for name in names]
    steps = pipeline(patch).set_random_state(0)
    # Held as it is before the first random step; crops copy, so that no sample need be copied whole.
    data = CacheDataset(files, steps, progress=False, copy_cache=False)
    # Few files: drawn with repetition, so that every batch is full.
    batches = forever(DataLoader(data, batch_size=batch, sampler=RandomSampler(data, True, count)))
    for _ in sys.stdin:
        with timed(answers, count):
            for _ in range(count // batch):
                next(batches)


def forever(loader: DataLoader) -> Any:
    """Batches of one epoch after another."""
    while True:
        yield from loader


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(size) for size in sys.argv[2].split(",")], int(sys.argv[3]), int(sys.argv[4]))

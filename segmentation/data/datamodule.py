"""Batches for training and validation: every sample is a pure function of the seed and its number."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from segmentation.config import AugmentSettings, DataSettings
from segmentation.data.ahead import ThreadedLoader
from segmentation.data.augment import Augmentation, NoAugmentation, build_augmentation
from segmentation.data.cache import CachedCase
from segmentation.data.hardware import free_memory, usable_cores
from segmentation.data.preprocessing import Preprocessing
from segmentation.data.sampling import cut_patch, draw_center, place_patch, sample_rng
from segmentation.data.transforms import stack_context

MEMORY_SHARE = 0.25
"""Prepared arrays are held in memory if they fit into this share of what is free; otherwise read from disk."""

MOST_THREADS = 8
"""Threads that make patches for a GPU, at most."""

VALIDATION_PATCHES = 32
"""Patches of the held-out cases that are scored after each epoch, always the same ones."""


@dataclass(frozen=True)
class _Arrays:
    """One case's arrays, in memory or memory-mapped."""

    image: Any
    labels: Any
    foreground: list[Any]


class PatchDataset(Dataset[tuple[Tensor, Tensor]]):
    """Patches of prepared cases; item ``index`` depends on ``(seed, index)`` alone.

    Args:
        cases: Prepared cases.
        preprocessing: How they were prepared.
        augmentation: Applied to each patch.
        foreground_share: Share of patches centred on foreground.
        seed: Seed of all draws.
        in_memory: Hold the arrays in memory instead of reading patches from disk.
    """

    def __init__(
        self,
        cases: Sequence[CachedCase],
        preprocessing: Preprocessing,
        augmentation: Augmentation,
        foreground_share: float,
        seed: int,
        in_memory: bool,
    ) -> None:
        self.arrays = [_Arrays(c.image(in_memory), c.labels(in_memory), c.foreground()) for c in cases]
        self.preprocessing = preprocessing
        self.augmentation = augmentation
        self.foreground_share = foreground_share
        self.seed = seed

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Draw sample ``index``: image of shape ``(C, *S)`` in [0, 1], labels of shape ``(*S)``."""
        rng = sample_rng(self.seed, index)
        case = self.arrays[int(rng.integers(len(self.arrays)))]
        center = draw_center(rng, case.labels.shape, case.foreground, self.foreground_share)
        change = self.augmentation.draw(rng)
        in_slice = self.preprocessing.slice_axis is not None
        start = self._start(center[in_slice:], case.labels.shape[in_slice:], change.size)
        if in_slice:
            # Only the slices in reach are read, which matters when the volume lies on disk.
            reach = self.preprocessing.context_slices
            low = max(0, center[0] - reach)
            near = np.asarray(case.image[:, low : center[0] + reach + 1])
            image = stack_context(near, [center[0] - low], reach)[0]
            labels = np.asarray(case.labels[center[0]])
        else:
            image, labels = case.image, case.labels
        # PyTorch reads float16 ten times as fast as NumPy.
        patch = torch.from_numpy(np.ascontiguousarray(cut_patch(image, start, change.size))).float().numpy()
        target = np.ascontiguousarray(cut_patch(labels, start, change.size))
        patch, target = change(patch, target)
        return torch.from_numpy(patch), torch.from_numpy(target.astype(np.int64))

    def _start(self, center: Sequence[int], shape: Sequence[int], size: Sequence[int]) -> tuple[int, ...]:
        """First voxel of what is cut for a patch: the patch is moved inside the case, its margin may stand out."""
        patch = self.augmentation.patch_size
        start = place_patch(center, patch, shape)
        return tuple(s - (m - p) // 2 for s, m, p in zip(start, size, patch, strict=True))


class EpochSampler(Sampler[int]):
    """Sample numbers of one epoch: a fresh block of consecutive numbers each time, so no state has to be kept.

    Args:
        samples: Samples in an epoch, of all processes of the training together.
        rank: Which process this is; it takes every ``world``-th number.
        world: How many processes there are.

    Examples:
        >>> sampler = EpochSampler(3)
        >>> sampler.set_epoch(2)
        >>> list(sampler)
        [6, 7, 8]
        >>> [list(EpochSampler(6, rank, world=2)) for rank in (0, 1)]
        [[0, 2, 4], [1, 3, 5]]
    """

    def __init__(self, samples: int, rank: int = 0, world: int = 1) -> None:
        self.samples = samples
        self.rank = rank
        self.world = world
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls this at the start of each, also after a resume."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        """Yield the sample numbers of the epoch."""
        return iter(range(self.epoch * self.samples + self.rank, (self.epoch + 1) * self.samples, self.world))

    def __len__(self) -> int:
        """Samples of this process in an epoch."""
        return self.samples // self.world


class PatchDataModule(pl.LightningDataModule):
    """Training and validation batches of patches.

    Args:
        train: Prepared training cases.
        val: Prepared held-out cases; may be empty.
        preprocessing: How they were prepared.
        data: Patch and batch size, from the plan.
        augment: Augmentation of the training patches.
        steps_per_epoch: Training batches in an epoch.
        seed: Seed of all draws.
        rank: Which process of the training this is.
        world: How many processes there are; each takes its share of every batch.
    """

    def __init__(
        self,
        train: Sequence[CachedCase],
        val: Sequence[CachedCase],
        preprocessing: Preprocessing,
        data: DataSettings,
        augment: AugmentSettings,
        steps_per_epoch: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        super().__init__()
        if data.patch_size is None or data.batch_size is None:
            raise ValueError("patch_size and batch_size must be planned before training")
        self.batch_size = data.batch_size
        self.sampler = EpochSampler(steps_per_epoch * data.batch_size * world, rank, world)
        self.val_sampler = range(rank, max(VALIDATION_PATCHES, world), world)  # every process has one
        # So many processes may do the same: of a study on a CPU one a core.
        beside = world if torch.cuda.is_available() else max(world, usable_cores() // torch.get_num_threads())
        fits = beside * sum(case.nbytes for case in (*train, *val)) < MEMORY_SHARE * free_memory()
        share = data.foreground_share
        self.train_patches = PatchDataset(
            train, preprocessing, build_augmentation(augment, data.patch_size), share, seed, fits
        )
        whole = NoAugmentation(tuple(data.patch_size))
        # The same validation patches for every run of a study, whatever its seed.
        self.val_patches = PatchDataset(val, preprocessing, whole, 0.5, 0, fits) if val else None

    def train_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """Batches of images, shape ``(B, C, *S)``, and labels, shape ``(B, *S)``."""
        return self._loader(self.train_patches, self.sampler)

    def val_dataloader(self) -> list[DataLoader[tuple[Tensor, Tensor]]]:
        """The same batches every time; an empty list without held-out cases."""
        if self.val_patches is None:
            return []
        # Not an EpochSampler: Lightning would set its epoch and so move the patches.
        return [self._loader(self.val_patches, self.val_sampler)]

    def _loader(self, patches: PatchDataset, sampler: EpochSampler | range) -> DataLoader[tuple[Tensor, Tensor]]:
        """Load in this process: by threads beside a GPU, in turn with the steps on a CPU, which would wait no less."""
        options: dict[str, Any] = {"dataset": patches, "batch_size": self.batch_size, "sampler": sampler}
        # A generator of its own keeps the loader from drawing from the global one.
        options["generator"] = torch.Generator()
        on_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        threads = min(MOST_THREADS, torch.get_num_threads())
        return ThreadedLoader(threads, **options) if on_gpu else DataLoader(**options)

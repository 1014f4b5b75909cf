import hashlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

from segmentation.config import AugmentSettings, DataSettings
from segmentation.data import datamodule
from segmentation.data.ahead import ThreadedLoader
from segmentation.data.augment import NoAugmentation, build_augmentation
from segmentation.data.cache import CachedCase, cache_cases
from segmentation.data.datamodule import EpochSampler, PatchDataModule, PatchDataset
from segmentation.data.manifest import Dataset
from segmentation.data.preprocessing import Normalisation, Preprocessing

RANGE = (Normalisation("range", 0, 255, 0.4, 0.2),)
KINDS = {
    "pictures": (Preprocessing(2, (1.0, 1.0), None, 0, RANGE), (16, 20)),
    "volumes": (Preprocessing(3, (1.0, 1.0, 2.5), None, 0, RANGE), (9, 12, 8)),
    "slices": (Preprocessing(2, (1.0, 1.0, 2.5), 2, 1, RANGE), (12, 16)),
}
AUGMENT = AugmentSettings(flip_axes=[0])


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def prepared(kind: str, pictures: Dataset, volumes: Dataset, own_cache: Path) -> list[CachedCase]:
    dataset = pictures if kind == "pictures" else volumes
    return cache_cases(dataset, dataset.cases, KINDS[kind][0], own_cache)


def patches(prepared, kind: str, share: float = 0.5, seed: int = 0, in_memory: bool = True, **options) -> PatchDataset:
    augmentation = options.get("augmentation") or build_augmentation(options.get("augment", AUGMENT), KINDS[kind][1])
    return PatchDataset(prepared, KINDS[kind][0], augmentation, share, seed, in_memory)


def module(prepared, kind: str, seed: int = 0, steps: int = 3) -> PatchDataModule:
    preprocessing, patch = KINDS[kind]
    data = DataSettings(patch_size=list(patch), batch_size=2)
    return PatchDataModule(prepared[:4], prepared[4:], preprocessing, data, AUGMENT, steps, seed)


def hashed(batches) -> list[str]:
    return [hashlib.sha256(b"".join(part.numpy().tobytes() for part in batch)).hexdigest() for batch in batches]


def equal(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_samples_have_their_shape_type_and_range(prepared, kind):
    preprocessing, patch = KINDS[kind]
    image, labels = patches(prepared, kind)[5]
    assert image.shape == (preprocessing.network_channels, *patch)
    assert labels.shape == patch
    assert (image.dtype, labels.dtype) == (torch.float32, torch.int64)
    assert 0 <= image.min() <= image.max() <= 1


def test_a_sample_depends_on_seed_and_number_alone(prepared, kind):
    first, second = patches(prepared, kind), patches(prepared, kind)
    forwards = [first[index] for index in range(6)]
    assert all(equal(second[index], forwards[index]) for index in (4, 0, 4, 5, 1))
    assert not equal(forwards[0], forwards[1])
    assert not equal(patches(prepared, kind, seed=1)[0], forwards[0])


def test_mapped_equals_in_memory(prepared, kind):
    mapped, held = (patches(prepared, kind, in_memory=in_memory) for in_memory in (False, True))
    assert not isinstance(mapped.arrays[0].image, np.ndarray)
    assert all(equal(mapped[index], held[index]) for index in range(12))


def test_patches_show_the_case_they_were_cut_from(prepared, kind):
    """Every voxel of a patch that is not augmented is found, with its label, at one place of one case."""
    preprocessing, patch = KINDS[kind]
    dataset = patches(prepared[:1], kind, augmentation=NoAugmentation(patch))
    case = prepared[0]
    whole = np.float32(case.image())
    answers = (
        (np.arange(whole[0].size) % 251).astype(np.uint8).reshape(whole[0].shape)
    )  # labels that say where they lie
    dataset.arrays[0] = replace(dataset.arrays[0], labels=answers)
    for index in range(50):  # enough for the first and the last slice
        image, labels = dataset[index]
        if kind == "slices":
            image = image[preprocessing.context_slices :][:1]
        channels = np.lib.stride_tricks.sliding_window_view(whole[0], (1, *patch) if kind == "slices" else patch)
        same = np.argwhere((channels == image[0].numpy()).all(axis=tuple(range(-whole[0].ndim, 0))))
        assert len(same) == 1
        place = tuple(slice(f, f + p) for f, p in zip(same[0], (1, *patch) if kind == "slices" else patch, strict=True))
        np.testing.assert_array_equal(answers[place].reshape(patch), labels)


@pytest.mark.parametrize("augment", [AUGMENT, replace(AUGMENT, strength=0)])
def test_the_foreground_share_reaches_the_patch(prepared, kind, augment):
    """Also foreground at the rim of the scan is in view, though a patch is cut with a margin for the rotation."""
    dataset = patches(prepared, kind, 1.0, augment=augment)
    assert all((dataset[number][1] > 0).any() for number in range(30))


def test_the_foreground_share_that_was_set_reaches_the_training_batches(prepared, kind):
    preprocessing, patch = KINDS[kind]
    seen = {}
    for share in (0.0, 1.0):
        data = DataSettings(patch_size=list(patch), batch_size=2, foreground_share=share)
        batches = PatchDataModule(prepared, [], preprocessing, data, AUGMENT, 15, 0).train_dataloader()
        seen[share] = [bool((labels > 0).any()) for _, batch in batches for labels in batch]
    assert all(seen[1.0])
    assert not all(seen[0.0])


def test_the_rim_of_a_scan_is_shown_as_often_as_it_is_drawn(prepared, kind):
    """What is cut for a patch that is to be turned has the patch in its middle, also at the rim of the case."""
    _, patch = KINDS[kind]
    margins = (3, 4, 2)[: len(patch)]
    wide = patches(prepared[:1], kind, 0.0, augmentation=Middle(patch, margins))
    plain = patches(prepared[:1], kind, 0.0, augmentation=NoAugmentation(patch))
    assert all(equal(wide[index], plain[index]) for index in range(20))


class Middle:
    """Asks for a margin, and cuts it off again."""

    def __init__(self, patch_size, margins) -> None:
        self.patch_size = patch_size
        self.size = tuple(p + 2 * m for p, m in zip(patch_size, margins, strict=True))
        self.middle = tuple(slice(m, m + p) for p, m in zip(patch_size, margins, strict=True))

    def draw(self, rng):
        return self

    def __call__(self, image, labels):
        return np.ascontiguousarray(image[(slice(None), *self.middle)]), np.ascontiguousarray(labels[self.middle])


def test_a_patch_larger_than_the_case_repeats_its_rim(prepared, kind):
    shape = prepared[0].labels().shape[-len(KINDS[kind][1]) :]
    size = tuple(n + 7 for n in shape)
    image, labels = patches(prepared[:1], kind, augmentation=NoAugmentation(size))[0]
    assert labels.shape == size
    assert image.shape[1:] == size
    assert torch.equal(image[:, 0], image[:, 3])
    assert torch.equal(image[:, -1], image[:, -4])
    assert torch.equal(labels[0], labels[3])


def test_two_conditions_see_identical_batches_whatever_happened_before(prepared, kind, monkeypatch):
    expected = hashed(module(prepared, kind).train_dataloader())
    torch.manual_seed(123)
    np.random.seed(5)
    monkeypatch.setattr(datamodule, "MEMORY_SHARE", 0.0)  # as on a machine with little memory
    other = module(prepared, kind)
    assert not isinstance(other.train_patches.arrays[0].image, np.ndarray)
    state = torch.get_rng_state()
    assert hashed(other.train_dataloader()) == expected
    assert torch.equal(torch.get_rng_state(), state)
    assert len(set(expected)) == len(expected) == 3
    assert hashed(module(prepared, kind, seed=1).train_dataloader()) != expected


def test_threads_make_the_same_batches(prepared, kind, monkeypatch):
    monkeypatch.setattr(datamodule, "MEMORY_SHARE", 0.0)  # several threads read one file
    plain = module(prepared, kind, steps=8)
    options = {"dataset": plain.train_patches, "batch_size": 2, "sampler": plain.sampler}
    expected = hashed(plain.train_dataloader())
    assert all(hashed(ThreadedLoader(threads, **options)) == expected for threads in (1, 4))


def test_threads_load_where_a_gpu_computes(prepared, kind):
    loaders = {}
    for device in ("cpu", "cuda"):
        data = module(prepared, kind)
        data.trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device(device)))
        loaders[device] = {type(data.train_dataloader()), type(data.val_dataloader()[0])}
    assert loaders == {"cpu": {DataLoader}, "cuda": {ThreadedLoader}}


@pytest.mark.parametrize(("threads", "fits"), [(4, True), (1, False)])
def test_arrays_are_held_only_if_as_many_processes_as_cores_could(prepared, kind, monkeypatch, threads, fits):
    held = []
    monkeypatch.setattr(datamodule, "PatchDataset", lambda *given: held.append(given[-1]))
    monkeypatch.setattr(datamodule, "usable_cores", lambda: 4)
    monkeypatch.setattr("torch.get_num_threads", lambda: threads)
    size = sum(case.nbytes for case in prepared)
    monkeypatch.setattr(datamodule, "free_memory", lambda: 2 * size / datamodule.MEMORY_SHARE)
    module(prepared, kind)
    assert held == [fits, fits]


def test_epochs_are_blocks_of_sample_numbers():
    sampler = EpochSampler(4)
    seen = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        seen += list(sampler)
    assert seen == list(range(12))
    assert len(sampler) == 4


class Recorder(pl.LightningModule):
    """Trains one number and writes down what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.train_seen: list[str] = []
        self.val_seen: list[list[str]] = []

    def training_step(self, batch, batch_index):
        self.train_seen += hashed([[part.cpu() for part in batch]])
        return self.weight * batch[0].mean()

    def on_validation_epoch_start(self):
        self.val_seen.append([])

    def validation_step(self, batch, batch_index):
        self.val_seen[-1] += hashed([[part.cpu() for part in batch]])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.parametrize("kind", ["pictures"], indirect=True)
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec")
@pytest.mark.filterwarnings("ignore:.*GPU available but not used")
def test_lightning_sees_new_patches_each_epoch_and_always_the_same_validation(prepared, kind, monkeypatch):
    monkeypatch.setattr(datamodule, "VALIDATION_PATCHES", 4)
    recorder = Recorder()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=3,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
    trainer.fit(recorder, module(prepared, kind))
    assert len(set(recorder.train_seen)) == len(recorder.train_seen) == 9
    assert len(recorder.val_seen) == 3
    assert recorder.val_seen[0] == recorder.val_seen[1] == recorder.val_seen[2]
    assert len(set(recorder.val_seen[0])) == 2


def test_validation_patches_do_not_depend_on_the_seed_of_the_run(prepared, kind):
    first, second = (module(prepared, kind, seed=seed).val_dataloader()[0] for seed in (0, 1))
    assert hashed(first) == hashed(second)
    assert len(first) == datamodule.VALIDATION_PATCHES // 2


def test_nothing_to_validate_is_an_empty_list(prepared, kind):
    preprocessing, patch = KINDS[kind]
    data = DataSettings(patch_size=list(patch), batch_size=2)
    assert PatchDataModule(prepared, [], preprocessing, data, AUGMENT, 1, 0).val_dataloader() == []
    with pytest.raises(ValueError, match="must be planned"):
        PatchDataModule(prepared, [], preprocessing, DataSettings(), AUGMENT, 1, 0)

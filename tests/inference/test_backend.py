from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from segmentation import SkipSegError
from segmentation.config import NetworkSettings
from segmentation.data.preprocessing import Normalisation, Preprocessing
from segmentation.inference.backend import mean_over_flips
from segmentation.inference.backend_torch import Classifier, TorchBackend
from segmentation.model.architecture import Architecture
from segmentation.model.storage import load_model, save_model

ARCHITECTURE = Architecture(NetworkSettings(depth=1, width=4), 2, 4, 3, [[2, 2]], [[3, 3]] * 2)
PREPARATION = Preprocessing(
    2, (1.0, 1.0, 1.0), 2, 0, tuple(Normalisation("zscore", mean=0.1 * i, std=0.2 + 0.1 * i) for i in range(4))
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    weights = ARCHITECTURE.build(seed=1).state_dict()
    save_model(folder, ARCHITECTURE, weights, {"preprocessing": PREPARATION.to_plain(), "labels": {}})
    return folder


def images(batch: int = 2, size: tuple[int, ...] = (9, 14)) -> np.ndarray:
    return np.random.default_rng(0).random((batch, 4, *size), np.float32)


def test_flips_are_turned_back_before_they_are_averaged():
    x = images()
    np.testing.assert_allclose(mean_over_flips(lambda y: y, x, [(), (2,), (3,), (2, 3)]), x, rtol=1e-6)


def test_a_result_in_reused_memory_is_averaged_rightly():
    memory = np.empty((1, 1, 2), np.float32)

    def cumulated(x: np.ndarray) -> np.ndarray:
        np.cumsum(x, axis=2, out=memory)
        return memory

    found = mean_over_flips(cumulated, np.array([[[1.0, 10.0]]], np.float32), [(), (2,)])
    np.testing.assert_array_equal(found, [[[(1 + 11) / 2, (11 + 10) / 2]]])


def test_torch_standardises_each_channel_and_gives_probabilities(folder: Path):
    x, network = images(), load_model(folder).network
    mean, std = (torch.tensor([getattr(n, name) for n in PREPARATION.normalisation]) for name in ("mean", "std"))
    logits = network((torch.from_numpy(x) - mean.view(1, -1, 1, 1)) / std.view(1, -1, 1, 1))
    found = TorchBackend.load(folder)(x)
    np.testing.assert_array_equal(found, logits.softmax(1).numpy())
    assert found.shape == (2, 3, 9, 14)


def test_slices_read_as_channels_share_the_statistics_of_their_channel():
    preparation = Preprocessing(2, (1.0,) * 3, 2, 1, PREPARATION.normalisation[:2])
    found = Classifier(nn.Identity(), preparation)
    assert found.mean.flatten().tolist() == pytest.approx([0, 0.1] * 3)


def test_torch_averages_over_mirrored_copies(folder: Path):
    x, backend = images(), TorchBackend.load(folder)
    flips = [(), (2,), (3,), (2, 3)]
    np.testing.assert_allclose(backend(x, flips), mean_over_flips(backend, x, flips), atol=1e-6)
    assert np.abs(backend(x, flips) - backend(x)).max() > 1e-3


def test_a_batch_without_memory_for_it_is_halved(folder: Path, monkeypatch: pytest.MonkeyPatch):
    x, backend, sizes = images(batch=5), TorchBackend.load(folder), []
    expected, forward = backend(x), backend.classifier.forward

    def small(images: torch.Tensor) -> torch.Tensor:
        sizes.append(len(images))
        if len(images) > 2:
            raise torch.OutOfMemoryError
        return forward(images)

    monkeypatch.setattr(backend.classifier, "forward", small)
    np.testing.assert_allclose(backend(x), expected, atol=1e-6)
    assert sizes == [5, 2, 3, 1, 2]


def test_no_memory_for_one_image_is_no_endless_halving(folder: Path, monkeypatch: pytest.MonkeyPatch):
    backend = TorchBackend.load(folder)

    def never(images: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(backend.classifier, "forward", never)
    with pytest.raises(torch.OutOfMemoryError):
        backend(images(batch=3))


def test_a_gpu_has_room_for_what_its_memory_holds(folder: Path, monkeypatch: pytest.MonkeyPatch):
    backend = TorchBackend.load(folder)
    assert [backend.batch_room(window) for window in ((64, 64), (64, 64, 64))] == [32, 1]  # on the CPU
    monkeypatch.setattr(backend, "_device", "cuda")
    rooms = {}
    for free in (2**20, 2**30, 2**50):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda free=free: (free, 2**50))
        rooms[free] = backend.batch_room((64, 64))
    one = 4 * 64 * 64 * (4 + 3)  # bytes of the image and the probabilities alone
    assert rooms[2**20] == 1
    assert 1 < rooms[2**30] < 2**30 / one
    assert rooms[2**50] == 2**24 // 64**2


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_gpu_is_refused(folder: Path):
    with pytest.raises(SkipSegError, match="no CUDA device"):
        TorchBackend.load(folder, device="cuda")


def test_a_model_without_preprocessing_is_refused(tmp_path: Path):
    save_model(tmp_path, ARCHITECTURE, ARCHITECTURE.build().state_dict(), {"labels": {}})
    with pytest.raises(SkipSegError, match=r"does not say how to predict .*preprocessing"):
        TorchBackend.load(tmp_path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # what torch.compile itself imports
def test_compiled_it_says_the_same(folder: Path):
    stored = load_model(folder)
    compiled = TorchBackend(Classifier(stored.network, PREPARATION), ARCHITECTURE, compiled=True)
    np.testing.assert_allclose(compiled(images()), TorchBackend.load(folder)(images()), atol=1e-5)

"""PyTorch as a backend: the reference that every other one is compared with, and the only one on a GPU."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from segmentation import SkipSegError
from segmentation.data.preprocessing import Preprocessing
from segmentation.inference.backend import Array, Flips
from segmentation.model.architecture import Architecture
from segmentation.model.layers import total_cost
from segmentation.model.storage import load_model

_GPU_SHARE = 0.8
"""Share of the free GPU memory that windows may take; the rest is for workspaces of convolutions."""
_CPU_VOXELS = 2**17
"""Voxels of windows computed at a time on a CPU: eight of 128 x 128 take half as long as one after another."""
_MOST_VOXELS = 2**24
"""Voxels of a batch beyond which a GPU is busy anyway: 8 windows of 128^3, 64 of 512^2."""


class Classifier(nn.Module):
    """A network from prepared images to probabilities: standardise, network, softmax. This is what is exported.

    Args:
        network: Maps shape ``(B, C, *S)`` to logits of shape ``(B, K, *S)``.
        preprocessing: Holds mean and deviation of each channel.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.network = network
        shape = (1, -1) + (1,) * preprocessing.dims
        self.register_buffer("mean", torch.tensor(preprocessing.channel_means).view(shape))
        self.register_buffer("std", torch.tensor(preprocessing.channel_stds).view(shape))

    def forward(self, images: Tensor) -> Tensor:
        """Map intensities in [0, 1], shape ``(B, C, *S)``, to probabilities of shape ``(B, K, *S)``."""
        return self.network((images - self.mean) / self.std).float().softmax(dim=1)


class TorchBackend:
    """Probabilities by PyTorch, in fp32 (on GPUs that have TF32, convolutions are in TF32, as is PyTorch's way).

    Args:
        classifier: The network with what stands around it.
        architecture: What the network is built from, for its cost.
        device: ``"cpu"`` or ``"cuda"``.
        threads: CPU threads of this process; 0 leaves them as they are.
        compiled: Use torch.compile, which takes minutes once and pays on a GPU with many scans.

    Attributes:
        classifier: As given, in evaluation mode on ``device``.
        architecture: As given.
    """

    name = "torch"

    def __init__(
        self,
        classifier: Classifier,
        architecture: Architecture,
        device: str = "cpu",
        threads: int = 0,
        compiled: bool = False,
    ) -> None:
        if threads:
            torch.set_num_threads(threads)
        self.classifier = classifier.to(device).eval()
        self._compute = torch.compile(self.classifier) if compiled else self.classifier
        self.architecture = architecture
        self._device = device

    @classmethod
    def load(cls, folder: Path, *, device: str = "cpu", threads: int = 0, compiled: bool = False) -> "TorchBackend":
        """Load a model folder; arguments as of the class.

        Raises:
            SkipSegError: If the folder holds no readable model, or there is no CUDA device though one is asked for.
        """
        resolve_device(device)
        stored = load_model(folder)
        classifier = Classifier(stored.network, preprocessing_of(folder, stored.description))
        architecture = Architecture.from_plain(stored.description["architecture"])
        return cls(classifier, architecture, device, threads, compiled)

    def __call__(self, images: Array, flips: Flips = ((),)) -> Array:
        """Compute probabilities, shape ``(B, K, *S)``, of images of shape ``(B, C, *S)``, averaged over ``flips``.

        A batch for which the GPU has no memory left is halved.
        """
        try:
            return self._mean(images, flips)
        except torch.OutOfMemoryError:
            if len(images) == 1:
                raise
        half = len(images) // 2
        return np.concatenate([self(images[:half], flips), self(images[half:], flips)])

    def batch_room(self, window: Sequence[int]) -> int:
        """Windows that fit into the free memory of the GPU; on a CPU as many small ones as are faster together."""
        if self._device == "cpu":
            return max(1, _CPU_VOXELS // int(np.prod(window)))
        built = self.architecture
        sizes = (built.dims, built.in_channels, built.classes, built.strides, built.kernels)
        one = total_cost(built.settings, *sizes, size=window).activation_bytes
        room = _GPU_SHARE * torch.cuda.mem_get_info()[0] / one
        return max(1, min(int(room), _MOST_VOXELS // int(np.prod(window))))

    def _mean(self, images: Array, flips: Flips) -> Array:
        """Mean over mirrored copies."""
        with torch.inference_mode(), torch.autocast(self._device, enabled=False):
            x = torch.from_numpy(images).to(self._device)
            total = torch.zeros((), device=x.device)
            for flip in flips:
                total = total + (self._compute(x.flip(flip)).flip(flip) if flip else self._compute(x))
            return (total / len(flips)).cpu().numpy()


def preprocessing_of(folder: Path, description: Mapping[str, Any]) -> Preprocessing:
    """Preprocessing that ``model.json`` of ``folder`` describes.

    Raises:
        SkipSegError: If it describes none.
    """
    try:
        return Preprocessing.from_plain(description["preprocessing"])
    except (KeyError, TypeError) as error:
        raise SkipSegError(f"{folder}/model.json does not say how to predict ({error}); train anew") from None


def resolve_device(device: str) -> str:
    """Turn ``"auto"`` into ``"cuda"`` where there is one, else ``"cpu"``.

    Raises:
        SkipSegError: If ``"cuda"`` is asked for and not there.
    """
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise SkipSegError("device cuda was asked for, but PyTorch finds no CUDA device; run `skipseg doctor`")
    return "cuda" if available and device != "cpu" else "cpu"

"""What the inference.json of an exported MONAI bundle is made of, beside MONAI's own parts."""

import itertools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.utils.type_conversion import convert_to_dst_type
from torch import Tensor, nn

from segmentation.data.preprocessing import Preprocessing
from segmentation.inference.backend_torch import Classifier, preprocessing_of
from segmentation.inference.postprocess import apply_steps, common_steps
from segmentation.model.folder import read_description
from segmentation.model.storage import load_model
from segmentation.scans import find_scans


def find_cases(folder: str) -> list[dict[str, list[str]]]:
    """Find the scans of a folder: the files of each, one a channel, under ``image``.

    Raises:
        SkipSegError: If the folder is missing or holds no scan.
    """
    return [{"image": [str(path) for path in paths]} for paths in find_scans(Path(folder)).values()]


class Mirrored(nn.Module):
    """A network whose probabilities are averaged over mirrored copies.

    Args:
        classifier: Maps shape ``(B, C, *S)`` to probabilities of shape ``(B, K, *S)``.
        axes: Spatial axes that are mirrored, in every combination.
    """

    def __init__(self, classifier: nn.Module, axes: Iterable[int]) -> None:
        super().__init__()
        self.classifier = classifier
        tensor_axes = [axis + 2 for axis in axes]
        counts = range(len(tensor_axes) + 1)
        self.flips = [flip for count in counts for flip in itertools.combinations(tensor_axes, count)]

    def forward(self, images: Tensor) -> Tensor:
        """Map intensities in [0, 1], shape ``(B, C, *S)``, to probabilities of shape ``(B, K, *S)``."""
        return torch.stack([self.classifier(images.flip(f)).flip(f) for f in self.flips]).mean(0)


def load_network(folder: str) -> nn.Module:
    """Load the network of a model folder: from prepared intensities in [0, 1] to probabilities.

    Raises:
        SkipSegError: If the folder holds no readable model.
    """
    stored = load_model(Path(folder))
    about = stored.description
    classifier = Classifier(stored.network, preprocessing_of(Path(folder), about))
    return Mirrored(classifier, about["flip_axes"] if about["mirror"] else ()).eval()


class Intensities:
    """Map each channel of a scan into [0, 1], as the model folder says.

    Args:
        folder: Model folder.
    """

    def __init__(self, folder: str) -> None:
        self.normalisation = Preprocessing.from_plain(read_description(Path(folder))["preprocessing"]).normalisation

    def __call__(self, image: Tensor) -> Tensor:
        """Map intensities of shape ``(C, *S)``."""
        pairs = zip(np.asarray(image), self.normalisation, strict=True)
        mapped = np.stack([entry.apply(channel) for channel, entry in pairs])
        return convert_to_dst_type(mapped, image)[0]


class Decide:
    """From probabilities in the frame of a scan to its label map, with the steps of the model folder.

    Args:
        folder: Model folder.
    """

    def __init__(self, folder: str) -> None:
        self.steps = common_steps([read_description(Path(folder))])

    def __call__(self, probabilities: MetaTensor) -> Tensor:
        """Map probabilities of shape ``(K, *S)`` to label values, shape ``(1, *S)``."""
        values = np.asarray(probabilities).argmax(0).astype(np.uint8)
        decided = apply_steps(values, self.steps, [float(size) for size in probabilities.pixdim])
        return convert_to_dst_type(decided[None], probabilities[:1])[0]


class Evaluator:
    """Runs the parts of an inference.json over a dataset; MONAI's own evaluators need PyTorch Ignite.

    Args:
        dataset: Prepared cases with an ``image`` of shape ``(C, *S)``.
        network: Maps images to probabilities.
        inferer: Slides the network over an image.
        postprocessing: Finishes and writes a case with ``pred``.
        device: Where the network computes.
    """

    def __init__(
        self,
        dataset: Iterable[Mapping[str, Any]],
        network: nn.Module,
        inferer: Callable[..., Tensor],
        postprocessing: Callable[[Mapping[str, Any]], Any],
        device: torch.device,
    ) -> None:
        self.dataset = dataset
        self.network = network.to(device)
        self.inferer = inferer
        self.postprocessing = postprocessing
        self.device = device

    def run(self) -> None:
        """Segment every case."""
        for case in self.dataset:
            image = case["image"]
            with torch.inference_mode():
                prediction = self.inferer(image[None].to(self.device), self.network)[0]
            self.postprocessing({**case, "pred": prediction.cpu()})

"""Steps of a training of SkipSeg, by Lightning's Trainer as ``skipseg train`` sets it up. Arguments: WORK.json.

Answers one line for each line that it reads: a step begins when the Trainer is given a batch, and ends when it asks for
the next.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from segmentation.config import NetworkSettings, OptimSettings, TrainSettings
from segmentation.data.hardware import kept_memory
from segmentation.data.preprocessing import Normalisation, Preprocessing
from segmentation.model.presets import PRESETS
from segmentation.model.unet import UNet, count_parameters
from segmentation.plain import from_plain
from segmentation.training.ranks import Rank
from segmentation.training.task import SegmentationTask
from segmentation.training.train import build_trainer, quiet_lightning
from tests.benchmarks.worker import claim_output, timed

STEPS = 10**6
"""Of the training: more than are asked for."""


def make_network(work: dict[str, Any]) -> UNet:
    """Our preset of nnU-Net's network with the widths and strides of the work."""
    widths = work["widths"]
    plain: dict[str, Any] = PRESETS["nnunet_like"] | {"depth": len(widths) - 1, "widths": widths}
    settings = from_plain(NetworkSettings, plain)
    return UNet(settings, len(work["patch"]), work["channels"], work["classes"], work["strides"][1:])


class Batches:
    """The training data: a batch for each line that is read, answered when the Trainer asks for the next."""

    def __init__(self, work: dict[str, Any], answers: IO[str], parameters: int) -> None:
        self.answers = answers
        self.parameters = parameters
        torch.manual_seed(0)
        self.images = torch.rand(work["batch"], work["channels"], *work["patch"])
        self.labels = torch.randint(0, work["classes"], (work["batch"], *work["patch"]))

    def __len__(self) -> int:
        """Known, so that no batch is asked for in advance."""
        return STEPS

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Give batches, and time what is done between them."""
        for _ in sys.stdin:
            with timed(self.answers, parameters=self.parameters):
                yield self.images, self.labels


def main(path: Path) -> None:
    """Train until nothing more is asked for."""
    answers = claim_output()
    work = json.loads(path.read_text())
    torch.set_num_threads(work["threads"])
    optim = OptimSettings(optimizer="sgd", learning_rate=1e-2, weight_decay=3e-5, clip_norm=12.0)
    settings = TrainSettings(path.parent, path.parent, device="cpu", epochs=1, optim=optim)
    network = make_network(work)
    dims = len(work["patch"])
    channels = (Normalisation("window", 0.0, 1.0),) * work["channels"]
    task = SegmentationTask(
        network, optim, Preprocessing(dims, (1.0,) * dims, None, 0, channels), work["classes"], STEPS
    )
    with quiet_lightning(), kept_memory():
        build_trainer(settings, [], Rank()).fit(task, Batches(work, answers, count_parameters(network)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

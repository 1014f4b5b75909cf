"""Training steps on one patch. Arguments: voxels along each axis, such as 64,64,64, and how many steps.

Prints the processor seconds of a step, as JSON; the first step, which prepares the others, does not count.
"""

import json
import sys
import time
from collections.abc import Sequence

import torch

from segmentation.config import NetworkSettings, OptimSettings
from segmentation.data.preprocessing import Normalisation, Preprocessing
from segmentation.model.architecture import Architecture
from segmentation.training.task import SegmentationTask

_DEPTH, _WIDTH = 3, 8


def seconds(patch: Sequence[int], steps: int) -> float:
    """Processor seconds of a step of the training task on one patch, in one thread."""
    torch.set_num_threads(1)
    settings = NetworkSettings(depth=_DEPTH, width=_WIDTH)
    architecture = Architecture(settings, 3, 1, 2, [[2] * 3] * _DEPTH, [[3] * 3] * (_DEPTH + 1))
    preprocessing = Preprocessing(3, (1.0, 1.0, 1.0), None, 0, (Normalisation("zscore"),))
    task = SegmentationTask(architecture.build(), OptimSettings(), preprocessing, 2, steps)
    optimizer = task.configure_optimizers()["optimizer"]
    drawn = torch.Generator().manual_seed(0)
    batch = torch.rand(1, 1, *patch, generator=drawn), torch.randint(2, (1, *patch), generator=drawn)
    begun = 0.0
    for step in range(steps + 1):
        if step == 1:
            begun = time.process_time()
        optimizer.zero_grad()
        task.training_step(batch, step).backward()
        torch.nn.utils.clip_grad_norm_(task.network.parameters(), 12.0)
        optimizer.step()
    return (time.process_time() - begun) / steps


if __name__ == "__main__":
    print(json.dumps({"step_s": seconds([int(size) for size in sys.argv[1].split(",")], int(sys.argv[2]))}))

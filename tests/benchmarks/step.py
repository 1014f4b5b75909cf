"""One step of training on the CPU: ours beside nnU-Net's trainer and a plain MONAI loop, on one network and batch.

    python -m tests.benchmarks.step

A step is forward, loss at every supervised level, backward, clipping, SGD; in ours also the moving average of the
weights, and what Lightning adds. The network is that of nnU-Net's plan; its parameters are counted and must agree. Each
program has all cores, one with ``--size small``, and takes its steps in turn with the others. nnU-Net's is
``nnUNetTrainer.train_step``, which does not compile on a CPU; MONAI's loop is DynUNet with DiceCELoss.

The floor is the convolutions alone: forward and backward of each of the network's, on the shapes of the work and in the
layout in which they are fastest, timed one by one.
"""

import os
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from segmentation.data.hardware import kept_memory
from segmentation.model.channels_last import channels_last
from segmentation.runs import write_json
from tests.benchmarks.nnunet_model import make_plans, network_plan
from tests.benchmarks.rows import Options, Row, run
from tests.benchmarks.skipseg_step import make_network
from tests.benchmarks.worker import Worker, take_turns

ROOT = Path(__file__).parents[2]
TARGET = 0.8


@dataclass(frozen=True)
class Work:
    """What a step is done on.

    Attributes:
        patch: Voxels along each axis.
        batch: Patches.
        widths: Channels of each level; every level but the first halves the resolution.
        classes: Background included.
    """

    patch: tuple[int, ...]
    batch: int
    widths: tuple[int, ...]
    classes: int

    def to_plain(self, threads: int) -> dict[str, Any]:
        """What every program is told."""
        dims = len(self.patch)
        strides = [[1] * dims, *[[2] * dims] * (len(self.widths) - 1)]
        return asdict(self) | {"channels": 1, "strides": strides, "threads": threads}


SIZES = {
    "small": {"small 3-D": Work((8, 12, 8), 2, (4, 8, 16), 3), "small 2-D": Work((32, 32), 2, (4, 8, 16, 16), 2)},
    "full": {
        # What nnU-Net 2.8.1 plans for Task04 of the Medical Segmentation Decathlon; 2-D in its widths for such a patch.
        "hippocampus": Work((40, 56, 40), 9, (32, 64, 128, 256), 3),
        "2-D": Work((256, 256), 8, (32, 64, 128, 256, 512, 512, 512), 2),
    },
}


def rows(options: Options) -> list[Row]:
    """Measure both works, one after the other."""
    folder = options.work / f"step-{options.size}"
    found = [compare(options, name, work, folder / name) for name, work in SIZES[options.size].items()]
    return [row for each in found for row in each]


def compare(options: Options, name: str, work: Work, folder: Path) -> list[Row]:
    """Let the programs take steps of one work in turn."""
    told = work.to_plain(threads=(os.cpu_count() or 1) if options.size == "full" else 1)
    path = write_work(told, folder)
    commands: dict[str, list[str | Path]] = {
        "ours": [sys.executable, "-m", "tests.benchmarks.skipseg_step", path],
        "MONAI": [sys.executable, "-m", "tests.benchmarks.monai_step", path],
    }
    if options.nnunet:
        commands["nnU-Net"] = [options.nnunet, Path(__file__).with_name("nnunet_step.py"), path]
    places = {f"nnUNet_{kind}": str(folder / kind) for kind in ("raw", "preprocessed", "results")}
    with ExitStack() as stack:
        workers = {
            program: stack.enter_context(
                Worker(command, folder / f"{program}.txt", {"PYTHONPATH": str(ROOT), **places})
            )
            for program, command in commands.items()
        }
        times = take_turns(workers, options.repeats)
    counts = {program: int(each["parameters"]) for program, each in times.items()}
    if len(set(counts.values())) != 1:
        raise SystemExit(f"the networks are not the same: {counts} parameters")
    patch = "x".join(map(str, work.patch))
    named, limit = f"step {name} {patch} b{work.batch}", floor(told, options.repeats)
    ours = times.pop("ours")["wall_s"]
    return [Row(named, ours, "s", each["wall_s"], peer, TARGET, floor=limit) for peer, each in times.items()]


def write_work(told: dict[str, Any], folder: Path) -> Path:
    """Write what the programs read: the work, and the plans and data set that nnU-Net finds it in."""
    levels, dims, classes = len(told["widths"]), len(told["patch"]), told["classes"]
    plans = make_plans(
        network_plan(told["widths"], told["strides"], [[3] * dims] * levels), told["patch"], [1.0] * dims, [None]
    )
    for configuration in plans["configurations"].values():
        configuration["batch_size"] = told["batch"]
    labels = {"background": 0} | {f"class{index}": index for index in range(1, classes)}
    dataset = {"channel_names": {"0": "MRI"}, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz"}
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (("plans", plans), ("dataset", dataset), ("work", told)):
        write_json(folder / f"{name}.json", content)
    return folder / "work.json"


def floor(told: dict[str, Any], repeats: int) -> float:
    """Seconds of the convolutions alone, each the shortest of some runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(told["threads"])
    with kept_memory():
        seconds = sum(fastest(layer, given, result, repeats) for layer, given, result in convolutions(told))
    torch.set_num_threads(before)
    return seconds


def convolutions(told: dict[str, Any]) -> list[tuple[nn.Module, torch.Size, torch.Size]]:
    """Every convolution of the network, with the shapes of its input and its output."""
    network = make_network(told)
    found: list[tuple[nn.Module, torch.Size, torch.Size]] = []

    def note(layer: nn.Module, given: tuple[Tensor], result: Tensor) -> None:
        found.append((layer, given[0].shape, result.shape))

    for layer in network.modules():
        if hasattr(layer, "kernel_size"):
            layer.register_forward_hook(note)
    with torch.no_grad():
        network.forward_deep(torch.zeros(1, told["channels"], *told["patch"]))
    batch = told["batch"]
    return [(layer, torch.Size([batch, *a[1:]]), torch.Size([batch, *b[1:]])) for layer, a, b in found]


def fastest(layer: nn.Module, given: Sequence[int], result: Sequence[int], repeats: int) -> float:
    """Shortest time of forward and backward; the image, which alone has one channel, needs no gradient."""
    x = channels_last(torch.rand(*given)).requires_grad_(given[1] > 1)
    gradient = channels_last(torch.rand(*result))
    times: list[float] = []
    for _ in range(repeats + 1):
        layer.zero_grad()
        begun = time.perf_counter()
        layer(x).backward(gradient)
        times.append(time.perf_counter() - begun)
    return min(times)


if __name__ == "__main__":
    raise SystemExit(run(rows))

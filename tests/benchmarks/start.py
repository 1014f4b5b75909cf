"""Start: how long ``skipseg --help`` takes, and a training from the start of its process to the end of its first step.

The dataset is a tiny phantom that an earlier training has checked and prepared, so that what is timed is the start:
libraries, settings, plan, network, trainer, first patch. The floors are an interpreter that does nothing, and a step of
a network of one layer by PyTorch alone, whose first optimiser loads its compiler.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from data_prep import prepare
from tests.benchmarks.rows import Options, Row, run
from tests.benchmarks.worker import take_turns

HELP_S, FIRST_STEP_S = 0.5, 6.0
"""Targets."""
SETTINGS = (
    *("--epochs=1", "--steps_per_epoch=1", "--threads=1", "--device=cpu", "--data.batch_size=2"),
    *("--network.depth=2", "--network.width=8", "--data.patch_size=[32,32,32]"),
)
UNTIL_FIRST_STEP = """
import os, sys
from torch.optim.optimizer import register_optimizer_step_post_hook
from segmentation.cli import main
register_optimizer_step_post_hook(lambda *_: os._exit(0))
main(sys.argv[1:])
sys.exit("the training ended before its first step")
"""
"""The command line in a process that ends with the first step of an optimiser, whichever it is."""
PYTORCH_ALONE = """
import torch
layer = torch.nn.Conv3d(1, 8, 3)
optimiser = torch.optim.AdamW(layer.parameters())
layer(torch.zeros(2, 1, 32, 32, 32)).mean().backward()
optimiser.step()
"""


def rows(options: Options) -> list[Row]:
    """Measure the command line from outside, programs in turn."""
    folder = options.work / "start"
    shutil.rmtree(folder, ignore_errors=True)
    prepare("phantom", folder / "data", None, {"spatial_dims": 3, "cases": 5, "size": 40})
    training = ["train", folder / "data", "--cache", folder / "cache", *SETTINGS]
    python = [sys.executable, "-c"]
    measure([sys.executable, "-m", "segmentation.cli", *training, "--out", folder / "first"], folder)

    def first_step() -> dict[str, float]:
        out = folder / "run"
        shutil.rmtree(out, ignore_errors=True)
        return measure([*python, UNTIL_FIRST_STEP, *training, "--out", out], folder)

    found = take_turns(
        {
            "help": lambda: measure([sys.executable, "-m", "segmentation.cli", "--help"], folder),
            "nothing": lambda: measure([*python, "pass"], folder),
            "first step": first_step,
            "PyTorch": lambda: measure([*python, PYTORCH_ALONE], folder),
        },
        options.repeats,
    )
    measured = [
        ("skipseg --help", "help", "nothing", HELP_S),
        ("train to its first step", "first step", "PyTorch", FIRST_STEP_S),
    ]
    return [
        Row(
            f"{name}, {clock} time",
            found[ours][key],
            "s",
            target=target if key == "wall_s" else None,
            floor=found[floor][key],
        )
        for name, ours, floor, target in measured
        for clock, key in (("wall", "wall_s"), ("CPU", "cpu_s"))
    ]


def measure(command: Sequence[str | Path], folder: Path) -> dict[str, float]:
    """Run a command to its end.

    Raises:
        SystemExit: If it fails; its last lines are shown.
    """
    log, begun = folder / "log.txt", time.perf_counter()
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [str(part) for part in command], stdout=stream, stderr=stream, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
        _, status, usage = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        ending = "\n".join(log.read_text(errors="replace").splitlines()[-12:])
        raise SystemExit(f"{' '.join(map(str, command))}\nended with status {process.returncode}:\n{ending}")
    return {"wall_s": wall_s, "cpu_s": usage.ru_utime + usage.ru_stime}


if __name__ == "__main__":
    raise SystemExit(run(rows))

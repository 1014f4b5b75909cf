"""Training patches a second and core with full augmentation: ours, nnU-Net's loader, a MONAI pipeline.

    python -m tests.benchmarks.loader

Each makes batches of one-channel patches in one process and one thread, from the same phantoms, as its training does;
counted is the time of that process. Ours reads its prepared arrays (blosc2, float16) from disk, nnU-Net its own
(blosc2, float32), and MONAI holds them in memory. nnU-Net's loader is that of nnUNetTrainer without deep supervision
and without worker processes. Half of the patches are centred on foreground.

How strong the augmentation is, as chance and range:

===================  ========================  =============================  ==============================
change               ours, strength 1          nnU-Net                        MONAI
===================  ========================  =============================  ==============================
rotation             0.6, 20 degrees           0.2, 30 degrees (2-D: 180)     0.6, 20 degrees
zoom                 with it, 0.8 to 1.2       0.2, 0.7 to 1.4                with it, 0.8 to 1.2
mirrored, an axis    0.5                       0.5                            0.5
contrast, factor     0.3, 0.8 to 1.2           0.15 and 0.15, 0.75 to 1.25    0.3, 0.8 to 1.2
                     (2-D: 0.75 to 1.25)       (brightness, contrast)
brightness, added    0.3, 0.08 (2-D: 0.15,     none                           0.3, 0.08
                     with the contrast)
gamma                0.3, 0.71 to 1.4          0.3 and 0.1, 0.7 to 1.5        0.3, 0.71 to 1.4
noise, deviation     0.15, 0.03 (2-D: 0.06)    0.1, 0.1                       0.15, 0.03 (2-D: 0.06)
blur, sigma          0.15, 0.3 to 0.9          0.2 times 0.5, 0.5 to 1        0.15, 0.3 to 0.9
                     (2-D: to 1.2)                                            (2-D: to 1.2)
low resolution       2-D: 0.1, 0.5 to 0.95     0.25 times 0.5, 0.5 to 1       2-D: 0.1, 0.5 to 0.95
===================  ========================  =============================  ==============================

MONAI's chances and ranges are ours. For nnU-Net there are two rows: as it is, and "at our strength", its transforms
with our chances and ranges. Intensities are in [0, 1] in ours and MONAI, of unit deviation in nnU-Net.

The floor is one copy of as many voxels as a patch of ours reads on average, float32 and labels.
"""

import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segmentation.config import AugmentSettings
from segmentation.data.augment import build_augmentation
from segmentation.runs import write_json
from tests.benchmarks.measure import run_measured
from tests.benchmarks.phantoms import LABELS, SPACING_MM, make_scan, write_scan, write_volume
from tests.benchmarks.rows import Options, Row, run
from tests.benchmarks.skipseg_loader import DATASET, prepare
from tests.benchmarks.worker import Worker, take_turns

ROOT = Path(__file__).parents[2]
TARGET = 2.0
NNUNET = {"nnU-Net": "theirs", "nnU-Net at our strength": "ours"}


@dataclass(frozen=True)
class Work:
    """What is loaded.

    Attributes:
        shape: Of each scan along (x, y, z).
        scans: How many.
        patches: Their sizes, each with the batch and the patches of a round.
    """

    shape: tuple[int, int, int]
    scans: int
    patches: dict[tuple[int, ...], tuple[int, int]]


SIZES = {
    "small": Work((56, 52, 48), 2, {(32, 32): (2, 4), (24, 24, 24): (2, 4)}),
    "full": Work((320, 320, 192), 3, {(256, 256): (8, 800), (128, 128, 128): (2, 24)}),
}


def rows(options: Options) -> list[Row]:
    """Measure all loaders in turn."""
    work = SIZES[options.size]
    folder = options.work / f"loader-{options.size}"
    make_data(work, folder)
    found = [compare(options, folder, patch, batch, count) for patch, (batch, count) in work.patches.items()]
    return [row for each in found for row in each]


def make_data(work: Work, folder: Path) -> None:
    """Write the scans as nnU-Net's raw data set, and our prepared arrays; what stands whole is taken."""
    raw, arrays = folder / "raw" / DATASET, folder / "arrays"
    if (arrays / "whole.json").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    arrays.mkdir(parents=True)
    for number in range(work.scans):
        scan, labels = make_scan("ct", work.shape, number)
        write_scan(raw / "imagesTr", f"scan{number}", scan, SPACING_MM["ct"])
        (raw / "labelsTr").mkdir(exist_ok=True)
        write_volume(raw / "labelsTr" / f"scan{number}.nii.gz", labels, SPACING_MM["ct"])
    about = {"channel_names": {"0": "CT"}, "labels": LABELS["ct"], "numTraining": work.scans, "file_ending": ".nii.gz"}
    write_json(raw / "dataset.json", about)
    prepare(folder, 2)
    for case in prepare(folder, 3)[0]:
        np.save(arrays / f"{case.name}_image.npy", case.image()[0].astype(np.float32))
        np.save(arrays / f"{case.name}_label.npy", case.labels())
    write_json(arrays / "whole.json", {"scans": work.scans})


def compare(options: Options, folder: Path, patch: tuple[int, ...], batch: int, count: int) -> list[Row]:
    """Let the loaders make patches of one size in turn."""
    size = ",".join(map(str, patch))
    shared = [size, str(batch), str(count)]
    commands: dict[str, list[str | Path]] = {
        source: [sys.executable, "-m", "tests.benchmarks.skipseg_loader", folder, *shared, source]
        for source in ("disk", "memory")
    }
    commands["MONAI"] = [sys.executable, "-m", "tests.benchmarks.monai_loader", folder / "arrays", *shared]
    if options.nnunet:
        script = [options.nnunet, Path(__file__).with_name("nnunet_loader.py")]
        prepare_nnunet([*script, size], folder, len(patch))
        commands |= {name: [*script, *shared, strength] for name, strength in NNUNET.items()}
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(
                Worker(command, folder / "logs" / f"{len(patch)}-{name}.txt", environment(folder))
            )
            for name, command in commands.items()
        }
        speeds = {name: 1 / times["cpu_s"] for name, times in take_turns(workers, options.repeats).items()}
    name, limit = f"loader {'x'.join(map(str, patch))}, patches a second and core", 1 / floor(patch)
    disk, memory = speeds.pop("disk"), speeds.pop("memory")
    found = [Row(name, disk, "/s", speed, peer, TARGET, "more", limit) for peer, speed in speeds.items()]
    return [*found, Row(f"{name}, arrays in memory", memory, "/s", better="more", floor=limit)]


def environment(folder: Path) -> dict[str, str]:
    """One thread, and where nnU-Net finds its data; it makes its patches in its own process."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    places = {f"nnUNet_{name}": str(folder / name) for name in ("raw", "preprocessed", "results")}
    return {"PYTHONPATH": str(ROOT), "nnUNet_n_proc_DA": "0", **threads, **places}


def prepare_nnunet(command: Sequence[str | Path], folder: Path, dims: int) -> None:
    """Let nnU-Net plan and preprocess, once."""
    stamp = folder / f"nnunet-{dims}.json"
    if stamp.exists():
        return
    measured = run_measured(command, stamp.with_suffix(".txt"), environment(folder) | {"nnUNet_n_proc_DA": "1"})
    if measured.status:
        raise SystemExit(f"nnU-Net could not prepare its arrays; read {stamp.with_suffix('.txt')}")
    write_json(stamp, {"prepared": True})


def floor(patch: tuple[int, ...], repeats: int = 5) -> float:
    """Seconds to copy what a patch of ours reads on average, as float32 and labels: the shortest of some copies."""
    augmentation = build_augmentation(AugmentSettings(), patch)
    voxels = int(np.mean([np.prod(augmentation.draw(np.random.default_rng(n)).size) for n in range(100)]))
    sources = [np.ones(voxels, np.float32), np.ones(voxels, np.uint8)]
    targets = [array.copy() for array in sources]
    times: list[float] = []
    for _ in range(repeats):
        begun = time.process_time()
        for source, target in zip(sources, targets, strict=True):
            np.copyto(target, source)
        times.append(time.process_time() - begun)
    return min(times)


if __name__ == "__main__":
    raise SystemExit(run(rows))

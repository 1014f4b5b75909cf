"""From raw files to prepared arrays beside nnU-Net's own command: fingerprint, plan and preprocessing of a dataset.

    python -m tests.benchmarks.prepare --size full --build-peers

The work: a folder of many small volumes, of one scan of four contrasts, or of one CT, as .nii.gz in nnU-Net's layout,
which both read in place. Both end with a plan and with compressed arrays of every case at the planned spacing, which
is that of the scans; ours has checked the dataset on the way. Ours does what ``skipseg plan --dims 3`` does, and what
``skipseg train`` does before its first step (``python -m tests.benchmarks.prepare_stages``). nnU-Net runs
``nnUNetv2_plan_and_preprocess -c 3d_fullres`` with one process a core, at most one a case. Each starts from nothing;
measured is the whole tree of processes. The floor reads the raw files once, and writes the bytes that ours prepared.
"""

import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from segmentation.runs import content_hash, read_json, write_bytes, write_json
from tests.benchmarks import phantoms
from tests.benchmarks.measure import run_measured
from tests.benchmarks.rows import Options, Row, Size, run
from tests.benchmarks.worker import take_turns

ROOT = Path(__file__).parents[2]
TARGETS = {"wall_s": 0.33, "peak_mib": 0.5}
UNITS = {"wall_s": "s", "peak_mib": "MiB"}
_DATASET = "Dataset001_Bench"


@dataclass(frozen=True)
class Work:
    """A dataset to prepare.

    Attributes:
        name: Of the row.
        kind: Which phantom; only its first ``channels`` contrasts are kept.
        channels: How many there are.
        cases: How many scans.
        shape: Voxels of a scan along (x, y, z).
        spread: Voxels by which each axis varies from case to case, both ways.
    """

    name: str
    kind: str
    channels: int
    cases: int
    shape: tuple[int, int, int]
    spread: int = 0


WORKS: dict[Size, list[Work]] = {
    "small": [
        Work("6 small volumes", "brain", 1, 6, (36, 50, 35), 3),
        Work("one scan of 4 contrasts", "brain", 4, 1, (60, 60, 44)),
        Work("one CT", "ct", 1, 1, (80, 80, 48)),
    ],
    "full": [
        Work("40 volumes of about 36x50x35", "brain", 1, 40, (36, 50, 35), 3),
        Work("one scan of 240x240x155x4", "brain", 4, 1, (240, 240, 155)),
        Work("one CT of 512x512x300", "ct", 1, 1, (512, 512, 300)),
    ],
}


def rows(options: Options) -> list[Row]:
    """Wall time and peak memory of each work, ours beside nnU-Net's."""
    return [row for work in WORKS[options.size] for row in _compare(work, options)]


def make_dataset(work: Work, root: Path) -> Path:
    """Draw the scans of a work in nnU-Net's layout, or take those that stand; gives the dataset's folder."""
    folder, stamp = root / _DATASET, root / "made.json"
    made = content_hash([asdict(work), Path(phantoms.__file__).read_text(), Path(__file__).read_text()])
    if stamp.is_file() and read_json(stamp) == made:
        return folder
    shutil.rmtree(root, ignore_errors=True)
    spacing = phantoms.SPACING_MM[work.kind]
    for seed in range(work.cases):
        spread = np.random.default_rng(seed).integers(-work.spread, work.spread + 1, 3)
        shape = [size + int(more) for size, more in zip(work.shape, spread, strict=True)]
        scan, labels = phantoms.make_scan(work.kind, shape, seed)
        phantoms.write_scan(folder / "imagesTr", f"case_{seed:03}", scan[: work.channels], spacing)
        (folder / "labelsTr").mkdir(exist_ok=True)
        phantoms.write_volume(folder / "labelsTr" / f"case_{seed:03}.nii.gz", labels, spacing)
    channels = phantoms.CHANNELS[work.kind][: work.channels]
    description = {
        "channel_names": {str(index): name for index, name in enumerate(channels)},
        "labels": phantoms.LABELS[work.kind],
        "numTraining": work.cases,
        "file_ending": ".nii.gz",
    }
    write_json(folder / "dataset.json", description)
    write_json(stamp, made)
    return folder


def _compare(work: Work, options: Options) -> list[Row]:
    """Let ours, the peer and the floor prepare one work in turn."""
    dataset = make_dataset(work, options.work / "prepare" / f"{options.size}-{work.kind}-{work.cases}")
    programs: dict[str, Callable[[], Mapping[str, float]]] = {"ours": partial(_ours, dataset, work.cases)}
    if options.nnunet:
        programs["peer"] = partial(_theirs, dataset, work.cases, options.peers)
    programs["floor"] = partial(_floor, dataset)
    found = take_turns(programs, options.repeats, warm_up=options.size == "full")
    peer = found.get("peer", {})
    return [
        Row(
            f"prepare {work.name}: {'time' if measure == 'wall_s' else 'memory'}",
            found["ours"][measure],
            unit,
            peer.get(measure),
            "nnU-Net" if peer else None,
            TARGETS[measure] if peer else None,
            floor=found["floor"].get(measure),
        )
        for measure, unit in UNITS.items()
    ]


def _ours(dataset: Path, cases: int) -> dict[str, float]:
    """Prepare a dataset with ours, from nothing."""
    cache = dataset.parent / "ours"
    shutil.rmtree(cache, ignore_errors=True)
    command = [sys.executable, "-m", "tests.benchmarks.prepare_stages", dataset, cache]
    cost = _measured(command, dataset.parent / "ours.txt", {"PYTHONPATH": str(ROOT)})
    _check_whole(len(list(cache.rglob("case.json"))), cases, command)
    return cost


def _theirs(dataset: Path, cases: int, environment: Path) -> dict[str, float]:
    """Prepare a dataset with nnU-Net's own command, from nothing."""
    prepared = dataset.parent / "theirs"
    shutil.rmtree(prepared, ignore_errors=True)
    processes = str(min(cases, os.cpu_count() or 1))
    command = [environment / "bin" / "nnUNetv2_plan_and_preprocess", "-d", "1", "-c", "3d_fullres"]
    command += ["-npfp", processes, "-np", processes, "--no_pbar"]
    folders = {"raw": dataset.parent, "preprocessed": prepared, "results": prepared / "results"}
    env = {f"nnUNet_{name}": str(folder) for name, folder in folders.items()}
    cost = _measured(command, dataset.parent / "theirs.txt", env)
    _check_whole(len(list(prepared.rglob("*_seg.b2nd"))), cases, command)
    return cost


def _floor(dataset: Path) -> dict[str, float]:
    """Read the raw files, and write the bytes that ours prepared."""
    raw = [path for path in dataset.rglob("*.nii.gz") if path.is_file()]
    prepared = [path.read_bytes() for path in (dataset.parent / "ours").rglob("*.b2nd")]
    begun = time.perf_counter()
    for path in raw:
        path.read_bytes()
    for index, content in enumerate(prepared):
        write_bytes(dataset.parent / "floor" / str(index), content)
    return {"wall_s": time.perf_counter() - begun}


def _measured(command: Sequence[str | Path], log: Path, env: Mapping[str, str]) -> dict[str, float]:
    """Cost of a command that must succeed."""
    measured = run_measured(command, log, env)
    if measured.status:
        ending = "\n".join(log.read_text(errors="replace").splitlines()[-12:])
        raise SystemExit(f"{' '.join(map(str, command))}\nended with status {measured.status}:\n{ending}")
    return {"wall_s": measured.wall_s, "peak_mib": measured.peak_mib, "cpu_s": measured.cpu_s}


def _check_whole(found: int, cases: int, command: Sequence[str | Path]) -> None:
    """Refuse the time of a program that did not do the work."""
    if found != cases:
        raise SystemExit(f"{' '.join(map(str, command))}\nprepared {found} cases of {cases}")


if __name__ == "__main__":
    raise SystemExit(run(rows))

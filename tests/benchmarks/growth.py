"""What prepare, a training step and predict cost when the work is 1, 2, 4 and 8 times as large.

    python -m tests.benchmarks.growth --size full

Each size runs as a command of its own, in one thread. Time is the processor seconds of the command and of all that it
starts, imports included (of a training step: of the step alone), so that neighbours on the machine do not count;
memory is the largest of its tree of processes. A row is the exponent p of cost = a * size^p: 1 where twice the work
costs twice as much. A cost that no size changes lowers p, so the exponent between the two largest sizes, where it
weighs least, has a row of its own.

Scans to segment grow along one axis, like scans of more of a body. Windows overlap by half and cover a scan from end
to end, so that one of n windows' lengths takes 2n - 1 of them: in short scans the ends count, and p lies above 1.
"""

import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from tests.benchmarks import phantoms
from tests.benchmarks.measure import run_measured
from tests.benchmarks.prepare import ROOT, Work, make_dataset
from tests.benchmarks.rows import Options, Row, Size, run

TARGET = 1.05
FACTORS = (1, 2, 4, 8)
Shape = tuple[int, int, int]
Cost = Mapping[str, float]
Measure = Callable[[int, Options], Cost]
"""Cost of the work of a factor: ``s`` and ``MiB``."""


@dataclass(frozen=True)
class Base:
    """The work of factor 1.

    Attributes:
        scan: Voxels of the scan that is prepared.
        cases: How many of ``case`` are prepared.
        case: Voxels of each of them.
        patch: Voxels of the training patch.
        steps: Training steps that are timed.
        window: Voxels of the window of predict along each axis.
        body: Voxels of the scan that is segmented, the last axis at factor 1.
        memory: Memory that ``predict`` is told to keep to.
    """

    scan: Shape
    cases: int
    case: Shape
    patch: Shape
    steps: int
    window: int
    body: Shape
    memory: str


BASES: dict[Size, Base] = {
    "small": Base((24, 24, 24), 1, (16, 16, 16), (8, 8, 8), 1, 16, (24, 24, 24), "1GiB"),
    "full": Base((192, 192, 128), 8, (96, 96, 64), (64, 64, 64), 3, 32, (64, 64, 256), "1GiB"),
}


def rows(options: Options) -> list[Row]:
    """Exponents of time and memory of each work."""
    works: dict[str, Measure] = {
        "prepare, voxels of a scan": _prepare_scan,
        "prepare, number of scans": _prepare_scans,
        "training step, voxels of a patch": _step,
        "predict, voxels of a scan": partial(_predict, memory=None),
        f"predict --memory {BASES[options.size].memory}, voxels of a scan": partial(
            _predict, memory=BASES[options.size].memory
        ),
    }
    return [row for name, measure in works.items() for row in _rows_of(name, measure, options)]


def exponent(sizes: ArrayLike, costs: ArrayLike) -> float:
    """Exponent p of ``cost = a * size^p``, by least squares of the logarithms.

    Args:
        sizes: Positive, shape ``(n,)``.
        costs: Positive, shape ``(n,)``.

    Examples:
        >>> round(exponent([1, 2, 4], [3.0, 12.0, 48.0]), 6)
        2.0
    """
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def scaled(shape: Shape, factor: int) -> Shape:
    """Double axes in turn, the last first, until there are ``factor`` times as many voxels; a power of 2.

    Examples:
        >>> scaled((16, 16, 16), 2), scaled((16, 16, 16), 8)
        ((16, 16, 32), (32, 32, 32))
    """
    x, y, z = (2 ** ((factor.bit_length() - 1 + turn) // 3) * size for turn, size in enumerate(shape))
    assert x * y * z == factor * prod(shape)
    return x, y, z


def _rows_of(name: str, measure: Measure, options: Options) -> list[Row]:
    """Measure all sizes, print what they cost, and fit."""
    costs = [measure(factor, options) for factor in FACTORS]
    found: list[Row] = []
    for unit, what in (("s", "time"), ("MiB", "memory")):
        values = [cost[unit] for cost in costs]
        print(f"{name}: " + ", ".join(f"{f}x {v:.3g} {unit}" for f, v in zip(FACTORS, values, strict=True)), flush=True)
        found.append(Row(f"{name}: {what}", exponent(FACTORS, values), "", target=TARGET))
        last = exponent(FACTORS[-2:], values[-2:])
        found.append(Row(f"{name}: {what}, {FACTORS[-2]}x to {FACTORS[-1]}x", last, "", target=TARGET))
    return found


def _prepare_scan(factor: int, options: Options) -> Cost:
    """Plan for one scan and prepare its arrays, from nothing."""
    return _prepare(Work("scan", "brain", 1, 1, scaled(BASES[options.size].scan, factor)), options)


def _prepare_scans(factor: int, options: Options) -> Cost:
    """Plan for some scans and prepare their arrays, from nothing."""
    base = BASES[options.size]
    return _prepare(Work("scans", "brain", 1, base.cases * factor, base.case), options)


def _prepare(work: Work, options: Options) -> Cost:
    """What ``skipseg plan`` and the start of ``skipseg train`` cost."""
    root = options.work / "growth" / f"{work.name}-{work.cases}-{'x'.join(map(str, work.shape))}"
    dataset = make_dataset(work, root)
    shutil.rmtree(root / "cache", ignore_errors=True)
    return _measured([sys.executable, "-m", "tests.benchmarks.prepare_stages", dataset, root / "cache"], options)


def _step(factor: int, options: Options) -> Cost:
    """One training step: its own time, and the memory of the process."""
    base = BASES[options.size]
    patch = ",".join(map(str, scaled(base.patch, factor)))
    cost = _measured([sys.executable, "-m", "tests.benchmarks.growth_step", patch, str(base.steps)], options)
    return {**cost, "s": json.loads(_log(options).read_text().splitlines()[-1])["step_s"]}


def _predict(factor: int, options: Options, memory: str | None) -> Cost:
    """Segment one scan, with a network that was exported before."""
    x, y, z = BASES[options.size].body
    return _segment(_model(options), (x, y, z * factor), options, *(["--memory", memory] if memory else []))


def _model(options: Options) -> Path:
    """A network after one step, which has segmented a scan, so that it is exported; one that stands is taken."""
    base, place = BASES[options.size], options.work / "growth" / f"model-{options.size}"
    if not (place / "used").exists():
        shutil.rmtree(place, ignore_errors=True)
        cube = (2 * base.window, 2 * base.window, 2 * base.window)
        dataset = make_dataset(Work("learnt", "ct", 1, 2, cube), place / "dataset")
        changes = ["--folds", "2", "--epochs", "1", "--steps_per_epoch", "1", "--device", "cpu"]
        changes += ["--data.patch_size", str([base.window] * 3), "--data.batch_size", "1", "--data.dims", "3"]
        changes += ["--network.depth", "2", "--network.width", "8", "--cache", str(place / "cache")]
        train = [sys.executable, "-m", "segmentation", "train", "--dataset", dataset, "--out", place / "run", *changes]
        _measured(train, options)
        _segment(place / "run", cube, options)
        (place / "used").touch()
    return place / "run"


def _segment(model: Path, shape: Shape, options: Options, *given: str) -> Cost:
    """Draw a scan and segment it."""
    folder = options.work / "growth" / f"body-{'x'.join(map(str, shape))}"
    if not folder.exists():
        phantoms.write_scan(folder, "body", phantoms.make_scan("ct", shape)[0], phantoms.SPACING_MM["ct"])
    masks = options.work / "growth" / "masks"
    shutil.rmtree(masks, ignore_errors=True)
    command = [sys.executable, "-m", "segmentation", "predict", "--model", model, "--input", folder]
    cost = _measured([*command, "--output", masks, "--threads", "1", *given], options)
    assert len(list(masks.glob("*.nii.gz"))) == 1
    return cost


def _log(options: Options) -> Path:
    """Where the last command printed to."""
    return options.work / "growth" / "log.txt"


def _measured(command: Sequence[str | Path], options: Options) -> Cost:
    """Cost of a command that must succeed."""
    env = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(options.work / "growth" / "cache")}
    measured = run_measured(command, _log(options), env)
    if measured.status:
        ending = "\n".join(_log(options).read_text(errors="replace").splitlines()[-12:])
        raise SystemExit(f"{' '.join(map(str, command))}\nended with status {measured.status}:\n{ending}")
    return {"s": measured.cpu_s, "MiB": measured.peak_mib}


if __name__ == "__main__":
    raise SystemExit(run(rows))

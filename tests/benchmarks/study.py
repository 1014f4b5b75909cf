"""A study of many short runs with our launchers, beside a plain loop over the same frozen runs.

    python -m tests.benchmarks.study --size full

Each program starts from the study file and ends with the report, imports and start-up included. The loop works on one
run after another in one process (:mod:`tests.benchmarks.study_loop`); the launchers give every run a process of its
own, one a core at a time. All write the same bytes, which is checked. A row's ratio is the speed-up over the loop,
divided by the cores: 1 is perfect scaling. What the machine itself allows stands beside it as the floor: the speed-up
of one plain loop a core, side by side, each with its share of the runs and no report. Cores that share memory, or a
chip with neighbours, do less together than alone; processor seconds tell that, too.
"""

import hashlib
import importlib.util
import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from data_prep import phantom
from segmentation.data.hardware import usable_cores
from tests.benchmarks.measure import run_measured
from tests.benchmarks.rows import Options, Row, Size, run
from tests.benchmarks.worker import take_turns

ROOT = Path(__file__).parents[2]
TARGET = 0.9
"""Share of perfect scaling."""
MAY_DIFFER = {"timing.json", "report.html", "last.ckpt", "log.txt", "attempts"}
"""Seconds, the page that shows them, what only a resume reads, and how often a run was begun."""


@dataclass(frozen=True)
class Work:
    """A study.

    Attributes:
        cases: Pictures of the dataset.
        pixels: Of a picture along each axis, about.
        patch: Pixels of a patch along each axis.
        steps: Of each run, in four epochs.
        width: Channels of the networks.
        long_skips, short_skips: Every pair of one of each is a condition.
        seeds: How many; each condition runs once with each.
    """

    cases: int
    pixels: int
    patch: int
    steps: int
    width: int
    long_skips: Sequence[str]
    short_skips: Sequence[str]
    seeds: int

    @property
    def runs(self) -> int:
        """How many there are."""
        return len(self.long_skips) * len(self.short_skips) * self.seeds


WORKS: dict[Size, Work] = {
    "small": Work(6, 32, 16, 4, 4, ["concat", "none"], ["none"], 2),
    "full": Work(16, 96, 64, 140, 8, ["concat", "add", "gated", "none"], ["none", "add"], 4),
}


def rows(options: Options) -> list[Row]:
    """Speed-up of each launcher over the loop beside the cores, and what it costs in processor seconds.

    Full runs take minutes, so each program runs once.
    """
    work = WORKS[options.size]
    folder = options.work / f"study-{options.size}"
    shutil.rmtree(folder, ignore_errors=True)
    study = write_study(work, folder)
    launchers = ["local", *(["ray"] if importlib.util.find_spec("ray") else [])]
    loop = [sys.executable, "-m", "tests.benchmarks.study_loop", study, *_places(folder / "loop")]
    commands = {name: _skipseg(study, folder / name, name) for name in launchers} | {"loop": loop}
    commands["loops"] = [*loop[:4], *_places(folder / "loops"), str(usable_cores())]
    programs: Mapping[str, Callable[[], Mapping[str, float]]] = {
        name: partial(_run_anew, command, folder / name) for name, command in commands.items()
    }
    found = take_turns(programs, 1, warm_up=0)
    _check_equal({name: results(folder / name) for name in (*launchers, "loop")})
    floor = found["loop"]["wall_s"] / found["loops"]["wall_s"]
    return [row for name in launchers for row in _rows_of(name, work.runs, found[name], found["loop"], floor)]


def write_study(work: Work, folder: Path) -> Path:
    """Draw the dataset and write the study file; gives its path."""
    phantom.prepare(folder / "data", {"cases": work.cases, "size": work.pixels})
    content: dict[str, Any] = {
        "name": "scaling",
        "dataset": str(folder / "data"),
        "base": {
            "folds": 2,
            "epochs": 4,
            "steps_per_epoch": work.steps // 4,
            "device": "cpu",
            "network": {"depth": 3, "width": work.width},
            "data": {"patch_size": [work.patch] * 2, "batch_size": 8},
        },
        "grid": {"network.long_skip": list(work.long_skips), "network.short_skip": list(work.short_skips)},
        "folds": [0],
        "seeds": list(range(work.seeds)),
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def results(folder: Path) -> dict[str, str]:
    """Each file that two equal studies have in common, with the hash of its bytes; a frozen file names its folder."""
    place = str(folder).encode()
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(without_times(path).replace(place, b"")).hexdigest()
        for path in files
        if not MAY_DIFFER.intersection(path.relative_to(folder).parts)
    }


def without_times(path: Path) -> bytes:
    """Content of a file; of results.json without what is declared as time."""
    if path.name != "results.json":
        return path.read_bytes()
    return json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "time"}).encode()


def _rows_of(name: str, runs: int, ours: Mapping[str, float], loop: Mapping[str, float], floor: float) -> list[Row]:
    """Rows of one launcher; ``floor`` is the speed-up of loops side by side."""
    about, speed_up = f"study of {runs} runs, {name}", loop["wall_s"] / ours["wall_s"]
    return [
        Row(f"{about}: speed-up", speed_up, "x", usable_cores(), "perfect scaling", TARGET, "more", floor),
        Row(f"{about}: wall time", ours["wall_s"], "s", loop["wall_s"], "one run after another"),
        Row(f"{about}: processor time", ours["cpu_s"], "s", loop["cpu_s"], "one run after another"),
    ]


def _skipseg(study: Path, place: Path, launcher: str) -> list[str | Path]:
    """Ours, as a user runs it."""
    out, cache = _places(place)
    start = [sys.executable, "-m", "segmentation", "ablate", study, "--launcher", launcher]
    return [*start, "--out", out, "--cache", cache]


def _places(place: Path) -> tuple[Path, Path]:
    """Folders of a program's study and of its prepared arrays."""
    return place / "out", place / "cache"


def _run_anew(command: Sequence[str | Path], place: Path) -> dict[str, float]:
    """Cost of a study from nothing, and of all processes that it started."""
    shutil.rmtree(place, ignore_errors=True)
    log, seconds = place.with_suffix(".txt"), place.with_suffix(".seconds")
    env = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    reap = [sys.executable, "-m", "tests.benchmarks.reap", seconds]
    measured = run_measured([*reap, *command], log, env, memory=False)
    if measured.status:
        ending = "\n".join(log.read_text(errors="replace").splitlines()[-12:])
        raise SystemExit(f"{' '.join(map(str, command))}\nended with status {measured.status}:\n{ending}")
    return {"wall_s": float(seconds.read_text()), "cpu_s": measured.cpu_s}


def _check_equal(found: Mapping[str, Mapping[str, str]]) -> None:
    """Refuse the times of programs whose studies differ."""
    expected = found["loop"]
    for name, files in found.items():
        differing = sorted(path for path in expected.keys() | files.keys() if expected.get(path) != files.get(path))
        if differing or not any(path.endswith("model.safetensors") for path in files):
            raise SystemExit(f"{name} and the loop differ in {differing[:5] or 'nothing, for there are no models'}")


if __name__ == "__main__":
    raise SystemExit(run(rows))

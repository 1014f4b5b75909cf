"""skipseg predict beside nnU-Net's predictor and a plain MONAI script, each its own command, on the same work.

    python -m tests.benchmarks.predict --size full --build-peers

The work: one network with the same weights, trained for a moment on the scan itself; the same window, half overlapping,
no mirroring, no resampling. Each program reads .nii.gz, and writes a mask. They run in turn; measured is the whole tree
of processes of each (see :mod:`tests.benchmarks.measure`), from start to end. Ours has segmented a small scan twice
before: it exports its network in a model's first prediction, and measures what memory that takes in the second. What
the first takes is printed too. Every mask is compared with
:mod:`tests.benchmarks.exact`, whose windows and averages are ours; the peers' differ: nnU-Net crops to what is not zero
and averages logits in half precision, MONAI steps by half a window and averages logits.
"""

import argparse
import json
import shutil
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from segmentation.config import ImportSettings
from segmentation.inference.foreign import import_nnunet
from segmentation.metrics.overlap import Counts
from segmentation.runs import content_hash, user_cache, write_json
from tests.benchmarks import peers
from tests.benchmarks.measure import Measured, run_measured
from tests.benchmarks.phantoms import LABELS, SPACING_MM, make_scan, write_scan
from tests.benchmarks.rows import Options, Row

ROOT = Path(__file__).parents[2]
TARGET = 0.5
"""Ours against the better peer, in wall time and in peak memory."""
DICE_TARGET = 0.999
WARM_UP = "warm-up"
MEASURES = {"wall_s": "s", "cpu_s": "s", "peak_mib": "MiB"}
_WORDS = {"wall_s": "wall time", "cpu_s": "CPU time", "peak_mib": "peak memory"}


@dataclass(frozen=True)
class Work:
    """What is segmented.

    Attributes:
        shape: Voxels of each scan along (x, y, z).
        window: Of the network, along each axis.
        widths: Channels of its levels.
        steps: Steps of its training.
    """

    shape: dict[str, tuple[int, int, int]]
    window: int
    widths: tuple[int, ...]
    steps: int


SIZES = {
    "small": Work({"brain": (60, 60, 44), "ct": (80, 80, 48)}, 32, (4, 8, 16), 200),
    "full": Work({"brain": (240, 240, 155), "ct": (512, 512, 300)}, 128, (8, 16, 32, 64, 64), 60),
}


@dataclass(frozen=True)
class Case:
    """A scan and its model in the two forms, on disk.

    Attributes:
        images: One file a channel; nothing else lies in their folder.
        ours: Model folder of SkipSeg.
        theirs: Model folder of nnU-Net.
        exact: Mask of the exact computation.
        folder: Of all this.
    """

    images: list[Path]
    ours: Path
    theirs: Path
    exact: Path
    folder: Path


Command = Callable[[Case, Path, Path], Sequence[str | Path]]
"""Makes a program's command of a case, a folder for its mask, and the folder of the peers' environment."""


def skipseg_command(case: Case, output: Path, _: Path) -> Sequence[str | Path]:
    """Ours, as a user runs it."""
    start = [sys.executable, "-m", "segmentation", "predict", "--model", case.ours, "--input", case.images[0].parent]
    return [*start, "--output", output, "--mirror", "false"]


def nnunet_command(case: Case, output: Path, environment: Path) -> Sequence[str | Path]:
    """nnU-Net's own command, with its defaults but for mirroring."""
    start = [environment / "bin" / "nnUNetv2_predict_from_modelfolder", "-i", case.images[0].parent, "-o", output]
    return [*start, "-m", case.theirs, "-f", "0", "--disable_tta", "-device", "cpu", "--disable_progress_bar"]


def nnunet_lean_command(case: Case, output: Path, environment: Path) -> Sequence[str | Path]:
    """nnU-Net's command with one process to prepare and one to write, instead of three."""
    return [*nnunet_command(case, output, environment), "-npp", "1", "-nps", "1"]


def monai_command(case: Case, output: Path, _: Path) -> Sequence[str | Path]:
    """The plain MONAI script, with our network module."""
    return [sys.executable, "-m", "tests.benchmarks.monai_script", case.ours, output, *case.images]


PROGRAMS: dict[str, Command] = {
    "skipseg": skipseg_command,
    "nnunet": nnunet_command,
    "nnunet-lean": nnunet_lean_command,
    "monai": monai_command,
}


def rows(options: Options) -> list[Row]:
    """Measure the brain scan, in little memory; the CT scan takes a quarter of an hour and is left to the command."""
    arguments = ["--size", options.size, "--scans", "brain", "--repeats", str(options.repeats)]
    arguments += ["--work", str(options.work / "predict"), "--peers", str(options.peers)]
    arguments += ["--programs", "skipseg", "nnunet-lean", "monai"]
    return measure(parse([*arguments, "--options", "memory=640MiB"]))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the table."""
    options = parse(arguments)
    if options.build_peers:
        peers.build(options.peers)
    found = measure(options)
    if options.json:
        write_json(options.json, [row.to_plain() for row in found])
        print(options.json)
    return 0


def measure(options: argparse.Namespace) -> list[Row]:
    """Measure all that is asked for."""
    shutil.rmtree(options.work / "cache", ignore_errors=True)  # so that the first use of a model is one
    found: list[Row] = []
    for kind in options.scans:
        case = prepare(kind, SIZES[options.size], options.work / f"{kind}-{options.size}")
        first_use = warm_up(kind, case, options)
        print(f"\n{kind} {SIZES[options.size].shape[kind]}, skipseg's first use of the model: {first_use:.1f} s")
        found += compare(kind, case, options)
    return found


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--size", choices=SIZES, default="small", help="small shows that all works, full is the work to quote"
    )
    parser.add_argument("--scans", nargs="+", choices=list(LABELS), default=list(LABELS))
    parser.add_argument("--programs", nargs="+", choices=list(PROGRAMS), default=["skipseg", "nnunet", "monai"])
    parser.add_argument("--repeats", type=int, default=1, help="rounds; the median is reported")
    parser.add_argument("--work", type=Path, default=user_cache() / "benchmarks" / "predict", help="scans and models")
    parser.add_argument("--peers", type=Path, default=peers.default_folder(), help="environment of nnU-Net")
    parser.add_argument("--build-peers", action="store_true", help="make that environment first, about 2 GB")
    parser.add_argument("--options", nargs="+", default=[], help="further options of skipseg predict: memory=2GiB")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    return parser.parse_args(arguments)


def prepare(kind: str, work: Work, folder: Path) -> Case:
    """Make the scan, its two models and its exact mask, or take those that stand."""
    case = Case([], folder / "ours", folder / "theirs", folder / "exact.nii.gz", folder)
    wanted = {"key": content_hash([kind, asdict(work), [ROOT.joinpath(f).read_text() for f in _MAKERS]])}
    stamp = folder / "made.json"
    if not stamp.is_file() or json.loads(stamp.read_text()) != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        scan, labels = make_scan(kind, work.shape[kind])
        write_scan(folder / "images", "CASE", scan, SPACING_MM[kind])
        train_model(kind, work, scan, labels, case.theirs)
        import_nnunet(ImportSettings(case.theirs, case.ours))
        del scan, labels
    case.images.extend(sorted((folder / "images").glob("CASE_*.nii.gz")))
    if not stamp.is_file():
        command = [sys.executable, "-m", "tests.benchmarks.exact", case.ours, case.exact, *case.images]
        run(command, folder / "logs" / "exact.txt", folder)
        write_json(stamp, wanted)
    return case


_MAKERS = tuple(f"tests/benchmarks/{name}.py" for name in ("phantoms", "nnunet_model", "training", "exact"))
"""What decides the scans and models that stand."""


def train_model(kind: str, work: Work, scan: NDArray[Any], labels: NDArray[Any], folder: Path) -> None:
    """Train nnU-Net's network on patches of the scan, and write nnU-Net's folder of it."""
    from tests.benchmarks.training import train_network  # PyTorch, which a run on what stands does without

    train_network(kind, scan, labels, [work.window] * 3, work.widths, work.steps, SPACING_MM[kind], folder)


def warm_up(kind: str, case: Case, options: argparse.Namespace) -> float:
    """Segment a scan of one window with ours, twice: its network is exported, then measured; seconds of the first."""
    folder = case.folder / WARM_UP
    if not folder.exists():
        window = SIZES[options.size].window
        scan, _ = make_scan(kind, (window,) * 3)
        write_scan(folder, "CASE", scan, SPACING_MM[kind])
    small = Case(sorted(folder.glob("*.nii.gz")), case.ours, case.theirs, case.exact, case.folder)
    first = once("skipseg", small, options, WARM_UP)[0]
    once("skipseg", small, options, WARM_UP)
    return first.wall_s


def compare(kind: str, case: Case, options: argparse.Namespace) -> list[Row]:
    """Run all programs in turn; print what each took, and return the rows of ours against each peer."""
    found: dict[str, list[Measured]] = {}
    masks: dict[str, NDArray[Any]] = {}
    for _ in range(options.repeats):
        for program in options.programs:
            if program.startswith("nnunet") and not (options.peers / "bin" / "python").exists():
                continue
            measured, masks[program] = once(program, case, options, program)
            found.setdefault(program, []).append(measured)
    exact = read_mask(case.exact)
    dice = {program: worst_dice(mask, exact, len(LABELS[kind])) for program, mask in masks.items()}
    costs = {
        program: {name: statistics.median(getattr(each, name) for each in runs) for name in MEASURES}
        for program, runs in found.items()
    }
    print(f"{'':14}{'wall s':>10}{'CPU s':>10}{'peak MiB':>10}{'Dice':>10}   skipseg / it: wall, CPU, peak")
    for program in options.programs:
        if program not in costs:
            print(f"{program:14}not installed: run again with --build-peers")
            continue
        ratios = "  ".join(f"{costs['skipseg'][name] / costs[program][name]:.2f}" for name in MEASURES)
        figures = "".join(f"{costs[program][name]:10.1f}" for name in MEASURES)
        print(f"{program:14}{figures}{dice[program]:10.5f}   {ratios}")
    return rows_of(kind, options.size, costs, dice)


def rows_of(kind: str, size: str, costs: dict[str, dict[str, float]], dice: dict[str, float]) -> list[Row]:
    """One row for each measure of ours against the better peer, and one for the mask against the exact one.

    Examples:
        >>> costs = {"skipseg": {"wall_s": 2.0}, "monai": {"wall_s": 5.0}, "nnunet": {"wall_s": 8.0}}
        >>> row, _ = rows_of("ct", "small", costs, {"skipseg": 1.0})
        >>> row.peer_name, row.ratio, row.met
        ('monai', 0.4, True)
    """
    ours = costs["skipseg"]
    others = {program: cost for program, cost in costs.items() if program != "skipseg"}
    found: list[Row] = []
    for name in ours if others else ():
        peer = min(others, key=lambda program: others[program][name])
        target = None if name == "cpu_s" else TARGET
        about = f"predict {kind} {size}, {_WORDS[name]}"
        found.append(Row(about, ours[name], MEASURES[name], others[peer][name], peer, target))
    about = f"predict {kind} {size}, Dice with the exact mask"
    return [*found, Row(about, dice["skipseg"], "", target=DICE_TARGET, better="more")]


def once(program: str, case: Case, options: argparse.Namespace, log: str) -> tuple[Measured, NDArray[Any]]:
    """Run a program on a case; what it cost, and its mask."""
    output = case.folder / "masks" / log
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    command = list(PROGRAMS[program](case, output, options.peers))
    if program == "skipseg" and log != WARM_UP:
        command += [f"--{option}" for option in options.options]
    measured = run(command, case.folder / "logs" / f"{log}.txt", options.work)
    masks = sorted(output.glob("*.nii.gz"))
    if len(masks) != 1:
        raise SystemExit(f"{program} wrote {len(masks)} masks into {output}, expected one")
    return measured, read_mask(masks[0])


def run(command: Sequence[str | Path], log: Path, cache: Path) -> Measured:
    """Measure a command that must succeed; our exports go to ``cache``, not to the user's."""
    env = {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(cache / "cache")}
    measured = run_measured(command, log, env)
    if measured.status:
        ending = "\n".join(log.read_text(errors="replace").splitlines()[-12:])
        raise SystemExit(f"{' '.join(map(str, command))}\nended with status {measured.status}:\n{ending}")
    return measured


def read_mask(path: Path) -> NDArray[np.uint8]:
    """Label values, shape ``(*S)``."""
    return np.asarray(nib.load(path).dataobj).astype(np.uint8)


def worst_dice(mask: NDArray[np.uint8], exact: NDArray[np.uint8], classes: int) -> float:
    """Smallest Dice over the foreground classes of two label maps of one shape ``(*S)``; absent in both counts 1.

    Examples:
        >>> worst_dice(np.array([0, 1, 1, 2], np.uint8), np.array([0, 1, 2, 2], np.uint8), 3)
        0.6666666666666666
    """
    scores = [float(Counts.of_masks(mask == value, exact == value).dice) for value in range(1, classes)]
    return min((score for score in scores if score == score), default=1.0)


if __name__ == "__main__":
    raise SystemExit(main())

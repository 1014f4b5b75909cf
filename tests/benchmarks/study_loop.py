"""A study run by a plain loop: each frozen run after the one before, all in this process.

Arguments: STUDY OUT CACHE [PARTS]. The runs, the report and the files are those of ``skipseg ablate``; only its
launchers are left out. With PARTS, so many loops work side by side, each on a study folder and on runs of its own,
and without a report: what the cores of this machine give when nothing has to be shared.
"""

import multiprocessing
import sys
from pathlib import Path

from segmentation.ablation.launch import ablate, prepare
from segmentation.ablation.study import expand, read_study
from segmentation.ablation.work import work
from segmentation.config import AblateSettings
from segmentation.report.page import write_report


def loop(settings: AblateSettings, cache: Path, part: int = 0, parts: int = 1) -> None:
    """Freeze a study and work on every ``parts``-th of its runs in their order; report if that is all of them."""
    out = ablate(settings)
    runs = expand(read_study(settings.study, settings.dataset), out, cache)
    prepare(runs, cache)
    for run in runs[part::parts]:
        failure = work(run.folder)
        if failure:
            raise SystemExit(f"{run.id}: {failure}")
    if parts == 1:
        write_report(out)


def side_by_side(study: Path, out: Path, cache: Path, parts: int) -> None:
    """Share a study out among as many loops, each in a process and in folders of its own."""
    fork = multiprocessing.get_context("fork")
    loops = [
        fork.Process(target=loop, args=(_settings(study, out / f"{part}", cache), cache / f"{part}", part, parts))
        for part in range(parts)
    ]
    for process in loops:
        process.start()
    for process in loops:
        process.join()
    if any(process.exitcode for process in loops):
        raise SystemExit("a loop ended early")


def _settings(study: Path, out: Path, cache: Path) -> AblateSettings:
    """Settings of a study that is only frozen."""
    return AblateSettings(study, out, launcher="none", cache=cache)


if __name__ == "__main__":
    given, place, arrays = map(Path, sys.argv[1:4])
    if sys.argv[4:]:
        side_by_side(given, place, arrays, int(sys.argv[4]))
    else:
        loop(_settings(given, place, arrays), arrays)

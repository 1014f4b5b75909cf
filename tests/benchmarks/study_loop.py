"""A study run by a plain loop: each frozen run after the one before, all in this process. Arguments: STUDY OUT CACHE.

The runs, the report and the files are those of ``skipseg ablate``; only its launchers are left out.
"""

import sys
from pathlib import Path

from segmentation.ablation.launch import ablate, prepare
from segmentation.ablation.study import expand, read_study
from segmentation.ablation.work import work
from segmentation.config import AblateSettings
from segmentation.report.page import write_report


def loop(settings: AblateSettings, cache: Path) -> None:
    """Freeze a study, work on its runs in their order, and report."""
    out = ablate(settings)
    runs = expand(read_study(settings.study, settings.dataset), out, cache)
    prepare(runs, cache)
    for run in runs:
        failure = work(run.folder)
        if failure:
            raise SystemExit(f"{run.id}: {failure}")
    write_report(out)


if __name__ == "__main__":
    given, place, arrays = map(Path, sys.argv[1:])
    loop(AblateSettings(given, place, launcher="none", cache=arrays), arrays)

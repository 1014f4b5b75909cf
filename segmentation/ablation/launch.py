"""Run the unfinished runs of a study, here or on a cluster."""

import signal
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import FrameType

from segmentation import SkipSegError
from segmentation.ablation.freeze import freeze
from segmentation.ablation.lease import leases, remove_leases
from segmentation.ablation.ledger import is_done
from segmentation.ablation.study import Run, expand, read_study
from segmentation.config import AblateSettings
from segmentation.runs import user_cache
from segmentation.training.lock import locked
from segmentation.training.record import open_run
from segmentation.training.trackers import require_tracker

Launcher = Callable[[Sequence[Path], AblateSettings, int], list[str]]
"""Function of run folders, the study's settings and its number of runs; it gives the failures."""


def ablate(settings: AblateSettings, meanwhile: Callable[[], object] = lambda: None) -> Path:
    """Run a study, or what is missing of it.

    Args:
        settings: Which study, where, and how.
        meanwhile: Called in a thread when the runs are launched, while this process has nothing to do but wait.

    Returns:
        The study folder.

    Raises:
        SettingsError: If the study file is wrong.
        SkipSegError: If the tracker is not installed, or runs failed; the others are finished first.
        KeyboardInterrupt: If interrupted or terminated; the same call continues.
    """
    require_tracker(settings.track)
    study = read_study(settings.study, settings.dataset)
    runs = expand(study, settings.out, settings.cache, settings.track)
    failed = list[str]()
    with locked(settings.out), _terminable():
        freeze(study, runs, settings.out)
        waiting = [run for run in runs if not is_done(run.folder)]
        for run in runs:
            if is_done(run.folder):
                remove_leases(run.folder)
        if waiting and settings.launcher != "none":
            launch = find_launcher(settings.launcher)
            prepare(waiting, settings.cache or user_cache())
            threading.Thread(target=meanwhile).start()
            failed = launch([run.folder for run in _longest_first(waiting)], settings, len(runs))
    if failed:
        raise SkipSegError(f"{len(failed)} of {len(runs)} runs failed; rerun to try them again: " + "; ".join(failed))
    return settings.out


def _longest_first(runs: Sequence[Run]) -> list[Run]:
    """Order the runs of each fold and seed by their work, so that no long one is left alone to the end."""
    groups = list(dict.fromkeys((run.job.settings.fold, run.job.settings.seed) for run in runs))

    def place(run: Run) -> tuple[int, int]:
        settings = run.job.settings
        steps = (settings.epochs or 0) * (settings.steps_per_epoch or 0) * (settings.data.batch_size or 0)
        return groups.index((settings.fold, settings.seed)), -steps * run.job.cost.macs

    return sorted(runs, key=place)


def find_launcher(name: str) -> Launcher:
    """Give the function of a launcher, which may ``begin`` to get ready while arrays are prepared.

    Its module brings PyTorch, which a study that is only frozen need not load.
    """
    module = import_module(f"segmentation.ablation.launch_{name}")
    getattr(module, "begin", lambda: None)()
    return getattr(module, f"launch_{name}")


def prepare(runs: Sequence[Run], cache: Path) -> None:
    """Freeze the settings of ``runs`` in their folders and prepare the arrays that they share.

    Raises:
        SkipSegError: If a folder holds another run, or another process trains in it.
    """
    for run in runs:
        if leases(run.folder):
            continue  # a worker on another machine may be at it; whoever takes it over opens it again
        with locked(run.folder):
            open_run(run.folder, run.job)
    from segmentation.data.cache import cache_cases  # brings PyTorch, too

    # Once, here, rather than by every process at the same time.
    for run in {str(run.job.preprocessing): run for run in runs}.values():
        cache_cases(run.job.dataset, run.job.dataset.cases, run.job.preprocessing, cache)


@contextmanager
def _terminable() -> Generator[None]:
    """Let SIGTERM end the block like Ctrl-C, so that nothing that it started is left running."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

"""Run the unfinished cells of a study in processes of this machine."""

import multiprocessing
import os
import sys
import threading
import time
import traceback
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

from tqdm import tqdm

from segmentation import SkipSegError
from segmentation.ablation.cell import is_done, read_config, run_cell
from segmentation.ablation.study import Run, expand, freeze, read_study
from segmentation.config import AblateSettings
from segmentation.data.cache import cache_cases
from segmentation.runs import read_json, user_cache, write_json
from segmentation.training.lock import locked
from segmentation.training.train import open_run


def ablate(settings: AblateSettings) -> Path:
    """Run a study, or what is missing of it.

    Returns:
        The study folder.

    Raises:
        SkipSegError: If the study file is wrong, or runs failed; the others are finished first.
    """
    study = read_study(settings.study, settings.dataset)
    runs = expand(study, settings.out, settings.cache)
    workers = settings.workers or max(
        1, len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    )
    with locked(settings.out):
        freeze(study, runs, settings.out)
        waiting = [run for run in runs if not is_done(run.folder)]
        prepare(waiting, settings.cache or user_cache())
        failed = launch_local(waiting, workers, total=len(runs))
    if failed:
        raise SkipSegError(f"{len(failed)} of {len(runs)} runs failed; rerun to try them again: " + "; ".join(failed))
    return settings.out


def prepare(runs: Sequence[Run], cache: Path) -> None:
    """Freeze the settings of ``runs`` in their folders and prepare the arrays that they share.

    Raises:
        SkipSegError: If a folder holds another run, or another process trains in it.
    """
    for run in runs:
        with locked(run.folder):
            open_run(run.folder, run.job)
    # Once, here, rather than by every process at the same time.
    for run in {str(run.job.preprocessing): run for run in runs}.values():
        cache_cases(run.job.dataset, run.job.dataset.cases, run.job.preprocessing, cache)


def launch_local(runs: Sequence[Run], workers: int, total: int) -> list[str]:
    """Run cells in ``workers`` processes at a time.

    A server process imports the libraries once and is forked for every run, so that a run that is killed for
    memory takes nothing with it and the next one starts at once.

    Returns:
        One line for each run that failed.
    """
    if not runs:
        return []
    context = multiprocessing.get_context("forkserver" if sys.platform != "win32" else "spawn")
    if sys.platform != "win32":
        context.set_forkserver_preload(["segmentation.ablation.cell", "albumentations"])
    waiting, failed = list(runs), list[str]()
    running: dict[str, tuple[Run, BaseProcess]] = {}
    with tqdm(total=total, initial=total - len(runs), desc="ablate", unit="run", disable=None) as bar, _ended(running):
        while waiting or running:
            while waiting and len(running) < workers:
                run = waiting.pop(0)
                process = context.Process(target=_work, args=(run.folder,), name=run.id)
                process.start()
                running[run.id] = (run, process)
            time.sleep(0.1)
            for run, process in [pair for pair in running.values() if not pair[1].is_alive()]:
                del running[run.id]
                if process.exitcode:
                    failed.append(f"{run.id}: {_reason(run.folder, process.exitcode)}")
                bar.update()
    return failed


@contextmanager
def _ended(running: dict[str, tuple[Run, BaseProcess]]) -> Generator[None]:
    """End the processes that are still running when the block is left by an interrupt."""
    try:
        yield
    finally:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.join()


def _work(folder: Path) -> None:
    """Run one cell in a process of its own; what it prints goes to log.txt in its folder."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    log = (folder / "log.txt").open("w", buffering=1)
    sys.stdout = sys.stderr = log
    try:
        run_cell(read_config(folder / "config.yaml"))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # whatever ended the run is written down, and the other runs go on
        traceback.print_exc()
        record = read_json(folder / "run.json")
        write_json(folder / "run.json", record | {"state": "failed", "error": " ".join(str(error).split())})
        sys.exit(1)


def _end_with_parent() -> None:
    """End this process when the one that started it is gone, so that a killed study leaves nothing running."""
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)


def _reason(folder: Path, code: int) -> str:
    """Say why a process ended, in one line."""
    if code < 0:
        what = "killed, which usually means too little memory" if code == -9 else f"ended by signal {-code}"
        return f"{what}; see {folder / 'log.txt'}"
    return str(read_json(folder / "run.json").get("error", f"see {folder / 'log.txt'}"))

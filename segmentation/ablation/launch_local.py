"""Launcher ``local``: processes of this machine."""

import time
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from segmentation.ablation.apart import start_apart, start_server
from segmentation.ablation.ledger import fail
from segmentation.ablation.work import failure, progress
from segmentation.config import AblateSettings
from segmentation.data.hardware import usable_cores

GRACE_SECONDS = 5.0
"""Time that processes have to end when the study is interrupted, before they are killed."""


def begin() -> None:
    """Start the server whose processes work on the runs: it imports their libraries meanwhile."""
    start_server()


def launch_local(folders: Sequence[Path], settings: AblateSettings, total: int) -> list[str]:
    """Work on runs in ``settings.workers`` processes at a time, by default one per core.

    A server process imports the libraries once and is forked for every run, so that a run that is killed for
    memory takes nothing with it and the next one starts at once. A run whose process is killed is continued
    up to ``settings.retries`` times; one that fails with an error is not, for it would fail again.

    Args:
        folders: Run folders, each with its frozen config.yaml.
        settings: Of the study.
        total: Runs of the whole study, for the progress bar.

    Returns:
        One line for each run that failed.
    """
    workers = settings.workers or usable_cores()
    waiting, failed, starts = list(folders), list[str](), Counter[Path]()
    running: dict[Path, BaseProcess] = {}
    with progress(folders, total) as bar, _ended(running):
        while waiting or running:
            while waiting and len(running) < workers:
                folder = waiting.pop(0)
                starts[folder] += 1
                running[folder] = start_apart(folder)
            wait([process.sentinel for process in running.values()])
            for folder, process in [pair for pair in running.items() if not pair[1].is_alive()]:
                del running[folder]
                code = process.exitcode or 0
                if code < 0 and starts[folder] <= settings.retries:
                    waiting.insert(0, folder)
                    continue
                if code:
                    failed.append(f"{folder.name}: {_reason(folder, code, starts[folder])}")
                bar.advance()
    return failed


@contextmanager
def _ended(running: dict[Path, BaseProcess]) -> Generator[None]:
    """End the processes that are still running when the block is left by an interrupt."""
    try:
        yield
    finally:
        for process in running.values():
            process.terminate()
        deadline = time.monotonic() + GRACE_SECONDS
        for process in running.values():
            process.join(max(0.0, deadline - time.monotonic()))
            process.kill()
            process.join()


def _reason(folder: Path, code: int, starts: int) -> str:
    """Say why a process ended, in one line, and write it down if the process could not."""
    if code > 0:
        return failure(folder)
    what = "killed, which usually means too little memory" if code == -9 else f"ended by signal {-code}"
    often = f"{what}, {starts} times" if starts > 1 else what
    fail(folder, often)
    return f"{often}; see {folder / 'log.txt'}"

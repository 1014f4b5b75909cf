"""One run in a process of its own, forked from a server that has the libraries; who starts it imports none of them."""

import multiprocessing
import os
import sys
import threading
from collections.abc import Mapping
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path

from segmentation.ablation.forkserver import start_forkserver
from segmentation.ablation.work import work

LIBRARIES = ("segmentation.ablation.cell", "segmentation.ablation.score", "albumentations", "jsonargparse")
"""What a run needs: imported once by the server, and some seconds of every run if it were not."""


def start_server(*more: str) -> ForkServerContext | SpawnContext:
    """Start the server, which imports its libraries meanwhile; give the context whose processes it forks.

    Args:
        more: Modules that the server is to import besides.
    """
    return start_forkserver([*LIBRARIES, *more])


def start_apart(folder: Path, *more: str) -> BaseProcess:
    """Start a process that works on the run in ``folder``, from this working folder and with this environment.

    A run that is killed for memory takes nothing with it; its seeds and threads end with it, and so does the process
    when the one that started it is gone. Its exit status is 1 if the run failed.

    Args:
        folder: Run folder, with its frozen config.yaml.
        more: As of :func:`start_server`.
    """
    process = start_server(*more).Process(target=_work, args=(Path.cwd(), dict(os.environ), folder), name=folder.name)
    process.start()
    return process


def _work(cwd: Path, environment: Mapping[str, str], folder: Path) -> None:
    """Work on one run; the server may have been started elsewhere, and for another GPU."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.chdir(cwd)
    os.environ.update(environment)
    try:
        failed = work(folder) is not None
    except KeyboardInterrupt:  # the study has ended, and says so
        failed = True
    sys.exit(int(failed))


def _end_with_parent() -> None:
    """End this process when the one that started it is gone, so that a killed study leaves nothing running."""
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)

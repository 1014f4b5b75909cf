"""Work through cells in processes of one thread each; what a cell found is kept, so that a rerun goes on."""

import importlib
import multiprocessing
import os
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from importlib.metadata import version
from pathlib import Path
from typing import Any

from segmentation import SkipSegError, __version__
from segmentation.ablation.forkserver import start_forkserver
from segmentation.ablation.suites.suite import Found
from segmentation.figures import plain_numbers
from segmentation.progress import Bar
from segmentation.runs import content_hash, read_json, write_json


def work_through(
    module: str, cells: Sequence[Mapping[str, Any]], folder: Path, workers: int, title: str
) -> tuple[Found, float, dict[str, str]]:
    """Do every cell that is not done yet.

    Args:
        module: Module of the suite, which holds ``SUITE``.
        cells: What is to be done, as plain data; long ones first keeps all processes busy.
        folder: Where what each found is written, named by the hash of the cell.
        workers: Processes at a time.
        title: For the progress bar.

    Returns:
        Each cell with what it found, in the order of ``cells``; the CPU seconds that all took; and the versions that
        they were done with, several to a package where these differ.

    Raises:
        SkipSegError: If a process was killed; what is done is kept.
    """
    places = [folder / f"{content_hash({'suite': module, 'cell': dict(cell)})[:16]}.json" for cell in cells]
    missing = [(cell, place) for cell, place in zip(cells, places, strict=True) if not place.exists()]
    if missing:
        _do(module, missing, min(workers, len(missing)), title, total=len(cells))
    records = [read_json(place) for place in places]
    found = [(cell, record["found"]) for cell, record in zip(cells, records, strict=True)]
    return found, sum(record["cpu_seconds"] for record in records), _versions_of(records)


def _versions_of(records: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Package to its versions, one after the other; cells of before they were kept say so."""
    used = [record.get("versions", dict.fromkeys(versions(), "not recorded")) for record in records]
    return {package: ", ".join(sorted({each[package] for each in used})) for package in versions()}


def versions() -> dict[str, str]:
    """The packages that decide what a cell finds."""
    return {"skipseg": __version__, "torch": version("torch"), "numpy": version("numpy")}


def _do(module: str, missing: Sequence[tuple[Mapping[str, Any], Path]], workers: int, title: str, total: int) -> None:
    """Run the missing cells in a pool and write each result as it comes."""
    context = start_forkserver(["segmentation.ablation.suites.bench"])
    with (
        ProcessPoolExecutor(workers, context, _one_thread, (os.getpid(),)) as pool,
        Bar(title, "cells", total, done=total - len(missing)) as bar,
    ):
        waiting: dict[Future[Any], Path] = {pool.submit(_run, module, dict(cell)): place for cell, place in missing}
        try:
            while waiting:
                done = wait(waiting, return_when=FIRST_COMPLETED).done
                for future in sorted(done, key=lambda each: each.exception() is not None):  # results before errors
                    write_json(waiting.pop(future), future.result())
                    bar.advance()
        except BrokenProcessPool:
            raise SkipSegError("a process was killed, which usually means too little memory; rerun to go on") from None
        except BaseException:  # an error of a cell, a full disk or Ctrl-C: nothing that was started is left running
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise


def _one_thread(parent: int) -> None:
    """Prepare a process: one thread, for small networks run fastest so, and an end when its parent is gone."""
    import torch  # in the process that computes, not in the one that waits

    torch.set_num_threads(1)

    def end_with_parent() -> None:
        while _alive(parent):
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _alive(process: int) -> bool:
    """Tell whether a process exists."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def _run(module: str, cell: Mapping[str, Any]) -> dict[str, Any]:
    """Do one cell."""
    started = time.process_time()
    found = importlib.import_module(module).SUITE.run(cell)
    spent = time.process_time() - started
    return {"cell": dict(cell), "found": plain_numbers(found), "cpu_seconds": spent, "versions": versions()}

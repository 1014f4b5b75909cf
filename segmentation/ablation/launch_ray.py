"""Launcher ``ray``: tasks on a Ray cluster.

One task is one run, with its share of a GPU. Ray starts a task again elsewhere when its node or its process dies; the
run continues from its last checkpoint, because every node sees the same study folder. That the disk is shared is the
one thing that Ray cannot arrange, so it is tested on every node before the first run starts.
"""

import logging
import os
import signal
import socket
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from segmentation import SkipSegError, __version__
from segmentation.ablation.apart import start_apart
from segmentation.ablation.ledger import fail
from segmentation.ablation.work import failure, progress
from segmentation.config import AblateSettings

CONNECT_SECONDS = 5.0
"""How long the head of a cluster may take to answer."""

PROBE_SECONDS = 120.0
"""How long a node may take to say that it sees the study folder."""


def launch_ray(folders: Sequence[Path], settings: AblateSettings, total: int) -> list[str]:
    """Work on runs as tasks of a Ray cluster, at most ``settings.workers`` at a time, by default as many as fit.

    Args:
        folders: Run folders, each with its frozen config.yaml, on a disk that all nodes share.
        settings: Of the study; ``address``, ``gpus`` and ``retries`` say where, with what, and how stubbornly.
        total: Runs of the whole study, for the progress bar.

    Returns:
        One line for each run that failed.

    Raises:
        SkipSegError: If Ray is not installed, the cluster cannot be reached or has too few GPUs, or a node does not
            see the study folder.
    """
    with _connected(settings) as ray:
        _check_nodes(ray, folders)
        task = ray.remote(num_cpus=1, num_gpus=settings.gpus, max_retries=settings.retries)(_work)
        return _collect(ray, task, list(folders), settings.workers or len(folders), total)


@contextmanager
def _connected(settings: AblateSettings) -> Generator[Any]:
    """Connect to the cluster, or start one on this machine; whatever runs there for us ends with the block."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray  # optional, and a second to import
    except ImportError:
        raise SkipSegError("launcher ray needs Ray: install skipseg with its extra `cluster`") from None
    _check_address(settings.address)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "include_dashboard": False}
    try:
        ray.init(settings.address, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = f"the Ray cluster at {settings.address}" if settings.address else "Ray"
        raise SkipSegError(f"{where} cannot be reached: {' '.join(str(error).split())[:200]}") from None
    try:
        owned = ray.cluster_resources().get("GPU", 0)
        if settings.gpus > owned:
            raise SkipSegError(f"gpus is {settings.gpus}, but the Ray cluster has {owned:g}; no run could ever start")
        yield ray
    finally:
        ray.shutdown()


def _check_address(address: str | None) -> None:
    """Refuse an address where nobody listens; Ray itself would try for minutes."""
    if address in (None, "auto"):
        return
    host, _, port = address.rpartition(":")
    if not host or "/" in address or not port.isdecimal():
        raise SkipSegError(f"address must be HOST:PORT of the head of a Ray cluster, or auto, got {address!r}")
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise SkipSegError(f"no Ray cluster answers at {address} ({error}); `ray start --head` starts one") from None


def _check_nodes(ray: Any, folders: Sequence[Path]) -> None:
    """Refuse a cluster with a node that has another version of us, or does not see the folders."""
    strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    probe = ray.remote(num_cpus=0, max_retries=0)(_look)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    looks = {
        probe.options(scheduling_strategy=strategy(node["NodeID"], soft=False)).remote(
            Path.cwd(), folders[0], __version__
        ): node["NodeManagerHostname"]
        for node in nodes
    }
    answered, silent = ray.wait(list(looks), num_returns=len(looks), timeout=PROBE_SECONDS)
    if silent:
        raise SkipSegError(f"Ray node {looks[silent[0]]} does not answer; remove it from the cluster")
    for look in answered:
        try:
            wrong = ray.get(look)
        except ray.exceptions.RayError as error:
            wrong = f"cannot work on runs: {_last_line(error)}"
        if wrong:
            raise SkipSegError(f"Ray node {looks[look]} {wrong}")


def _look(cwd: Path, folder: Path, version: str) -> str | None:
    """Say what is wrong with the node that this task runs on."""
    if version != __version__:
        return f"has skipseg {__version__}, but the study is run with {version}; install the same on all nodes"
    if not (cwd / folder / "config.yaml").is_file():
        return f"does not see {cwd / folder}; put study folder, dataset and cache on a disk that all nodes share"
    return None


def _work(cwd: Path, folder: Path) -> str | None:
    """Have a process of its own work on one run, from the folder that relative paths start at.

    Ray's process stays for the next run, and with it the server that has the libraries.
    """
    wrong = _look(cwd, folder, __version__)  # a node may have joined later
    if wrong:
        return wrong
    os.chdir(cwd)
    process = start_apart(folder, "ray._private.workers.default_worker")
    process.join()
    if (process.exitcode or 0) < 0:
        os.kill(os.getpid(), signal.SIGKILL)  # Ray starts the run again, as if its own process had died
    return failure(folder) if process.exitcode else None


def _collect(ray: Any, task: Any, waiting: list[Path], workers: int, total: int) -> list[str]:
    """Keep ``workers`` tasks under way until all have ended; an interrupt ends those that are running."""
    running: dict[Any, Path] = {}
    failed = list[str]()
    cwd = Path.cwd()
    try:
        with progress(waiting, total) as bar:
            while waiting or running:
                while waiting and len(running) < workers:
                    folder = waiting.pop(0)
                    running[task.remote(cwd, folder)] = folder
                done, _ = ray.wait(list(running), timeout=1.0)
                for reference in done:
                    folder = running.pop(reference)
                    reason = _outcome(ray, reference, folder)
                    failed.extend([f"{folder.name}: {reason}"] if reason else [])
                    bar.advance()
    finally:
        for reference in running:
            with suppress(Exception):  # the cluster may be gone
                ray.cancel(reference, force=True)
    return failed


def _outcome(ray: Any, reference: Any, folder: Path) -> str | None:
    """Why a task failed; written down if its process could not do so itself."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:
        reason = f"its process or node died and was not replaced: {_last_line(error)}"
        fail(folder, reason)
        return reason


def _last_line(error: Exception) -> str:
    """The end of what Ray says, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__

"""Run a command and measure it with all processes that it starts: wall time, CPU time, peak memory."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

INTERVAL_S = 0.05
SAMPLING_SHARE = 0.05
"""Reading the memory of a large process takes milliseconds: samples grow rarer so that they take no more than this."""


@dataclass(frozen=True)
class Measured:
    """What a command cost.

    Attributes:
        wall_s: From its start to its end.
        cpu_s: User and system time of the command and of all descendants that were waited for.
        peak_mib: Largest sum of the proportional set sizes (PSS) of the command and its descendants at one time. A
            page that n processes share counts 1/n in each; mapped pages of files count, the page cache does not.
        status: Exit status.
    """

    wall_s: float
    cpu_s: float
    peak_mib: float
    status: int


def run_measured(
    command: Sequence[str | Path], log: Path, env: Mapping[str, str], timeout_s: float = 7200, memory: bool = True
) -> Measured:
    """Run ``command`` to its end, its output in ``log``.

    Args:
        command: Program and arguments.
        log: File for both of its outputs.
        env: Added to the environment.
        timeout_s: It is killed, with all that it started, after this.
        memory: Whether to sample it, which costs a little of the processor; otherwise it is told as 0.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    peak, begun = 0, time.perf_counter()
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=os.environ | dict(env),
            start_new_session=True,
        )
        while True:
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
            if ended:
                break
            sampled = time.perf_counter()
            if sampled - begun > timeout_s:
                os.killpg(process.pid, signal.SIGKILL)
            peak = max(peak, tree_pss(process.pid) if memory else 0)
            cost = time.perf_counter() - sampled
            time.sleep(max(INTERVAL_S, cost / SAMPLING_SHARE))
        wall = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    return Measured(wall, usage.ru_utime + usage.ru_stime, peak / 2**20, process.returncode)


def tree_pss(pid: int) -> int:
    """Bytes of a process and all its descendants; processes that end meanwhile count nothing."""
    try:
        processes = [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    except psutil.NoSuchProcess:
        return 0
    return sum(map(pss, processes))


def pss(pid: int) -> int:
    """Proportional set size of one process in bytes; 0 if it has ended.

    Examples:
        >>> 2**20 < pss(os.getpid()) < 2**36
        True
    """
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0
    return next((1024 * int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")), 0)

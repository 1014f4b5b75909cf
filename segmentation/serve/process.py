"""The server's side of a worker process: it is given one task, watched, and ended when it takes too much."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, Literal

import psutil

from segmentation import SkipSegError

_LOOK_SECONDS = 0.1
"""Time between two looks at what a worker takes."""

PROGRAM = (sys.executable, "-m", "segmentation.serve.worker")
"""What runs in a worker process: kind of the task, bytes of memory and process id of the server follow."""

_HEADROOM = 2
"""Address space that a worker may ask for, as a multiple of the memory it may hold: not all of it is used."""


class StoppedError(Exception):
    """The worker was stopped on purpose."""


class TaskError(SkipSegError):
    """What went wrong with a task, in words for the user.

    Attributes:
        kind: Name of the error in the worker, or ``"Limit"`` or ``"Broken"``.
        where: Lines of the source, of a fault of ours.
    """

    def __init__(self, message: str, kind: str, where: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.where = where


@dataclass(frozen=True)
class Limits:
    """What a worker may take.

    Attributes:
        memory: Bytes, its children's included.
        seconds: For its task.
        hard: Whether the system is told of the memory as well, so that a single request of more is refused.
    """

    memory: int
    seconds: float
    hard: bool = True


class Worker:
    """A process that waits for one task, its libraries loaded.

    It must be started by the thread that runs the task: the system ends it with that thread.

    Args:
        kind: As of :func:`segmentation.serve.worker.main`.
        limits: What it may take.
        program: As :data:`PROGRAM`.
    """

    def __init__(self, kind: Literal["take_in", "segment"], limits: Limits, program: Sequence[str] = PROGRAM) -> None:
        self.limits = limits
        memory = limits.memory * _HEADROOM if limits.hard else 0
        command = [*program, kind, str(memory), str(os.getpid())]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # libraries may print what stands in an upload
            start_new_session=True,  # an interrupt is the server's to answer
        )
        self._unread = b""

    def run(
        self, task: Mapping[str, Any], tell: Callable[[Mapping[str, Any]], object], stopped: Callable[[], bool]
    ) -> dict[str, Any]:
        """Give the process its task and wait for the result.

        Args:
            task: Plain data.
            tell: Given what the worker says meanwhile.
            stopped: Asked again and again whether to stop.

        Raises:
            TaskError: If the task failed, broke off or took too much.
            StoppedError: If it was to stop.
        """
        try:
            stdin = _pipe(self._process.stdin)
            with contextlib.suppress(BrokenPipeError):  # it has died, as the next look shows
                stdin.write(json.dumps(task).encode() + b"\n")
                stdin.flush()
            return self._followed(tell, stopped)
        finally:
            self.end()

    def end(self) -> None:
        """End the process and those that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(BrokenPipeError):  # of a task that was never read
                _pipe(pipe).close()

    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def _followed(self, tell: Callable[[Mapping[str, Any]], object], stopped: Callable[[], bool]) -> dict[str, Any]:
        """Read what the process says until it has a result, and look at what it takes."""
        began = time.monotonic()
        while True:
            if stopped():
                raise StoppedError
            for said in self._said():
                if "result" in said:
                    return said["result"]
                if "error" in said:
                    raise TaskError(said["error"], said["kind"], said.get("where", ""))
                tell(said)
            if time.monotonic() - began > self.limits.seconds:
                minutes = self.limits.seconds / 60
                raise TaskError(f"it takes more than the {minutes:.3g} minutes that the server allows", "Limit")
            if self._memory() > self.limits.memory:
                raise TaskError("it takes more memory than the server allows", "Limit")

    def _said(self) -> list[dict[str, Any]]:
        """What the process has said since the last look."""
        stdout = _pipe(self._process.stdout)
        ready, _, _ = select.select([stdout], [], [], _LOOK_SECONDS)
        if not ready:
            return []
        got = os.read(stdout.fileno(), 1 << 16)
        if not got:
            raise TaskError("the process that worked on it broke off; is there enough memory?", "Broken")
        *lines, self._unread = (self._unread + got).split(b"\n")
        return [json.loads(line) for line in lines]

    def _memory(self) -> int:
        """Bytes of memory that the process and its children hold."""
        total = 0
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(self._process.pid)
            for each in (process, *process.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    total += each.memory_info().rss
        return total


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    """A pipe that was asked for is there."""
    assert stream is not None
    return stream

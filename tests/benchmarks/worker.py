"""Programs that wait between measurements, so that ours and peers can take turns, each in its own environment.

A worker reads a line for each measurement and answers with a line of JSON, a mapping of names to numbers. What it
prints besides goes to its log. A script of a peer is started by the peer's Python and imports nothing of this project
but this module, which needs the standard library alone::

    answers = claim_output()
    for _ in sys.stdin:
        with timed(answers):
            work()
"""

import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO


class Worker:
    """A started program that measures on demand.

    Args:
        command: Program and arguments.
        log: File for what it prints to its error output.
        env: Added to the environment.
    """

    def __init__(self, command: Sequence[str | Path], log: Path, env: Mapping[str, str] | None = None) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self.command = [str(part) for part in command]
        self.log = log
        with log.open("wb") as stream:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                env=os.environ | dict(env or {}),
                text=True,
            )

    def __call__(self) -> dict[str, float]:
        """Measure once.

        Raises:
            SystemExit: If the program has ended; its last lines are shown.
        """
        asked, answers = _open(self.process.stdin), _open(self.process.stdout)
        try:
            asked.write("\n")
            asked.flush()
        except BrokenPipeError:
            pass  # It has ended: no answer comes, and its log says why.
        answer = answers.readline()
        if not answer:
            status = self.process.wait()
            ending = "\n".join(self.log.read_text(errors="replace").splitlines()[-12:])
            raise SystemExit(f"{' '.join(self.command)}\nended with status {status}:\n{ending}")
        return json.loads(answer)

    def __enter__(self) -> "Worker":
        """Use until the end of a block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the program."""
        self.process.kill()
        self.process.communicate()


def claim_output() -> IO[str]:
    """Keep the output of this program for answers, whatever its libraries print, which goes to the log."""
    answers = os.fdopen(os.dup(1), "w", 1)
    os.dup2(2, 1)
    return answers


@contextmanager
def timed(answers: IO[str], count: int = 1, **facts: float) -> Generator[None]:
    """Answer with the seconds of the block, of the processor (``cpu_s``) and of the clock (``wall_s``).

    Args:
        answers: As of :func:`claim_output`.
        count: Things done in the block; the seconds are those of one.
        **facts: Told besides.
    """
    cpu, wall = time.process_time(), time.perf_counter()
    yield
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    answers.write(json.dumps({"cpu_s": cpu / count, "wall_s": wall / count, **facts}) + "\n")


def take_turns(
    programs: Mapping[str, Callable[[], Mapping[str, float]]], repeats: int, warm_up: int = 1
) -> dict[str, dict[str, float]]:
    """Let programs measure in turn, and give the median of each of their numbers.

    Args:
        programs: Name to what measures once.
        repeats: Rounds that count.
        warm_up: Rounds before, which do not.

    Examples:
        >>> times = iter([9.0, 1.0, 3.0, 2.0])
        >>> take_turns({"ours": lambda: {"wall_s": next(times)}}, repeats=3)
        {'ours': {'wall_s': 2.0}}
    """
    rounds = [{name: measure() for name, measure in programs.items()} for _ in range(warm_up + repeats)][warm_up:]
    return {
        name: {key: statistics.median(each[name][key] for each in rounds) for key in rounds[0][name]}
        for name in programs
    }


def _open(stream: IO[str] | None) -> IO[str]:
    """A pipe that was asked for is there."""
    assert stream is not None
    return stream

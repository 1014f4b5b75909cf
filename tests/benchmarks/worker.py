"""Programs that wait between measurements, so that ours and peers can take turns, each in its own environment.

A worker reads a line for each measurement and answers with a line of JSON, a mapping of names to numbers. What it
prints besides goes to its log. A script of a peer imports nothing of this project: it is started by the peer's Python
and answers by these lines::

    answers = os.fdopen(os.dup(1), "w", 1); os.dup2(2, 1)     # what libraries print goes to the log
    for _ in sys.stdin:
        answers.write(json.dumps(measure()) + "\\n")
"""

import json
import os
import statistics
import subprocess
from collections.abc import Callable, Mapping, Sequence
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

"""The other processes of one training on a machine: started with it, ended with it.

They are started here and not by Lightning, which would give the command line again: a training may just as well be
one of a study, or a call from Python. What a process must know reaches it as two lines of JSON on its standard input;
the end of that stream says that the training is over.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import IO

import torch
from torch import distributed

from segmentation import SkipSegError
from segmentation.config import TrainSettings
from segmentation.plain import from_plain, to_plain
from segmentation.training.ranks import Rank

PATIENCE_SECONDS = 30.0
"""How long a training may go on after one of its processes died; GPUs would wait for the dead one."""


@dataclass(frozen=True)
class _Follower:
    """A process of the training besides the first."""

    rank: Rank
    process: "subprocess.Popen[str]"
    words: IO[str]

    def reason(self) -> str:
        """Why it ended, in one line."""
        code = self.process.wait()
        self.words.seek(0)
        said = [line for line in self.words.read().splitlines() if line.strip()]
        return f"ended by signal {-code}" if code < 0 else said[-1].strip() if said else f"exit status {code}"


@contextmanager
def followed(rank: Rank, settings: TrainSettings) -> Generator[Rank]:
    """Keep the other processes of this machine running while the block trains.

    Args:
        rank: The first process of this machine.
        settings: Of the training, with every planned value filled in.

    Yields:
        ``rank``, with the port to meet at.

    Raises:
        SkipSegError: If one of the others ends before its time.
    """
    if rank.world == 1:
        yield rank
        return
    before = dict(os.environ)  # Lightning writes MASTER_ADDR and MASTER_PORT into it
    os.environ["OMP_NUM_THREADS"] = str(torch.get_num_threads())  # for the others; else Lightning chooses
    followers: list[_Follower] = []
    try:
        followers.extend(_start(replace(rank, local=local), settings) for local in range(1, rank.devices))
        rank = _introduce(rank, followers)
        threading.Thread(target=_watch, args=(followers, over := threading.Event()), daemon=True).start()
        try:
            yield rank
        except Exception as error:  # whose fault it was is known to the process that died first; raised either way
            _complain_of(followers, error)
            raise
        finally:
            over.set()
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()
        for follower in followers:
            follower.process.kill()
            follower.process.communicate()
            follower.words.close()
        os.environ.clear()
        os.environ.update(before)


def _start(rank: Rank, settings: TrainSettings) -> _Follower:
    """Start one process and give it the settings; a session of its own keeps Ctrl-C from it."""
    words = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - `followed` closes it
    command = [sys.executable, "-m", "segmentation.training.follow"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=words, text=True, start_new_session=True
    )
    follower = _Follower(rank, process, words)
    _tell(follower, to_plain(settings))
    return follower


def _introduce(rank: Rank, followers: Sequence[_Follower]) -> Rank:
    """Wait until every process is ready, then choose a port and name it to all."""
    for follower in followers:
        assert follower.process.stdout
        if follower.process.stdout.readline() != "ready\n":
            raise SkipSegError(f"process {follower.rank.number} of this training: {follower.reason()}")
    if rank.nodes == 1:
        rank = replace(rank, port=_free_port())
    for follower in followers:
        _tell(follower, asdict(replace(follower.rank, port=rank.port)))
    return rank


def _free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _tell(follower: _Follower, content: object) -> None:
    """Write one line; a process that is gone already is noticed when it should answer."""
    assert follower.process.stdin
    try:
        follower.process.stdin.write(json.dumps(content) + "\n")
        follower.process.stdin.flush()
    except BrokenPipeError:
        return


def _complain_of(followers: Sequence[_Follower], error: Exception) -> None:
    """Raise for a process whose end made the training fail with ``error``."""
    for follower in followers:
        try:
            failed = follower.process.wait(1)
        except subprocess.TimeoutExpired:
            continue
        if failed and not isinstance(error, SkipSegError):
            said = f"process {follower.rank.number} of this training: {follower.reason()}"
            raise SkipSegError(f"{said}; give the same command again to continue") from error


def _watch(followers: Sequence[_Follower], over: threading.Event) -> None:
    """End this process if it still waits for a dead one after ``PATIENCE_SECONDS``."""
    while not over.wait(1):
        dead = [follower for follower in followers if follower.process.poll()]
        if dead and not over.wait(PATIENCE_SECONDS):
            said = f"process {dead[0].rank.number} of this training: {dead[0].reason()}"
            print(f"skipseg: {said}; give the same command again to continue", file=sys.stderr, flush=True)
            os._exit(1)


def main() -> None:
    """Train as one of the other processes: settings and rank come on standard input."""
    from segmentation.training.train import follow_training  # it starts processes of this module

    settings = from_plain(TrainSettings, json.loads(sys.stdin.readline()))

    def introduced() -> Rank:
        """Say that everything is imported and prepared, and learn where to meet."""
        print("ready", flush=True)
        rank = Rank(**json.loads(sys.stdin.readline()))
        threading.Thread(target=_end_with_stream, daemon=True).start()
        return rank

    try:
        follow_training(settings, introduced)
    except SkipSegError as error:
        sys.exit(str(error))


def _end_with_stream() -> None:
    """End this process when the one that started it closes the stream, or is gone."""
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    main()

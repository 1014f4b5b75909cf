"""Where each run of a study stands: it waits, is running, is finished or has failed.

There is no table to keep: the ledger is read from the run folders whenever it is asked for, so that it cannot say
anything else than they do, whatever was killed at whatever moment.

run/
  attempts/1.json ...        when and where each attempt began, and why it failed; locked while one is under way
  evaluation/summary.json    written last: the run is finished, and no attempt at it is made again
"""

import os
import platform
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

from segmentation import SkipSegError
from segmentation.ablation.lease import is_leased
from segmentation.runs import is_draft, read_json, write_json
from segmentation.terminal import counted
from segmentation.training.lock import is_locked, locked
from segmentation.training.record import State


@dataclass(frozen=True)
class Entry:
    """One run in the ledger.

    Attributes:
        id: Folder name.
        condition, fold, seed: Its place in the study.
        state: How far it is; a run whose process was killed waits again.
        reasons: Why each attempt that did not finish ended, the first one first.
        attempts: How often it was begun.
    """

    id: str
    condition: str
    fold: int
    seed: int
    state: State
    attempts: int
    reasons: tuple[str, ...]


def read_ledger(study: Path) -> list[Entry]:
    """Read where each run of the study in ``study`` stands.

    Raises:
        SkipSegError: If the folder holds no study.
    """
    return [_entry(study / "runs" / run["id"], **run) for run in read_json(study / "study.json")["runs"]]


def _entry(folder: Path, id: str, condition: str, fold: int, seed: int) -> Entry:
    """Read where one run stands."""
    state, notes = state_of(folder), [read_json(path) for path in _attempts(folder)]
    ended = notes[:-1] if state in ("running", "finished") else notes
    reasons = tuple(note.get("error", "ended without a word, as a killed process does") for note in ended)
    return Entry(id, condition, fold, seed, state, len(notes), reasons)


def summarise(entries: Sequence[Entry]) -> str:
    """Say how many runs there are and in which state; each that failed gets a line with its last reason.

    Examples:
        >>> from dataclasses import replace
        >>> waiting = Entry("a-f0-s0", "a", 0, 0, "waiting", 0, ())
        >>> print(summarise([waiting, replace(waiting, id="a-f1-s0", fold=1, state="failed", reasons=("no memory",))]))
        2 runs: 1 condition, 2 folds, 1 seed; 1 waiting, 1 failed
        a-f1-s0: no memory
    """
    kinds = {name: len({getattr(entry, name) for entry in entries}) for name in ("condition", "fold", "seed")}
    counts = Counter(entry.state for entry in entries)
    states = ", ".join(f"{counts[state]} {state}" for state in get_args(State) if counts[state])
    parts = ", ".join(counted(count, name) for name, count in kinds.items())
    head = f"{counted(len(entries), 'run')}: {parts}; {states}"
    failed = [entry for entry in entries if entry.state == "failed"]
    return "\n".join([head, *(f"{entry.id}: {entry.reasons[-1]}" for entry in failed if entry.reasons)])


def is_done(folder: Path) -> bool:
    """Tell whether a run has been trained and scored."""
    return (folder / "evaluation" / "summary.json").is_file()


def state_of(folder: Path) -> State:
    """Read where the run in ``folder`` stands."""
    if is_done(folder):
        return "finished"
    if is_locked(folder / "attempts") or is_leased(folder):
        return "running"
    record = read_json(folder / "run.json") if (folder / "run.json").exists() else {}
    return "failed" if record.get("state") == "failed" else "waiting"


@contextmanager
def attempt(folder: Path) -> Generator[None]:
    """Work on the frozen run in ``folder`` while the block runs; what it raises is written down as the reason.

    Raises:
        SkipSegError: If another process works on it.
    """
    with locked(folder / "attempts"):
        path = folder / "attempts" / f"{len(_attempts(folder)) + 1}.json"
        began = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(path, {"began": began, "host": platform.node(), "process": os.getpid()})
        try:
            yield
        except Exception as error:  # whatever ended the attempt is its reason; it is raised again
            fail(folder, " ".join(str(error).split()) or type(error).__name__)
            raise


def fail(folder: Path, reason: str) -> None:
    """Write down why the last attempt at the run in ``folder`` ended before it was finished."""
    record = read_json(folder / "run.json")
    write_json(folder / "run.json", record | {"state": "failed", "error": reason})
    for path in _attempts(folder)[-1:]:
        write_json(path, read_json(path) | {"error": reason})


def _attempts(folder: Path) -> list[Path]:
    """Notes of the attempts at a run, in order."""
    if not (folder / "attempts").is_dir():
        return []
    notes = [path for path in (folder / "attempts").iterdir() if not is_draft(path)]
    try:
        return sorted(notes, key=lambda path: int(path.stem))
    except ValueError:
        raise SkipSegError(f"{folder / 'attempts'} holds something else than attempts; delete it") from None

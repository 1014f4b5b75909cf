"""A process that does one task for the server and ends: reading an upload, or segmenting a scan.

It is told its task by a line of JSON, and answers by lines of JSON. What it takes is limited, and it ends with its
server, however that ends: the system is asked to kill it then, and its input ends.
"""

import ctypes
import json
import os
import resource
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from segmentation import SkipSegError
from segmentation.serve.words import cleaned

Tell = Callable[..., None]
Task = Callable[[Mapping[str, Any], Tell], dict[str, Any]]

_PR_SET_PDEATHSIG = 1
"""Of prctl(2)."""


def main(kind: str, memory: int, parent: int) -> NoReturn:
    """Do one task.

    Args:
        kind: ``"take_in"`` or ``"segment"``.
        memory: Bytes of memory of its own that the process may ask the system for; 0 sets no limit.
        parent: Process id of the server.
    """
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # libraries may print; answers go another way
    _end_with(parent)
    _limit(memory)

    def tell(**said: Any) -> None:
        answers.write(json.dumps(said) + "\n")
        answers.flush()

    act = _task(kind)
    tell(ready=True)
    line = sys.stdin.buffer.readline()
    if not line:
        os._exit(1)
    threading.Thread(target=_end_with_input, daemon=True).start()
    tell(**_outcome(act, json.loads(line), tell))
    os._exit(0)  # nothing is left to do, and libraries have threads that would be waited for


def _task(kind: str) -> Task:
    """What a kind of task does; its libraries are loaded before the task is known."""
    if kind == "take_in":
        from segmentation.serve.intake import take_in

        return take_in
    from segmentation.serve.segment import segment

    return segment


def _outcome(act: Task, task: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    """What came of a task, without a word of the upload's own."""
    try:
        return {"result": act(task, tell)}
    except SkipSegError as error:
        return {"error": cleaned(str(error)), "kind": type(error).__name__}
    except MemoryError:
        return {"error": "it takes more memory than the server allows", "kind": "MemoryError"}
    except OSError as error:
        return {"error": f"the server could not: {os.strerror(error.errno or 0)}", "kind": "OSError"}
    except Exception as error:  # its text may repeat what stands in the upload: only its place is told
        frames = traceback.extract_tb(error.__traceback__)
        where = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames))
        return {"error": f"internal error, {type(error).__name__}", "kind": "Internal", "where": where}


def _end_with(parent: int) -> None:
    """Have the system kill this process when its parent ends; nothing where the system cannot."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it has ended already
            os._exit(1)


def _end_with_input() -> None:
    """End this process when its input ends, as it does when the server is gone."""
    while os.read(sys.stdin.fileno(), 1):
        continue
    os._exit(1)


def _limit(memory: int) -> None:
    """Limit what the process may take, and keep what it holds off the disk if it crashes."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory and sys.platform == "linux":
        # Not the address space: PyTorch reserves far more of it than it ever uses.
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))

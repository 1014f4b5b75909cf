"""What every launcher has done somewhere: one frozen run, worked on by one process.

A launcher knows run folders and this module, nothing of training.
"""

import sys
import traceback
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from segmentation.ablation.lease import leased
from segmentation.ablation.ledger import attempt, is_done
from segmentation.progress import Bar
from segmentation.runs import read_json
from segmentation.training.record import read_config


def work(folder: Path) -> str | None:
    """Train, segment and score the frozen run in ``folder``, or continue it, once nobody else works on it.

    What is printed goes to ``log.txt`` in the folder, below what an attempt before left there. In a process that does
    nothing else: the seeds and threads of the run stay behind.

    Returns:
        Why it failed, in one line; ``None`` if the run is finished.
    """
    with leased(folder):
        if is_done(folder):
            return None
        with (folder / "log.txt").open("a", buffering=1) as log, redirect_stdout(log), redirect_stderr(log):
            from segmentation.ablation.cell import run_cell  # brings PyTorch, which a launcher that waits can spare

            try:
                with attempt(folder):
                    run_cell(read_config(folder / "config.yaml"))
            except Exception:  # whatever ended the run is written down, and the other runs go on
                traceback.print_exc()
                return failure(folder)
    return None


def failure(folder: Path) -> str:
    """Why the run in ``folder`` failed, in one line."""
    return str(read_json(folder / "run.json").get("error", f"see {folder / 'log.txt'}"))


def progress(waiting: Sequence[Path], total: int) -> Bar:
    """A bar over the runs of a study, on a terminal only."""
    return Bar("ablate", "runs", total, done=total - len(waiting))


def main(arguments: Sequence[str]) -> int:
    """Run one line of a list of run folders: what a task of a SLURM array does.

    Args:
        arguments: File with a run folder in each line, and the number of the line, from 1.

    Returns:
        Exit status: 0 finished, 1 failed.
    """
    listed, line = arguments
    folder = Path(Path(listed).read_text(encoding="utf-8").splitlines()[int(line) - 1])
    reason = work(folder)
    if reason:
        print(f"skipseg: {folder.name}: {reason}", file=sys.stderr)
    return 1 if reason else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

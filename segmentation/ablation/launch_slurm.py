"""Launcher ``slurm``: one job array, submitted from a script that stays in the study folder.

slurm/
  array-1.sh     the script; every value in it was checked, and nothing in it is put together by a shell
  array-1.txt    a run folder in each line: task 1 works on the first
  array-1.json   number of the job, once submitted
  array-1-K.log  what task K said before its run wrote its own log.txt
"""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from segmentation import SkipSegError
from segmentation.config import AblateSettings
from segmentation.runs import read_json, write_json, write_text

OWN = frozenset({"array", "chdir", "error", "export-file", "input", "job-name", "output", "parsable", "wait", "wrap"})
"""Options of sbatch that the script decides itself."""

_NAME = re.compile(r"[a-z][a-z0-9-]*")
_VALUE = re.compile(r"[A-Za-z0-9_.,:;=%@/+()\[\]*&|!-]*")
_PATH = re.compile(r"[A-Za-z0-9_.,:=@/+-]+")


def launch_slurm(folders: Sequence[Path], settings: AblateSettings, total: int) -> list[str]:
    """Submit an array of the runs that are not finished; ``ablate`` again collects, and submits what is missing.

    Where there is no sbatch, the script is written and the command that submits it is said.

    Args:
        folders: Run folders, each with its frozen config.yaml, on a disk that all nodes share.
        settings: Of the study; ``slurm`` holds options of sbatch, ``workers`` limits the tasks at a time.
        total: Runs of the whole study.

    Returns:
        Nothing: no run has failed yet.

    Raises:
        SkipSegError: If an option is not a plain word, SLURM cannot give what is asked for, or sbatch refuses.
    """
    place = settings.out.resolve() / "slurm"
    finished = f"{total - len(folders)} of {total} runs are finished"
    queued = [job for job in _jobs(place) if _is_queued(job)]
    if queued:
        print(f"{finished}; job {', '.join(queued)} is still in the queue, give the same command again later")
        return []
    number = 1 + max((int(path.stem.partition("-")[2]) for path in place.glob("array-*.sh")), default=0)
    listed = place / f"array-{number}.txt"
    script = listed.with_suffix(".sh")
    content = array_script(listed, len(folders), settings)
    write_text(listed, "".join(f"{folder}\n" for folder in folders))
    write_text(script, content)
    sbatch = shutil.which("sbatch")
    if not sbatch:
        print(f"{finished}; this machine has no sbatch: submit the others with")
        print(f"sbatch {shlex.quote(str(script))}\nand give the same command again when they have ended")
        return []
    job = _submit(sbatch, script)
    write_json(script.with_suffix(".json"), {"job": job})
    print(f"{finished}; submitted {len(folders)} as job {job}, give the same command again when it has ended")
    return []


def array_script(listed: Path, tasks: int, settings: AblateSettings) -> str:
    """The script of an array.

    Args:
        listed: File with a run folder in each line.
        tasks: How many lines it has.
        settings: Of the study.

    Raises:
        SkipSegError: If an option is not a plain word, or SLURM cannot give what is asked for.

    Examples:
        >>> settings = AblateSettings("study.yaml", "out", workers=2, slurm={"time": "02:00:00"})
        >>> print(array_script(Path("/disk/out/slurm/array-1.txt"), 8, settings))  # doctest: +ELLIPSIS
        #!/bin/sh
        #SBATCH --job-name=skipseg
        #SBATCH --array=1-8%2
        #SBATCH --output=/disk/out/slurm/array-1-%a.log
        #SBATCH --requeue
        #SBATCH --open-mode=append
        #SBATCH --time=02:00:00
        cd -- ... || exit 1
        exec ... -m segmentation.ablation.work /disk/out/slurm/array-1.txt "$SLURM_ARRAY_TASK_ID"
    """
    if not _PATH.fullmatch(str(listed)):
        raise SkipSegError(
            f"launcher slurm needs a study folder whose path has letters, digits and _.,:=@/+- only, got {listed}"
        )
    options = {
        "job-name": "skipseg",
        "array": f"1-{tasks}" + (f"%{settings.workers}" if settings.workers else ""),
        "output": str(listed.with_name(f"{listed.stem}-%a.log")),
        **({"requeue": "", "open-mode": "append"} if settings.retries else {"no-requeue": ""}),
        **_gpu_option(settings.gpus),
        **_checked(settings.slurm),
    }
    lines = [f"#SBATCH --{name}={value}" if value else f"#SBATCH --{name}" for name, value in options.items()]
    python, here, runs = (shlex.quote(str(item)) for item in (sys.executable, Path.cwd(), listed))
    work = f'exec {python} -m segmentation.ablation.work {runs} "$SLURM_ARRAY_TASK_ID"'
    return "\n".join(["#!/bin/sh", *lines, f"cd -- {here} || exit 1", work, ""])


def _gpu_option(gpus: float) -> dict[str, str]:
    """GPUs of each task; SLURM gives whole ones."""
    if gpus != int(gpus):
        raise SkipSegError(f"SLURM gives whole GPUs, got gpus {gpus}; launcher ray lets runs share one")
    return {"gpus-per-node": str(int(gpus))} if gpus else {}


def _checked(options: Mapping[str, str]) -> Mapping[str, str]:
    """Refuse what is not the plain name or value of an option of sbatch."""
    for name, value in options.items():
        if not _NAME.fullmatch(name) or name in OWN:
            decided = "the study decides it" if name in OWN else "it is not the name of an option, such as partition"
            raise SkipSegError(f"slurm option {name!r} is refused: {decided}")
        if not _VALUE.fullmatch(value):
            raise SkipSegError(f"slurm option {name} has the value {value!r}; it may hold no spaces and no quotes")
    return options


def _submit(sbatch: str, script: Path) -> str:
    """Submit a script and give the number of its job."""
    done = subprocess.run([sbatch, "--parsable", str(script)], capture_output=True, text=True, check=False)
    job = done.stdout.strip().partition(";")[0]
    if done.returncode or not job.isdecimal():
        said = " ".join((done.stderr or done.stdout).split()) or f"exit status {done.returncode}"
        raise SkipSegError(f"sbatch refused {script}: {said}")
    return job


def _jobs(place: Path) -> list[str]:
    """Numbers of the jobs that were submitted from here."""
    return [str(read_json(path)["job"]) for path in sorted(place.glob("array-*.json"))]


def _is_queued(job: str) -> bool:
    """Tell whether a job waits or runs; a machine without squeue knows of none."""
    squeue = shutil.which("squeue")
    if not squeue:
        return False
    done = subprocess.run([squeue, "--noheader", f"--jobs={job}"], capture_output=True, text=True, check=False)
    return done.returncode == 0 and bool(done.stdout.strip())

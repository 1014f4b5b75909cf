"""Studies as a SLURM array: what the script says, what is refused, and an array run by a stand-in for sbatch."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from segmentation import SkipSegError
from segmentation.ablation.launch_slurm import array_script, launch_slurm
from segmentation.ablation.ledger import read_ledger
from segmentation.ablation.work import main
from segmentation.config import AblateSettings
from segmentation.runs import read_json

SBATCH = """#!{python}
'''Stands for sbatch: checks the script, runs each task of the array here, and prints a job number.'''
import re, shlex, subprocess, sys
option, script = sys.argv[1:]
assert option == "--parsable"
lines = open(script).read().splitlines()
options = dict(line.removeprefix("#SBATCH --").partition("=")[::2] for line in lines if line.startswith("#SBATCH"))
assert lines[0] == "#!/bin/sh" and options["partition"] == "gpu", lines
last = int(re.fullmatch(r"1-(\\d+)%1", options["array"])[1])
for task in range(1, last + 1):
    with open(options["output"].replace("%a", str(task)), "a") as log:
        told = dict(SLURM_ARRAY_TASK_ID=str(task), SLURM_NTASKS="2", SLURM_JOB_NAME="skipseg", SLURM_JOB_ID="4711")
        subprocess.run(["/bin/sh", script], env=told | {kept}, cwd="/", stdout=log, stderr=log)
print("4711;cluster")
"""


def settings(folder: Path, **changes) -> AblateSettings:
    return AblateSettings(folder / "study.yaml", folder / "out", launcher="slurm", **changes)


def install(folder: Path, name: str, text: str, monkeypatch) -> None:
    """Put a program in front of the PATH."""
    (folder / "bin").mkdir(exist_ok=True)
    program = folder / "bin" / name
    program.write_text(text)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture
def without_slurm(tmp_path, monkeypatch):
    """A PATH that holds nothing."""
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))


# The script


def script(folder: Path, tasks: int = 3, **changes) -> list[str]:
    return array_script(folder / "array-1.txt", tasks, settings(folder, **changes)).splitlines()


def test_script_holds_what_was_asked_for(tmp_path):
    lines = script(tmp_path, workers=2, gpus=1, slurm={"partition": "gpu", "time": "02:00:00", "exclusive": ""})
    assert {"#SBATCH --array=1-3%2", "#SBATCH --gpus-per-node=1", "#SBATCH --requeue"} < set(lines)
    assert {"#SBATCH --partition=gpu", "#SBATCH --time=02:00:00", "#SBATCH --exclusive"} < set(lines)
    assert shlex.split(lines[-1])[:4] == ["exec", sys.executable, "-m", "segmentation.ablation.work"]
    assert shlex.split(lines[-2])[:3] == ["cd", "--", str(Path.cwd())]
    plain = script(tmp_path, retries=0)
    assert {"#SBATCH --array=1-3", "#SBATCH --no-requeue"} < set(plain)
    assert not any("gpu" in line for line in plain)


def test_folder_that_the_user_stands_in_is_quoted(tmp_path, monkeypatch):
    evil = tmp_path / "a 'b' $(touch pwned) `touch pwned`\n#SBATCH --uid=0"
    evil.mkdir(parents=True)
    monkeypatch.chdir(evil)
    text = array_script(Path("/disk/array-1.txt"), 1, settings(Path("/disk")))
    text = text.replace(f"exec {shlex.quote(sys.executable)}", "pwd; : exec")
    done = subprocess.run(["/bin/sh", "-c", text], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout == f"{evil}\n"
    assert not list(tmp_path.rglob("pwned"))


HOSTILE = [
    "a b",
    "a\n#SBATCH --uid=0",
    "$(id)",
    "`id`",
    "a'b",
    'a"b',
    "a\\b",
    "a\0b",
    "\N{GREEK SMALL LETTER BETA}",
    "a#",
]


@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_value_is_refused(tmp_path, value):
    with pytest.raises(SkipSegError, match=r"slurm option partition has the value .* no spaces and no quotes"):
        script(tmp_path, slurm={"partition": value})


@pytest.mark.parametrize("name", [*HOSTILE, "", "Partition", "-p", "--partition", "a=b"])
def test_hostile_name_is_refused(tmp_path, name):
    with pytest.raises(SkipSegError, match="is refused: it is not the name of an option"):
        script(tmp_path, slurm={name: "1"})


@pytest.mark.parametrize("name", ["array", "wrap", "output", "chdir"])
def test_option_that_the_script_decides_is_refused(tmp_path, name):
    with pytest.raises(SkipSegError, match=f"slurm option '{name}' is refused: the study decides it"):
        script(tmp_path, slurm={name: "1"})


@pytest.mark.parametrize("name", ["a b", "a'b", "$(id)", "a\nb"])
def test_study_folder_that_sbatch_could_misread_is_refused(tmp_path, name):
    with pytest.raises(SkipSegError, match="needs a study folder whose path has letters"):
        launch_slurm([tmp_path], settings(tmp_path / name), 1)
    assert not list(tmp_path.rglob("array*"))


def test_share_of_a_gpu_is_refused(tmp_path):
    with pytest.raises(SkipSegError, match=r"SLURM gives whole GPUs, got gpus 0\.25; launcher ray lets runs share one"):
        script(tmp_path, gpus=0.25)


# Submitting


@pytest.mark.usefixtures("without_slurm")
def test_without_sbatch_the_script_is_written_and_the_command_said(tmp_path, capsys):
    for number in (1, 2):
        assert launch_slurm([Path("runs/a"), Path("runs/b")], settings(tmp_path), 3) == []
        place = tmp_path / "out" / "slurm"
        said = capsys.readouterr().out.splitlines()
        assert said[0] == "1 of 3 runs are finished; this machine has no sbatch: submit the others with"
        assert said[1] == f"sbatch {place / f'array-{number}.sh'}"
    assert (place / "array-2.txt").read_text() == "runs/a\nruns/b\n"
    assert sorted(path.name for path in place.iterdir()) == ["array-1.sh", "array-1.txt", "array-2.sh", "array-2.txt"]


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("echo 'invalid partition' >&2; exit 1", "sbatch refused .*array-1.sh: invalid partition"),
        ("exit 3", "sbatch refused .*: exit status 3"),
        ("echo yes", "sbatch refused .*: yes"),
    ],
)
def test_sbatch_that_refuses_is_quoted(tmp_path, monkeypatch, program, said):
    install(tmp_path, "sbatch", f"#!/bin/sh\n{program}\n", monkeypatch)
    with pytest.raises(SkipSegError, match=said):
        launch_slurm([tmp_path], settings(tmp_path), 1)
    assert not list(tmp_path.rglob("array-1.json"))


def test_array_in_the_queue_is_not_submitted_again(tmp_path, monkeypatch, capsys):
    install(tmp_path, "sbatch", "#!/bin/sh\necho 4711\n", monkeypatch)
    install(tmp_path, "squeue", '#!/bin/sh\n[ "$*" = "--noheader --jobs=4711" ] && echo "4711_1 gpu"\n', monkeypatch)
    launch_slurm([tmp_path], settings(tmp_path), 2)
    assert "submitted 1 as job 4711" in capsys.readouterr().out
    launch_slurm([tmp_path], settings(tmp_path), 2)
    assert "1 of 2 runs are finished; job 4711 is still in the queue" in capsys.readouterr().out
    assert len(list(tmp_path.rglob("array-*.sh"))) == 1
    install(tmp_path, "squeue", "#!/bin/sh\nexit 0\n", monkeypatch)
    launch_slurm([tmp_path], settings(tmp_path), 2)
    assert len(list(tmp_path.rglob("array-*.sh"))) == 2


def test_task_of_a_run_that_is_finished_does_nothing(tmp_path):
    folder = tmp_path / "run"
    (folder / "evaluation").mkdir(parents=True)
    (folder / "evaluation" / "summary.json").touch()
    (tmp_path / "runs.txt").write_text(f"elsewhere\n{folder}\n")
    assert main([str(tmp_path / "runs.txt"), "2"]) == 0


@pytest.mark.slow
def test_array_gives_the_bytes_of_this_machine(tmp_path, pictures, write_study, results, monkeypatch):
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "XDG_CACHE_HOME", "OMP_NUM_THREADS")}
    install(tmp_path, "sbatch", SBATCH.format(python=sys.executable, kept=kept), monkeypatch)
    study = write_study(tmp_path, pictures)
    monkeypatch.chdir(tmp_path)
    command = [sys.executable, "-m", "segmentation", "ablate", study.name, "--out"]
    far = [*command, "far0", "--launcher", "slurm", "--workers", "1", "--slurm", "{partition: gpu}"]
    subprocess.run([*command, "far0", "--launcher", "none"], check=True, capture_output=True)
    broken = Path("far0/runs") / read_json(Path("far0/study.json"))["runs"][0]["id"]
    (broken / "last.ckpt").write_bytes(b"damaged")
    submitted = subprocess.run(far, check=True, capture_output=True, text=True)
    assert submitted.stdout.startswith("0 of 2 runs are finished; submitted 2 as job 4711, give the same command again")
    assert [entry.state for entry in read_ledger(Path("far0"))] == ["failed", "finished"]
    assert "last.ckpt cannot be resumed from" in Path("far0/slurm/array-1-1.log").read_text()
    (broken / "last.ckpt").unlink()
    again = subprocess.run(far, check=True, capture_output=True, text=True)
    assert again.stdout.startswith("1 of 2 runs are finished; submitted 1 as job 4711")
    collected = subprocess.run(far, check=True, capture_output=True, text=True)
    assert "submitted" not in collected.stdout
    subprocess.run([*command, "near0", "--workers", "2"], check=True, capture_output=True)
    trained = {name: content for name, content in results(Path("far0")).items() if not name.startswith("slurm/")}
    near = results(Path("near0"))
    assert {name: content.replace(b"far0", b"near0") for name, content in trained.items()} == near

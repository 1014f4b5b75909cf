"""The steps of the Dockerfile in a plain shell: its folders lie in a temporary one, and its user runs what it made."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import pytest
import yaml

from segmentation.runs import read_json

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

ROOT = Path(__file__).parents[2]
PLACES = re.compile(r"(?<![\w.}$/-])/(?=(?:configs|input|model|opt|output|scratch|src)\b)")
PASSED_ON = re.compile(r"PIP_.*|.*_proxy|SSL_.*|REQUESTS_.*", re.IGNORECASE)
"""Variables by which pip finds its index here."""
TINY = {
    "folds": 2, "epochs": 1, "steps_per_epoch": 2, "threads": 1, "device": "cpu",
    "data": {"patch_size": [16, 16, 16], "batch_size": 2}, "network": {"depth": 1, "width": 4},
}  # fmt: skip


@dataclass
class Shell:
    """Stands for the engine: does what each instruction says below ``prefix``."""

    prefix: Path
    in_context: Callable[[str], bool]
    cwd: Path = Path()
    given: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    user: str = ""

    def build(self, instructions: list[Any], context: Path = ROOT) -> None:
        """Do what changes the image; labels, ports and the like change nothing here."""
        for each in instructions:
            if each.name == "COPY":
                self._copy(each, context)
            elif each.name in ("ARG", "ENV", "FROM", "RUN", "USER", "WORKDIR"):
                getattr(self, f"_{each.name.lower()}")(each)

    def place(self, text: str) -> str:
        return PLACES.sub(f"{self.prefix}/", text)

    def run(self, words: list[str], *arguments: object) -> str:
        """Run a command of the image as its user, if we may, and return what it said."""
        uid, gid = (int(number) for number in self.user.split(":"))
        who = {"user": uid, "group": gid, "extra_groups": []} if os.geteuid() == 0 else {}
        command = [*words, *(self.place(str(word)) for word in arguments)]
        done = subprocess.run(command, cwd=self.cwd, env=self.environment, capture_output=True, text=True, **who)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def _from(self, _: Any) -> None:
        # What the former stage was built from must not be needed: only what is copied on stays.
        shutil.rmtree(self.prefix / "src", ignore_errors=True)
        self.cwd = self.prefix
        self.environment = {"PATH": f"{self.prefix}/bin:/usr/local/bin:/usr/bin:/bin"}

    def _arg(self, each: Any) -> None:
        name, _, value = each.text.partition("=")
        self.given[name] = value.strip('"')

    def _env(self, each: Any) -> None:
        for word in each.text.split():
            name, _, value = word.partition("=")
            self.environment[name] = self.place(Template(value).safe_substitute(self.environment))

    def _workdir(self, each: Any) -> None:
        self.cwd = Path(self.place(each.text))
        self.cwd.mkdir(parents=True, exist_ok=True)

    def _user(self, each: Any) -> None:
        self.user = each.text

    def _run(self, each: Any) -> None:
        reach = {name: value for name, value in os.environ.items() if PASSED_ON.fullmatch(name)}
        variables = reach | self.given | self.environment
        step = ["sh", "-ec", self.place(each.text)]
        done = subprocess.run(step, cwd=self.cwd, env=variables, capture_output=True, text=True)
        assert done.returncode == 0, f"{each.text}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"

    def _copy(self, each: Any, context: Path) -> None:
        *sources, target = (self.place(word) for word in each.words)
        if "from" in each.flags:
            assert sources == [target], "the stages share their folders here, so a copy must keep its place"
            return
        for source in sources:
            folder = (context / source).is_dir()
            for file in (context / source).rglob("*") if folder else [context / source]:
                if file.is_file() and (context != ROOT or self.in_context(file.relative_to(ROOT).as_posix())):
                    name = file.relative_to(context / source) if folder else Path(source)
                    into = self.cwd / target if target.endswith(source) and not folder else self.cwd / target / name
                    into.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(file, into)


def lay_base(prefix: Path) -> None:
    """Put the Python of these tests where the base image has its own; one in a private folder is copied."""
    python, home = Path(sys.executable).resolve(), Path(sys.base_prefix)
    if not all(folder.stat().st_mode & 0o001 for folder in python.parents):
        unused = shutil.ignore_patterns("site-packages", "test", "idlelib", "__pycache__", "*.a")
        shutil.copytree(home, prefix / "base", symlinks=True, ignore=unused)
        python = prefix / "base" / python.relative_to(home.resolve())
    (prefix / "bin").mkdir()
    (prefix / "bin" / "python").symlink_to(python)


def reaches_an_index() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, "packaging"]
        return subprocess.run(command, capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def shell(image, in_context) -> Iterator[Shell]:
    """The image, built. Its folder can be entered by any user, unlike pytest's own."""
    if not reaches_an_index():
        pytest.skip("pip reaches no package index, so the steps of the Dockerfile cannot be run")
    with tempfile.TemporaryDirectory(prefix="skipseg-image-") as folder:
        prefix = Path(folder).resolve()
        prefix.chmod(0o755)
        lay_base(prefix)
        made = Shell(prefix, in_context)
        made.build(image)
        yield made


@pytest.fixture(scope="module")
def start(image) -> list[str]:
    """The command that a container runs."""
    return next(each.words for each in image if each.name == "ENTRYPOINT")


@pytest.fixture(scope="module")
def model(shell: Shell, start: list[str]) -> Path:
    """A model that the image trained on volumes it may not change, ready at its place."""
    data = "/scratch/data"
    size = ("--phantom.spatial_dims", 3, "--phantom.cases", 4, "--phantom.size", 24)
    shell.run(start, "prepare", "phantom", "--out", data, "--phantom.task", "blob", *size)
    shutil.copytree(shell.prefix / "scratch" / "data", shell.prefix / "input", dirs_exist_ok=True)
    (shell.prefix / "input" / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    shell.run(start, "train", "/input", "--out", "/output/run", "--config", "/input/tiny.yaml")
    for name in ("model.json", "model.safetensors"):
        shutil.copyfile(shell.prefix / "output" / "run" / name, shell.prefix / "model" / name)
    return shell.prefix / "model"


def test_nothing_of_the_source_is_left(shell: Shell):
    made = {path.name for path in shell.prefix.iterdir()} - {"base", "bin"}
    assert made == {"configs", "input", "model", "opt", "output", "scratch"}


def test_the_command_starts(shell: Shell, start: list[str], image):
    rest = next(each.words for each in image if each.name == "CMD")
    assert "usage: skipseg COMMAND" in shell.run(start, *rest)


def test_the_image_is_healthy(shell: Shell, image):
    (check,) = [each for each in image if each.name == "HEALTHCHECK"]
    said = shell.run(check.words)
    assert "Everything needed is there." in said
    assert f"{shell.prefix}/scratch/cache/skipseg can be written" in said
    (extras,) = [each.text for each in image if each.text.startswith("EXTRAS=")]
    for extra in extras.partition("=")[2].strip('"').split(","):
        assert re.search(rf"Optional +{extra} .*is there", said)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run the steps as one user and the image as another")
def test_the_user_can_write_nothing_else(shell: Shell):
    found = shell.run(["find", str(shell.prefix), "-writable", "-not", "-type", "l"]).split()
    assert {Path(path).relative_to(shell.prefix).parts[0] for path in found} == {"output", "scratch"}


def test_it_trains_and_segments_and_changes_nothing_else(shell: Shell, start: list[str], model: Path):
    fixed = [shell.prefix / name for name in ("configs", "input", "model", "opt")]
    before = {path: path.lstat().st_mtime_ns for folder in fixed for path in folder.rglob("*")}
    shell.run(start, "predict", "--model", "/model", "--input", "/input/imagesTr", "--output", "/output/masks")
    names = {path.name for path in (shell.prefix / "output" / "masks").glob("*.nii.gz")}
    assert names == {f"{case}.nii.gz" for case in read_json(shell.prefix / "input" / "dataset.json")["patients"]}
    assert {path: path.lstat().st_mtime_ns for folder in fixed for path in folder.rglob("*")} == before


def test_a_case_of_grand_challenge_is_segmented(shell: Shell, challenge, model: Path):
    from segmentation.scans import grid_difference, read_label_map, read_scan

    shell.build([each for each in challenge if each.name == "COPY"], ROOT / "docker" / "grand-challenge")
    folder = shell.prefix / "scratch" / "case" / "input" / "images" / "ct"
    folder.mkdir(parents=True)
    header = "ObjectType = Image\nNDims = 3\nTransformMatrix = 0 1 0 0 0 1 1 0 0\nElementSpacing = 1 1.2 2\n"
    voxels = np.random.default_rng(0).normal(size=24**3).astype("<f4")
    header += "DimSize = 24 24 24\nElementType = MET_FLOAT\nElementDataFile = LOCAL\n"
    (folder / "0f3c.mha").write_bytes(header.encode() + voxels.tobytes())
    (folder.parents[2] / "output").mkdir(mode=0o777)
    (folder.parents[2] / "output").chmod(0o777)
    program = next(each.words for each in challenge if each.name == "ENTRYPOINT")[1]
    settings = {"SKIPSEG_OUTPUT": "organ", "SKIPSEG_MODEL": str(model)}
    code = (
        "import pathlib, runpy, sys; run = runpy.run_path(sys.argv[1])['run'];"
        f"sys.exit(run([], {settings!r}, pathlib.Path(sys.argv[2])))"
    )
    shell.run(["python", "-c", code], program, "/scratch/case")
    mask = folder.parents[2] / "output" / "images" / "organ" / "0f3c.mha"
    scan = read_scan(folder / "0f3c.mha")
    assert grid_difference(scan, read_label_map(mask, like=scan)) is None

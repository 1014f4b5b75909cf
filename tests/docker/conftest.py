"""Dockerfiles as data: their instructions, and what the build context lets through."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Instruction:
    """One instruction, such as ``COPY``, what stands behind it on one line, and the number of its stage."""

    name: str
    text: str
    stage: int

    @property
    def words(self) -> list[str]:
        """Its arguments without flags, whether written as JSON or as words."""
        text = re.sub(r"--\S+ ", "", self.text).removeprefix("CMD ")
        return json.loads(text) if text.startswith("[") else text.split()

    @property
    def flags(self) -> dict[str, str]:
        return dict(word[2:].partition("=")[::2] for word in self.text.split() if word.startswith("--"))


def instructions(path: Path) -> list[Instruction]:
    """Instructions of a Dockerfile, comments left out and lines joined."""
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]
    found: list[Instruction] = []
    stage = -1
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        name, _, rest = line.strip().partition(" ")
        stage += name == "FROM"
        found.append(Instruction(name, " ".join(rest.split()), stage))
    return found


def lets_through(path: str) -> bool:
    """Whether .dockerignore lets a file into the build: the last rule that names it, or a folder above it, decides."""
    kept = True
    for rule in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = re.escape(rule.removeprefix("!")).replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*")
        if rule and rule[0] != "#" and re.fullmatch(pattern + "(?:/.*)?", path):
            kept = rule.startswith("!")
    return kept


@pytest.fixture(scope="session")
def image() -> list[Instruction]:
    """Instructions of the image that trains, infers and serves."""
    return instructions(ROOT / "docker" / "Dockerfile")


@pytest.fixture(scope="session")
def challenge() -> list[Instruction]:
    """Instructions of the image made from it for grand-challenge.org."""
    return instructions(ROOT / "docker" / "grand-challenge" / "Dockerfile")


@pytest.fixture(scope="session")
def in_context() -> Callable[[str], bool]:
    """Tells whether the build of the image may copy a file, named relative to the repository."""
    return lets_through

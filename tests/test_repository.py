"""Promises of the repository as a whole: what is installed, how modules look, what stays cheap."""

import ast
import re
import resource
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata, util
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from segmentation.ablation.study import merge, read_study
from segmentation.arguments import parse
from segmentation.config import TrainSettings
from segmentation.plain import from_plain, nest

ROOT = Path(__file__).parents[1]
MODULES = sorted(path for package in ("segmentation", "data_prep") for path in (ROOT / package).rglob("*.py"))
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONSTRAINTS = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]

ARRAY = re.compile(r"\b(NDArray|ndarray|ArrayLike|Tensor)\b")
MACHINE_PATH = re.compile(r"(?<![\w./])/(?:work|root|tmp|home|Users)/|file:/{3}")
HEAVY = {"monai", "numpy", "pytorch_lightning", "scipy", "torch"}


NOT_IMPORTED = {"albucore"}
"""Declared only to fix what albumentations brings along."""


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def requirements(*extras: str) -> list[Requirement]:
    """Declared requirements, with those of ``extras``."""
    optional = PROJECT["optional-dependencies"]
    return [
        Requirement(text) for text in PROJECT["dependencies"] + [text for name in extras for text in optional[name]]
    ]


def imported_distributions(paths: list[Path]) -> Iterator[str]:
    """Names of the distributions that ``paths`` import, the standard library and ourselves left out."""
    providers = metadata.packages_distributions()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            for top in {name.partition(".")[0] for name in names} - sys.stdlib_module_names:
                if top not in {"segmentation", "data_prep", "tests"}:
                    yield canonicalize_name(providers.get(top, [top])[0])


# What is installed


def test_torchvision_is_not_installed():
    assert util.find_spec("torchvision") is None, "a torchvision of another build breaks `import pytorch_lightning`"


def test_constraints_are_exact_and_name_no_place():
    for line in CONSTRAINTS:
        assert re.fullmatch(r"[a-z0-9-]+==[0-9a-z.]+", line), line
    pinned = [line.partition("==")[0] for line in CONSTRAINTS]
    assert pinned == sorted(set(pinned))
    assert "torchvision" not in pinned
    assert "torch==2.13.0" in CONSTRAINTS


def test_constraints_meet_every_bound():
    pinned = dict(line.split("==") for line in CONSTRAINTS)
    for requirement in requirements("dev"):
        version = pinned[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} is not met by {version}"


def test_every_bound_has_a_reason():
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    bounds = [line for line in lines if re.search(r'"[\w\[\].-]+\s*[<>=]=?\d', line)]
    assert len(bounds) > 20
    assert [line for line in bounds if "  # " not in line] == []


def test_dependencies_are_what_the_code_imports():
    imported = set(imported_distributions(MODULES))
    declared = {canonicalize_name(each.name) for each in requirements()}
    optional = {
        canonicalize_name(each.name) for each in requirements("dicom", "export", "cluster", "ui", "track")
    } - declared
    assert imported - optional == declared - NOT_IMPORTED


def test_tests_import_only_declared_packages():
    # Scripts that run in nnU-Net's own environment import what stands there.
    ours = [path for path in sorted((ROOT / "tests").rglob("*.py")) if not path.match("benchmarks/nnunet_*.py")]
    imported = set(imported_distributions(ours))
    assert imported <= {canonicalize_name(requirement.name) for requirement in requirements("dev")}


# How modules look


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_module_is_short(path):
    assert len(path.read_text().splitlines()) <= 320


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_array_arguments_state_their_shape(path):
    assert list(silent_on_shape(ast.parse(path.read_text()))) == []


def silent_on_shape(tree: ast.AST, owner: str = "") -> Iterator[str]:
    """Public functions with an array argument whose docstring, or whose class's, does not say ``shape``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from silent_on_shape(node, ast.get_docstring(node) or "")
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            takes_array = any(ARRAY.search(ast.unparse(each.annotation)) for each in arguments if each.annotation)
            if takes_array and "shape" not in owner + (ast.get_docstring(node) or ""):
                yield node.name


def test_shape_rule_finds_an_offender():
    source = "def area(mask: NDArray[Any]) -> int:\n    'Count.'\nclass A:\n    'No.'\n    def f(self, x: Tensor): ..."
    assert list(silent_on_shape(ast.parse(source))) == ["area", "f"]
    assert (
        list(silent_on_shape(ast.parse(source.replace("Count", "Of shape (H, W)").replace("No", "shape (B,)")))) == []
    )


@pytest.mark.parametrize("path", CONFIGS, ids=relative)
def test_config_is_accepted(path):
    if path.parent.name != "ablation":
        assert parse("train", ["dataset", f"--config={path}", "--out=run"]).settings.dataset == Path("dataset")
        return
    study = read_study(path, None)
    jobs = [merge(nest(study.base), nest(overrides)) for overrides in study.all_conditions().values()]
    settings = [from_plain(TrainSettings, {"dataset": "dataset", "out": "run"} | job) for job in jobs]
    assert len(set(map(repr, settings))) == len(jobs) > 1, "two conditions are the same"


def test_no_path_of_one_machine_is_tracked():
    listing = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, capture_output=True, check=True, text=True).stdout.split("\0")
    files = [path for path in (ROOT / name for name in names if name) if path.is_file()]
    assert len(files) > 20
    found = {relative(path): hit[0] for path in files if (hit := MACHINE_PATH.search(path.read_text(errors="ignore")))}
    assert found == {}


# What stays cheap


def help_cpu_seconds() -> float:
    """CPU time of ``skipseg --help``, the interpreter's start included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "segmentation", "--help"], check=True, capture_output=True, cwd=ROOT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_takes_under_half_a_second_of_cpu():
    assert min(help_cpu_seconds() for _ in range(3)) < 0.5


@pytest.mark.parametrize("command", [[], ["train"], ["ablate"]], ids=" ".join)
def test_help_loads_nothing_heavy(command):
    start = [sys.executable, "-X", "importtime", "-m", "segmentation"]
    log = subprocess.run([*start, *command, "--help"], check=True, capture_output=True, text=True, cwd=ROOT).stderr
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in log.splitlines()}
    assert "segmentation" in loaded
    assert loaded & HEAVY == set()

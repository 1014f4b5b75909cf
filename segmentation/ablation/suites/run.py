"""Run suites: freeze the protocol, do the cells, judge, write result.json."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segmentation import SettingsError, SkipSegError
from segmentation.ablation import suites
from segmentation.ablation.suites.cells import versions, work_through
from segmentation.ablation.suites.names import ABOUT
from segmentation.ablation.suites.studies import run_study
from segmentation.ablation.suites.suite import Suite
from segmentation.config import SuiteSettings
from segmentation.data.hardware import usable_cores
from segmentation.runs import content_hash, is_draft, read_json, write_json
from segmentation.training.lock import locked


def load_suite(name: str) -> tuple[str, Suite]:
    """Module and suite of a whole name, such as ``"s01-vanish"``."""
    module = f"{suites.__name__}.{name.replace('-', '_')}"
    return module, importlib.import_module(module).SUITE


def find_suites(name: str, size: str, with_data: bool = False) -> list[tuple[str, Suite]]:
    """The suites that ``name`` means: a number, a whole name, or ``"all"`` that the size, and a dataset, allow.

    Raises:
        SettingsError: If there is none of that name, or it does not run at that size.
    """
    if name == "all":
        every = [(module, suite) for module, suite in map(load_suite, ABOUT) if size in suite.grid]
        return [(module, suite) for module, suite in every if suite.study is None or with_data]
    known = next((n for n in ABOUT if name in (n, n.partition("-")[0], n.partition("-")[2])), None)
    if known is None:
        raise SettingsError(f"there is no suite {name!r}; the suites are {', '.join(ABOUT)}, or all")
    module, suite = load_suite(known)
    if size not in suite.grid:
        raise SettingsError(f"{suite.name} runs at size {', '.join(suite.grid)}, not {size}")
    if with_data and suite.study is None:
        raise SettingsError(f"{suite.name} draws its own data; leave out --dataset")
    return [(module, suite)]


def run_suites(settings: SuiteSettings) -> list[Path]:
    """Run the suites that ``settings`` name, or what is missing of them.

    Returns:
        result.json of each; with ``"all"`` in a folder for each suite.

    Raises:
        SkipSegError: If a suite is unknown, the folder holds something else, or a process was killed.
    """
    chosen = find_suites(settings.name, settings.size, settings.dataset is not None)
    results: list[Path] = []
    with locked(settings.out):
        for module, suite in chosen:
            folder = settings.out / suite.name if settings.name == "all" else settings.out
            results.append(_run_suite(module, suite, folder, settings))
    return results


def _run_suite(module: str, suite: Suite, folder: Path, settings: SuiteSettings) -> Path:
    """Run one suite in ``folder``."""
    grid = dict(suite.grid[settings.size])
    work = suite.study(grid) if suite.study else suite.cells(grid)
    protocol = {
        "suite": suite.name,
        "claim": suite.claim,
        "size": settings.size,
        "grid": grid,
        "pass_rule": suite.pass_rule,
        "work": content_hash(work),
    }
    _freeze(protocol, folder)
    workers = settings.workers or usable_cores()
    if isinstance(work, dict):
        found, seconds = run_study(work, folder, settings)
        about = {"dataset": read_json(folder / "study" / "study.json")["dataset"], "versions": versions()}
    else:
        found, seconds, used = work_through(module, work, folder / "cells", workers, suite.name)
        about = {"versions": used}
    result: dict[str, Any] = {
        **protocol,
        "title": suite.title,
        "protocol": content_hash(protocol),
        **suite.judge(found, grid).to_plain(),
        "cells": len(found),
        "seconds": round(seconds, 1),
        **about,
    }
    write_json(folder / "result.json", result)
    return folder / "result.json"


def _freeze(protocol: dict[str, Any], folder: Path) -> None:
    """Write claim, grid and rule before the first cell runs, or check that they are those that stand there.

    Raises:
        SkipSegError: If the folder holds another protocol, or something else.
    """
    path = folder / "protocol.json"
    if path.exists():
        known = read_json(path)
        if known != protocol:
            raise SkipSegError(f"{folder} holds {_what(known, protocol)}; choose another folder")
        return
    if folder.exists() and any(not is_draft(item) and item.name != ".lock" for item in folder.iterdir()):
        raise SkipSegError(f"{folder} exists and is not a suite; choose another folder")
    write_json(path, protocol)


def _what(known: Mapping[str, Any], protocol: Mapping[str, Any]) -> str:
    """Say what stands in a folder, that is not the suite with ``protocol``."""
    if "suite" not in known:
        return "a study"
    same = known["suite"] == protocol["suite"] and known["size"] == protocol["size"]
    return f"{known['suite']} at size {known['size']}{', with another claim, grid, rule or task' if same else ''}"

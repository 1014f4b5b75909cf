"""Overlay pictures of the same case side by side across conditions, worst cases first, inside the page."""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segmentation.report.read import Run, Study

MOST_BYTES = 3_300_000
"""Picture bytes in one page; base64 makes them a third longer, and the page stays under 5 MB."""

_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Picture:
    """One overlay, ready for an ``img`` element.

    Attributes:
        condition: Whose prediction it shows.
        data: ``data:`` address of the PNG; empty where this condition has no overlay of the case.
        width, height: Size in pixels, 0 where there is none.
        run: Name of the run it comes from.
        score: Primary score of the case in that run, ``None`` without a value.
    """

    condition: str
    data: str = ""
    width: int = 0
    height: int = 0
    run: str = ""
    score: float | None = None


@dataclass(frozen=True)
class CaseRow:
    """The overlays of one case, one per condition in the study's order."""

    case: str
    patient: str
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Gallery:
    """What is shown, and how many cases have overlays at all."""

    rows: Sequence[CaseRow]
    available: int


def collect(study: Study, results: Mapping[str, Any], most_bytes: int = MOST_BYTES) -> Gallery:
    """Choose overlays, worst cases first, until the page has no more room for a whole case.

    Args:
        study: The study, for its run folders.
        results: Content of results.json, for the order of the cases.
        most_bytes: Limit of all PNG bytes together.
    """
    cases = [(case["case"], case["patient"]) for case in results["cases"]]
    found = {name: _overlays(study.runs_of(name), [case for case, _ in cases]) for name in study.conditions}
    drawn = [(case, patient) for case, patient in cases if any(case in files for files in found.values())]
    rows: list[CaseRow] = []
    room = most_bytes
    for case, patient in drawn:
        files = [found[name].get(case) for name in study.conditions]
        room -= sum(file.stat().st_size for _, file in filter(None, files))
        if room < 0:
            break
        pairs = zip(study.conditions, files, strict=True)
        pictures = [_picture(name, case, results["primary_metric"], file) for name, file in pairs]
        rows.append(CaseRow(case, patient, pictures))
    return Gallery(rows, len(drawn))


def _overlays(runs: Sequence[Run], cases: Sequence[str]) -> dict[str, tuple[Run, Path]]:
    """Case to the overlay of the first run (lowest seed) that drew it."""
    found: dict[str, tuple[Run, Path]] = {}
    for run in sorted(runs, key=lambda run: (run.seed, run.fold)):
        own = {row.case for row in run.rows}
        for file in sorted((run.folder / "evaluation" / "overlays").glob("*.png")):
            case = _case_of(file.stem, [case for case in cases if case in own])
            if case is not None:
                found.setdefault(case, (run, file))
    return found


def _case_of(stem: str, cases: Sequence[str]) -> str | None:
    """The longest case name that stands as a whole word in a file name such as ``01_CASE_liver``."""
    matches = [case for case in cases if re.search(rf"(?<![^\W_]){re.escape(case)}(?![^\W_])", stem)]
    return max(matches, key=len, default=None)


def _picture(condition: str, case: str, measure: str, source: tuple[Run, Path] | None) -> Picture:
    """Embed one PNG; anything that is not a PNG is treated as absent."""
    content = source[1].read_bytes() if source else b""
    if source is None or not content.startswith(_PNG) or len(content) < 24:
        return Picture(condition)
    run = source[0]
    scores = [row.values[measure] for row in run.rows if row.case == case and measure in row.values]
    return Picture(
        condition,
        f"data:image/png;base64,{base64.b64encode(content).decode()}",
        int.from_bytes(content[16:20]),  # the IHDR chunk: width and height as 4 bytes each
        int.from_bytes(content[20:24]),
        run.id,
        sum(scores) / len(scores) if scores else None,
    )

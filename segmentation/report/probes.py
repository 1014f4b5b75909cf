"""Show what the probes of a run found: RUN/probes/*.json, one file for each kind."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from segmentation import SkipSegError
from segmentation.plain import flatten
from segmentation.probes.kinds import KINDS
from segmentation.report.blocks import DataTable, data_table, drawn, prose
from segmentation.report.read import Study
from segmentation.runs import is_draft, read_json

_LONGEST_LIST = 12
_EMPTY = Markup("")


@dataclass(frozen=True)
class Probe:
    """One probe, ready for the page.

    Attributes:
        kind: Its name, which is that of its file.
        title: What it measures, as a heading.
        measured: What it was measured on.
        definition: What is measured, with its formula.
        note: How to read the values.
        figures: Pictures.
        tables: The values; long lists are left to the file.
        problem: Why it cannot be shown, in words; mostly empty.
    """

    kind: str
    title: str
    measured: str = ""
    definition: Markup = _EMPTY
    note: str = ""
    figures: tuple[Markup, ...] = ()
    tables: tuple[DataTable, ...] = ()
    problem: str = ""


def read_probes(run: Path) -> list[Probe]:
    """Read the probes of a run by name; one that cannot be shown says why.

    Args:
        run: Run folder, with or without probes.
    """
    files = [file for file in sorted((run / "probes").glob("*.json")) if not is_draft(file)]
    return [_read(file) for file in files]


def single_probes(study: Study) -> list[dict[str, Any]]:
    """The probes of a single run as plain data for results.json, each as its file has it."""
    found: list[dict[str, Any]] = []
    for probe in read_probes(study.runs[0].folder):
        content = {} if probe.problem else read_content(study.runs[0].folder / "probes" / f"{probe.kind}.json")
        kept = {
            key: content.get(key) for key in ("definition", "note", "settings", "values", "figures") if key in content
        }
        found.append({"kind": probe.kind, "title": probe.title, "problem": probe.problem} | kept)
    return found


def _read(file: Path) -> Probe:
    """Read one file."""
    title = title_of(file.stem)
    try:
        content = read_content(file)
        return Probe(
            file.stem,
            title,
            measured(content.get("settings")),
            prose(str(content.get("definition", ""))),
            str(content.get("note") or ""),
            tuple(drawn(content.get("figures", []))),
            tuple(tables_of(content["values"])),
        )
    except SkipSegError as error:
        return Probe(file.stem, title, problem=str(error).replace(f"{file.parent}/", ""))


def title_of(kind: str) -> str:
    """What a kind measures, as a heading; a kind of another version is its own name."""
    return KINDS[kind].title if kind in KINDS else kind


def read_content(file: Path) -> dict[str, Any]:
    """Read what a probe wrote.

    Raises:
        SkipSegError: If the file is not what a probe writes.
    """
    content = read_json(file)
    if not isinstance(content, dict) or not isinstance(content.get("values"), dict):
        raise SkipSegError(f"{file.name} is not what a probe writes; probe the run again")
    return content


def measured(settings: Any) -> str:
    """Settings of a probe as words; kinds use those of them that they need."""
    names = {"batches": "{} training batches", "cases": "at most {} held-out cases", "seed": "seed {}"}
    known = settings if isinstance(settings, Mapping) else {}
    return ", ".join(words.format(known[name]) for name, words in names.items() if name in known)


def tables_of(values: Mapping[str, Any]) -> list[DataTable]:
    """Lay out plain values: single ones in one table, each list of records in a table of its own.

    Args:
        values: Nested names to numbers, text, lists of them, or lists of records.

    Examples:
        >>> [table.rows for table in tables_of({"V": 3.5, "layers": [{"name": "a", "rms": 0.1}]})]
        [[['V', '3.5']], [['a', '0.1']]]
    """
    single: list[list[Any]] = []
    tables: list[DataTable] = []
    for name, value in flatten(values):
        if isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
            columns = list(dict.fromkeys(key for record in value for key in record))
            tables.append(data_table(name, columns, [[record.get(key) for key in columns] for record in value]))
        elif isinstance(value, list) and (len(value) > _LONGEST_LIST or any(isinstance(v, list) for v in value)):
            single.append([name, f"{_size(value)} values, in the file"])
        else:
            single.append([name, value])
    return [data_table("Values", ["name", "value"], single), *tables] if single else tables


def _size(value: list[Any]) -> str:
    """Length of a list, or lengths of nested ones."""
    first = value[0] if value else None
    return f"{len(value)} \N{MULTIPLICATION SIGN} {_size(first)}" if isinstance(first, list) else str(len(value))

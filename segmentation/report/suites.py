"""Write the page of one suite or of many: the verdict first, then what was expected next to what was found."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from segmentation import SkipSegError, __version__
from segmentation.plain import flatten
from segmentation.report.axes import significant
from segmentation.report.blocks import DataTable, cell, data_table, drawn
from segmentation.report.html import environment
from segmentation.report.tables import ABSENT, clean
from segmentation.runs import peek_json, read_json, write_text
from segmentation.terminal import Part, Table

RESULT = "result.json"
"""What a suite writes into its folder."""

VERDICTS = {
    "pass": "every expectation that decides holds",
    "fail": "an expectation that decides does not hold",
    "inconclusive": "an expectation that decides is still open",
}
"""Verdict to what it means."""

_MARKS = {True: ("met", "✓ met"), False: ("contradicted", "✕ contradicted"), None: ("open", "? open")}
_TEXTS = ("suite", "title", "claim", "size", "pass_rule", "verdict", "protocol")
_LISTS = ("readouts", "reading", "figures", "tables")


@dataclass(frozen=True)
class Readout:
    """One expectation next to what was found.

    Attributes:
        name, expected: What was measured, and what was expected of it, in words.
        value, interval: What was found, in print.
        kind, word: Whether it was met: a CSS class and what is printed.
        decides: Whether the verdict rests on it.
    """

    name: str
    expected: str
    value: str
    interval: str
    kind: str
    word: str
    decides: bool


@dataclass(frozen=True)
class SuitePage:
    """One suite, ready for the page.

    Attributes:
        anchor: Name of its place on the page.
        result: Content of result.json.
        readouts: Its expectations, in its own order.
        figures: Pictures.
        tables: Tables.
        facts: What was varied and with what it ran: name and value in print.
    """

    anchor: str
    result: Mapping[str, Any]
    readouts: Sequence[Readout]
    figures: Sequence[Markup]
    tables: Sequence[DataTable]
    facts: Sequence[tuple[str, str]]

    @property
    def contradicted(self) -> list[Readout]:
        """The expectations that do not hold."""
        return [each for each in self.readouts if each.kind == "contradicted"]

    @property
    def met(self) -> str:
        """How many expectations hold, such as ``"3 of 4"``."""
        return f"{sum(each.kind == 'met' for each in self.readouts)} of {len(self.readouts)}"


def is_suite_folder(folder: Path) -> bool:
    """Tell whether ``folder`` holds a suite, finished or not, or folders that do."""
    return any("suite" in peek_json(path) for path in (*_files(folder, RESULT), *_files(folder, "protocol.json")))


def write_suite_page(folder: Path) -> Path:
    """Write ``report.html`` into the folder of a suite, or of many, one file that opens without a network.

    Args:
        folder: A folder with result.json, or with folders that have one. A tour may still be under way.

    Returns:
        The path of report.html.

    Raises:
        SkipSegError: If no suite has a result there, or one is not what a suite writes.
    """
    suites = [_prepare(f"suite-{i}", result, path) for i, (path, result) in enumerate(read_results(folder))]
    counts = Counter(suite.result["verdict"] for suite in suites)
    page = environment().get_template("suites.html.j2").render(
        written_by=f"skipseg {__version__}",
        suites=suites,
        verdicts=VERDICTS,
        counts={verdict: counts[verdict] for verdict in VERDICTS},
        sizes=sorted({suite.result["size"] for suite in suites}),
        seconds=sum(suite.result["seconds"] for suite in suites),
        cells=sum(suite.result["cells"] for suite in suites),
    )  # fmt: skip
    write_text(folder / "report.html", page)
    return folder / "report.html"


def read_results(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Read every result.json in ``folder`` or one level below, in the order of the suites' names.

    Raises:
        SkipSegError: If there is none, or one lacks something that a suite writes.
    """
    found = [(path, _checked(read_json(path), path)) for path in _files(folder, RESULT)]
    if not found:
        if is_suite_folder(folder):
            raise SkipSegError(f"{folder} holds a suite that is unfinished; run `skipseg suite` again to finish it")
        raise SkipSegError(f"{folder} holds no {RESULT}; give the folder of a suite, or of suites that have finished")
    return sorted(found, key=lambda pair: pair[1]["suite"])


def suite_table(results: Sequence[Mapping[str, Any]]) -> list[Part]:
    """Lay out the verdicts for a terminal: a row for each suite, and what contradicts it."""
    rows = [["suite", "verdict", "about"]]
    for result in results:
        rows.append([clean(result["suite"]), result["verdict"], clean(result["title"])])
        for readout in result["readouts"]:
            if readout.get("met") is False:
                found = f"{_value(readout)} {_interval(readout)}".strip()
                rows.append(["", "", f"{clean(readout['name'])}: expected {clean(readout['expected'])}, found {found}"])
    return [Table(rows)]


def _files(folder: Path, name: str) -> list[Path]:
    """The file of that name of the folder itself, or of the folders in it."""
    own = folder / name
    return [own] if own.is_file() else sorted(folder.glob(f"*/{name}"))


def _checked(content: Any, path: Path) -> dict[str, Any]:
    """Refuse a file that no suite wrote."""
    known = isinstance(content, dict)
    wrong = [name for name in _TEXTS if not (known and isinstance(content.get(name), str))]
    wrong += [name for name in _LISTS if not (known and isinstance(content.get(name), list))]
    wrong += [name for name in ("cells", "seconds") if not (known and isinstance(content.get(name), int | float))]
    wrong += [name for name in ("grid", "versions") if not (known and isinstance(content.get(name), dict))]
    if wrong:
        raise SkipSegError(f"{path} is not what a suite writes: it lacks {', '.join(wrong)}; run the suite again")
    if content["verdict"] not in VERDICTS:
        raise SkipSegError(f"{path} has the verdict {content['verdict']!r}; it must be one of {', '.join(VERDICTS)}")
    for each in content["readouts"]:
        _check_readout(each, path)
    for each in content["tables"]:
        if not isinstance(each, dict) or not all(isinstance(each.get(part), list) for part in ("columns", "rows")):
            raise SkipSegError(f"{path} has a table without title, columns or rows; run the suite again")
    return content


def _check_readout(found: Any, path: Path) -> None:
    """Refuse a readout that cannot be shown truthfully."""
    if not isinstance(found, dict) or not {"name", "expected", "value"} <= set(found):
        raise SkipSegError(f"{path} has a readout without name, expected or value; run the suite again")
    if found.get("met") not in _MARKS:
        raise SkipSegError(f"{path} has {found['met']!r} where met must be true, false or null; run the suite again")
    for value in (found["value"], found.get("low"), found.get("high")):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise SkipSegError(f"{path} has {value!r} where a number is expected; run the suite again")


def _prepare(anchor: str, result: dict[str, Any], path: Path) -> SuitePage:
    """Turn a result into what the page shows."""
    try:
        return SuitePage(
            anchor,
            result,
            [_readout(each) for each in result["readouts"]],
            drawn(result["figures"]),
            [data_table(str(each.get("title", "")), each["columns"], each["rows"]) for each in result["tables"]],
            [(name, cell(value)) for name, value in flatten(result["grid"])],
        )
    except SkipSegError as error:
        raise SkipSegError(f"{path}: {error}") from None


def _readout(found: Mapping[str, Any]) -> Readout:
    """Print one readout."""
    kind, word = _MARKS[found.get("met")]
    decides = bool(found.get("decides", True))
    interval = _interval(found)
    if not interval and found["value"] is not None and found.get("met") is None:
        interval = "one replicate: no interval"
    return Readout(str(found["name"]), str(found["expected"]), _value(found), interval, kind, word, decides)


def _value(found: Mapping[str, Any]) -> str:
    """The value in print."""
    return ABSENT if found["value"] is None else significant(found["value"])


def _interval(found: Mapping[str, Any]) -> str:
    """The interval in print; empty without one."""
    low, high = found.get("low"), found.get("high")
    return "" if low is None or high is None else f"({significant(low)} to {significant(high)})"

"""Pieces of a page that come from plain data: tables of any cells, figures, and definitions with formulas."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import dedent
from typing import Any

from markupsafe import Markup

from segmentation import SkipSegError
from segmentation.figures import Figure
from segmentation.report.axes import significant
from segmentation.report.plots import render
from segmentation.report.svg import tag
from segmentation.report.tables import ABSENT, clean

MOST_ROWS = 300
"""Rows of a table on a page; the file beside it holds all of them."""

_ROLE = re.compile(r":\w+:`~?(?:[^`]*\.)?([^`.]+)`")


@dataclass(frozen=True)
class DataTable:
    """A table as a page shows it.

    Attributes:
        title: What it holds.
        columns: Headings.
        rows: Cells in print.
        numeric: Whether every cell of a column is a number or absent, and so stands to the right.
        total: How many rows there are, those left out included.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: Sequence[bool]
    total: int


def data_table(title: str, columns: Sequence[Any], rows: Sequence[Sequence[Any]]) -> DataTable:
    """Print the cells of a table.

    Raises:
        SkipSegError: If a row has more or fewer cells than there are columns.

    Examples:
        >>> data_table("Dice", ["arm", "dice"], [["none", 0.50123], ["add", 1]]).rows
        [['none', '0.5012'], ['add', '1']]
    """
    if odd := [row for row in rows if len(row) != len(columns)]:
        raise SkipSegError(f"table {clean(title)!r} has {len(columns)} columns, but a row of {len(odd[0])} cells")
    numeric = [all(_is_number(row[i]) or row[i] is None for row in rows) for i in range(len(columns))]
    printed = [[cell(value) for value in row] for row in rows[:MOST_ROWS]]
    return DataTable(title, [str(column) for column in columns], printed, numeric, len(rows))


def cell(value: Any) -> str:
    """Print any plain value.

    Examples:
        >>> cell(True), cell(1e-19), cell([1, 2.5]), cell({"norm": "batch"})
        ('yes', '10⁻¹⁹', '1, 2.5', 'norm: batch')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if _is_number(value):
        return significant(value)
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {cell(inner)}" for key, inner in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(f"({cell(inner)})" if isinstance(inner, list) else cell(inner) for inner in value)
    return ABSENT if value is None else str(value)


def _is_number(value: Any) -> bool:
    """Tell numbers from truth values."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def drawn(figures: Sequence[Mapping[str, Any]]) -> list[Markup]:
    """Draw figures that were read from a file.

    Raises:
        SkipSegError: If one cannot be drawn.
    """
    return [render(Figure.from_plain(each)) for each in figures]


def prose(text: str) -> Markup:
    r"""Set a docstring as paragraphs; what is indented is a formula and keeps its lines.

    Examples:
        >>> prose("See :func:`~a.b.profile`.\n\n    G = ||g||")
        Markup('<p>See <code>profile</code>.</p><pre>G = ||g||</pre>')
    """
    parts: list[Markup] = []
    for block in re.split(r"\n[ \t]*\n", text.strip("\n")):
        lines = [clean(line) for line in block.splitlines()]
        if all(line.startswith((" ", "\t")) for line in lines if line):
            parts.append(tag("pre", dedent("\n".join(lines)).strip("\n")))
        else:
            words = _ROLE.sub(r"``\1``", " ".join(line.strip() for line in lines)).split("``")
            parts.append(tag("p", *(tag("code", word) if i % 2 else word for i, word in enumerate(words))))
    return Markup("").join(parts)

"""Tables and text that fit the screen of a terminal, and are plain where there is none.

rich draws, follows NO_COLOR, and is loaded only when there is something to draw.
"""

import os
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

_GAP = "  "
_KEPT_WHOLE = 28
_LONGEST_WORD = 40


def is_terminal(stream: TextIO) -> bool:
    """Tell whether people read ``stream`` on a terminal that can move its cursor.

    Examples:
        >>> import io
        >>> is_terminal(io.StringIO())
        False
    """
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def counted(count: int, noun: str) -> str:
    """Print a number with its noun.

    Examples:
        >>> counted(1, "seed"), counted(3, "seed")
        ('1 seed', '3 seeds')
    """
    return f"{count} {noun}{'s' if count != 1 else ''}"


@dataclass(frozen=True)
class Table:
    """Rows of text in columns.

    Attributes:
        rows: Cells; the first row is the header, an empty row is a rule.
        right: All columns but the first are aligned to the right, as numbers are.
        header: Whether the first row is one.

    Examples:
        >>> print(Table([["case", "Dice"], ["a", "0.91"], ["bcdef", "1"]], right=True))
        case   Dice
        -----  ----
        a      0.91
        bcdef     1
    """

    rows: Sequence[Sequence[str]]
    right: bool = False
    header: bool = True

    @property
    def columns(self) -> list[tuple[str, ...]]:
        """Cells of each column, rules left out."""
        return list(zip(*(row for row in self.rows if row), strict=True))

    @property
    def widths(self) -> list[int]:
        """Characters of each column."""
        return [max(map(len, column)) for column in self.columns]

    @property
    def needs(self) -> list[int]:
        """Characters that each column needs: its longest word, and cells of a few words whole, but for the header."""
        needs: list[int] = []
        for name, *cells in self.columns:
            words = [word for text in (name, *cells) for word in text.split()]
            whole = [cell for cell in (cells if self.header else (name, *cells)) if len(cell) <= _KEPT_WHOLE]
            needs.append(min(_LONGEST_WORD, max(map(len, [*words, *whole]), default=1)))
        return needs

    def __str__(self) -> str:
        """The table for a pipe or a file: as wide as it is."""
        widths = self.widths
        rule = _GAP.join("-" * width for width in widths)
        lines = [self._line(row, widths) if row else rule for row in self.rows]
        return "\n".join([lines[0], rule, *lines[1:]] if self.header else lines)

    def _line(self, row: Sequence[str], widths: Sequence[int]) -> str:
        """One row in aligned columns."""
        cells = zip(row, widths, range(len(row)), strict=True)
        aligned = [cell.rjust(width) if self.right and i else cell.ljust(width) for cell, width, i in cells]
        return _GAP.join(aligned).rstrip()

    def fitted(self, width: int) -> list["Table"]:
        """Tables that fit ``width`` characters when long cells are wrapped between words.

        Columns that do not fit beside the first one follow below it again, in a table of their own.

        Examples:
            >>> wide = Table([["case", "Dice", "IoU"], ["a", "0.9", "0.8"]])
            >>> [part.rows[0] for part in wide.fitted(12)]
            [['case', 'Dice'], ['case', 'IoU']]
        """
        needs, groups = self.needs, [[0]]
        for column in range(1, len(needs)):
            if len(groups[-1]) > 1 and sum(needs[i] + len(_GAP) for i in [*groups[-1], column]) > width + len(_GAP):
                groups.append([0])
            groups[-1].append(column)
        return [replace(self, rows=[[row[i] for i in group] if row else row for row in self.rows]) for group in groups]

    def shrunk(self, width: int) -> list[int]:
        """Characters for each column so that all fit ``width``: the widest one gives way first, down to its need.

        Examples:
            >>> Table([["a", "b"], ["depth", "a reason of several words that is long"]]).shrunk(30)
            [5, 23]
        """
        widths, needs = self.widths, self.needs
        while sum(widths) + len(_GAP) * (len(widths) - 1) > width:
            spare = [size if size > need else 0 for size, need in zip(widths, needs, strict=True)]
            if not any(spare):
                break
            widths[spare.index(max(spare))] -= 1
        return widths


Part = str | Path | Table
"""What a command says: text, a path on a line of its own, a table."""


def as_text(parts: Iterable[Part]) -> str:
    """Parts as they go to a pipe.

    Examples:
        >>> print(as_text(["1 case", Table([["a", "b"]], header=False)]))
        1 case
        a  b
    """
    return "\n".join(map(str, parts))


def show(parts: Iterable[Part], stream: TextIO | None = None) -> None:
    """Write parts to ``stream``, by default to standard output: drawn on a terminal, plain elsewhere."""
    to = stream or sys.stdout
    if not is_terminal(to):
        print("".join(f"{part}\n" for part in parts), end="", file=to, flush=True)
        return
    from rich.console import Console  # only where something is drawn

    console = Console(file=to, highlight=False)
    for part in parts:
        if isinstance(part, Table):
            for number, table in enumerate(part.fitted(console.width)):
                console.print(*[""] * bool(number), _drawn(table, console.width), sep="\n")
        else:
            lines = [str(part)] if isinstance(part, Path) else _wrapped(part, console.width)
            print("\n".join(lines), file=to, flush=True)  # not by rich, which would break a path


def _wrapped(text: str, width: int) -> Iterator[str]:
    """Lines of text that break between words; a path stays whole, so that it can be copied."""
    for line in text.split("\n"):
        indent = " " * (len(line) - len(line.lstrip()))
        yield from textwrap.wrap(
            line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
        ) or [""]


def _drawn(table: Table, width: int) -> Any:
    """A table as rich draws it."""
    from rich.box import Box
    from rich.table import Table as Drawn
    from rich.text import Text

    first, *rest = table.rows
    lines = Box("    \n    \n ── \n    \n ── \n    \n    \n    \n")  # under the header, and where a row is empty
    drawn = Drawn(box=lines, show_edge=False, padding=(0, 1, 0, 0), border_style="dim", show_header=table.header)
    for column, (name, size) in enumerate(zip(first, table.shrunk(width), strict=True)):
        drawn.add_column(Text(name), width=size, justify="right" if table.right and column else "left", overflow="fold")
    for row in rest if table.header else table.rows:
        drawn.add_row(*map(Text, row)) if row else drawn.add_section()
    return drawn

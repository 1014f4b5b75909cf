"""What a suite is: one claim, a grid of cells, and a rule that was fixed before the first cell ran.

A cell is plain data in, plain data out; what cells found is judged by the suite's own rule. A result that
contradicts the expectation is written down as such.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from segmentation.figures import Figure
from segmentation.statistics import Interval, PairedDifference, mean_ci

Size = Literal["smoke", "cpu", "gpu"]
Outcome = Literal["pass", "fail", "inconclusive"]
Cell = Mapping[str, Any]
"""One piece of work, as plain data."""
Found = Sequence[tuple[Cell, Mapping[str, Any]]]
"""Every cell with what it found."""


@dataclass(frozen=True)
class Readout:
    """One number of a suite, next to what was expected of it.

    Attributes:
        name: What was measured.
        expected: What the claim or earlier work expects, in words.
        value: What was found.
        low, high: Ends of its 95 % interval over replicates, where there are several.
        met: Whether the expectation holds; ``None`` if the interval leaves it open.
        decides: Whether the verdict depends on it; otherwise it is context.
    """

    name: str
    expected: str
    value: float | None
    low: float | None = None
    high: float | None = None
    met: bool | None = None
    decides: bool = True


@dataclass(frozen=True)
class Table:
    """A table of the page.

    Attributes:
        title: What it shows.
        columns: Headings.
        rows: Cells: text or numbers.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | float | None]]


@dataclass(frozen=True)
class Findings:
    """What a suite found.

    Attributes:
        readouts: Numbers next to expectations.
        reading: Paragraphs: how far the claim is true, and its limits.
        figures: Pictures.
        tables: Tables.
    """

    readouts: Sequence[Readout]
    reading: Sequence[str]
    figures: Sequence[Figure] = field(default_factory=tuple)
    tables: Sequence[Table] = field(default_factory=tuple)

    @property
    def verdict(self) -> Outcome:
        """``"pass"`` if every deciding expectation is met, ``"fail"`` if one is contradicted, else open.

        Examples:
            >>> Findings([Readout("a", "> 0", 1.0, met=True), Readout("b", "> 0", 0.1, met=None)], []).verdict
            'inconclusive'
        """
        met = [each.met for each in self.readouts if each.decides]
        if any(one is False for one in met):
            return "fail"
        return "pass" if met and all(met) else "inconclusive"

    def to_plain(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "readouts": [asdict(each) for each in self.readouts],
            "verdict": self.verdict,
            "reading": list(self.reading),
            "figures": [figure.to_plain() for figure in self.figures],
            "tables": [asdict(table) for table in self.tables],
        }


@dataclass(frozen=True)
class Suite:
    """A claim that can be run.

    Attributes:
        name: Number and short name, such as ``"s01-vanish"``.
        title: A few words for headings.
        claim: The claim, in the words of those who make it.
        pass_rule: When the claim counts as upheld, in words; fixed in advance.
        grid: What is varied, for each size that the suite can run at.
        judge: Compares what the cells found, given with the grid, with what was expected.
        cells: Writes a grid out into cells.
        run: Does the work of one cell, in a process of its own with one thread.
        study: Instead of cells: writes a grid out into what a study file holds; its runs are the cells.
    """

    name: str
    title: str
    claim: str
    pass_rule: str
    grid: Mapping[Size, Mapping[str, Any]]
    judge: Callable[[Found, Mapping[str, Any]], Findings]
    cells: Callable[[Mapping[str, Any]], list[dict[str, Any]]] = field(default=lambda grid: [])
    run: Callable[[Cell], dict[str, Any]] = field(default=lambda cell: {})
    study: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None


def above(name: str, expected: str, values: Sequence[float], threshold: float, decides: bool = True) -> Readout:
    """Read out the mean of ``values``, one a replicate, which is expected above ``threshold``.

    Args:
        name: What was measured.
        expected: The expectation in words.
        values: One value for each independent replicate (its own data, initial weights and order).
        threshold: What the mean should exceed.
        decides: Whether the verdict depends on it.

    Returns:
        Met if the whole 95 % interval lies above, not met if it lies below, otherwise open. A single
        replicate has no interval and leaves it open.

    Examples:
        >>> above("gain", "> 0.2", [0.4, 0.5, 0.45], 0.2).met
        True
    """
    interval = mean_ci(values)
    met = lies_above(interval, threshold)
    return Readout(name, expected, interval.estimate, interval.low, interval.high, met, decides)


def below(name: str, expected: str, values: Sequence[float], threshold: float, decides: bool = True) -> Readout:
    """Read out the mean of ``values``, one a replicate, which is expected below ``threshold``; see :func:`above`.

    Examples:
        >>> below("gap", "< 0.1", [0.4, 0.5, 0.45], 0.1).met
        False
    """
    interval = mean_ci(values)
    met = lies_above(interval, threshold)
    return Readout(
        name, expected, interval.estimate, interval.low, interval.high, None if met is None else not met, decides
    )


def within(name: str, expected: str, values: Sequence[float], low: float, high: float, decides: bool = True) -> Readout:
    """Read out the mean of ``values``, which is expected between ``low`` and ``high``; see :func:`above`.

    Examples:
        >>> within("slope", "0 +- 0.1", [0.01, -0.02, 0.03], -0.1, 0.1).met
        True
    """
    interval = mean_ci(values)
    ends = lies_above(interval, low), lies_above(interval, high)
    met = True if ends == (True, False) else False if ends[0] is False or ends[1] is True else None
    return Readout(name, expected, interval.estimate, interval.low, interval.high, met, decides)


def exactly(name: str, expected: str, value: float, holds: bool, decides: bool = True) -> Readout:
    """Read out a number without sampling error, which meets its expectation or does not.

    Examples:
        >>> exactly("error", "< 1e-6", 1e-9, holds=True).met
        True
    """
    return Readout(name, expected, value, met=holds, decides=decides)


def lies_above(interval: Interval | PairedDifference, threshold: float) -> bool | None:
    """Whether an interval lies above ``threshold``; ``None`` if it holds it or does not exist."""
    if interval.low is None or interval.high is None:
        return None
    return True if interval.low > threshold else False if interval.high < threshold else None


def replicates(found: Found, key: str) -> dict[str, dict[str, list[float]]]:
    """Collect one number of every cell by what the cell is of, in the order of its seeds.

    Args:
        found: Cells with two names under ``of``, such as task and arm, and a ``seed``.
        key: Name of the number.

    Returns:
        First name, second name, to one value a replicate; values at the same place share a seed.

    Examples:
        >>> cells = [({"of": ["thin", "add"], "seed": seed}, {"dice": 0.5 + seed}) for seed in (1, 0)]
        >>> replicates(cells, "dice")
        {'thin': {'add': [0.5, 1.5]}}
    """
    collected: dict[str, dict[str, list[float]]] = {}
    for cell, result in sorted(found, key=lambda pair: pair[0]["seed"]):
        first, second = cell["of"]
        collected.setdefault(first, {}).setdefault(second, []).append(result[key])
    return collected


def gain(a: Sequence[float], b: Sequence[float]) -> list[float]:
    """Paired differences a minus b of two arms, one a replicate.

    Examples:
        >>> gain([0.75, 0.5], [0.25, 0.25])
        [0.5, 0.25]
    """
    return [x - y for x, y in zip(a, b, strict=True)]

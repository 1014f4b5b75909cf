"""Refuse figures that cannot be drawn truthfully: files may come from anywhere."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from numbers import Real
from typing import Any

from segmentation import SkipSegError
from segmentation.figures import Figure
from segmentation.report.tables import clean

KINDS = ("lines", "bars", "points", "heatmap", "surface")


def check_figure(figure: Figure) -> None:
    """Check that a figure has a known kind, numbers where numbers belong, and a place for each of them.

    Raises:
        SkipSegError: If it has not; the message names the figure.

    Examples:
        >>> check_figure(Figure("heatmap", "Use", values=[[0.1, 0.2], [0.3]]))
        Traceback (most recent call last):
            ...
        segmentation.SkipSegError: figure 'Use' has 1 numbers in values for 2 places
    """
    try:
        if figure.kind not in KINDS:
            raise SkipSegError(f"has the kind {figure.kind!r}; it must be one of {', '.join(KINDS)}")
        for owner, names in _texts(figure):
            _check_names(owner, names)
        for owner, numbers, places in _lines(figure):
            _check_numbers(owner, numbers, places, gaps=True)
        for owner, numbers, places in _coordinates(figure):
            _check_numbers(owner, numbers, places, gaps=False)
        if figure.kind == "surface" and any(a >= b for along in (figure.x, figure.y) for a, b in pairwise(along)):
            raise SkipSegError("has coordinates that do not increase")
    except (SkipSegError, TypeError) as error:
        problem = error if isinstance(error, SkipSegError) else "has one value where a list is expected"
        raise SkipSegError(f"figure {clean(str(figure.title))[:60]!r} {problem}") from None


def _texts(figure: Figure) -> Iterator[tuple[str, Any]]:
    """Everything that must be text."""
    yield "labels", [figure.title, figure.x_label, figure.y_label, figure.value_label]
    yield "ticks", figure.ticks
    yield "rows", figure.rows
    yield "series", [each.name for each in figure.series]
    if figure.kind == "heatmap":
        width = len(figure.values[0]) if figure.values else 0
        for owner, names, places in (("rows", figure.rows, len(figure.values)), ("ticks", figure.ticks, width)):
            if names and len(names) != places:
                raise SkipSegError(f"has {len(names)} {owner} for {places} of values")


def _lines(figure: Figure) -> Iterator[tuple[str, Any, int | None]]:
    """Everything that must be numbers, with how many there must be."""
    width = len(figure.values[0]) if figure.values else 0
    yield from (("values", row, width) for row in figure.values)
    for each in figure.series:
        places = len(figure.ticks) if figure.kind in ("bars", "points") else None
        yield each.name, each.y, places
        yield from ((each.name, line, len(each.y)) for line in (each.x, each.low, each.high) if line is not None)
    yield "reference", [figure.reference], 1


def _coordinates(figure: Figure) -> Iterator[tuple[str, Any, int | None]]:
    """Coordinates, which have no gaps."""
    width = len(figure.values[0]) if figure.values else 0
    if figure.kind == "surface" and figure.x:
        yield "x", figure.x, width
    if figure.kind == "surface" and figure.y:
        yield "y", figure.y, len(figure.values)
    yield from (("path", point, 2) for point in figure.path)
    yield "limits", figure.limits, None
    if figure.kind == "lines":
        yield "x", figure.x, None


def _check_names(owner: str, names: Any) -> None:
    """Refuse names that are not text."""
    for name in names:
        if not isinstance(name, str):
            raise SkipSegError(f"has {str(name)[:40]!r} in {owner}, where text is expected")


def _check_numbers(owner: str, numbers: Any, places: int | None, *, gaps: bool) -> None:
    """Refuse values that are not numbers, or are more or fewer than their places."""
    if not isinstance(numbers, Sequence) or isinstance(numbers, str):
        raise SkipSegError(f"has {str(numbers)[:40]!r} in {clean(owner)}, where a list of numbers is expected")
    for value in numbers:
        if not (gaps and value is None) and (not isinstance(value, Real) or isinstance(value, bool)):
            raise SkipSegError(f"has {str(value)[:40]!r} in {clean(owner)}, where a number is expected")
    if places is not None and len(numbers) != places:
        raise SkipSegError(f"has {len(numbers)} numbers in {clean(owner)} for {places} places")

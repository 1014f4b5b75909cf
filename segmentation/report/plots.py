"""Draw a :class:`~segmentation.figures.Figure` as markup for a page: inline SVG with the text that belongs to it.

Text keeps its size on a phone, on a screen and on paper, and colours follow light and dark, as in every
picture of the report: see :mod:`segmentation.report.svg`. Names of rows are text of the page, so they can wrap.
The same figure gives the same bytes.
"""

import math
from collections.abc import Iterable

from markupsafe import Markup

from segmentation.figures import Figure
from segmentation.report.axes import significant
from segmentation.report.bars import draw_bars, draw_points
from segmentation.report.chart import ends_of
from segmentation.report.curves import draw_lines
from segmentation.report.drawable import check_figure
from segmentation.report.maps import draw_heatmap, draw_surface
from segmentation.report.svg import marker, tag
from segmentation.report.tables import clean

_DRAW = {
    "lines": draw_lines,
    "bars": draw_bars,
    "points": draw_points,
    "heatmap": draw_heatmap,
    "surface": draw_surface,
}

_WORDS = {
    "lines": "Lines",
    "bars": "Bars",
    "points": "Points with intervals",
    "heatmap": "Heat map",
    "surface": "Map of a surface",
}

_MOST_SPOKEN = 8


def render(figure: Figure) -> Markup:
    """Draw a figure; text in it is escaped, and what it shows is also said in words for those who cannot see it.

    Args:
        figure: Any kind, with any number of gaps.

    Returns:
        A ``figure`` element with title, legend, picture and labels. It needs ``report.css`` and ``charts.css``.

    Raises:
        SkipSegError: If the kind is unknown, a value is not a number, or lengths do not fit each other.

    Examples:
        >>> from segmentation.figures import Series
        >>> markup = render(Figure("bars", "Dice", series=[Series("none", [0.5])], ticks=["thin"]))
        >>> 'role="img" aria-label="Dice. Bars: none from 0.5 to 0.5."' in markup
        True
    """
    figure = Figure.from_plain(figure.to_plain())  # what is not finite becomes a gap
    check_figure(figure)
    parts = [tag("figcaption", clean(figure.title)), _legend(figure)]
    if any(value is not None for value in _all_values(figure)):
        parts.append(_DRAW[figure.kind](figure, _spoken(figure)))
        if figure.log_y and (gone := sum(1 for v in _all_values(figure) if v is not None and v <= 0)):
            parts.append(
                tag("p", f"{gone} value{'s' * (gone > 1)} of zero or below: no place on this axis.", class_="aside")
            )
    else:
        parts.append(tag("p", "No values.", class_="missing"))
    return tag("figure", *parts, class_=f"chart {figure.kind}")


def _all_values(figure: Figure) -> Iterable[float | None]:
    """Every value that is drawn, intervals left out."""
    rows = figure.values if figure.kind in ("heatmap", "surface") else [each.y for each in figure.series]
    return (value for row in rows for value in row)


def _columns(figure: Figure) -> int:
    """Width of the values of a heatmap."""
    return len(figure.values[0]) if figure.values else 0


def _legend(figure: Figure) -> Markup:
    """The series with their marks, and what the thin line across stands for; one nameless series needs none."""
    if figure.kind in ("heatmap", "surface") or not any(each.name for each in figure.series):
        return Markup("")
    entries = [tag("li", _key(figure.kind, slot), clean(each.name)) for slot, each in enumerate(figure.series)]
    if any(ends_of(each, index) for each in figure.series for index in range(len(each.y))):
        entries.append(tag("li", "with intervals", class_="quiet"))
    return tag("ul", *entries, class_="legend")


def _key(kind: str, slot: int) -> Markup:
    """The mark of a series in the legend."""
    if kind == "bars":
        inside = tag("rect", x=1, y=1, width=12, height=12, class_=f"block c{slot % 8}")
    elif kind == "points":
        inside = marker("7", 7, slot)
    else:
        dash = " dashed" if slot >= 8 else ""
        inside = tag(
            "g", tag("line", x1=0, y1=7, x2=24, y2=7, class_=f"curve c{slot % 8}{dash}"), marker("12", 7, slot, size=4)
        )
    return tag("svg", inside, width=24 if kind == "lines" else 14, height=14, class_="glyph", aria_hidden="true")


def _spoken(figure: Figure) -> str:
    """What a figure shows, in one or two sentences."""
    over = f" over {figure.x_label}" if figure.x_label and figure.kind == "lines" else ""
    if figure.kind in ("heatmap", "surface"):
        size = f"{len(figure.values)} rows and {_columns(figure)} columns"
        found = f" of {size}, {figure.value_label or 'values'}{_range(_all_values(figure))}"
        return clean(f"{figure.title}. {_WORDS[figure.kind]}{found}.")
    said = [f"{each.name or 'values'}{_range(each.y)}" for each in figure.series[:_MOST_SPOKEN]]
    more = len(figure.series) - _MOST_SPOKEN
    said += [f"and {more} more"] if more > 0 else []
    return clean(f"{figure.title}. {_WORDS[figure.kind]}{over}: {', '.join(said)}.")


def _range(values: Iterable[float | None]) -> str:
    """The smallest and the largest value in words."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    return f" from {significant(min(known))} to {significant(max(known))}" if known else " without a value"

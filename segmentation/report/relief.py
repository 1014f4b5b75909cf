"""A surface as a relief: the same values as its map, seen from above and aside, so that sharp and flat can be felt."""

import math
from collections.abc import Iterator
from statistics import fmean

from markupsafe import Markup

from segmentation import SkipSegError
from segmentation.figures import Figure
from segmentation.report.drawable import check_figure
from segmentation.report.maps import palette_for
from segmentation.report.svg import tag
from segmentation.report.tables import clean

_TURNED, _TILTED = math.radians(35), math.radians(32)
_TALL = 0.9
"""Height of the highest value over half the width of the ground."""

_MOST_CELLS = 40
_SIZE = 330
"""Units of half the width of the ground, of a picture that is 1000 wide."""

Point = tuple[float, float]


def render(figure: Figure) -> Markup:
    """Draw a surface as a relief, from the farthest cell to the nearest; heights and colours follow its values.

    Args:
        figure: Of kind ``"surface"``; cells with a gap at a corner are left out.

    Returns:
        A ``figure`` element. It needs ``charts.css``.

    Raises:
        SkipSegError: If it is no surface, has fewer than two rows or columns, or holds what is no number.

    Examples:
        >>> bowl = Figure("surface", "Loss", values=[[2, 1, 2], [1, 0, 1], [2, 1, 2]])
        >>> render(bowl).count("<polygon")
        5
    """
    check_figure(figure)
    if figure.kind != "surface" or len(figure.values) < 2 or len(figure.values[0]) < 2:
        raise SkipSegError(f"figure {clean(figure.title)!r} is no surface of at least two rows and two columns")
    ground = " ".join(
        f"{x:.0f},{y:.0f}" for x, y in (_seen(a, b, 0.0) for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1)))
    )
    shapes = [tag("polygon", points=ground, class_="ground"), *_cells(figure)]
    spoken = f"{figure.title}, as a relief; the map beside it has the same values"
    picture = tag("svg", *shapes, viewBox="0 0 1000 760", width="100%", role="img", aria_label=clean(spoken))
    return tag(
        "figure",
        tag("figcaption", clean(figure.title), " ", tag("span", "as a relief", class_="quiet")),
        picture,
        class_="chart relief",
    )


def _cells(figure: Figure) -> Iterator[Markup]:
    """The cells between neighbouring values, the farthest first."""
    known = [value for row in figure.values for value in row if value is not None]
    palette = palette_for([*known, *figure.limits], log=figure.log_y, reference=figure.reference)
    rows, columns = _every(len(figure.values)), _every(len(figure.values[0]))
    for i in reversed(range(len(rows) - 1)):
        for j in range(len(columns) - 1):
            corners = [(rows[i + a], columns[j + b]) for a, b in ((0, 0), (0, 1), (1, 1), (1, 0))]
            values = [figure.values[row][column] for row, column in corners]
            heights = [
                palette.scale.share(value) for value in values if value is not None and (value > 0 or not figure.log_y)
            ]
            if len(heights) == len(corners):
                places = [
                    _seen(2 * column / columns[-1] - 1, 2 * row / rows[-1] - 1, height)
                    for (row, column), height in zip(corners, heights, strict=True)
                ]
                points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
                yield tag("polygon", points=points, fill=palette.at(fmean(heights)), class_="cell")


def _every(count: int) -> list[int]:
    """Indices of the rows or columns that are drawn, the last one included."""
    step = max(1, (count - 1) // _MOST_CELLS)
    return [*range(0, count - 1, step), count - 1]


def _seen(x: float, y: float, height: float) -> Point:
    """Where a place on the ground, both coordinates in [-1, 1], at a height in [0, 1] is seen."""
    across = x * math.cos(_TURNED) - y * math.sin(_TURNED)
    away = x * math.sin(_TURNED) + y * math.cos(_TURNED)
    up = away * math.sin(_TILTED) + _TALL * height * math.cos(_TILTED)
    return 500 + _SIZE * across, 500 - _SIZE * up

"""Figures of lines: one curve with its points for each series, and a band where it has intervals."""

from collections.abc import Sequence
from itertools import groupby, pairwise

from markupsafe import Markup

from segmentation.figures import Figure, Series
from segmentation.report.axes import axis_for, significant
from segmentation.report.chart import column_names, ends_of, frame, gutter, series_values, y_axis
from segmentation.report.svg import Scale, line, marker, tag
from segmentation.report.tables import clean

_HEIGHT = 260
_MOST_MARKERS = 36
_MOST_OWN_TICKS = 8
_BOX = {"viewBox": "0 0 1000 1000", "preserveAspectRatio": "none", "width": "100%", "height": _HEIGHT}

Point = tuple[float, float, tuple[float, float] | None]
"""x, y and the ends of the interval."""


def draw_lines(figure: Figure, spoken: str) -> Markup:
    """Draw lines; a gap in the values is a gap in the line.

    Args:
        figure: Of kind ``"lines"``; ``ticks`` name the places 0, 1, 2, ... on the x axis.
        spoken: What it shows, to be read aloud.
    """
    y = axis_for(
        series_values(figure.series),
        log=figure.log_y,
        include=[*figure.limits, *([] if figure.reference is None else [figure.reference])],
    )
    runs = [list(_unbroken(each, figure.log_y)) for each in figure.series]
    x = _x_axis([*figure.x, *(place for series in runs for run in series for place, _, _ in run)], len(figure.ticks))
    below, least, names = _x_names(figure, x)
    parts = [*y_axis(y, _HEIGHT, figure.reference), *names]
    for slot, series in enumerate(runs):
        parts += _bands(series, slot, x, y)
    for slot, series in enumerate(runs):
        parts += _curve(clean(figure.series[slot].name), series, slot, x, y)
    return frame(figure, parts, spoken, height=_HEIGHT, left=gutter(y), below=below, least=least)


def _unbroken(series: Series, log: bool) -> list[list[Point]]:
    """The stretches of a line between its gaps."""
    points: list[Point | None] = []
    for index, value in enumerate(series.y):
        place = float(index) if series.x is None else series.x[index]
        known = value is not None and place is not None and (value > 0 or not log)
        points.append(
            (place, value, ends_of(series, index)) if known and place is not None and value is not None else None
        )
    return [
        [point for point in run if point] for known, run in groupby(points, key=lambda each: each is not None) if known
    ]


def _x_axis(places: Sequence[float], names: int) -> Scale:
    """An axis as long as the values, with a little room at both ends."""
    low, high = (
        min([*places, *([0.0] * bool(names))], default=0.0),
        max([*places, *([names - 1.0] * bool(names))], default=1.0),
    )
    room = 0.03 * (high - low) or 0.5
    return Scale(low - room, high + room)


def _x_names(figure: Figure, x: Scale) -> tuple[float, float, list[Markup]]:
    """Names or numbers along the x axis: pixels they need below and from left to right, and what is drawn."""
    if figure.ticks:
        return column_names(figure.ticks, [x.percent(float(index)) for index in range(len(figure.ticks))], _HEIGHT)
    own = sorted({place for each in figure.series for place in (each.x or range(len(each.y))) if place is not None})
    apart = min((b - a for a, b in pairwise(own)), default=1.0) / (x.high - x.low)
    ticks = own if len(own) <= _MOST_OWN_TICKS and apart > 0.09 else x.ticks(4)
    parts = [line(x.percent(value), _HEIGHT, x.percent(value), _HEIGHT + 4, "zero") for value in ticks]
    parts += [tag("text", significant(v), x=x.percent(v), y=_HEIGHT + 18, class_="tick middle") for v in ticks]
    return 26, 0, parts


def _bands(runs: Sequence[Sequence[Point]], slot: int, x: Scale, y: Scale) -> list[Markup]:
    """Shade the intervals along a line; one that stands alone gets a whisker."""
    colour = f"c{slot % 8}"
    parts: list[Markup] = []
    for run in runs:
        for known, stretch in groupby(run, key=lambda point: point[2] is not None):
            ends = [(place, *interval) for place, _, interval in stretch if known and interval]
            if len(ends) == 1:
                at = x.percent(ends[0][0])
                parts.append(
                    line(at, y.pixel(ends[0][1], _HEIGHT), at, y.pixel(ends[0][2], _HEIGHT), f"thin-ci {colour}")
                )
            elif ends:
                edge = [(place, low) for place, low, _ in ends] + [(place, high) for place, _, high in reversed(ends)]
                shape = tag("polygon", points=_points(edge, x, y))
                parts.append(tag("svg", shape, **_BOX, class_=f"band {colour}"))
    return parts


def _curve(name: str, runs: Sequence[Sequence[Point]], slot: int, x: Scale, y: Scale) -> list[Markup]:
    """Draw the stretches of one line, and its points where they are few."""
    dash = " dashed" if slot >= 8 else ""
    strokes = [tag("polyline", points=_points([(a, b) for a, b, _ in run], x, y)) for run in runs if len(run) > 1]
    parts = [tag("svg", *strokes, **_BOX, class_=f"curve c{slot % 8}{dash}")]
    alone = sum(map(len, runs)) <= _MOST_MARKERS
    for run in runs:
        for place, value, interval in run if alone or len(run) == 1 else ():
            bounds = f" ({significant(interval[0])} to {significant(interval[1])})" if interval else ""
            said = tag("title", f"{name} at {significant(place)}: {significant(value)}{bounds}")
            parts.append(tag("g", said, marker(x.percent(place), y.pixel(value, _HEIGHT), slot, size=4.0)))
    return parts


def _points(points: Sequence[tuple[float, float]], x: Scale, y: Scale) -> str:
    """Points of a stretched picture."""
    return " ".join(f"{1000 * x.share(a):.1f},{1000 - 1000 * y.share(b):.1f}" for a, b in points)

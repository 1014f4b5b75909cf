"""Figures of bars and of points with intervals: one group, or one row, for each name."""

from collections.abc import Sequence

from markupsafe import Markup

from segmentation.figures import Figure, Series
from segmentation.report.axes import axis_for, significant, tick_names
from segmentation.report.chart import (
    column_names,
    ends_of,
    folded,
    frame,
    gutter,
    label,
    rows_with_names,
    series_values,
    y_axis,
)
from segmentation.report.svg import Scale, line, marker, picture, tag
from segmentation.report.tables import ABSENT, clean

_HEIGHT = 240
_MOST_COLUMNS = 24
_MOST_VALUES = 8
_LETTERS_OF_A_LINE = 20


def draw_bars(figure: Figure, spoken: str) -> Markup:
    """Draw one group of bars for each name: upright where the names fit below them, else lying in rows.

    Args:
        figure: Of kind ``"bars"``.
        spoken: What it shows, to be read aloud.
    """
    scale = _scale(figure, from_zero=True)
    if folded(figure.ticks) is not None and len(figure.ticks) * len(figure.series) <= _MOST_COLUMNS:
        return _upright(figure, scale, spoken)
    thickness = 14.0 if len(figure.series) < 3 else 9.0
    height = _row_height(figure, thickness * len(figure.series) + 8)
    parts: list[Markup] = []
    for index in range(len(figure.ticks)):
        for slot, series in enumerate(figure.series):
            middle = (index + 0.5) * height + (slot - (len(figure.series) - 1) / 2) * thickness
            parts += _lying(series, index, slot, scale, middle, thickness - 2)
    return _rows(figure, scale, height, parts, spoken)


def draw_points(figure: Figure, spoken: str) -> Markup:
    """Draw a row for each name: a mark for each series, and a line from end to end of its interval.

    Args:
        figure: Of kind ``"points"``; its values lie along the horizontal axis.
        spoken: What it shows, to be read aloud.
    """
    scale = _scale(figure, from_zero=False)
    step = 13.0
    height = _row_height(figure, step * len(figure.series) + 9)
    parts: list[Markup] = []
    for index in range(len(figure.ticks)):
        for slot, series in enumerate(figure.series):
            y = (index + 0.5) * height + (slot - (len(figure.series) - 1) / 2) * step
            parts += _point(series, index, slot, scale, y, figure.log_y)
    return _rows(figure, scale, height, parts, spoken)


def _scale(figure: Figure, *, from_zero: bool) -> Scale:
    """The axis of the values; bars stand on zero, on a logarithmic one on its low end."""
    include = [*figure.limits, *([] if figure.reference is None else [figure.reference])]
    values = series_values(figure.series)
    if from_zero:  # a bar of the smallest value must have a height, also where there is no zero
        include.append(min((value for value in values if value > 0), default=1.0) / 2 if figure.log_y else 0.0)
    return axis_for(values, log=figure.log_y, include=include)


def _row_height(figure: Figure, needed: float) -> float:
    """Pixels of a row: enough for its marks, and for up to three lines of a long name."""
    lines = min(3, -(-max(map(len, figure.ticks), default=1) // _LETTERS_OF_A_LINE))
    return max(needed, 7.0 + 15.0 * lines)


def _upright(figure: Figure, scale: Scale, spoken: str) -> Markup:
    """Draw bars from the bottom upwards, their names below."""
    groups, count = len(figure.ticks), len(figure.series)
    slice_, width = 100 / groups, min(100 / groups * 0.76 / count, 14.0)
    parts = y_axis(scale, _HEIGHT, figure.reference)
    few = groups * count <= _MOST_VALUES
    below, _, names = column_names(figure.ticks, [f"{(index + 0.5) * slice_:.2f}%" for index in range(groups)], _HEIGHT)
    for index in range(groups):
        middle = (index + 0.5) * slice_
        for slot, series in enumerate(figure.series):
            left = middle + (slot - count / 2) * width
            parts += _standing(series, index, slot, scale, left, width, few)
    base = scale.pixel(max(scale.low, 0.0), _HEIGHT)
    parts.append(line("0%", base, "100%", base, "zero"))
    return frame(figure, [*parts, *names], spoken, height=_HEIGHT, left=gutter(scale), below=below)


def _standing(
    series: Series, index: int, slot: int, scale: Scale, left: float, width: float, with_value: bool
) -> list[Markup]:
    """One upright bar with its interval, and its value where there is room."""
    value, middle = series.y[index], f"{left + width / 2:.2f}%"
    base = scale.pixel(max(scale.low, 0.0), _HEIGHT)
    if value is None:
        return [tag("text", ABSENT, x=middle, y=base - 5, class_="tick middle")]
    end, interval = scale.pixel(value, _HEIGHT), ends_of(series, index)
    bar = tag(
        "rect", _title(series, index), x=f"{left + 0.04 * width:.2f}%", width=f"{0.92 * width:.2f}%", y=min(base, end),
        height=abs(end - base), class_=f"block c{slot % 8}",
    )  # fmt: skip
    ends = [base, end]
    parts = [bar]
    if interval:
        ends += [scale.pixel(bound, _HEIGHT) for bound in interval]
        parts += _whisker(middle, *ends[2:])
    if with_value:
        at = max(ends) + 14 if value < 0 else min(ends) - 6
        parts.append(tag("text", significant(value, 3), x=middle, y=at, class_="number middle"))
    return parts


def _whisker(x: str, low: float, high: float) -> list[Markup]:
    """An upright error bar with its ends."""
    ends = [tag("line", x1=-3, x2=3, y1=y, y2=y, class_="error") for y in (low, high)]
    return [tag("svg", tag("line", x1=0, x2=0, y1=low, y2=high, class_="error"), *ends, x=x, class_="at")]


def _lying(series: Series, index: int, slot: int, scale: Scale, middle: float, thickness: float) -> list[Markup]:
    """One bar from left to right with its interval."""
    value, interval = series.y[index], ends_of(series, index)
    base = max(scale.low, 0.0)
    if value is None:
        return [tag("text", ABSENT, x=scale.percent(base), y=middle, dx=5, dy=4, class_="tick start")]
    ends = sorted((scale.share(base), scale.share(value)))
    bar = tag(
        "rect", _title(series, index), x=f"{100 * ends[0]:.2f}%", width=f"{100 * (ends[1] - ends[0]):.2f}%",
        y=middle - thickness / 2, height=thickness, class_=f"block c{slot % 8}",
    )  # fmt: skip
    whisker = (
        [line(scale.percent(interval[0]), middle, scale.percent(interval[1]), middle, "error")] if interval else []
    )
    return [bar, *whisker]


def _point(series: Series, index: int, slot: int, scale: Scale, y: float, log: bool) -> list[Markup]:
    """One mark with its interval."""
    value, interval = series.y[index], ends_of(series, index)
    parts: list[Markup] = []
    if interval:
        parts.append(line(scale.percent(interval[0]), y, scale.percent(interval[1]), y, f"ci c{slot % 8}"))
    if value is not None and (value > 0 or not log):
        parts.append(tag("g", _title(series, index), marker(scale.percent(value), y, slot)))
    return parts


def _title(series: Series, index: int) -> Markup:
    """What a pointer over a mark shows."""
    interval = ends_of(series, index)
    bounds = f" ({significant(interval[0])} to {significant(interval[1])})" if interval else ""
    return tag("title", f"{clean(series.name)} {significant(series.y[index])}{bounds}".strip())


def _rows(figure: Figure, scale: Scale, height: float, marks: Sequence[Markup], spoken: str) -> Markup:
    """Rows beside their names, on an axis below them."""
    total = height * len(figure.ticks)
    parts = [line("0%", height * index, "100%", height * index, "grid") for index in range(len(figure.ticks) + 1)]
    for value, text in tick_names(scale, 3):
        x = scale.percent(value)
        parts.append(line(x, 0, x, total + 4, "zero" if value == 0 else "grid"))
        parts.append(tag("text", text, x=x, y=total + 18, class_="tick middle"))
    if figure.reference is not None:
        x = scale.percent(figure.reference)
        parts.append(line(x, 0, x, total, "reference"))
    plot = picture(total, *parts, *marks, label=spoken)
    value_label = figure.x_label or figure.y_label or figure.value_label
    return Markup("").join([rows_with_names(figure.ticks, height, plot), label(value_label, "x-label")])

"""Figures of values in rows and columns: heat maps, and surfaces with contours and a path.

Colours are those of matplotlib's viridis, or of its RdBu around the reference, because both can be told apart
by people who see colours differently; the legend gives them their numbers.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby

import numpy as np
from markupsafe import Markup
from matplotlib import colormaps
from matplotlib.figure import Figure as Canvas

from segmentation import SkipSegError
from segmentation.figures import Figure, Numbers
from segmentation.report.axes import LogScale, significant, tick_names
from segmentation.report.chart import LETTER, column_names, frame, gutter, label, rows_with_names
from segmentation.report.svg import Scale, line, picture, tag
from segmentation.report.tables import clean

_COLOURS = 64
_BANDS = 14
_MOST_PRINTED = 8
_MOST_LETTERS = 6
_CELL = 42
_PHONE = 340
_MOST_HEIGHT = 460
_SURFACE_HEIGHT = 320
_BOX = {"preserveAspectRatio": "none", "width": "100%"}


@dataclass(frozen=True)
class Palette:
    """Colours for values.

    Attributes:
        scale: Axis of the values.
        name: matplotlib's name of the colours from low to high.
    """

    scale: Scale
    name: str

    def colour(self, value: float) -> str:
        """The colour of a value, as ``#rrggbb``."""
        return self.at(self.scale.share(value))

    def at(self, share: float) -> str:
        """The colour at a place between 0 and 1, one of 64."""
        return _colours(self.name)[min(_COLOURS - 1, int(share * _COLOURS))]

    def is_dark(self, value: float) -> bool:
        """Whether light text can be read on the colour of ``value`` (relative luminance below 0.3)."""
        red, green, blue = (int(self.colour(value)[i : i + 2], 16) / 255 for i in (1, 3, 5))
        return 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2 < 0.3


@cache
def _colours(name: str) -> list[str]:
    """The colours of matplotlib's map ``name`` from low to high, as ``#rrggbb``."""
    return [
        "#" + "".join(f"{round(255 * p):02x}" for p in colour[:3])
        for colour in colormaps[name].resampled(_COLOURS)(range(_COLOURS))
    ]


def palette_for(values: Sequence[float], *, log: bool, reference: float | None) -> Palette:
    """Choose colours: two-sided around the reference if values lie on both sides of it.

    Examples:
        >>> palette_for([-0.2, 0.1], log=False, reference=0.0)
        Palette(scale=Scale(low=-0.2, high=0.2), name='RdBu_r')
        >>> palette_for([0.2, 0.7], log=False, reference=None)
        Palette(scale=Scale(low=0.2, high=0.7), name='viridis')
    """
    known = [value for value in values if value > 0 or not log]
    low, high = min(known, default=0.1), max(known, default=1.0)
    if log:
        return Palette(LogScale(low, high) if low < high else LogScale(low / 2, high * 2), "viridis")
    if reference is not None and low < reference < high:
        reach = max(reference - low, high - reference)
        return Palette(Scale(reference - reach, reference + reach), "RdBu_r")
    room = 0.0 if low < high else 0.5 * abs(low) or 0.5
    return Palette(Scale(low - room, high + room), "viridis")


def draw_heatmap(figure: Figure, spoken: str) -> Markup:
    """Draw a heat map: one cell for each value, hatched where there is none; few columns print their values.

    Args:
        figure: Of kind ``"heatmap"``.
        spoken: What it shows, to be read aloud.
    """
    palette = palette_for([*_known(figure), *figure.limits], log=figure.log_y, reference=figure.reference)
    names_of_rows = figure.rows or [str(index) for index in range(len(figure.values))]
    rows, columns = len(figure.values), len(figure.values[0])
    height = max(15.0, min(30.0, math.floor(_MOST_HEIGHT / rows)))
    names = figure.ticks or [significant(value) for value in figure.x] or [str(index) for index in range(columns)]
    places = [f"{(index + 0.5) / columns * 100:.2f}%" for index in range(columns)]
    room = _PHONE - min(_PHONE * 0.44, LETTER * max(map(len, names_of_rows)))
    below, least, ticks = column_names(names, places, rows * height, room=room)
    cells = tag(
        "svg", *_cells(figure, palette), viewBox=f"0 0 {columns} {rows}", height=rows * height, **_BOX, class_="cells"
    )
    printed = _printed(figure, palette, height) if columns <= _MOST_PRINTED and height >= 18 else []
    least = max(least, _CELL * columns if printed else 0)
    plot = picture(rows * height, cells, *printed, *ticks, label=spoken)
    style = f"padding: 0 0.9rem {below:.0f}px 0" + (f"; min-width: {least:.0f}px" if least > room else "")
    area = rows_with_names(names_of_rows, height, tag("div", plot, style=style))
    labels = [label(figure.y_label, "y-label"), area, label(figure.x_label, "x-label")]
    return Markup("").join([*labels, _colour_bar(figure, palette)])


def _known(figure: Figure) -> list[float]:
    """All values that are there."""
    return [value for row in figure.values for value in row if value is not None]


def _cells(figure: Figure, palette: Palette) -> list[Markup]:
    """One path for each colour; neighbours in a row that share it become one rectangle."""
    shapes: defaultdict[str, list[str]] = defaultdict(list)
    for y, row in enumerate(figure.values):
        x = 0
        for colour, run in groupby(_colour(value, palette, figure.log_y) for value in row):
            width = len(list(run))
            shapes[colour].append(f"M{x} {y}h{width}v1h-{width}z")
            x += width
    return [
        tag("path", d="".join(parts), **({"fill": colour} if colour else {"class_": "gap"}))
        for colour, parts in sorted(shapes.items())
    ]


def _colour(value: float | None, palette: Palette, log: bool) -> str:
    """Colour of a cell; empty for a gap."""
    return "" if value is None or (log and value <= 0) else palette.colour(value)


def _printed(figure: Figure, palette: Palette, height: float) -> list[Markup]:
    """The values as text in their cells."""
    parts: list[Markup] = []
    for y, row in enumerate(figure.values):
        for x, value in enumerate(row):
            kind = "on-dark" if value is not None and palette.is_dark(value) else "on-light"
            kind = kind if _colour(value, palette, figure.log_y) else "gap"
            at = f"{(x + 0.5) / len(row) * 100:.2f}%"
            parts.append(tag("text", _brief(value), x=at, y=(y + 0.5) * height, dy=4, class_=f"middle {kind}"))
    return parts


def _brief(value: float | None) -> str:
    r"""A number that fits a cell: two digits, one where they are too long, and an exponent where that is too.

    Examples:
        >>> [_brief(value) for value in (0.412, 1.3e-7, 3.4e-7)] == ['0.41', '10⁻⁷', '3\N{MULTIPLICATION SIGN}10⁻⁷']
        True
        >>> _brief(-3.4e-7) == '\N{MINUS SIGN}3e\N{MINUS SIGN}7'
        True
    """
    for digits in (2, 1):
        if len(text := significant(value, digits)) <= _MOST_LETTERS:
            return text
    mantissa, _, exponent = f"{value:.0e}".partition("e")
    return f"{mantissa}e{int(exponent)}".replace("-", "\N{MINUS SIGN}")


def draw_surface(figure: Figure, spoken: str) -> Markup:
    """Draw a surface as bands between contours, with a path over it from its hollow to its filled end.

    Args:
        figure: Of kind ``"surface"``; without ``x`` and ``y`` its columns and rows are counted.
        spoken: What it shows, to be read aloud.

    Raises:
        SkipSegError: If it has fewer than two rows or columns.
    """
    if len(figure.values) < 2 or len(figure.values[0]) < 2:
        raise SkipSegError(f"figure {clean(figure.title)!r} is a surface and needs at least two rows and two columns")
    xs, ys = figure.x or list(range(len(figure.values[0]))), figure.y or list(range(len(figure.values)))
    x = Scale(min(*xs, *(a for a, _ in figure.path)), max(*xs, *(a for a, _ in figure.path)))
    y = Scale(min(*ys, *(b for _, b in figure.path)), max(*ys, *(b for _, b in figure.path)))
    palette = palette_for([*_known(figure), *figure.limits], log=figure.log_y, reference=figure.reference)
    shapes = _contours(figure, palette, xs, ys, x, y)
    bands = tag("svg", *shapes, viewBox="0 0 1000 1000", height=_SURFACE_HEIGHT, **_BOX, class_="cells")
    parts = [tag("rect", width="100%", height=_SURFACE_HEIGHT, class_="gap"), bands, *_path(figure.path, x, y)]
    for value, text in tick_names(x, 4):
        parts.append(tag("text", text, x=x.percent(value), y=_SURFACE_HEIGHT + 18, class_="tick middle"))
    for value, text in tick_names(y, 4):
        parts.append(tag("text", text, x="0%", y=y.pixel(value, _SURFACE_HEIGHT), dx=-8, dy=4, class_="tick end"))
    area = frame(figure, parts, spoken, height=_SURFACE_HEIGHT, left=gutter(y), below=26)
    return area + _colour_bar(figure, palette)


def _contours(
    figure: Figure, palette: Palette, xs: Sequence[float], ys: Sequence[float], x: Scale, y: Scale
) -> list[Markup]:
    """Bands of equal steps along the palette's axis, found by matplotlib."""
    shares = np.ma.masked_invalid([_shares(row, palette, figure.log_y) for row in figure.values])
    found = Canvas().add_subplot().contourf(xs, ys, shares, levels=np.linspace(0, 1 + 1e-9, _BANDS + 1))
    shapes: list[Markup] = []
    for band, path in enumerate(found.get_paths()):
        steps: list[str] = []
        codes = np.asarray(() if path.codes is None else path.codes)
        for (across, up), code in zip(np.asarray(path.vertices), codes, strict=True):
            point = f"{1000 * x.share(across):.0f} {1000 - 1000 * y.share(up):.0f}"
            steps.append("z" if code == path.CLOSEPOLY else f"{'M' if code == path.MOVETO else 'L'}{point}")
        if steps:
            shapes.append(tag("path", d="".join(steps), fill=palette.at((band + 0.5) / _BANDS), class_="contour"))
    return shapes


def _shares(row: Numbers, palette: Palette, log: bool) -> list[float]:
    """Places along the palette; a gap is not a number."""
    return [math.nan if value is None or (log and value <= 0) else palette.scale.share(value) for value in row]


def _path(points: Sequence[tuple[float, float]], x: Scale, y: Scale) -> list[Markup]:
    """A line over a surface, hollow where it starts and filled where it ends."""
    if not points:
        return []
    steps = " ".join(f"{1000 * x.share(a):.1f},{1000 - 1000 * y.share(b):.1f}" for a, b in points)
    lines = [tag("polyline", points=steps, class_=kind) for kind in ("casing", "trace")]
    box = tag("svg", *lines, viewBox="0 0 1000 1000", height=_SURFACE_HEIGHT, **_BOX, class_="curve")
    ends = [(points[0], "start", "Start"), (points[-1], "end", "End")]
    marks = [
        tag("circle", tag("title", word), cx=x.percent(a), cy=y.pixel(b, _SURFACE_HEIGHT), r=5, class_=f"trace-{kind}")
        for (a, b), kind, word in ends
    ]
    return [box, *marks]


def _colour_bar(figure: Figure, palette: Palette) -> Markup:
    """The colours with their numbers."""
    width = 100 / _COLOURS
    steps = [
        tag(
            "rect", x=f"{i * width:.2f}%", width=f"{width + 0.2:.2f}%", height=12, fill=palette.at((i + 0.5) / _COLOURS)
        )
        for i in range(_COLOURS)
    ]
    ends = [
        (palette.scale.low, significant(palette.scale.low, 3)),
        (palette.scale.high, significant(palette.scale.high, 3)),
    ]
    inner = [(v, text) for v, text in tick_names(palette.scale, 3) if 0.2 < palette.scale.share(v) < 0.8]
    texts: list[Markup] = []
    for value, text in [*ends, *inner]:
        place = palette.scale.percent(value)
        anchor = {"0%": "start", "100%": "end"}.get(place, "middle")
        texts += [line(place, 12, place, 16, "zero"), tag("text", text, x=place, y=28, class_=f"tick {anchor}")]
    bar = picture(32, *steps, *texts)
    return tag("div", label(figure.value_label or "value", "bar-label"), bar, class_="colour-bar")

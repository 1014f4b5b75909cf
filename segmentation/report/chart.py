"""What the figures of all kinds have in common: the frame around a picture, its axes and its names."""

from collections.abc import Sequence
from textwrap import wrap

from markupsafe import Markup

from segmentation.figures import Figure, Series
from segmentation.report.axes import tick_names
from segmentation.report.svg import Scale, line, picture, tag
from segmentation.report.tables import clean

LETTER = 6.6
"""Pixels that a letter of a label takes, on average."""

_PHONE = 296
"""Pixels that a picture has on a narrow phone, labels on the left taken off."""

_LONGEST = 24


def frame(
    figure: Figure, inside: Sequence[Markup], spoken: str, *, height: float, left: float, below: float, least: float = 0
) -> Markup:
    """Put a picture under the label of its y axis and above that of its x axis.

    Args:
        figure: For the labels.
        inside: What is drawn.
        spoken: What the picture shows, to be read aloud.
        height: Pixels of the plot area.
        left: Pixels that the values along the y axis need.
        below: Pixels that the names along the x axis need.
        least: Narrowest width in pixels at which the picture can be read; a phone scrolls it.
    """
    style = f"padding: 0.5rem 0.9rem {below:.0f}px {left:.0f}px"
    if least > _PHONE:
        style += f"; min-width: {least + left + 14:.0f}px"
    area = tag("div", picture(height, *inside, label=spoken), style=style)
    if least > _PHONE:
        area = tag("div", area, class_="scroll", tabindex="0", role="region", aria_label=clean(figure.title))
    return Markup("").join([label(figure.y_label, "y-label"), area, label(figure.x_label, "x-label")])


def label(text: str, kind: str) -> Markup:
    """The label of an axis; nothing where there is none."""
    return tag("p", clean(text), class_=kind) if text else Markup("")


def gutter(scale: Scale) -> float:
    """Pixels that the values along a vertical axis need."""
    return 14 + LETTER * max((len(text) for _, text in tick_names(scale, 4)), default=1)


def y_axis(scale: Scale, height: float, reference: float | None) -> list[Markup]:
    """Faint horizontal lines with their values on the left, and the thin line across."""
    parts: list[Markup] = []
    for value, text in tick_names(scale, 4):
        y = scale.pixel(value, height)
        parts.append(line("0%", y, "100%", y, "grid"))
        parts.append(tag("text", text, x="0%", y=y, dx=-8, dy=4, class_="tick end"))
    if reference is not None and scale.low <= reference <= scale.high:
        y = scale.pixel(reference, height)
        parts.append(line("0%", y, "100%", y, "reference"))
    return parts


def folded(names: Sequence[str], room: float = _PHONE) -> list[list[str]] | None:
    """Names in up to three lines each, so that they stand side by side in ``room`` pixels; ``None`` if they cannot.

    Examples:
        >>> folded(["none", "long and short"], room=150)
        [['none'], ['long and', 'short']]
        >>> folded(["encoder.0.units.1.convolution"] * 9) is None
        True
    """
    letters = int((room / max(1, len(names)) - 6) / LETTER)
    lines = (
        [wrap(clean(name), letters, break_long_words=False) or [""] for name in names] if letters > 0 else [[" " * 9]]
    )
    return lines if all(len(each) <= 3 and max(map(len, each)) <= letters for each in lines) else None


def column_names(
    names: Sequence[str], places: Sequence[str], height: float, room: float = _PHONE
) -> tuple[float, float, list[Markup]]:
    """Names below a picture: side by side where they fit, some of them if they are numbers, else turned upwards.

    Args:
        names: One for each of ``places``.
        places: Horizontal positions in percent.
        height: Pixels of the plot area.
        room: Pixels of its width on a phone.

    Returns:
        Pixels that they need below and from left to right, and what is drawn.
    """
    numbered = all(name.lstrip("-\N{MINUS SIGN}").replace(".", "").isdigit() for name in names)
    longest = max(map(len, names), default=1)
    needed = len(names) * (LETTER * longest + 12) / room
    every = next((step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500) if step >= needed), 1000) if numbered else 1
    pairs = [pair for index, pair in enumerate(zip(names, places, strict=True)) if index % every == 0]
    pairs = apart(pairs, room) if numbered else pairs
    lines = folded([name for name, _ in pairs], room)
    if lines is not None:
        drawn = [stacked(each, x, height) for each, (_, x) in zip(lines, pairs, strict=True)]
        return 12 + 14 * max(map(len, lines), default=1), 0, drawn
    short = [(each if len(each := clean(name)) <= _LONGEST else f"{each[: _LONGEST - 1]}…", x) for name, x in pairs]
    turned = [
        tag("svg", tag("text", name, transform="rotate(-90)", dy=4, class_="tick end"), x=x, y=height + 8, class_="at")
        for name, x in short
    ]
    return 16 + LETTER * max(len(name) for name, _ in short), 14 * len(short), turned


def apart(pairs: Sequence[tuple[str, str]], room: float) -> list[tuple[str, str]]:
    """Names with their places in percent, without those that would touch the one before in ``room`` pixels.

    Examples:
        >>> apart([("0", "0%"), ("314.5", "85.0%"), ("350.8", "95.0%")], room=300)
        [('0', '0%'), ('314.5', '85.0%')]
    """
    kept: list[tuple[str, str]] = []
    for name, place in sorted(pairs, key=lambda pair: float(pair[1].rstrip("%"))):
        at, half = float(place.rstrip("%")) / 100 * room, LETTER * len(name) / 2
        if not kept or at - half > float(kept[-1][1].rstrip("%")) / 100 * room + LETTER * len(kept[-1][0]) / 2 + 4:
            kept.append((name, place))
    return kept


def stacked(lines: Sequence[str], x: str, height: float) -> Markup:
    """Set a name of one or more lines below a picture of this height, in pixels."""
    rows = [tag("tspan", text, x=x, y=height + 18 + 14 * index) for index, text in enumerate(lines)]
    return tag("text", *rows, class_="tick middle")


def rows_with_names(names: Sequence[str], row_height: float, plot: Markup) -> Markup:
    """Put a picture of rows beside their names, which are text of the page and wrap where rows are high enough."""
    cells = [tag("span", tag("b", clean(name)), title=clean(name)) for name in names]
    style = f"--row: {row_height:.0f}px; --lines: {max(1, int(row_height // 15))}"
    return tag("div", tag("div", *cells, class_="names", style=style), tag("div", plot, class_="plot"), class_="rows")


def series_values(series: Sequence[Series]) -> list[float]:
    """All values with the ends of their intervals."""
    lines = [numbers for each in series for numbers in (each.y, each.low, each.high) if numbers is not None]
    return [value for numbers in lines for value in numbers if value is not None]


def ends_of(series: Series, index: int) -> tuple[float, float] | None:
    """The interval of one value, where both of its ends are known; none where every end is the value itself.

    The latter is what a single replicate leaves of the range over replicates.
    """
    if series.low is not None and series.high is not None and list(series.low) == list(series.high) == list(series.y):
        return None
    low = series.low[index] if series.low is not None else None
    high = series.high[index] if series.high is not None else None
    return None if low is None or high is None else (low, high)

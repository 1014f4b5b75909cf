"""Small SVG for the report: text never scales, only distances do.

Horizontal positions are percentages of the width and vertical ones are pixels, so one picture fits a phone,
a screen and paper. Colours come from the page's style sheet by class, so they follow light and dark.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

SHAPES = 6
"""Number of different markers; the colour changes with each condition, the shape repeats after these."""


def tag(name: str, *children: Any, **attributes: Any) -> Markup:
    """Write one element; text is escaped, ``None`` attributes are left out, ``_`` in names becomes ``-``.

    Examples:
        >>> tag("text", "a < b", x="50%", class_="tick", dx=None)
        Markup('<text x="50%" class="tick">a &lt; b</text>')
    """
    pairs = "".join(
        f' {key if key in _CAMEL else key.rstrip("_").replace("_", "-")}="{escape(_short(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{pairs}>{''.join(escape(child) for child in children)}</{name}>")


_CAMEL = {"viewBox", "preserveAspectRatio"}


def _short(value: Any) -> Any:
    """Positions need no more than two digits after the point."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value


@dataclass(frozen=True)
class Scale:
    """A linear axis from ``low`` to ``high``, both finite and different.

    Examples:
        >>> Scale(0.0, 2.0).percent(0.5)
        '25%'
        >>> Scale(0.0, 1.0).pixel(0.25, height=200)
        150.0
    """

    low: float
    high: float

    def share(self, value: float) -> float:
        """Position between 0 (low) and 1 (high); values outside are put on the edge."""
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))

    def percent(self, value: float) -> str:
        """Horizontal position."""
        return f"{_short(100 * self.share(value))}%"

    def pixel(self, value: float, height: float) -> float:
        """Vertical position, counted from the top."""
        return round(height * (1 - self.share(value)), 2)

    def ticks(self, count: int = 5) -> list[float]:
        """About ``count`` round values inside the axis.

        Examples:
            >>> Scale(0.0, 1.0).ticks()
            [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
        """
        step = _round_step((self.high - self.low) / count)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [_neat(i * step, step) for i in range(first, last + 1)]


def scale_for(values: Sequence[float], *, include: Sequence[float] = (), unit_interval: bool = False) -> Scale:
    """Choose an axis that holds all ``values`` with round ends; scores in [0, 1] always get exactly [0, 1].

    Examples:
        >>> scale_for([0.31, 0.4], unit_interval=True)
        Scale(low=0.0, high=1.0)
        >>> scale_for([-0.13, 0.41], include=[0.0])
        Scale(low=-0.2, high=0.6)
        >>> scale_for([])
        Scale(low=0.0, high=1.0)
    """
    known = [*values, *include]
    if not known or (unit_interval and min(known) >= 0 and max(known) <= 1):
        return Scale(0.0, 1.0)
    low, high = min(known), max(known)
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        low, high = (low - 0.5 * abs(low), high + 0.5 * abs(high)) if low else (-0.05, 0.05)
    step = _round_step((high - low) / 5)
    return Scale(_neat(math.floor(low / step + 1e-9) * step, step), _neat(math.ceil(high / step - 1e-9) * step, step))


def _neat(value: float, step: float) -> float:
    """Take the rounding errors out of a multiple of ``step``, and the sign out of zero."""
    return round(value, max(0, 2 - math.floor(math.log10(step)))) + 0.0


def _round_step(rough: float) -> float:
    """The nearest of 1, 2 or 5 times a power of ten that is not below ``rough``."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= rough * (1 - 1e-9))


def tick_text(value: float) -> str:
    """Print an axis value briefly, with a true minus sign."""
    return f"{value:g}".replace("-", "\N{MINUS SIGN}")


def marker(x: str, y: float, slot: int, *, hollow: bool = False, size: float = 5.0) -> Markup:
    """Draw the marker of the condition in place ``slot``: own colour and own shape."""
    kind = f"mark c{slot % 8}" + (" hollow" if hollow else "")
    shape, s = slot % SHAPES, size
    if shape == 0:
        return tag("circle", cx=x, cy=y, r=s, class_=kind)
    if shape == 1:
        inside = tag("rect", x=-s * 0.9, y=-s * 0.9, width=s * 1.8, height=s * 1.8, class_=kind)
    else:
        corners = {
            2: ((0, -1.2), (1.1, 0.8), (-1.1, 0.8)),
            3: ((0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)),
            4: ((0, 1.2), (1.1, -0.8), (-1.1, -0.8)),
            5: ((-1.2, -0.4), (0, -1.2), (1.2, -0.4), (0.75, 1), (-0.75, 1)),
        }[shape]
        inside = tag("polygon", points=" ".join(f"{_short(a * s)},{_short(b * s)}" for a, b in corners), class_=kind)
    return tag("svg", inside, x=x, y=y, class_="at")


def line(x1: str, y1: float, x2: str, y2: float, kind: str) -> Markup:
    """Draw a straight line."""
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=kind)


def picture(height: float, *children: Any, label: str | None = None, kind: str = "") -> Markup:
    """Wrap ``children`` as a picture of full width; ``label`` is read aloud, without one it is decoration."""
    spoken = {"role": "img", "aria_label": label} if label else {"aria_hidden": "true", "focusable": "false"}
    return tag("svg", *children, width="100%", height=height, class_=f"fluid {kind}".strip(), **spoken)

"""What a figure shows, as plain data: probes and suites write it to JSON, the report draws it.

The numbers of every picture therefore stand beside it, and nothing that measures needs a plotting library.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from segmentation import SkipSegError

Numbers = Sequence[float | None]
"""Values along an axis; ``None`` where there is none."""

CLASS_COLOURS = ("#D55E00", "#56B4E9", "#F0E442", "#CC79A7", "#009E73", "#E69F00", "#0072B2")
"""Colours of classes over a gray scan: those of Okabe and Ito, which colour-blind readers can tell apart."""


@dataclass(frozen=True)
class Series:
    """One line, or one group of bars.

    Attributes:
        name: For the legend.
        y: Values.
        x: Where they stand; ``None`` for 0, 1, 2, ...
        low, high: Ends of their intervals, where there are any.
    """

    name: str
    y: Numbers
    x: Numbers | None = None
    low: Numbers | None = None
    high: Numbers | None = None


@dataclass(frozen=True)
class Figure:
    """A picture as data.

    Attributes:
        kind: ``"lines"`` (with points), ``"bars"`` (one group for each of ``ticks``), ``"points"`` (values with
            intervals, one row for each of ``ticks``), ``"heatmap"`` or ``"surface"`` (``values`` as an image, or
            with contours).
        title: What is seen, in a few words.
        x_label, y_label: Quantity and unit of the axes.
        series: What lines, bars and points show.
        ticks: Names along the axis of bars and points, of the places 0, 1, 2, ... of lines, or of the columns of a
            heatmap.
        rows: Names of the rows of a heatmap, from the top.
        values: Rows of a heatmap or surface, shape ``(rows, columns)``.
        x, y: Coordinates of the columns and rows of a surface; ``x`` of lines: places that their axis must hold.
        value_label: Quantity and unit of ``values``.
        log_y: Draw y (or ``values``) on a logarithmic scale.
        path: Points ``(x, y)`` drawn over a surface.
        reference: Value of a thin line across, such as 0 or an expected value; the middle of the colours of a
            heatmap or surface with values on both sides of it.
        limits: Values that the axis, or the colours, must hold as well, so that several figures share them.
    """

    kind: Literal["lines", "bars", "points", "heatmap", "surface"]
    title: str
    x_label: str = ""
    y_label: str = ""
    series: Sequence[Series] = ()
    ticks: Sequence[str] = ()
    rows: Sequence[str] = ()
    values: Sequence[Numbers] = ()
    x: Sequence[float] = ()
    y: Sequence[float] = ()
    value_label: str = ""
    log_y: bool = False
    path: Sequence[tuple[float, float]] = field(default_factory=tuple)
    reference: float | None = None
    limits: Sequence[float] = ()

    def to_plain(self) -> dict[str, Any]:
        """Plain data for JSON; what is not a finite number becomes ``None``.

        Examples:
            >>> Figure("bars", "Dice", series=[Series("none", [0.5, float("nan")])]).to_plain()["series"][0]["y"]
            [0.5, None]
        """
        return plain_numbers(asdict(self))

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "Figure":
        """Rebuild from :meth:`to_plain`.

        Raises:
            SkipSegError: If ``plain`` does not describe a figure.
        """
        try:
            fields: dict[str, Any] = {**plain, "series": [Series(**each) for each in plain.get("series", [])]}
            return cls(**fields)
        except TypeError as error:
            raise SkipSegError(f"not the description of a figure: {error}") from None


def plain_numbers(value: Any) -> Any:
    """Turn nested values into plain data for JSON: what is not a finite number becomes ``None``.

    Examples:
        >>> plain_numbers({"dice": (0.5, float("inf"))})
        {'dice': [0.5, None]}
    """
    if isinstance(value, Mapping):
        return {str(key): plain_numbers(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain_numbers(inner) for inner in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value

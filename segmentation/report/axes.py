"""Logarithmic axes beside the linear :class:`~segmentation.report.svg.Scale`, and numbers of any size in print."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from segmentation.report.svg import Scale, scale_for
from segmentation.report.tables import ABSENT

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class LogScale(Scale):
    """A logarithmic axis from ``low`` to ``high``, both positive and different.

    Examples:
        >>> LogScale(1e-6, 1.0).share(1e-3)
        0.5
        >>> LogScale(1e-6, 1.0).ticks(3)
        [1e-06, 0.0001, 0.01, 1.0]
    """

    def share(self, value: float) -> float:
        """Position between 0 (low) and 1 (high); values outside, and those without a logarithm, are put on the edge."""
        if value <= 0:
            return 0.0
        return min(1.0, max(0.0, math.log(value / self.low) / math.log(self.high / self.low)))

    def ticks(self, count: int = 5) -> list[float]:
        """Powers of ten, every one or every few; on a short axis 1, 2 and 5 times them."""
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        if last - first < 3:
            steps = [float(f"{step}e{power}") for power in range(first, last + 1) for step in (1, 2, 5)]
        else:
            every = math.ceil((last - first) / count)
            steps = [float(f"1e{power}") for power in range(first, last + 1) if power % every == 0]
        return [step for step in steps if self.low * (1 - 1e-9) <= step <= self.high * (1 + 1e-9)]


def axis_for(values: Sequence[float], *, log: bool = False, include: Sequence[float] = ()) -> Scale:
    """Choose an axis that holds all ``values`` with round ends.

    Args:
        values: Finite numbers; on a logarithmic axis those that are not positive have no place.
        log: Whether the axis is logarithmic.
        include: Further values that must be on it, such as zero under bars.

    Examples:
        >>> axis_for([3e-7, 0.02], log=True), axis_for([0.7, 1.4], log=True)
        (LogScale(low=1e-07, high=0.1), LogScale(low=0.5, high=2.0))
        >>> axis_for([0.3, 0.8], include=[0.0])
        Scale(low=0.0, high=0.8)
    """
    if not log:
        return scale_for(values, include=include)
    known = [value for value in (*values, *include) if value > 0] or [0.1, 1.0]
    low, high = math.floor(math.log10(min(known))), math.ceil(math.log10(max(known)))
    if high - low > 3:
        return LogScale(float(f"1e{low}"), float(f"1e{high}"))
    steps = [float(f"{step}e{power}") for power in range(low, high + 2) for step in (1, 2, 5)]
    first = max(step for step in steps if step <= min(known) * (1 + 1e-9))
    return LogScale(first, min(step for step in steps if step >= max(known) * (1 - 1e-9) and step > first))


def tick_names(scale: Scale, count: int = 5) -> list[tuple[float, str]]:
    """Values along an axis with their text; powers of ten as such where the axis spans many.

    Examples:
        >>> [text for _, text in tick_names(LogScale(1e-18, 1.0), count=3)]
        ['10⁻¹⁸', '10⁻¹²', '10⁻⁶', '10⁰']
    """
    ticks = scale.ticks(count)
    powers = isinstance(scale, LogScale) and (scale.low < 1e-3 or scale.high > 1e4)
    return [
        (value, _power(round(math.log10(value))) if powers and _is_power(value) else significant(value))
        for value in ticks
    ]


def _is_power(value: float) -> bool:
    """Tell powers of ten from their double and their fivefold."""
    return math.isclose(value, 10.0 ** round(math.log10(value)))


def significant(value: float | None, digits: int = 4) -> str:
    """Print a number of any size briefly, with a true minus sign; ``None`` is a dash.

    Examples:
        >>> significant(0.94412), significant(18.5), significant(1e-19), significant(48211), significant(0.0)
        ('0.9441', '18.5', '10⁻¹⁹', '48211', '0')
    """
    if value is None or not math.isfinite(value):
        return ABSENT
    if isinstance(value, int) and abs(value) < 10_000_000:
        return str(value).replace("-", "\N{MINUS SIGN}")
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    power = int(exponent)
    if -4 <= power < 6:
        text, unit = f"{value + 0.0:.{max(0, digits - 1 - power)}f}", ""
    else:
        text, unit = mantissa, _power(power)
    text = (text.rstrip("0").rstrip(".") if "." in text else text).replace("-", "\N{MINUS SIGN}")
    return unit if unit and text == "1" else f"{text}\N{MULTIPLICATION SIGN}{unit}" if unit else text


def _power(exponent: int) -> str:
    """A power of ten with a raised exponent."""
    return f"10{str(exponent).translate(_RAISED)}"

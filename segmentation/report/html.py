"""What all pages share: the template environment, in which no text can act, and how times are printed."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from segmentation.report import tables


def environment() -> Environment:
    """Templates of this package; every name and number from a file is escaped, and a missing one is an error."""
    found = Environment(
        loader=PackageLoader("segmentation.report", "."),
        autoescape=True,
        finalize=_printable,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters.update(
        score=tables.number,
        interval=tables.interval,
        parameters=tables.parameters,
        budget=tables.budget,
        p_value=tables.p_value,
        duration=duration,
    )
    return found


def duration(seconds: float | None) -> str:
    """Print a time with a unit that suits it.

    Examples:
        >>> duration(25.21), duration(754), duration(8000)
        ('25 s', '12.6 min', '2.2 h')
    """
    if seconds is None:
        return tables.ABSENT
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _printable(value: Any) -> Any:
    """Take characters that are not printable out of text before it is escaped; markup is ours and stays."""
    return tables.clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value

"""What all pages share: the template environment, in which no text can act, and how times are printed."""

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from segmentation.report import tables
from segmentation.report.axes import significant


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
        volume=significant,
        significant=significant,
    )
    shared: dict[str, Any] = {"security": security, "scripts": ()}
    found.globals.update(shared)
    return found


def script(name: str) -> Markup:
    """A script of this package, to be embedded into a page as one of its ``scripts``."""
    return Markup((Path(__file__).parent / name).read_text(encoding="utf-8"))


def security(scripts: Sequence[str], modules: bool = False) -> Markup:
    """Say what a page may load and run: nothing but itself, and of scripts only those that it was written with.

    Args:
        scripts: Texts of its script elements, to the letter.
        modules: Whether they may also run modules that they unpack from the page itself.

    Examples:
        >>> security([])
        Markup("default-src 'none'; img-src data:; style-src 'unsafe-inline'")
        >>> str(security(["f()"])).partition("script-src ")[2]
        "'sha256-GcEEE0IkDzIP5EQ6DXZaDPORqT5RTBELX8Fyzyg9yvo='"
    """
    digests = [base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in scripts]
    rules = ["default-src 'none'", "img-src data:", "style-src 'unsafe-inline'"]
    sources = [*(f"'sha256-{digest}'" for digest in digests), *["blob:"] * modules]
    rules += [" ".join(["script-src", *sources])] * bool(sources)
    return Markup("; ".join(rules))


def duration(seconds: float | None) -> str:
    """Print a time with a unit that suits it.

    Examples:
        >>> duration(0.71), duration(3.71), duration(25.21), duration(754), duration(8000)
        ('0.71 s', '3.7 s', '25 s', '12.6 min', '2.2 h')
    """
    if seconds is None:
        return tables.ABSENT
    if seconds < 120:
        return f"{seconds:.{0 if seconds >= 10 else 1 if seconds >= 1 else 2}f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _printable(value: Any) -> Any:
    """Take characters that are not printable out of text before it is escaped; markup is ours and stays."""
    return tables.clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value

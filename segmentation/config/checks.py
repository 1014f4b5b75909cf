"""Checks that settings share."""

from typing import Any

from segmentation import SkipSegError


def require(condition: bool, message: str) -> None:
    """Raise :class:`SkipSegError` with ``message`` unless ``condition`` holds."""
    if not condition:
        raise SkipSegError(message)


def require_positive(settings: Any, *names: str) -> None:
    """Refuse a setting among ``names`` that is zero or negative; ``None`` passes."""
    for name in names:
        value = getattr(settings, name)
        require(value is None or value > 0, f"{name} must be greater than 0, got {value}")

"""Settings as plain data, and back: what YAML and JSON files hold. Standard library and jsonargparse only."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from segmentation import SettingsError, SkipSegError

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

Settings = TypeVar("Settings")


def to_plain(settings: Any) -> Any:
    """Turn settings into plain data for YAML or JSON: paths become text, nothing else changes.

    Examples:
        >>> from segmentation.config import CheckSettings
        >>> to_plain(CheckSettings(dataset=Path("data/lung")))["dataset"]
        'data/lung'
    """
    if is_dataclass(settings) and not isinstance(settings, type):
        return to_plain(asdict(settings))
    if isinstance(settings, Mapping):
        return {key: to_plain(value) for key, value in settings.items()}
    if isinstance(settings, list | tuple):
        return [to_plain(value) for value in settings]
    return settings.as_posix() if isinstance(settings, Path) else settings


def fill(settings: Any, planned: Mapping[str, Any]) -> Any:
    """Replace every ``None`` in ``settings`` by the planned value of its dotted name.

    Args:
        settings: A settings dataclass, with groups nested.
        planned: Dotted name, such as ``"network.depth"``, to value.

    Returns:
        Settings of the same type; values that were given stay as they are.

    Examples:
        >>> from segmentation.config import DataSettings
        >>> fill(DataSettings(dims=2), {"dims": 3, "batch_size": 8}).batch_size
        8
    """
    changes: dict[str, Any] = {}
    for item in fields(settings):
        value = getattr(settings, item.name)
        if is_dataclass(value):
            prefix = f"{item.name}."
            inner = {key.removeprefix(prefix): planned[key] for key in planned if key.startswith(prefix)}
            changes[item.name] = fill(value, inner)
        elif value is None and item.name in planned:
            changes[item.name] = planned[item.name]
    return replace(settings, **changes)


def flatten(nested: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Walk nested settings as dotted names and values; an empty mapping is a value.

    Examples:
        >>> dict(flatten({"network": {"depth": 3}, "seed": 0}))
        {'network.depth': 3, 'seed': 0}
    """
    for key, value in nested.items():
        if isinstance(value, Mapping) and value and all(isinstance(name, str) for name in value):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def from_plain(kind: type[Settings], plain: Mapping[str, Any]) -> Settings:
    """Build settings from plain data, such as a YAML file, with every type and choice checked.

    Args:
        kind: One of the settings classes.
        plain: Field name to value; groups nested, or written with dotted names.

    Raises:
        SettingsError: If a name is unknown, a value has the wrong type or is not among the choices.

    Examples:
        >>> from segmentation.config import NetworkSettings
        >>> from_plain(NetworkSettings, {"long_skip": "add", "depth": 3}).long_skip
        'add'
    """
    # Only commands that read settings pay for the parser.
    from jsonargparse import ArgumentError

    parser = _parser(kind)
    try:
        return kind(**vars(parser.instantiate(parser.parse_object(refuse_odd(kind, nest(plain))))))
    except (ArgumentError, TypeError, SkipSegError) as error:
        raise SettingsError(explain(error, kind)) from None


def refuse_odd(kind: Any, nested: Mapping[str, Any]) -> dict[str, Any]:
    """Refuse what no parser finds wrong: numbers that are not finite, and groups in which nothing stands.

    Args:
        kind: The settings class.
        nested: Field name to value, groups nested.

    Returns:
        The same.

    Raises:
        SettingsError: If there is one; the message names it.
    """
    for name, value in flatten(nested):
        if isinstance(value, float) and not math.isfinite(value):
            raise SettingsError(f"{name} must be a finite number, got {value}")
    hints = get_type_hints(kind) if kind else {}
    for name, value in nested.items():
        if value is None and is_dataclass(hints.get(name)):
            raise SettingsError(f"{name} is a group in which nothing stands; remove it, or write its settings below it")
    return dict(nested)


def explain(error: Exception, kind: Any) -> str:
    """Say in one line what the parser found wrong with settings of ``kind``, and what would be right.

    Examples:
        >>> from segmentation.config import NetworkSettings
        >>> wrong = ValueError('Parser key "norm": Expected a typing.Literal[...]. Got value: bath')
        >>> explain(wrong, NetworkSettings)
        'norm must be one of none, batch, instance, group, layer; got bath'
    """
    text = " ".join(str(error).split())
    found = re.search(r'Parser key "([\w.]+)": .*(?:Got|Given) value: (.*)$', text)
    hint: Any = kind
    for name in found[1].split(".") if found else ():
        hint = get_type_hints(hint).get(name) if isinstance(hint, type) else None
    return f"{found[1]} must be {words(hint)}; got {found[2]}" if found and hint else text


_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path", Any: "anything"}
_SEVERAL = {int: "whole numbers", float: "numbers", str: "texts", Path: "paths"}


def words(hint: Any) -> str:
    """Say in plain words what a type takes.

    Examples:
        >>> words(int | None), words(list[float] | None)
        ('a whole number', 'a list of numbers')
        >>> words(dict[int, Literal["add", "none"]])
        'a mapping of whole numbers, each to one of add, none'
    """
    parts, origin = get_args(hint), get_origin(hint)
    if origin is Literal:
        return f"one of {', '.join(map(str, parts))}"
    if origin is list:
        return f"a list of {_SEVERAL[parts[0]]}" if parts[0] in _SEVERAL else f"a list, each {words(parts[0])}"
    if origin is dict:
        return f"a mapping of {_SEVERAL[parts[0]]}, each to {words(parts[1])}"
    if parts:
        return " or ".join(words(part) for part in parts if part is not type(None))
    return _WORDS.get(hint, "a group of settings")


@cache
def _parser(kind: type[Any]) -> "ArgumentParser":
    """The parser of a settings class, made once: a study reads its settings again for every condition."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind)
    return parser


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Turn dotted names into nested mappings; the inverse of :func:`flatten`.

    Examples:
        >>> nest({"network.depth": 3, "network": {"width": 8}, "seed": 0})
        {'network': {'depth': 3, 'width': 8}, 'seed': 0}
    """
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        *groups, last = str(name).split(".")
        inner = nested
        for group in groups:
            inner[group] = inner = inner.get(group) or {}
        if isinstance(value, Mapping) and isinstance(inner.get(last), dict):
            inner[last].update(value)
        else:
            inner[last] = value
    return nested

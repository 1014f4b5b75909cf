"""Single numbers of the probes of a study, condition beside condition, and their notes, each once."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain, zip_longest
from typing import Any

from segmentation.report.cost import mean_and_range

_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
_DIFFERENT = "\N{HORIZONTAL ELLIPSIS}"


def single_numbers(
    values: Mapping[str, Any], cases: Collection[str], drawn: Collection[str]
) -> dict[str, float | None]:
    """Numbers of one probe by their dotted names; those of single cases, and lists, are left to its file.

    Args:
        values: What the probe of a run found. A mean or median with its bounds counts as one number.
        cases: Names of the cases.
        drawn: Names of numbers that its figures show.

    Examples:
        >>> found = {"V": -2.0, "basin": {"median": 0.5, "low": 0.4, "high": 0.6}, "dice": {"pat_1": 0.1, "L0": 0.2}}
        >>> single_numbers(found, {"pat_1"}, {"L0"})
        {'V': -2.0, 'basin': 0.5}
    """
    return {
        ".".join(path): value
        for name, found in values.items()
        for path, value in _walk(found, (name,))
        if path[-1] not in drawn and set(path).isdisjoint(cases)
    }


def _walk(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], float | None]]:
    """Every number with the names that lead to it; None is a number that a run does not have."""
    if isinstance(value, Mapping) and {"low", "high"} <= value.keys():
        value = value.get("estimate", value.get("median"))
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _walk(inner, (*path, name))
    elif value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        yield path, value


def compare_numbers(
    found: Mapping[str, Sequence[Mapping[str, float | None]]],
) -> dict[str, dict[str, dict[str, float] | None]]:
    """Put the numbers of all runs side by side.

    Args:
        found: Condition to the numbers of each of its runs.

    Returns:
        Name to condition to ``mean``, ``low``, ``high`` and ``runs``, over the runs that have a value.
    """
    names = dict.fromkeys(name for runs in found.values() for numbers in runs for name in numbers)
    return {
        name: {condition: mean_and_range(numbers.get(name) for numbers in runs) for condition, runs in found.items()}
        for name in names
    }


def common_notes(notes: Mapping[str, Sequence[str]]) -> list[str]:
    """Each note once; notes that differ in numbers alone are one, without the numbers in which they differ.

    Args:
        notes: Condition to the notes of its runs. A note that some conditions do not have begins with those that do.

    Examples:
        >>> common_notes({"concat": ["V = -1.5, eps 1e-8."], "none": ["V = 2.5, eps 1e-8.", "A placebo."]})
        ['V = …, eps 1e-8.', 'none: A placebo.']
    """
    alike: defaultdict[tuple[str, ...], list[list[str]]] = defaultdict(list)
    having: defaultdict[tuple[str, ...], dict[str, None]] = defaultdict(dict)
    for condition, of_runs in notes.items():
        for note in filter(None, of_runs):
            words = tuple(_NUMBER.split(note))
            alike[words].append(_NUMBER.findall(note))
            having[words][condition] = None
    return [
        ("" if len(having[words]) == len(notes) else f"{', '.join(having[words])}: ") + _with_shared(words, numbers)
        for words, numbers in alike.items()
    ]


def _with_shared(words: Sequence[str], numbers: Sequence[Sequence[str]]) -> str:
    """Words with the numbers between them that all notes share."""
    shared = [each[0] if len(set(each)) == 1 else _DIFFERENT for each in zip(*numbers, strict=True)]
    return "".join(chain.from_iterable(zip_longest(words, shared, fillvalue="")))

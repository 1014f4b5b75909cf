"""What the probes of a study found, condition beside condition.

Values with a name each, such as those of layers and levels, become heat maps with one row for each condition, averaged
over its runs; single numbers become a table. Curves, maps and surfaces cannot be averaged truthfully: they are shown
for one run of each condition, with colours and axes of curves that all share; a surface keeps its own place.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from segmentation import SkipSegError
from segmentation.figures import Figure, Series
from segmentation.probes.kinds import KINDS
from segmentation.report.drawable import check_figure
from segmentation.report.probe_numbers import common_notes, compare_numbers, single_numbers
from segmentation.report.probes import measured, read_content, title_of
from segmentation.report.read import Run, Study
from segmentation.runs import is_draft

_Found = Mapping[str, Sequence[Figure]]
"""Condition to one figure for each of its runs."""


def probes_of(study: Study) -> list[dict[str, Any]]:
    """Collect the probes of all finished runs as plain data: one entry for each kind that any run has.

    Returns:
        ``kind``, ``title``, ``measured``, ``definition``, ``runs`` (condition to the names of its probed runs),
        ``values`` (name to condition to mean, range and number of runs), ``notes``, ``figures`` (plain, see
        :class:`segmentation.figures.Figure`) and ``problems`` (files that cannot be shown).
    """
    runs = sorted(study.finished, key=lambda run: (run.fold, run.seed))
    files = {
        (file.stem, run.id): file for run in runs for file in run.folder.glob("probes/*.json") if not is_draft(file)
    }
    kinds = {kind for kind, _ in files}
    ordered = [*(kind for kind in KINDS if kind in kinds), *sorted(kinds - KINDS.keys())]
    return [_entry(kind, study, [run for run in runs if (kind, run.id) in files]) for kind in ordered]


def _entry(kind: str, study: Study, runs: Sequence[Run]) -> dict[str, Any]:
    """One kind over all conditions."""
    contents: dict[str, Mapping[str, Any]] = {}
    figures: dict[str, list[Figure]] = {}
    numbers: dict[str, dict[str, float | None]] = {}
    problems: list[str] = []
    for run in runs:
        try:
            content = read_content(run.folder / "probes" / f"{kind}.json")
            figures[run.id] = [_checked(each) for each in content.get("figures", [])]
            drawn = {tick for each in figures[run.id] for tick in each.ticks}
            numbers[run.id] = single_numbers(content["values"], {row.case for row in run.rows}, drawn)
            contents[run.id] = content
        except SkipSegError as error:
            problems.append(f"{run.id}: {str(error).replace(f'{run.folder.parent}/', '')}")
    places = {
        name: [run.id for run in runs if run.condition == name and run.id in contents] for name in study.conditions
    }
    shown = {name: ids for name, ids in places.items() if ids}
    by_condition = {name: [figures[run] for run in ids] for name, ids in shown.items()}
    first = next(iter(contents.values()), {})
    return {
        "kind": kind,
        "title": title_of(kind),
        "measured": measured(first.get("settings")),
        "definition": str(first.get("definition", "")),
        "notes": common_notes(
            {name: [str(contents[run].get("note") or "") for run in ids] for name, ids in shown.items()}
        ),
        "runs": shown,
        "values": compare_numbers({name: [numbers[run] for run in ids] for name, ids in shown.items()}),
        "figures": [figure.to_plain() for figure in beside_each_other(by_condition)],
        "problems": problems,
    }


def _checked(plain: Mapping[str, Any]) -> Figure:
    """Read one figure."""
    figure = Figure.from_plain(plain)
    check_figure(figure)
    return figure


def beside_each_other(figures: Mapping[str, Sequence[Sequence[Figure]]]) -> Iterator[Figure]:
    """Put figures of the same title next to each other, condition by condition.

    Args:
        figures: Condition to the figures of each of its runs.

    Examples:
        >>> level = [Figure("bars", "Share", ticks=["L0", "L1"], series=[Series("", y)]) for y in ([1, 2], [3, 4])]
        >>> [found] = beside_each_other({"add": [level[:1], level[1:]], "concat": [level[:1]]})
        >>> found.kind, found.rows, found.values
        ('heatmap', ['add', 'concat'], [[2.0, 3.0], [1.0, 2.0]])
    """
    groups: defaultdict[tuple[str, str], defaultdict[str, list[Figure]]] = defaultdict(lambda: defaultdict(list))
    for name, runs in figures.items():
        for each in (figure for run in runs for figure in run):
            groups[each.kind, each.title][name].append(each)
    for found in groups.values():
        yield from _maps(found) if _has_names(found) else _panels(found)


def _has_names(found: _Found) -> bool:
    """Tell whether every value of the figures has a name, so that they can be averaged and set in rows."""
    return all(
        each.kind in ("bars", "points", "lines") and bool(each.ticks) for all_ in found.values() for each in all_
    )


def _maps(found: _Found) -> Iterator[Figure]:
    """One heat map for each series: a row for each condition, a column for each name."""
    first = next(iter(found.values()))[0]
    names = list(dict.fromkeys(series.name for all_ in found.values() for each in all_ for series in each.series))
    columns = in_order([each.ticks for all_ in found.values() for each in all_])
    for name in names:
        values = {condition: _means(all_, name, columns) for condition, all_ in found.items()}
        rows = {condition: row for condition, row in values.items() if any(value is not None for value in row)}
        yield Figure(
            "heatmap",
            first.title + (f": {name}" if len(names) > 1 and name else ""),
            x_label="" if first.kind == "points" else first.x_label,
            rows=list(rows),
            ticks=columns,
            values=list(rows.values()),
            value_label=(first.x_label if first.kind == "points" else first.y_label) or first.value_label,
            log_y=first.log_y,
            reference=first.reference,
        )


def _means(figures: Sequence[Figure], series: str, columns: Sequence[str]) -> list[float | None]:
    """Mean over runs of the value with each name."""
    values: defaultdict[str, list[float]] = defaultdict(list)
    for figure in figures:
        for each in (each for each in figure.series if each.name == series):
            for tick, value in zip(figure.ticks, each.y, strict=True):
                if value is not None:
                    values[tick].append(value)
    return [fmean(values[column]) if column in values else None for column in columns]


def in_order(lists: Sequence[Sequence[str]]) -> list[str]:
    """Merge names that stand in the same order where they stand at all.

    Examples:
        >>> in_order([["in", "out"], ["in", "shortcut", "out"]])
        ['in', 'shortcut', 'out']
    """
    merged: list[str] = []
    for names in lists:
        place = 0
        for name in names:
            if name in merged:
                place = merged.index(name) + 1
            else:
                merged.insert(place, name)
                place += 1
    return merged


def _panels(found: _Found) -> Iterator[Figure]:
    """The figure of one run of each condition, with common limits."""
    chosen = {condition: all_[0] for condition, all_ in found.items()}
    values = [value for figure in chosen.values() for value in _all_values(figure) if value is not None]
    known = [value for value in values if value > 0 or not next(iter(chosen.values())).log_y]
    limits = [min(known), max(known)] if known and len(chosen) > 1 else []
    places = [place for figure in chosen.values() for place in _all_places(figure)]
    for condition, figure in chosen.items():
        x = [min(places), max(places)] if places and figure.kind == "lines" and not figure.ticks else figure.x
        yield replace(figure, title=f"{condition}: {figure.title}", limits=limits, x=x)


def _all_places(figure: Figure) -> Iterator[float]:
    """Every place along the axis of lines where a value stands, or that the axis must hold."""
    yield from figure.x
    for series in figure.series:
        yield from range(len(series.y)) if series.x is None else (place for place in series.x if place is not None)


def _all_values(figure: Figure) -> Iterator[float | None]:
    """Every value that is drawn."""
    lines: list[Sequence[float | None]] = [*figure.values]
    series: Sequence[Series] = figure.series
    lines += [line for each in series for line in (each.y, each.low, each.high) if line is not None]
    return (value for line in lines for value in line)

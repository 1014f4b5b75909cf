"""Figures and tables that several suites share."""

from collections.abc import Mapping, Sequence

from segmentation.ablation.suites.suite import Table
from segmentation.figures import Figure, Series
from segmentation.statistics import Interval, PairedDifference, mean_ci, paired_difference

ByTaskAndArm = Mapping[str, Mapping[str, Sequence[float]]]
"""Task, arm, to one value a replicate."""

ByPatientAndSeed = Mapping[str, Mapping[int, float]]
"""Patient, seed, to a score."""


def bars_of(values: ByTaskAndArm, title: str, label: str) -> Figure:
    """Bars with 95 % intervals over replicates: one group for each task, one bar for each arm."""
    tasks = list(values)
    arms = list(next(iter(values.values())))
    series: list[Series] = []
    for arm in arms:
        series.append(series_of(arm, [values[task][arm] for task in tasks]))
    return Figure("bars", title, y_label=label, ticks=tasks, series=series)


def series_of(name: str, groups: Sequence[Sequence[float]], x: Sequence[float] | None = None) -> Series:
    """Mean with 95 % interval of each group of replicates, one point each.

    Examples:
        >>> series_of("add", [[0.25, 0.75], [1.0, 1.0]]).y
        [0.5, 1.0]
    """
    cells = [mean_ci(group) for group in groups]
    return Series(name, [c.estimate for c in cells], x, [c.low for c in cells], [c.high for c in cells])


def table_of(values: ByTaskAndArm, title: str) -> Table:
    """Means with 95 % intervals over replicates: one row for each task, one column for each arm."""
    arms = list(next(iter(values.values())))
    rows = [[task, *(interval_text(mean_ci(by_arm[arm])) for arm in arms)] for task, by_arm in values.items()]
    return Table(title, ["", *arms], rows)


def interval_text(interval: Interval) -> str:
    """A mean with its interval, such as ``0.81 (0.78 to 0.84)``.

    Examples:
        >>> interval_text(mean_ci([0.5]))
        '0.500'
    """
    if interval.low is None:
        return f"{interval.estimate:.3f}"
    return f"{interval.estimate:.3f} ({interval.low:.3f} to {interval.high:.3f})"


def compare(a: ByPatientAndSeed, b: ByPatientAndSeed, margin: float) -> PairedDifference:
    """Paired difference of two arms, over patients that have a value in both under the same seed."""
    both = {patient: a[patient].keys() & b[patient].keys() for patient in a.keys() & b.keys()}
    a, b = ({p: {seed: of[p][seed] for seed in seeds} for p, seeds in both.items() if seeds} for of in (a, b))
    return paired_difference(a, b, margin=margin)


def comparison_table(
    patients: Mapping[str, ByPatientAndSeed], pairs: Sequence[tuple[str, str]], margin: float
) -> Table:
    """Paired differences over patients and seeds with verdicts: one row for each pair of arms."""
    rows: list[list[str | float | None]] = []
    for a, b in pairs:
        found = compare(patients[a], patients[b], margin)
        rows.append([f"{a} - {b}", found.mean, found.low, found.high, found.p_value, found.n, found.verdict])
    return Table(
        "Paired differences of Dice over patients", ["", "mean", "low", "high", "p", "patients", "verdict"], rows
    )

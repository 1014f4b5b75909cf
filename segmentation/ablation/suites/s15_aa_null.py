"""s15: the same arm against itself: how often does the project's own test find a difference that is not there?"""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from segmentation.ablation.suites.bench import dice_of, fit, make_network, make_pictures, mean
from segmentation.ablation.suites.suite import Cell, Findings, Found, Readout, Suite, Table, above, below
from segmentation.ablation.suites.views import bars_of
from segmentation.figures import Figure, Series
from segmentation.statistics import PairedDifference, mean_ci, paired_difference

Array = NDArray[np.float64]
BLOB: dict[str, Any] = {"task": "blob", "noise": 0.3}
LIMIT = 0.15
"""Share of false findings below which the test counts as calibrated."""
LEVEL = 0.05
RULES = {
    "verdict": "the report's verdict",
    "interval": "hierarchical interval alone",
    "sign flip": "sign-flip test over patients alone",
    "one seed": "one network an arm",
}
"""What may find a difference, and its name in readouts."""


def _cells(grid: Any) -> list[dict[str, Any]]:
    keys = ("networks", "splits", "steps")
    return [{key: grid[key] for key in keys} | {"seed": pool} for pool in range(grid["pools"])]


def _run(cell: Cell) -> dict[str, Any]:
    data = make_pictures(seed=cell["seed"], **BLOB)
    columns: list[list[float]] = []
    for index in range(cell["networks"]):
        seed = cell["seed"] * cell["networks"] + index  # no two networks of the suite share one
        network = make_network(seed)
        fit(network, data.images, data.labels, cell["steps"], seed)
        columns.append(dice_of(network, data.test_images, data.test_labels))
    table = np.array(columns).T
    return split_many_times(table, cell["splits"], cell["seed"]) | {"dice": mean(table.mean(axis=0).tolist())}


def split_many_times(table: Array, splits: int, seed: int) -> dict[str, Any]:
    """Compare halves of a pool of networks of one arm as if they were two arms.

    Args:
        table: Dice of each case under each network, shape ``(cases, networks)``, an even number of networks.
        splits: Splits into halves, all different; the first is that into the first and the last networks. At most
            as many as there are.
        seed: Source of the others.

    Returns:
        For each of :data:`RULES`, whether it found a difference in each split (for ``"one seed"``, in each pair of
        neighbouring networks); ``differences``, the mean differences; and ``equivalent``, how often the verdict
        was that.

    Examples:
        >>> found = split_many_times(np.array([[0.5, 0.6], [0.7, 0.8], [0.6, 0.6]]), splits=1, seed=0)
        >>> found["verdict"], round(found["differences"][0], 3)
        ([False], -0.067)
    """
    networks = table.shape[1]
    first, *others = [(0, *rest) for rest in combinations(range(1, networks), networks // 2 - 1)]
    drawn = np.random.default_rng(seed).permutation(len(others))[: splits - 1]
    halves = [first, *(others[index] for index in drawn)]
    found = [_compare(table, half, [n for n in range(networks) if n not in half]) for half in halves]
    single = [_compare(table, [index], [index + 1]) for index in range(0, networks, 2)]
    return {
        "verdict": [each.verdict == "different" for each in found],
        "interval": [_leaves_out_0(each) for each in found],
        "sign flip": [each.sign_flip_p <= LEVEL for each in found],
        "one seed": [each.verdict == "different" for each in single],
        "differences": [each.mean for each in found],
        "equivalent": float(np.mean([each.verdict == "equivalent" for each in found])),
    }


def _compare(table: Array, a: Sequence[int], b: Sequence[int]) -> PairedDifference:
    """Compare two groups of networks on the same cases, each group with seeds of its own, as a report does."""
    arms = [{f"case {row}": {i: float(scores[i]) for i in arm} for row, scores in enumerate(table)} for arm in (a, b)]
    return paired_difference(arms[0], arms[1], alpha=LEVEL)


def _leaves_out_0(found: PairedDifference) -> bool:
    """Whether the interval does not hold 0."""
    return found.low is not None and found.high is not None and not found.low <= 0 <= found.high


def _judge(found: Found, grid: Any) -> Findings:
    rates = {rule: [float(np.mean(result[rule])) for _, result in found] for rule in RULES}
    splits = grid["splits"]
    return Findings(
        readouts=[
            below(f"rejections: {RULES['verdict']}", "about 0.05, below 0.15", rates["verdict"], LIMIT),
            below(f"rejections: {RULES['interval']}", "about 0.05, below 0.15", rates["interval"], LIMIT),
            _independent(found),
            above(
                f"rejections: {RULES['sign flip']}",
                "above 0.05: it takes the trained networks as given",
                rates["sign flip"],
                LEVEL,
                decides=False,
            ),
            above(
                f"rejections: {RULES['one seed']}",
                "above 0.05: a difference of two networks, not of two arms",
                rates["one seed"],
                LEVEL,
                decides=False,
            ),
        ],
        reading=[
            f"Each pool holds {grid['networks']} networks of the same arm, trained on the same cases with seeds of "
            f"their own and tested on the same cases. It is split into halves in {splits} ways, and each split is "
            "judged as a report judges two arms: cases are the patients, seeds are not shared. Every finding is a "
            "false one.",
            "Pools are independent, for each has its own data and seeds; splits of one pool are not, for they share "
            "networks and test cases, and their findings come and go together. More splits of a pool therefore add "
            "less than they seem to, and the intervals are over pools: one rate a pool. The binomial interval uses "
            "one split a pool, so that its trials are independent.",
            "The last two rows are the control: the test over patients alone asks whether these networks differ on "
            "other patients, and two networks of one arm do differ. It is no test of an arm, however small its "
            "p-value. The report's verdict asks for both tests.",
            _nominal(rates["verdict"]),
        ],
        figures=[
            bars_of(
                {"same arm": {RULES[rule]: each for rule, each in rates.items()}},
                f"Share of comparisons called different (nominal {LEVEL:g})",
                "share",
            ),
            _differences(found),
        ],
        tables=[_pools(found)],
    )


def _nominal(rates: Sequence[float]) -> str:
    """How the verdict's rate lies to the nominal one, in words."""
    found = mean_ci(rates)
    if found.low is None or found.high is None:
        return "One pool has no interval: it says nothing about the rate."
    if found.high < LEVEL:
        return (
            f"The verdict finds fewer differences than the nominal {LEVEL:.0%}: it errs on the safe side, and pays "
            "with power. The scatter of single scores enters the error of the patients and that of the seeds."
        )
    if found.low > LEVEL:
        return f"The verdict finds more differences than the nominal {LEVEL:.0%}: its p-values are too small here."
    return f"The rate of the verdict agrees with the nominal {LEVEL:.0%} within its interval."


def _independent(found: Found) -> Readout:
    """Rejections of the verdict in the first split of each pool, with the exact binomial interval."""
    count, pools = sum(result["verdict"][0] for _, result in found), len(found)
    ends = stats.binomtest(count, pools).proportion_ci(0.95, method="exact")
    met = True if ends.high < LIMIT else False if ends.low > LIMIT else None
    name = f"rejections: {RULES['verdict']}, one split a pool ({count} of {pools}, exact binomial interval)"
    return Readout(name, "below 0.15", count / pools, float(ends.low), float(ends.high), met, decides=False)


def _pools(found: Found) -> Table:
    """What each pool gave."""
    rows = [
        [f"pool {cell['seed']}", result["dice"], np.std(result["differences"]).item(), result["equivalent"]]
        + [float(np.mean(result[rule])) for rule in RULES]
        for cell, result in found
    ]
    columns = ["", "mean Dice", "SD of the differences", "called equivalent within 0.02", *RULES.values()]
    return Table("Pools: Dice, and shares of their comparisons", columns, rows)


def _differences(found: Found) -> Figure:
    """Mean differences between halves, sorted, in all pools."""
    values = sorted(value for _, result in found for value in result["differences"])
    shares = [(rank + 0.5) / len(values) for rank in range(len(values))]
    return Figure(
        "lines",
        "Differences between halves of one arm",
        "mean difference of Dice",
        "share of splits at or below",
        [Series("splits of all pools", shares, values)],
    )


SUITE = Suite(
    name="s15-aa-null",
    title="Calibration: the same arm against itself",
    claim=(
        "Two groups of runs of the same arm, with disjoint seeds, are called different in about 5 % of comparisons "
        "by the test that judges two arms."
    ),
    pass_rule=(
        "The verdict of the report, and its hierarchical interval over patients and seeds alone, find a difference "
        f"between halves of one arm in less than {LIMIT:.0%} of splits, with the whole 95 % interval over pools."
    ),
    grid={
        "smoke": {"pools": 1, "networks": 10, "splits": 20, "steps": 25},
        "cpu": {"pools": 20, "networks": 10, "splits": 20, "steps": 100},
        "gpu": {"pools": 40, "networks": 20, "splits": 50, "steps": 1000},
    },
    cells=_cells,
    run=_run,
    judge=_judge,
)

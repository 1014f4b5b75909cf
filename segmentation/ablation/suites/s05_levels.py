"""s05: each level of skips contributes differently; and do the analyses name the level that was planted?"""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

from segmentation.ablation.suites.bench import dice_of, fit, make_network, make_pictures, mean, train_and_score
from segmentation.ablation.suites.suite import Cell, Findings, Found, Readout, Suite, above, exactly, gain, replicates
from segmentation.ablation.suites.views import bars_of, series_of, table_of
from segmentation.figures import Figure, Series
from segmentation.probes.lesion import lesioned_skips
from segmentation.probes.shapley import shapley_values

LEVELS: tuple[int, ...] = (0, 1, 2)
TASKS: dict[str, dict[str, Any]] = {"blob": {"task": "blob", "noise": 0.3}, "thin": {"task": "thin", "noise": 0.3}}
PLANTED: dict[int, dict[str, Any]] = {
    0: {"task": "thin", "noise": 0.3, "level": 0},
    1: {"task": "thin", "noise": 0.45, "level": 1},
}
"""Tasks whose detail lies at a known level: a finer one shows it under more noise, a coarser one has lost it."""
SUBSETS = [levels for size in range(len(LEVELS) + 1) for levels in combinations(LEVELS, size)]
ANALYSES = ("skip lesion", "Shapley value", "level ablation")


def _cells(grid: Any) -> list[dict[str, Any]]:
    subsets = [
        {
            "task": TASKS[task],
            "network": without(set(LEVELS) - set(kept)),
            "seed": seed,
            "steps": grid["steps"],
            "of": [task, name_of(kept)],
        }
        for seed in range(grid["seeds"])
        for task in TASKS
        for kept in SUBSETS
    ]
    planted = [
        {"task": PLANTED[level], "planted": level, "seed": seed, "steps": grid["steps"]}
        for seed in range(grid["planted_seeds"])
        for level in PLANTED
    ]
    return planted + subsets


def without(levels: set[int]) -> dict[str, Any]:
    """Settings of a network that lacks the skips at ``levels``."""
    return {"long_skip_levels": dict.fromkeys(sorted(levels), "none")}


def name_of(levels: Sequence[int]) -> str:
    """Name of a subset of levels.

    Examples:
        >>> name_of((0, 2)), name_of(())
        ('L0 L2', 'none')
    """
    return " ".join(f"L{level}" for level in levels) or "none"


def _run(cell: Cell) -> dict[str, Any]:
    return name_planted_level(cell) if "planted" in cell else train_and_score(cell)


def name_planted_level(cell: Cell) -> dict[str, Any]:
    """Train on a task whose needed level is known, and let three analyses say which level it is.

    Args:
        cell: ``task``, ``seed`` and ``steps``.

    Returns:
        For each analysis the importance of each level: loss of Dice when its skip is shuffled over the batch,
        Shapley value of its skip over all subsets of intact skips, loss of Dice when it is trained without it.
    """
    data = make_pictures(seed=cell["seed"], **cell["task"])

    def trained(absent: set[int]) -> Any:
        network = make_network(cell["seed"], **without(absent))
        fit(network, data.images, data.labels, cell["steps"], cell["seed"])
        return network

    def dice(network: Any) -> float:
        return mean(dice_of(network, data.test_images, data.test_labels))

    whole = trained(set())
    game: dict[frozenset[int], float] = {}
    for kept in SUBSETS:
        with lesioned_skips(whole, set(LEVELS) - set(kept), "shuffle"):
            game[frozenset(kept)] = dice(whole)
    intact = game[frozenset(LEVELS)]
    values = shapley_values(game)
    return {
        "skip lesion": [intact - game[frozenset(LEVELS) - {level}] for level in LEVELS],
        "Shapley value": [float(values[level]) for level in LEVELS],
        "level ablation": [intact - dice(trained({level})) for level in LEVELS],
    }


def _judge(found: Found, grid: Any) -> Findings:
    trained = [(cell, result) for cell, result in found if "of" in cell]
    planted = [(cell, result) for cell, result in found if "planted" in cell]
    dice = replicates(trained, "dice")
    shapley = {task: [_shapley(by_subset, seed) for seed in range(grid["seeds"])] for task, by_subset in dice.items()}
    thin = dice["thin"]
    top = [values[0] for values in shapley["thin"]]
    rest = [max(values[1:]) for values in shapley["thin"]]
    lost, blob = (gain(dice[task]["L0 L1 L2"], dice[task]["L1 L2"]) for task in ("thin", "blob"))
    return Findings(
        readouts=[
            above("thin: Shapley value of L0 minus that of the next level", "above 0", gain(top, rest), 0.0),
            above("thin: Dice lost without L0", "above 0", lost, 0.0),
            *_hits(planted, grid["needed_hits"]),
            above(
                "thin: lost without L0 less that without L1", "above 0", gain(thin["L0 L2"], thin["L1 L2"]), 0.0, False
            ),
            above(
                "thin: lost without L0 less that without L2", "above 0", gain(thin["L0 L1"], thin["L1 L2"]), 0.0, False
            ),
            above("blob: Dice lost without L0", "above 0", blob, 0.0, decides=False),
            above("thin minus blob: Dice lost without L0", "above 0", gain(lost, blob), 0.0, decides=False),
        ],
        reading=[
            "Shapley values share the gain of all skips among the levels: the mean of what a level adds to each "
            "subset of the others. In the first part every subset is a network trained for itself; in the second the "
            "skips of one trained network are shuffled over the batch.",
            "The second part is a test of the analyses with a known answer: thin curves drawn 2^k times coarser, "
            "under noise that grows as 2^k at single pixels, so that level k is the finest at which they are clear. "
            "A lesion says what a trained network relies on, an ablation what it could not replace: an ablation "
            "differs little where levels can stand in for each other.",
        ],
        figures=[
            _shapley_figure(shapley),
            bars_of(dice, "Dice by trained levels", "mean Dice over test cases"),
            *_planted_figures(planted),
        ],
        tables=[table_of(dice, "Mean Dice with 95 % interval over replicates, by the levels that have a skip")],
    )


def _shapley(by_subset: dict[str, list[float]], seed: int) -> list[float]:
    """Shapley value of each level in the game of trained subsets."""
    values = shapley_values({frozenset(kept): by_subset[name_of(kept)][seed] for kept in SUBSETS})
    return [float(values[level]) for level in LEVELS]


def _hits(planted: Found, needed: int) -> list[Readout]:
    """How often each analysis names the level that was planted."""
    readouts: list[Readout] = []
    for level in PLANTED:
        of_level = [result for cell, result in planted if cell["planted"] == level]
        for analysis in ANALYSES:
            hits = sum(max(LEVELS, key=lambda i, r=result[analysis]: r[i]) == level for result in of_level)
            expected = f"at least {needed} of {len(of_level)}"
            readouts.append(exactly(f"planted L{level}: named by {analysis}", expected, hits, hits >= needed))
    return readouts


def _shapley_figure(shapley: dict[str, list[list[float]]]) -> Figure:
    """Shapley value of each level with interval over replicates."""
    series: list[Series] = []
    for task, replicate in shapley.items():
        series.append(series_of(task, [[values[level] for values in replicate] for level in LEVELS]))
    ticks = [f"L{level}" for level in LEVELS]
    return Figure(
        "bars", "Shapley value of each level of skips", y_label="share of the gain in Dice", ticks=ticks, series=series
    )


def _planted_figures(planted: Found) -> list[Figure]:
    """Importance of each level by each analysis, mean over seeds, one picture for each planted level."""
    figures: list[Figure] = []
    for level in PLANTED:
        of_level = [result for cell, result in planted if cell["planted"] == level]
        means = [[sum(r[a][i] for r in of_level) / len(of_level) for i in LEVELS] for a in ANALYSES]
        series = [Series(analysis, row) for analysis, row in zip(ANALYSES, means, strict=True)]
        title = f"Needed level L{level}: what the analyses say"
        figures.append(
            Figure("bars", title, y_label="importance (Dice)", ticks=[f"L{i}" for i in LEVELS], series=series)
        )
    return figures


SUITE = Suite(
    name="s05-levels",
    title="Which level matters",
    claim="Skip connections at the same detail level are helpful.",
    pass_rule=(
        "On thin curves L0 has the largest Shapley value, and leaving it out costs Dice, each with its whole 95 % "
        "interval over replicates; and where the needed level was planted, skip lesion, Shapley value and level "
        "ablation each name it in at least 19 of 20 seeds."
    ),
    grid={
        "smoke": {"seeds": 1, "planted_seeds": 1, "needed_hits": 1, "steps": 50},
        "cpu": {"seeds": 5, "planted_seeds": 20, "needed_hits": 19, "steps": 200},
        "gpu": {"seeds": 10, "planted_seeds": 20, "needed_hits": 19, "steps": 1000},
    },
    cells=_cells,
    run=_run,
    judge=_judge,
)

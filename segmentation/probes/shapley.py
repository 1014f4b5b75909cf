"""What each level of the long skips contributes: exact Shapley values (Shapley 1953) over all subsets of levels.

With v(S) the Dice when only the levels in S keep their skip, the value of level i among n levels is

    phi_i = sum over S without i of |S|! (n - |S| - 1)! / n! * (v(S + i) - v(S)).

The values sum to v(all) - v(none) (efficiency), and a level that changes nothing has 0. v may come from lesions of one
trained network (the skips that a subset lacks are rolled, see :mod:`segmentation.probes.lesion`), as here, or from a
network trained for each subset.
"""

import itertools
import math
from collections.abc import Callable, Collection, Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from segmentation import SkipSegError
from segmentation.figures import Figure
from segmentation.model.unet import UNet
from segmentation.probes.context import NotMeasurableError, ProbeContext, ProbeResult
from segmentation.probes.lesion import (
    How,
    Scores,
    case_dice,
    draw_intervals,
    lesioned_skips,
    patient_interval,
    skip_levels,
    skips_note,
)

Game = Mapping[frozenset[int], ArrayLike]
"""Worth of every subset of players: a number, or one number a case, shape ``(cases,)``."""
NOTE = (
    "Measured by rolling by half their size, in one trained network, the skips that a subset lacks; the values of all "
    "levels sum to the Dice that all skips together bring. Levels that do the same work share its value."
)


def subsets(levels: Collection[int]) -> list[frozenset[int]]:
    """All subsets, small ones first.

    Examples:
        >>> [sorted(subset) for subset in subsets([0, 1])]
        [[], [0], [1], [0, 1]]
    """
    ordered = sorted(levels)
    return [frozenset(c) for size in range(len(ordered) + 1) for c in itertools.combinations(ordered, size)]


def shapley_values(game: Game) -> dict[int, NDArray[np.float64]]:
    """Exact Shapley value of each player.

    Args:
        game: Worth of every subset of the players, also of none; values of one shape ``(*N)``.

    Returns:
        Player to value, of the shape of the worths, players in order.

    Raises:
        SkipSegError: If the worth of a subset is missing.

    Examples:
        Level 0 brings 6 alone, level 1 brings 2 alone, together they bring 10:

        >>> game = {frozenset(): 0.0, frozenset({0}): 6.0, frozenset({1}): 2.0, frozenset({0, 1}): 10.0}
        >>> {level: float(value) for level, value in shapley_values(game).items()}
        {0: 7.0, 1: 3.0}
    """
    players = sorted(frozenset().union(*game))
    missing = [sorted(subset) for subset in subsets(players) if subset not in game]
    if missing:
        raise SkipSegError(f"the worth of {missing[0]} is missing; give that of all {2 ** len(players)} subsets")
    worth = {subset: np.asarray(value, np.float64) for subset, value in game.items()}
    n = len(players)
    values: dict[int, NDArray[np.float64]] = {}
    for player in players:
        total = np.zeros_like(worth[frozenset()])
        for subset in subsets([other for other in players if other != player]):
            weight = math.factorial(len(subset)) * math.factorial(n - len(subset) - 1) / math.factorial(n)
            total = total + weight * (worth[subset | {player}] - worth[subset])
        values[player] = total
    return values


def lesion_game(
    network: UNet,
    score: Callable[[], Scores],
    how: How = "roll",
    means: Mapping[int, Tensor] | None = None,
) -> dict[frozenset[int], Scores]:
    """Score a network with every subset of its long skips, the others being lesioned.

    Args:
        network: Left as it was.
        score: Dice of each case, of the network as it is now.
        how: Replacement of the skips that a subset lacks.
        means: As for :func:`segmentation.probes.lesion.lesioned_skips`, shape ``(1, C, 1, ...)``.
    """
    levels = skip_levels(network)
    game: dict[frozenset[int], Scores] = {}
    for kept in subsets(levels):
        with lesioned_skips(network, sorted(set(levels) - kept), how, means):
            game[kept] = score()
    return game


def probe(context: ProbeContext) -> ProbeResult:
    """Share the Dice that the long skips bring among their levels, case by case.

    Raises:
        NotMeasurableError: If the network has no long skip.
    """
    levels = skip_levels(context.network)
    if not levels:
        raise NotMeasurableError("this network has no long skip to value")
    found = lesion_game(context.network, lambda: case_dice(context, context.network))
    cases = list(found[frozenset(levels)])
    game = {subset: np.array([scores[case] for case in cases]) for subset, scores in found.items()}
    values = shapley_values(game)
    by_case = {f"L{level}": dict(zip(cases, value.tolist(), strict=True)) for level, value in values.items()}
    intervals = {name: patient_interval(context, each) for name, each in by_case.items()}
    table = {
        "".join("1" if level in subset else "0" for level in levels): dict(scores) for subset, scores in found.items()
    }
    figure: Figure = draw_intervals("Shapley value of each level's skip", intervals, "Dice that the skip brings")
    note = NOTE + skips_note(context.network)
    result = {name: vars(intervals[name]) | {"cases": each} for name, each in by_case.items()}
    return ProbeResult({"levels": levels, "shapley": result, "dice_of_subsets": table}, [figure], note)

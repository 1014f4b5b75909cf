import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from segmentation import SkipSegError
from segmentation.config import NetworkSettings
from segmentation.model.unet import UNet
from segmentation.probes.context import NotMeasurableError, ProbeContext
from segmentation.probes.lesion import lesioned_skips
from segmentation.probes.shapley import lesion_game, probe, shapley_values, subsets


def random_game(players: int, shape: tuple[int, ...] = ()) -> dict[frozenset[int], np.ndarray]:
    rng = np.random.default_rng(0)
    return {subset: rng.uniform(size=shape) for subset in subsets(range(players))}


def mean_over_orders(game: dict[frozenset[int], np.ndarray], player: int, players: int) -> np.ndarray:
    """Second implementation: what the player adds, averaged over all orders in which the players may come."""
    gains = []
    for order in itertools.permutations(range(players)):
        before = frozenset(order[: order.index(player)])
        gains.append(game[before | {player}] - game[before])
    return np.mean(gains, axis=0)


def test_hand_example_of_three_gloves():
    # Players 0 and 1 own a left glove, player 2 a right one; a pair is worth 1. The values are 1/6, 1/6, 2/3.
    game = {s: float(2 in s and len(s) > 1) for s in subsets(range(3))}
    assert [float(v) for v in shapley_values(game).values()] == pytest.approx([1 / 6, 1 / 6, 2 / 3])


@pytest.mark.parametrize("players", [1, 2, 4])
def test_values_equal_the_mean_gain_over_all_orders(players: int):
    game = random_game(players)
    for player, value in shapley_values(game).items():
        assert float(value) == pytest.approx(float(mean_over_orders(game, player, players)))


def test_values_sum_to_what_all_bring_in_each_case():
    game = random_game(4, (5,))
    total = sum(shapley_values(game).values())
    np.testing.assert_allclose(total, game[frozenset(range(4))] - game[frozenset()])


def test_a_player_that_changes_nothing_is_worth_nothing_and_equals_share_alike():
    game = {s: float(len(s - {2})) ** 2 for s in subsets(range(3))}
    values = shapley_values(game)
    assert float(values[2]) == pytest.approx(0)
    assert float(values[0]) == pytest.approx(float(values[1])) == pytest.approx(2)


def test_a_missing_subset_is_refused():
    game = random_game(3)
    del game[frozenset({0, 2})]
    with pytest.raises(SkipSegError, match=r"worth of \[0, 2\] is missing; give that of all 8 subsets"):
        shapley_values(game)


def test_game_scores_each_subset_with_the_others_lesioned():
    network = UNet(NetworkSettings(depth=2, width=2), 2, 1, 2).eval()
    images = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    @torch.no_grad()
    def score() -> dict[str, float]:
        return {"a": float(network(images)[0, 0, 0, 0])}

    game = lesion_game(network, score, how="zero")
    with lesioned_skips(network, [1], "zero"):
        assert game[frozenset({0})] == score()
    with lesioned_skips(network, [0, 1], "zero"):
        assert game[frozenset()] == score()
    assert game[frozenset({0, 1})] == score()
    assert len(game) == 4


def test_probe_shares_the_dice_of_all_skips_among_the_levels(context: ProbeContext):
    result = probe(context)
    values = result.values
    assert result.figures[0].x_label == "Dice that the skip brings"
    (case,) = values["dice_of_subsets"]["11"]
    total = sum(values["shapley"][name]["cases"][case] for name in ("L0", "L1"))
    assert math.isclose(
        total, values["dice_of_subsets"]["11"][case] - values["dice_of_subsets"]["00"][case], abs_tol=1e-12
    )


def test_probe_needs_a_long_skip(context: ProbeContext):
    bare = UNet(NetworkSettings(depth=2, width=2, long_skip="none"), 2, 1, 2)
    with pytest.raises(NotMeasurableError, match="no long skip"):
        probe(replace(context, trained=bare))

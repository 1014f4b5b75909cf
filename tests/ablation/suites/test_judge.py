"""The rules of the suites, on made-up findings that meet them, contradict them or leave them open."""

import itertools

import pytest

from segmentation.ablation.study import StudySettings
from segmentation.ablation.suites import (
    s00_scalar_chain,
    s01_vanish,
    s02_frozen,
    s04_long_kinds,
    s05_levels,
    s06_mechanism,
    s16_reference,
    s17_drozdzal,
)
from segmentation.ablation.suites.bench import make_network
from segmentation.plain import from_plain

SPREAD = (0.0, 0.01, -0.01, 0.005, -0.005)
"""Added to the replicates, so that there is an interval."""


def scored(means, **more):
    """Cells of every task and arm with a Dice about ``means[task][arm]``."""
    return [
        ({"of": [task, arm], "seed": seed}, {"dice": mean + SPREAD[seed] * (1 + place), **more})
        for task, arms in means.items()
        for place, (arm, mean) in enumerate(arms.items())
        for seed in range(5)
    ]


def verdict(suite, found, grid=None):
    return suite.SUITE.judge(found, grid or suite.SUITE.grid["cpu"]).verdict


def test_s00_is_exact():
    cells = s00_scalar_chain.SUITE.cells(s00_scalar_chain.SUITE.grid["cpu"])
    found = [(cell, s00_scalar_chain.SUITE.run(cell)) for cell in cells]
    assert verdict(s00_scalar_chain, found) == "pass"
    wrong = [(cell, result | {"autograd": [v * (1 + 1e-5) for v in result["autograd"]]}) for cell, result in found]
    assert verdict(s00_scalar_chain, wrong) == "fail"


def vanishing(slopes):
    """Cells of s01 whose decades fall by ``slopes[activation, init, short]`` a layer, else not at all."""
    found = []
    for cell in s01_vanish.SUITE.cells(s01_vanish.SUITE.grid["cpu"]):
        slope = slopes.get((cell["activation"], cell["init"], cell["short"]), 0.0) + SPREAD[cell["seed"]]
        row = [slope * length for length in cell["lengths"]]
        found.append((cell, {"decades": row, "first": row}))
    return found


def test_s01_rule():
    expected = {("sigmoid", "torch", "none"): -0.87, ("relu", "torch", "none"): -0.4}
    assert verdict(s01_vanish, vanishing(expected)) == "pass"
    assert verdict(s01_vanish, vanishing({})) == "fail"
    assert verdict(s01_vanish, vanishing(expected | {("tanh", "xavier", "none"): -0.5})) == "fail"
    assert verdict(s01_vanish, vanishing(expected | {("sigmoid", "torch", "add"): -0.1})) == "inconclusive"


def frozen(plain_dice, add_dice, step=-18.5, share=1.0):
    means = {"none": plain_dice, "add": add_dice, "dense": add_dice}
    return [
        (
            cell,
            {
                "dice": means[cell["of"][1]] + SPREAD[cell["seed"]],
                "loss": 1.0,
                "frozen": share,
                "step": step + SPREAD[cell["seed"]],
            },
        )
        for cell in s02_frozen.SUITE.cells(s02_frozen.SUITE.grid["cpu"])
    ]


def test_s02_rule():
    assert verdict(s02_frozen, frozen(0.01, 0.9)) == "pass"
    assert verdict(s02_frozen, frozen(0.7, 0.9)) == "fail"
    assert verdict(s02_frozen, frozen(0.01, 0.5)) == "fail"
    assert verdict(s02_frozen, frozen(0.01, 0.9, step=-5.0)) == "fail"
    assert verdict(s02_frozen, frozen(0.01, 0.9, share=0.1)) == "fail"
    assert verdict(s02_frozen, frozen(0.099, 0.9)) == "inconclusive"


def kinds(thin):
    flat = dict.fromkeys(s04_long_kinds.ARMS, 0.8)
    return scored({"blob": flat, "thin": flat | thin, "texture": flat})


def test_s04_rule():
    assert verdict(s04_long_kinds, kinds({"none": 0.5, "none, matched": 0.5})) == "pass"
    assert verdict(s04_long_kinds, kinds({"none": 0.5, "none, matched": 0.85})) == "fail"
    assert verdict(s04_long_kinds, kinds({"none": 0.75, "none, matched": 0.5})) == "fail"
    assert verdict(s04_long_kinds, kinds({"none": 0.6, "none, matched": 0.5})) == "inconclusive"


def test_s04_matches_parameters_within_a_percent():
    network = s04_long_kinds.resolve(s04_long_kinds.ARMS["none, matched"])
    parameters = [
        sum(p.numel() for p in make_network(0, **settings).parameters())
        for settings in (network, s04_long_kinds.ARMS["concat"])
    ]
    assert abs(parameters[0] / parameters[1] - 1) <= 0.01


def levels(worth, hits):
    """Cells of s05: every level adds ``worth[level]``, and analyses name the planted level in ``hits`` of 20 seeds."""
    found = []
    for cell in s05_levels.SUITE.cells(s05_levels.SUITE.grid["cpu"]):
        if "planted" in cell:
            named = cell["planted"] if cell["seed"] < hits else 2
            result = {analysis: [0.1 + (i == named) for i in range(3)] for analysis in s05_levels.ANALYSES}
        else:
            result = {
                "dice": 0.4 + sum(worth[i] for i in range(3) if f"L{i}" in cell["of"][1]) * (1 + SPREAD[cell["seed"]])
            }
        found.append((cell, result))
    return found


def test_s05_rule():
    assert verdict(s05_levels, levels((0.3, 0.1, 0.0), 19)) == "pass"
    assert verdict(s05_levels, levels((0.3, 0.1, 0.0), 18)) == "fail"
    assert verdict(s05_levels, levels((0.1, 0.3, 0.0), 20)) == "fail"


def test_s05_finds_the_level_that_was_planted():
    cell = {"task": {**s05_levels.PLANTED[0], "size": 32, "test": 16}, "planted": 0, "seed": 0, "steps": 60}
    found = s05_levels.SUITE.run(cell)
    assert max(range(3), key=found["skip lesion"].__getitem__) == 0
    assert max(range(3), key=found["Shapley value"].__getitem__) == 0


def mechanism(batch):
    flat = dict.fromkeys(s06_mechanism.ARMS, 0.8)
    return scored({"batch norm": flat | batch, "no norm": flat, "batch norm, concat": flat})


def test_s06_rule():
    arms = {"zeros": 0.5, "gradient only": 0.55, "information only": 0.8, "both": 0.9}
    assert verdict(s06_mechanism, mechanism(arms)) == "pass"
    assert verdict(s06_mechanism, mechanism(arms | {"gradient only": 0.85})) == "fail"
    assert verdict(s06_mechanism, mechanism(arms | {"both": 0.7})) == "fail"


def runs(dice_of, conditions, seeds=3):
    return [
        (
            {"condition": name, "fold": 0, "seed": seed},
            {"dice": {f"p{i}": dice_of(name) + 0.01 * i + SPREAD[seed] for i in range(12)}},
        )
        for name, seed in itertools.product(conditions, range(seeds))
    ]


@pytest.mark.parametrize(("concat", "expected"), [(0.80, "pass"), (0.79, "pass"), (0.70, "fail")])
def test_s16_rule(concat, expected):
    found = runs(lambda name: concat if name == "concat" else 0.8, s16_reference.ARMS)
    assert verdict(s16_reference, found, {"seeds": 3, "base": {}}) == expected


def test_s16_counts_the_luck_of_the_seeds():
    grid = {"seeds": 3, "base": {}}
    found = runs(lambda name: 0.8, s16_reference.ARMS)
    for shifts, expected in (((-0.1, -0.02, 0.0), "inconclusive"), ((-0.01, 0.0, 0.01), "pass")):
        moved = [
            (cell, {"dice": {p: v + shifts[cell["seed"]] * (cell["condition"] == "concat") for p, v in dice.items()}})
            for cell, dice in ((cell, result["dice"]) for cell, result in found)
        ]
        assert verdict(s16_reference, moved, grid) == expected


def test_s16_compares_the_patients_that_both_arms_have_a_score_of():
    found = runs(lambda name: 0.8, s16_reference.ARMS)
    for cell, result in found:
        result["dice"] |= {"healthy": 0.0} if cell["condition"] == "none" else {}
    findings = s16_reference.SUITE.judge(found, {"seeds": 3, "base": {}})
    assert [row[5] for row in findings.tables[0].rows] == [12] * 4


@pytest.mark.parametrize(("both", "expected"), [(0.9, "pass"), (0.75, "fail")])
def test_s17_rule(both, expected):
    conditions = s17_drozdzal.SUITE.study(s17_drozdzal.SUITE.grid["gpu"])["conditions"]
    found = runs(lambda name: both if name.startswith("long and short") else 0.8, conditions, seeds=5)
    assert verdict(s17_drozdzal, found, s17_drozdzal.SUITE.grid["gpu"]) == expected


@pytest.mark.parametrize("suite", [s16_reference, s17_drozdzal])
def test_study_of_a_suite_is_a_study(suite):
    content = suite.SUITE.study(suite.SUITE.grid["gpu"])
    study = from_plain(StudySettings, content | {"dataset": "data"})
    assert len(study.all_conditions()) == len(content["conditions"])

from typing import Any

import numpy as np
import pytest

from segmentation.ablation.suites.s15_aa_null import RULES, SUITE, split_many_times


def scores(networks: int, seed: int, network_sd: float = 0.01, cases: int = 24) -> Any:
    """Dice of cases under networks: a case has its own level, a network its own luck."""
    rng = np.random.default_rng(seed)
    case, network = rng.normal(0.8, 0.05, (cases, 1)), rng.normal(0, network_sd, (1, networks))
    return case + network + rng.normal(0, 0.01, (cases, networks))


def made_up(rejected: list[int], splits: int = 20) -> tuple[list[Any], dict[str, Any]]:
    """Pools with so many rejections each."""
    grid = {**SUITE.grid["cpu"], "pools": len(rejected)}
    found: list[Any] = []
    for cell, count in zip(SUITE.cells(grid), rejected, strict=True):
        result: dict[str, Any] = {rule: [i < count for i in range(splits)] for rule in RULES}
        found.append((cell, result | {"differences": [0.0] * splits, "equivalent": 0.5, "dice": 0.9}))
    return found, grid


@pytest.mark.parametrize(
    ("rejected", "verdict"), [([0, 1, 2, 1] * 5, "pass"), ([0, 6, 0, 6] * 5, "inconclusive"), ([6, 8] * 10, "fail")]
)
def test_verdict_follows_the_rate_over_pools(rejected: list[int], verdict: str):
    findings = SUITE.judge(*made_up(rejected))
    assert findings.verdict == verdict
    assert findings.readouts[0].value == pytest.approx(np.mean(rejected) / 20)


def test_binomial_interval_counts_one_split_a_pool():
    found = SUITE.judge(*made_up([1] + [0] * 19)).readouts[2]
    assert "(1 of 20" in found.name
    assert (found.low, found.value, found.high) == pytest.approx((0.00127, 0.05, 0.24873), abs=1e-5)
    assert not found.decides


def test_each_pool_has_its_row():
    (table,) = SUITE.judge(*made_up([2, 5])).tables
    assert [row[4] for row in table.rows] == [0.1, 0.25]


def test_controls_decide_nothing():
    found, grid = made_up([0] * 20)
    for _, result in found:
        result |= {"sign flip": [True] * 20, "one seed": [True] * 5}
    findings = SUITE.judge(found, grid)
    assert findings.verdict == "pass"
    assert [each.met for each in findings.readouts if not each.decides][1:] == [True, True]


@pytest.mark.parametrize(
    ("rejected", "words"),
    [([0, 1] * 10, "fewer differences"), ([0, 2] * 10, "agrees with"), ([3, 4] * 10, "more differences")],
)
def test_reading_compares_with_the_nominal_rate(rejected: list[int], words: str):
    assert words in SUITE.judge(*made_up(rejected)).reading[-1]


def test_networks_of_equal_luck_are_seldom_called_different_and_unequal_halves_always():
    table = scores(networks=6, seed=1)
    assert np.mean(split_many_times(table, splits=10, seed=0)["verdict"]) <= 0.2
    table[:, :3] += 0.2
    found = split_many_times(table, splits=10, seed=0)
    assert found["verdict"][0]  # the first split parts the better networks from the others
    assert found["differences"][0] == pytest.approx(table[:, :3].mean() - table[:, 3:].mean())


def test_splits_are_all_different_and_at_most_as_many_as_there_are():
    found = split_many_times(scores(networks=6, seed=2), splits=100, seed=0)
    assert len(found["verdict"]) == 10  # ways to part six networks into halves
    assert len(set(np.round(found["differences"], 12))) == 10


def test_patients_alone_see_differences_of_networks():
    found = [split_many_times(scores(4, seed, network_sd=0.03), splits=3, seed=0) for seed in range(5)]
    assert np.mean([each["sign flip"] for each in found]) > 0.5
    assert np.mean([each["one seed"] for each in found]) > 0.5
    assert np.mean([each["verdict"] for each in found]) < 0.3


def test_pools_share_no_seed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        "segmentation.ablation.suites.s15_aa_null.BLOB", {"task": "blob", "train": 8, "test": 8, "size": 16}
    )
    seeds: list[int] = []
    monkeypatch.setattr("segmentation.ablation.suites.s15_aa_null.fit", lambda *arguments: seeds.append(arguments[-1]))
    for cell in SUITE.cells({"pools": 2, "networks": 4, "splits": 2, "steps": 1}):
        found = SUITE.run(cell)
        assert len(found["verdict"]) == 2
        assert 0 <= found["dice"] <= 1
    assert seeds == list(range(8))

from typing import Any

import pytest
import torch

from segmentation.ablation.suites.s10_shatter import LAG, LAGS, POINTS, SHORTS, SUITE, Perceptron


def made_up(gain: float, spread: float = 0.2) -> tuple[list[Any], dict[str, Any]]:
    """Cells of the cpu grid, in which add has a correlation ``gain`` above that of the plain network."""
    grid = dict(SUITE.grid["cpu"])
    found: list[Any] = []
    for cell in SUITE.cells(grid):
        add = cell["of"][1] != "plain"
        lag = 0.2 + add * (gain + spread * (cell["seed"] % 5 - 2) / 4)
        result = {"lag": lag, "autocorrelation": [lag] * (LAGS + 1)}
        found.append((cell, result | ({"gradient": [0.0] * POINTS} if cell["seed"] == 0 else {})))
    return found, grid


@pytest.mark.parametrize(("gain", "verdict"), [(0.2, "pass"), (0.0, "inconclusive"), (-0.2, "fail")])
def test_verdict_follows_the_gain_in_deep_networks(gain: float, verdict: str):
    findings = SUITE.judge(*made_up(gain))
    assert findings.verdict == verdict
    assert [each.name[:9] for each in findings.readouts if each.decides] == ["24 layers", "50 layers"]


def test_shallow_networks_do_not_decide():
    found, grid = made_up(0.2)
    for cell, result in found:
        if cell["length"] < 24 and cell["of"][1] == "add":
            result["lag"] = -0.5
    assert SUITE.judge(found, grid).verdict == "pass"


def test_perceptron_follows_its_recursion():
    network = Perceptron(2, shortcut=1.0, branch=0.5, seed=3, width=2)
    h = [0.7 * w + b for w, b in zip(network.first.tolist(), network.offset.tolist(), strict=True)]
    for weight in network.layers:
        (a, b), (c, d) = weight.tolist()
        left, right = (max(each, 0.0) for each in h)
        h = [h[0] + 0.5 * (left * a + right * c), h[1] + 0.5 * (left * b + right * d)]
    by_hand = sum(w * max(each, 0.0) for w, each in zip(network.last.tolist(), h, strict=True))
    assert network(torch.tensor([[0.7]])).item() == pytest.approx(by_hand, rel=1e-5)


def test_weights_are_those_of_he_and_the_same_for_every_arm():
    networks = [Perceptron(2, shortcut, branch, seed=1) for shortcut, branch in SHORTS.values()]
    assert all(torch.equal(networks[0].layers[1], other.layers[1]) for other in networks[1:])
    assert networks[0].layers[0].std().item() == pytest.approx((2 / 200) ** 0.5, rel=0.02)


def test_a_small_branch_keeps_the_gradient_coherent():
    cells = [cell for cell in SUITE.cells({"seeds": 1, "lengths": [24]}) if cell["of"][1] == "add, branch x 0.1"]
    found = SUITE.run(cells[0])
    assert found["lag"] == found["autocorrelation"][LAG] > 0.3
    assert len(found["gradient"]) == POINTS

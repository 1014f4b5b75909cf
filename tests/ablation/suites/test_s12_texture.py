from typing import Any

import pytest
import torch

from segmentation.ablation.suites.s12_texture import ARMS, SUITE, pictures_at


def made_up(easy_gain: float, hard_gain: float = 0.1) -> tuple[list[Any], dict[str, Any]]:
    """Cells of the cpu grid with what they might have found; a Dice depends on the alphas of both trainings."""
    grid = dict(SUITE.grid["cpu"])
    found: list[Any] = []
    for cell in SUITE.cells(grid):
        skip = 0.0 if cell["arm"] == "none" else 1.0
        gains = [easy_gain + (hard_gain - easy_gain) * (alpha - 0.1) / 0.8 for alpha in grid["alphas"]]
        jitter = 0.002 * (cell["seed"] - 3.5)
        off = [0.1 * abs(alpha - cell["alpha"]) for alpha in grid["alphas"]]
        dice = [0.8 + skip * (g + jitter) - o for g, o in zip(gains, off, strict=True)]
        found.append((cell, {"dice": dice, "texture_kl": 1 - cell["alpha"], "ceiling": 0.79}))
    return found, grid


@pytest.mark.parametrize(("easy_gain", "verdict"), [(0.0, "pass"), (0.02, "inconclusive"), (0.08, "fail")])
def test_verdict_rests_on_equivalence_at_the_easy_end(easy_gain: float, verdict: str):
    assert SUITE.judge(*made_up(easy_gain)).verdict == verdict


def test_the_hard_end_decides_nothing():
    for hard_gain in (-0.2, 0.0, 0.2):
        findings = SUITE.judge(*made_up(0.0, hard_gain))
        assert findings.verdict == "pass"
        by_name = {each.name: each for each in findings.readouts}
        assert by_name["alpha 0.9: Dice, concat minus none"].value == pytest.approx(hard_gain, abs=1e-6)


def test_none_is_compared_with_the_ceiling_of_its_bottleneck():
    found = SUITE.judge(*made_up(0.0)).readouts[-1]
    assert found.value == pytest.approx(0.01)
    assert not found.decides


def test_cross_is_by_training_and_testing():
    found, grid = made_up(0.0, 0.08)
    for cell, result in found:
        if cell["arm"] == "concat" and cell["alpha"] == 0.5:
            result["dice"][3] += 0.3
    heatmap = next(figure for figure in SUITE.judge(found, grid).figures if figure.kind == "heatmap")
    assert heatmap.rows[1] == "alpha 0.5"
    assert heatmap.values[1] == pytest.approx([0.0, 0.04, 0.07, 0.38], abs=1e-6)
    assert heatmap.values[3] == pytest.approx([0.0, 0.04, 0.07, 0.08], abs=1e-6)


def test_pictures_of_one_seed_differ_in_their_texture_alone():
    easy, hard = pictures_at(0.1, seed=3), pictures_at(0.9, seed=3)
    assert torch.equal(easy.test_labels, hard.test_labels)
    inside = hard.test_labels == 1
    difference = (easy.test_images - hard.test_images)[:, 0].abs()
    assert difference[inside].mean() > 10 * difference[~inside].mean()


def test_cell_is_tested_at_every_alpha(monkeypatch: pytest.MonkeyPatch):
    small = {"task": "texture", "noise": 0.0, "train": 8, "test": 16, "size": 32}
    monkeypatch.setattr("segmentation.ablation.suites.s12_texture.TEXTURE", small)
    cells = SUITE.cells({"alphas": [0.1, 0.9], "seeds": 1, "steps": 1})
    assert [cell["arm"] for cell in cells] == [*ARMS, *ARMS]
    found = SUITE.run(cells[2])
    assert len(found["dice"]) == 2
    assert all(0 <= value <= 1 for value in found["dice"])
    assert 0.5 < found["ceiling"] < 1
    assert found["texture_kl"] > 3 * SUITE.run(cells[5])["texture_kl"] > 0

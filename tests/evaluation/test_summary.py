import math

import pytest

from segmentation.evaluation.summary import case_dice, rounded, summarise
from segmentation.metrics import POLICY
from segmentation.statistics import mean_ci

SCORES = ("dice", "iou", "nsd", "hd95_mm", "assd_mm")
STATE = {None: "both_empty", 0.0: "missed"}


def row(case, patient, dice, name="tumour", state=None, lesions=(1, 1, 1, 0)):
    counts = dict(zip(("reference", "detected", "prediction", "false"), lesions, strict=True))
    return {
        "case": case,
        "patient": patient,
        "class": name,
        "state": state or STATE.get(dice, "both"),
        **dict.fromkeys(SCORES, math.nan if dice is None else dice),
        **{f"lesions_{key}": count for key, count in counts.items()},
    }


def dice_of(rows, convention="policy", name="tumour"):
    return summarise(rows, 1.0, "mm")["classes"][name]["scores"]["dice"][convention]


def test_patients_weigh_the_same():
    rows = [row("a", "p1", 0.4), row("b", "p1", 0.6), row("c", "p2", 0.52)]
    found, expected = dice_of(rows), mean_ci([0.5, 0.52])
    assert found["n"] == 2
    assert [found[key] for key in ("estimate", "low", "high")] == pytest.approx(
        [expected.estimate, expected.low, expected.high], abs=1e-6
    )


def test_an_interval_holds_what_a_score_can_be():
    found = dice_of([row("a", "p1", 0.2), row("b", "p2", 0.9)])
    assert (found["low"], found["high"]) == (0.0, 1.0)
    assert found["method"].endswith("Student's t, cut to what is possible")
    scores = summarise([row("a", "p1", 2.0), row("b", "p2", 9.0)], 1.0, "mm")["classes"]["tumour"]["scores"]
    found = scores["hd95_mm"]["policy"]
    assert found["low"] == 0.0
    assert found["high"] == pytest.approx(mean_ci([2.0, 9.0]).high, abs=1e-6)


def test_conventions_for_empty_masks():
    rows = [row("a", "a", 0.6), row("b", "b", None), row("c", "c", 0.0), row("d", "d", 0.0, state="false_alarm")]
    assert dice_of(rows)["estimate"] == 0.2
    assert dice_of(rows)["n"] == 3
    assert dice_of(rows, "both_empty_perfect")["estimate"] == 0.4
    assert dice_of(rows, "both_empty_perfect")["n"] == 4
    assert dice_of(rows, "empty_reference_dropped")["estimate"] == 0.3
    assert dice_of(rows, "empty_reference_dropped")["n"] == 2


def test_a_perfect_distance_is_zero():
    scores = summarise([row("a", "a", None)], 1.0, "mm")["classes"]["tumour"]["scores"]
    assert {name: each["both_empty_perfect"]["estimate"] for name, each in scores.items()} == {
        "dice": 1,
        "iou": 1,
        "nsd": 1,
        "hd95_mm": 0,
        "assd_mm": 0,
    }


def test_a_class_without_any_score():
    found = dice_of([row("a", "a", None), row("b", "b", None)])
    assert (found["estimate"], found["low"], found["high"], found["n"]) == (None, None, None, 0)


def test_counts_and_states():
    rows = [row("a", "p", 0.5, lesions=(3, 2, 4, 1)), row("b", "p", 0.0, lesions=(2, 0, 0, 0)), row("c", "q", None)]
    rows[2] |= dict.fromkeys(("lesions_reference", "lesions_detected", "lesions_prediction", "lesions_false"), 0)
    summary = summarise(rows, 1.5, "px")
    tumour = summary["classes"]["tumour"]
    assert (tumour["cases"], tumour["patients"]) == (summary["cases"], summary["patients"]) == (3, 2)
    assert tumour["states"] == {"both": 1, "missed": 1, "false_alarm": 0, "both_empty": 1}
    assert tumour["lesions"] == {
        "reference": 5,
        "detected": 2,
        "prediction": 4,
        "false": 1,
        "missed": 3,
        "f1": 0.5,
    }
    assert (summary["policy"], summary["tolerance_mm"], summary["unit"]) == (POLICY, 1.5, "px")


def test_all_is_the_mean_over_classes_of_a_case():
    rows = [row("a", "a", 0.2), row("a", "a", 0.6, "organ"), row("b", "b", None), row("b", "b", 0.8, "organ")]
    assert summarise(rows, 1.0, "mm")["all"]["dice"]["policy"]["estimate"] == 0.6


def test_case_dice():
    assert case_dice([row("a", "a", 0.2), row("a", "a", None), row("a", "a", 0.6)]) == pytest.approx(0.4)
    assert case_dice([row("a", "a", None)]) is None


def test_rounded():
    assert rounded({"a": (1 / 3, math.nan, "text", 4, None, True)}) == {"a": [0.333333, None, "text", 4, None, True]}

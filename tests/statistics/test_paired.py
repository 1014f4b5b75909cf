import numpy as np
import pytest

from segmentation import SkipSegError
from segmentation.statistics import mean_ci, paired_difference, sign_flip_p


def compare(differences, **settings):
    b = {f"p{i:03}": 0.5 for i in range(len(differences))}
    a = {patient: 0.5 + d for (patient, d) in zip(b, differences, strict=True)}
    return paired_difference(a, b, **settings)


def draws(mean, sd, n, seed=0):
    values = np.random.default_rng(seed).normal(size=n)
    return mean + sd * (values - values.mean()) / values.std(ddof=1)


def test_numbers_are_those_of_the_parts():
    a = {"p2": 0.7, "p1": 0.9, "p3": 0.6, "p4": 0.8}
    b = {"p1": 0.5, "p3": 0.55, "p2": 0.6, "p4": 0.7}
    result, differences = paired_difference(a, b), [0.4, 0.1, 0.05, 0.1]
    expected = mean_ci(differences)
    assert (result.mean, result.low, result.high) == pytest.approx((expected.estimate, expected.low, expected.high))
    assert (result.p_value, result.smallest_p, result.n) == (sign_flip_p(differences), 0.125, 4)
    assert result.method == "95 % interval, Student's t; exact sign-flip test"


@pytest.mark.parametrize(
    ("mean", "sd", "n", "verdict", "words"),
    [
        (0.05, 0.04, 30, "different", "different (p = 5e-05, 30 patients)."),
        (0.008, 0.006, 30, "different", "yet within 0.02, too small to matter in practice."),
        (
            0.001,
            0.02,
            40,
            "equivalent",
            "equivalent, for 40 patients rule out a difference of 0.02 or more either way.",
        ),
        (0.01, 0.08, 20, "inconclusive", "they would likely show one of 0.053 or more."),
        (0.2, 0.01, 4, "inconclusive", "with 4 patients p is 0.125 at best, whatever the difference; at least 6"),
    ],
)
def test_verdicts_and_their_words(mean, sd, n, verdict, words):
    result = compare(draws(mean, sd, n))
    assert result.verdict == verdict
    assert words in result.sentence
    assert result.sentence.startswith(f"Mean difference {mean:+.3g} (95 % interval ")
    assert "\n" not in result.sentence


def test_one_patient():
    result = compare([0.1])
    assert (result.low, result.high, result.p_value, result.verdict) == (None, None, 1.0, "inconclusive")
    assert result.sentence.startswith("Mean difference +0.1: inconclusive: with 1 patient p is 1 at best")


def test_identical_conditions():
    result = compare([0.0] * 12)
    assert (result.mean, result.p_value, result.verdict) == (0, 1, "equivalent")


def test_swapping_conditions_changes_signs_only():
    differences = draws(0.02, 0.05, 15)
    one, other = compare(differences), compare(-differences)
    assert (one.mean, one.low, one.high) == pytest.approx((-other.mean, -other.high, -other.low))
    assert (one.p_value, one.verdict) == (other.p_value, other.verdict)


def test_smaller_alpha_asks_for_more_patients():
    assert compare([0.1, 0.2, 0.15, 0.12, 0.11, 0.13]).verdict == "different"
    result = compare([0.1, 0.2, 0.15, 0.12, 0.11, 0.13], alpha=0.01)
    assert result.verdict == "inconclusive"
    assert "at least 8 are needed" in result.sentence
    assert "(99 % interval" in result.sentence


def test_the_same_condition_twice_is_rarely_called_different():
    rng = np.random.default_rng(5)
    verdicts = [compare(rng.normal(0, 0.05, 10)).verdict for _ in range(600)]
    assert verdicts.count("different") / 600 < 0.05 + 2.5 * np.sqrt(0.05 * 0.95 / 600)


@pytest.mark.parametrize(
    ("a", "b", "settings", "message"),
    [
        (
            {"p1": 0.5, "p2": 0.4},
            {"p1": 0.5, "p3": 0.1},
            {},
            "same patients, got 2 with one score only, such as p2, p3",
        ),
        ({}, {}, {}, "at least one value"),
        ({"p1": float("nan")}, {"p1": 0.5}, {}, "not finite"),
        ({"p1": 0.5}, {"p1": 0.5}, {"alpha": 0.7}, "alpha must lie"),
        ({"p1": 0.5}, {"p1": 0.5}, {"margin": -0.1}, "margin must be positive"),
    ],
)
def test_bad_input_is_refused(a, b, settings, message):
    with pytest.raises(SkipSegError, match=message):
        paired_difference(a, b, **settings)

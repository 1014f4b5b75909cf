import numpy as np
import pytest

from segmentation import SkipSegError
from segmentation.statistics import aligned, crossed, hierarchical_p, mean_ci, paired_difference, sign_flip_p


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
    assert (
        result.method == "95 % interval, Student's t; one seed, so the share of seeds is unknown; exact sign-flip test"
    )


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
        (0.01, 0.08, 20, "inconclusive", "they would probably show a true one of 0.053 or more."),
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


def replicated(table):
    """Scores whose differences are a table of patients by seeds."""
    a = {f"p{i:03}": {s: 0.5 + float(v) for s, v in enumerate(row)} for i, row in enumerate(table)}
    return a, {patient: dict.fromkeys(by_seed, 0.5) for patient, by_seed in a.items()}


def test_seeds_that_disagree_take_a_difference_back():
    shifts = np.array([0.12, -0.02, 0.05])
    table = draws(0.0, 0.02, 30)[:, np.newaxis] + shifts
    given, open_ = compare(table.mean(axis=1)), paired_difference(*replicated(table))
    assert given.verdict == "different"
    assert (open_.verdict, open_.seeds, open_.n) == ("inconclusive", 3, 30)
    assert open_.mean == pytest.approx(given.mean)
    assert open_.low < 0 < given.low
    assert open_.sign_flip_p == given.p_value < 0.001 < open_.p_value
    assert open_.p_value == hierarchical_p(crossed(table))
    assert "30 patients and 3 seeds can neither show this difference" in open_.sentence


def test_seeds_that_agree_change_little():
    table = draws(0.05, 0.04, 30)[:, np.newaxis] + np.array([0.001, -0.001, 0.0, 0.002, -0.002])
    given, open_ = compare(table.mean(axis=1)), paired_difference(*replicated(table))
    assert open_.verdict == given.verdict == "different"
    assert (open_.low, open_.high) == pytest.approx((given.low, given.high), abs=0.004)


def test_conditions_without_a_common_seed_are_compared_with_seeds_of_their_own():
    a = {"p1": {0: 0.5, 1: 0.7}, "p2": {0: 0.4, 1: 0.6}}
    b = {"p1": {2: 0.2, 3: 0.4, 4: 0.3}, "p2": {2: 0.1, 3: 0.3, 4: 0.2}}
    tables = aligned(a, b)
    assert not tables.paired_seeds
    assert tables.seeds == 2
    parts = tables.difference()
    assert parts.patients == pytest.approx([0.3, 0.3])
    assert [shifts.tolist() for shifts in parts.seeds] == [pytest.approx([-0.1, 0.1]), pytest.approx([0.1, -0.1, 0.0])]
    assert parts.variances == pytest.approx([0, 0.02 / 2, 0.01 / 3])


def test_only_seeds_that_both_conditions_have_are_paired():
    tables = aligned({"p1": {0: 0.5, 1: 0.7}, "p2": {1: 0.6}}, {"p1": {0: 0.1, 1: 0.2}, "p2": {1: 0.3, 2: 0.9}})
    assert tables.paired_seeds
    assert np.array_equal(tables.a - tables.b, [[0.4, 0.7 - 0.2], [np.nan, 0.3]], equal_nan=True)


def test_equivalence_may_be_judged_more_strictly():
    values = draws(0.001, 0.04, 20)
    assert compare(values).verdict == "equivalent"
    assert compare(values, equivalence_alpha=0.01).verdict == "inconclusive"


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
        ({}, {}, {}, "at least one value a patient"),
        (
            {"p1": {0: 0.5, 1: 0.4}},
            {"p1": {0: float("inf"), 1: 0.4}},
            {},
            "scores of 1 patients are not finite, such as of p1",
        ),
        ({"p1": float("nan")}, {"p1": 0.5}, {}, "not finite"),
        ({"p1": 0.5}, {"p1": 0.5}, {"alpha": 0.7}, "alpha must lie"),
        ({"p1": 0.5}, {"p1": 0.5}, {"margin": -0.1}, "margin must be positive"),
    ],
)
def test_bad_input_is_refused(a, b, settings, message):
    with pytest.raises(SkipSegError, match=message):
        paired_difference(a, b, **settings)

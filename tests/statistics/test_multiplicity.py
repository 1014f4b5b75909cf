import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from segmentation import SkipSegError
from segmentation.statistics import holm


def test_agrees_with_statsmodels():
    rng = np.random.default_rng(0)
    for size in (1, 2, 3, 5, 8):
        values = rng.choice([0.0, 0.001, 0.01, 0.0125, 0.02, 0.03, 0.2, 1.0], size).tolist()
        _, adjusted, _, _ = multipletests(values, 0.05, method="holm")
        assert [each.p_value for each in holm(values)] == pytest.approx(adjusted.tolist())


@given(st.lists(st.floats(0, 1), min_size=1, max_size=7))
def test_level_and_adjusted_p_give_the_same_judgement(values):
    for value, each in zip(values, holm(values), strict=True):
        if abs(each.p_value - 0.05) > 1e-9:
            assert (value <= each.level) == (each.p_value <= 0.05)


def test_levels_by_hand():
    levels = [judged.level for judged in holm([0.001, 0.04, 0.03, 0.02], alpha=0.06)]
    assert levels == pytest.approx([0.06 / 4, 0.06 / 1, 0.06 / 2, 0.06 / 3])
    assert [judged.level for judged in holm([0.03, 0.04])] == pytest.approx([0.025, 0.025])  # the first fails


def test_one_contrast_is_judged_as_it_is():
    (judged,) = holm([0.03])
    assert (judged.p_value, judged.level) == (0.03, 0.05)
    assert holm([]) == []


@pytest.mark.parametrize(("values", "alpha"), [([1.2], 0.05), ([-0.1], 0.05), ([float("nan")], 0.05), ([0.1], 0.0)])
def test_bad_input_is_refused(values, alpha):
    with pytest.raises(SkipSegError, match=r"p-values must lie in \[0, 1\]"):
        holm(values, alpha)

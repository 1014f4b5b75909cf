import numpy as np
import pytest
from scipy import stats

from segmentation import SkipSegError
from segmentation.statistics import corrected_resampled_t


def test_by_hand():
    found = corrected_resampled_t([0.02, 0.03, 0.01, 0.04, 0.02], test_share=0.25)
    error = np.sqrt(0.00013 * (1 / 5 + 0.25))
    assert found.p_value == pytest.approx(2 * stats.t.sf(0.024 / error, 4))
    assert (found.low, found.high) == pytest.approx((0.024 - 2.776445 * error, 0.024 + 2.776445 * error))
    assert (found.mean, found.folds) == (pytest.approx(0.024), 5)


def test_without_overlap_it_is_the_plain_t_test():
    values = [0.1, 0.3, -0.2, 0.4]
    plain = stats.ttest_1samp(values, 0)
    assert corrected_resampled_t(values, 1e-12).p_value == pytest.approx(plain.pvalue)


def test_folds_that_all_agree():
    assert corrected_resampled_t([0.0, 0.0], 1.0).p_value == 1.0
    assert corrected_resampled_t([0.5, 0.5], 1.0).p_value == 0.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.1], 0.25), "need two folds or more, .* got 1 folds"),
        (([0.1, 0.2], 0.0), r"a positive test_share .* test_share 0\.0"),
        (([0.1, 0.2], 0.25, 1.0), r"a confidence in \(0, 1\), .* confidence 1\.0"),
        (([0.1, float("nan")], 0.25), "1 of 2 values are not finite"),
    ],
)
def test_bad_input_is_refused(arguments, message):
    with pytest.raises(SkipSegError, match=message):
        corrected_resampled_t(*arguments)

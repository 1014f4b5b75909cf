import pytest

from segmentation.ablation.suites.tost import equivalent, not_worse

SPREAD = (-0.004, 0.0, 0.004)


def around(centre: float, spread: float = 1.0) -> list[float]:
    return [centre + spread * each for each in SPREAD]


@pytest.mark.parametrize(("centre", "met"), [(0.05, True), (0.0, True), (-0.02, None), (-0.05, False)])
def test_not_worse_asks_for_the_lower_end_alone(centre: float, met: bool | None):
    assert not_worse("gain", around(centre), margin=0.02).met is met


@pytest.mark.parametrize(("centre", "met"), [(0.0, True), (0.02, None), (-0.02, None), (0.05, False), (-0.05, False)])
def test_equivalent_asks_for_both_ends(centre: float, met: bool | None):
    assert equivalent("gain", around(centre), margin=0.02).met is met


def test_a_wide_interval_across_the_margin_leaves_equivalence_open():
    assert equivalent("gain", around(0.0, spread=20), margin=0.02).met is None


def test_one_replicate_leaves_both_open():
    for readout in (not_worse("gain", [0.1], margin=0.02), equivalent("gain", [0.0], margin=0.02)):
        assert (readout.low, readout.high, readout.met) == (None, None, None)


def test_interval_is_one_of_90_percent():
    found = not_worse("gain", [0.0, 0.01, 0.02], margin=0.02)
    half = 2.919986 * 0.01 / 3**0.5  # 95th percentile of Student's t with 2 degrees of freedom
    assert (found.low, found.value, found.high) == pytest.approx((0.01 - half, 0.01, 0.01 + half))

import pytest

from segmentation.ablation.suites.suite import Findings, Readout, above, below, exactly, gain, replicates, within


@pytest.mark.parametrize(
    ("values", "met"), [([1.0, 1.1, 0.9], True), ([-1.0, -1.1, -0.9], False), ([1.0, -1.0, 0.1], None)]
)
def test_above_is_met_by_the_whole_interval(values, met):
    assert above("x", "> 0", values, 0.0).met is met
    assert below("x", "< 0", [-v for v in values], 0.0).met is met


def test_a_single_replicate_decides_nothing():
    assert above("x", "> 0", [5.0], 0.0).met is None
    assert within("x", "0", [0.0], -1, 1).met is None


@pytest.mark.parametrize(
    ("values", "met"), [([0.01, 0.02, 0.0], True), ([1.0, 1.01, 0.99], False), ([-0.2, 0.1, 0.15], None)]
)
def test_within(values, met):
    assert within("x", "about 0", values, -0.1, 0.1).met is met


def test_an_interval_that_touches_the_threshold_leaves_it_open():
    assert above("x", "> 0", [0.0, 0.0, 0.0], 0.0).met is None


@pytest.mark.parametrize(
    ("met", "verdict"),
    [
        ([True, True], "pass"),
        ([True, None], "inconclusive"),
        ([None, False], "fail"),
        ([True, False], "fail"),
        ([], "inconclusive"),
    ],
)
def test_verdict(met, verdict):
    assert Findings([Readout(str(i), "", 0.0, met=m) for i, m in enumerate(met)], []).verdict == verdict


def test_context_does_not_decide():
    readouts = [exactly("rule", "", 1.0, True), exactly("context", "", 1.0, False, decides=False)]
    assert Findings(readouts, []).verdict == "pass"


def test_replicates_keep_the_order_of_the_seeds():
    found = [({"of": ["t", arm], "seed": s}, {"dice": s + (arm == "b")}) for s in (2, 0, 1) for arm in "ab"]
    both = replicates(found, "dice")["t"]
    assert both == {"a": [0, 1, 2], "b": [1, 2, 3]}
    assert gain(both["b"], both["a"]) == [1, 1, 1]

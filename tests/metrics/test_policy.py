import pytest

from segmentation.metrics import case_state, worst_distance_mm


@pytest.mark.parametrize(
    ("prediction", "reference", "state"),
    [(3, 2, "both"), (0, 2, "missed"), (3, 0, "false_alarm"), (0, 0, "both_empty")],
)
def test_state(prediction, reference, state):
    assert case_state(prediction, reference) == state


def test_worst_distance_knows_spacing():
    assert worst_distance_mm((10, 20, 5), (1.0, 1.0, 4.0)) == 30.0

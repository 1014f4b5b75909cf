"""The comparison of metrics: pairs as described, values compared before time is."""

import numpy as np
import pytest

from tests.benchmarks import metrics
from tests.benchmarks.rows import Options

SHAPE = (32, 40, 32)


def test_small_pairs_are_scored_by_all(tmp_path):
    rows = metrics.rows(Options("small", 1, tmp_path, tmp_path))
    assert [row.peer_name for row in rows] == ["surface-distance", "MONAI"]
    assert all(row.ours > 0 and row.peer and row.floor for row in rows)


def test_pairs_repeat_and_differ():
    first, again, other = metrics.make_pair(3, SHAPE), metrics.make_pair(3, SHAPE), metrics.make_pair(4, SHAPE)
    np.testing.assert_array_equal(first.prediction, again.prediction)
    assert (first.prediction != other.prediction).any()
    assert (first.prediction != first.reference).any()


def test_some_pairs_miss_all_lesions_and_some_have_none():
    missed, without = metrics.make_pair(9, SHAPE), metrics.make_pair(19, SHAPE)
    assert 2 in missed.reference
    assert 2 not in missed.prediction
    assert 2 not in without.reference
    assert 2 not in without.prediction


@pytest.mark.parametrize("name", ["ours", "by_monai", "by_surface_distance"])
def test_scores_that_differ_end_the_comparison(name, monkeypatch, tmp_path):
    monkeypatch.setattr(metrics, name, lambda pair: [(2.0,) * 4 for _ in metrics.LABELS])
    with pytest.raises(SystemExit, match="pair 0: ours"):
        metrics.rows(Options("small", 1, tmp_path, tmp_path))

"""Distances on a grid, against those of all pairs of points."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.distance import cdist

from segmentation.metrics.nearest import beyond, flat_steps, nearest_mm, padded


@st.composite
def sets(draw: st.DrawFn):
    """Two sets on a grid, and its spacing; the grid is large enough that the ball around a voxel does not cover it."""
    shape = draw(st.sampled_from([(4, 60), (12, 30), (5, 6, 7), (2, 3, 40)]))
    spacing_mm = draw(st.tuples(*(st.sampled_from([0.1, 0.7, 1.0, 2.5, 30.0]) for _ in shape)))
    sparse = st.integers(0, np.prod(shape) - 1)
    chosen = [draw(st.lists(sparse, min_size=1, max_size=12)) for _ in range(2)]
    masks = [np.isin(np.arange(np.prod(shape)), each).reshape(shape) for each in chosen]
    return *masks, spacing_mm


def all_distances(points, targets, spacing_mm):
    return cdist(*(np.argwhere(each) * spacing_mm for each in (points, targets))).min(axis=1)


@given(sets())
def test_distances_are_those_of_all_pairs(given_sets):
    points, targets, spacing_mm = given_sets
    found = nearest_mm(np.flatnonzero(padded(points, spacing_mm)), padded(targets, spacing_mm), spacing_mm)
    np.testing.assert_allclose(np.sort(found), np.sort(all_distances(points, targets, spacing_mm)), rtol=1e-12)


@given(sets(), st.sampled_from([0.0, 0.3, 0.35, 1.0, 2.0, 7.0, 50.0]))
def test_what_lies_beyond_a_limit_is_what_all_pairs_say(given_sets, limit_mm):
    points, targets, spacing_mm = given_sets
    far = all_distances(points, targets, spacing_mm) > limit_mm * (1 + 1e-9)
    inside, others = (padded(each, spacing_mm) for each in (points, targets))
    found = beyond(np.flatnonzero(inside), others, spacing_mm, limit_mm)
    np.testing.assert_array_equal(np.sort(found), np.flatnonzero(inside)[far])


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (0.001, 1.0, 1000.0), (5.0, 0.5, 0.5)])
def test_the_margin_is_wider_than_the_steps(spacing_mm):
    full = np.ones((3, 3, 3), bool)
    first, last = (np.zeros_like(full) for _ in range(2))
    first[0, 0, 0] = last[2, 2, 2] = True
    for targets in (first, last):
        found = nearest_mm(np.flatnonzero(padded(full, spacing_mm)), padded(targets, spacing_mm), spacing_mm)
        np.testing.assert_allclose(np.sort(found), np.sort(all_distances(full, targets, spacing_mm)), rtol=1e-12)


@given(hnp.array_shapes(min_dims=1, max_dims=4))
def test_steps_of_the_flat_array(shape):
    assert flat_steps(shape) == [stride // 8 for stride in np.zeros(shape, np.int64).strides]

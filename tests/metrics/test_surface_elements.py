from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from surface_distance import lookup_tables

from segmentation.metrics import surface_elements
from segmentation.metrics.surface_elements import element_sizes

spacings = st.tuples(*[st.floats(0.1, 5)] * 3)


@given(spacings)
def test_every_pattern_has_the_area_of_the_published_table(spacing_mm):
    published = lookup_tables.create_table_neighbour_code_to_surface_area(spacing_mm)
    weights = lookup_tables.ENCODE_NEIGHBOURHOOD_3D_KERNEL.ravel()  # theirs counts corners from the highest bit
    order = [sum(int(weights[bit]) for bit in range(8) if code >> bit & 1) for code in range(256)]
    np.testing.assert_allclose(element_sizes(spacing_mm), published[order], rtol=1e-6)


@given(spacings)
def test_every_2d_pattern_has_the_length_of_the_published_table(spacing_mm):
    published = lookup_tables.create_table_neighbour_code_to_contour_length(spacing_mm[:2])
    weights = lookup_tables.ENCODE_NEIGHBOURHOOD_2D_KERNEL.ravel()
    order = [sum(int(weights[bit]) for bit in range(4) if code >> bit & 1) for code in range(16)]
    np.testing.assert_allclose(element_sizes(spacing_mm[:2]), published[order], rtol=1e-6)


@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=3, max_side=5)))
def test_a_mask_and_its_complement_share_their_surface(mask):
    inside, outside = np.pad(mask, 2), ~np.pad(mask, 2)
    core = 1.0, 4.0  # away from the border of the array, where the complement is closed
    areas = []
    for each in (inside, outside):
        positions, sizes = surface_elements(each, (1.0,) * mask.ndim)
        far = ((positions >= core[0]) & (positions <= np.array(each.shape) - 1)).all(axis=1)
        areas.append(sizes[far].sum())
    assert areas[0] == pytest.approx(areas[1])


def test_area_of_a_box():
    mask = np.ones((20, 30, 10), bool)
    _, sizes = surface_elements(mask, (1.0, 0.5, 2.0))
    faces = 2 * (20 * 15 + 20 * 20 + 15 * 20)
    assert sizes.sum() == pytest.approx(faces, rel=0.05)  # edges and corners are cut off
    assert sizes.sum() < faces


def test_positions_of_one_voxel_are_its_corners():
    positions, _ = surface_elements(np.ones((1, 1, 1), bool), (1.0, 2.0, 3.0))
    np.testing.assert_array_equal(positions, list(product((0, 1), (0, 2), (0, 3))))


def test_an_empty_mask_has_no_surface():
    positions, sizes = surface_elements(np.zeros((4, 5), bool), (1.0, 1.0))
    assert positions.shape == (0, 2)
    assert sizes.size == 0

"""The box around two masks."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segmentation.metrics.masks import common_box


@given(hnp.array_shapes(min_dims=1, max_dims=4, max_side=5).flatmap(lambda s: hnp.arrays(bool, (2, *s))), st.booleans())
def test_the_box_ends_where_the_masks_end(pair, turned):
    first, second = (mask.T if turned else mask for mask in pair)
    voxels = np.argwhere(first | second)
    ends = zip(voxels.min(axis=0), voxels.max(axis=0), strict=True) if len(voxels) else [(0, -1)] * first.ndim
    assert common_box(first, second) == tuple(slice(low, high + 1) for low, high in ends)


def test_masks_without_voxels_have_an_empty_box():
    empty = np.zeros((0, 3, 2), bool)
    assert common_box(empty, empty) == (slice(0, 0),) * 3

import math

import numpy as np
import pytest
from scipy import stats

from segmentation.probes.complexity import (
    FLOOR,
    Complexity,
    boundary,
    contrast,
    measure,
    probe,
    summarise,
    symmetric_kl,
    texture_kl,
    uniform_patterns,
)
from segmentation.probes.context import ProbeContext

RNG = np.random.default_rng(0)


def brute_force_pattern(image: np.ndarray, row: int, column: int) -> int:
    """Uniform pattern of one pixel, by the definition: bilinear neighbours on a circle, compared one by one."""
    bits = []
    for point in range(8):
        y, x = row - math.sin(2 * math.pi * point / 8), column + math.cos(2 * math.pi * point / 8)
        y, x = (min(max(v, 0.0), size - 1.0) for v, size in ((y, image.shape[0]), (x, image.shape[1])))
        y0, x0 = min(int(y), image.shape[0] - 2), min(int(x), image.shape[1] - 2)
        dy, dx = y - y0, x - x0
        corners = image[y0 : y0 + 2, x0 : x0 + 2]
        value = (corners * np.outer([1 - dy, dy], [1 - dx, dx])).sum()
        bits.append(value >= image[row, column] - 1e-6)
    changes = sum(bits[i] != bits[i - 1] for i in range(8))
    return sum(bits) if changes <= 2 else 9


def test_patterns_equal_brute_force_also_at_the_border():
    image = RNG.uniform(size=(9, 12))
    expected = [[brute_force_pattern(image, row, column) for column in range(12)] for row in range(9)]
    np.testing.assert_array_equal(uniform_patterns(image), expected)
    assert set(np.ravel(expected)) >= {0, 8, 9}


def test_flat_areas_have_the_pattern_of_all_ones():
    assert (uniform_patterns(np.full((6, 6), 0.3, np.float32)) == 8).all()


def test_a_straight_edge_is_uniform():
    image = np.zeros((9, 9))
    image[:, 5:] = 1.0
    # Bright side: the five points to the right, above and below are as bright, three are darker.
    assert (uniform_patterns(image)[2:7, 5] == 5).all()


def test_patterns_ignore_brightness_and_contrast():
    image = RNG.uniform(size=(8, 8))
    np.testing.assert_array_equal(uniform_patterns(0.5 * image + 0.1), uniform_patterns(image))


def test_divergence_equals_scipys():
    p, q = RNG.dirichlet(np.ones(10)), RNG.dirichlet(np.ones(10))
    raised = p + FLOOR, q + FLOOR  # scipy makes them sum to 1
    expected = (stats.entropy(*raised) + stats.entropy(*raised[::-1])) / 2
    assert symmetric_kl(p, q) == pytest.approx(expected)
    assert symmetric_kl(p, 7 * p) == pytest.approx(0, abs=1e-12)


def test_empty_bins_are_smoothed():
    assert symmetric_kl(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == pytest.approx(
        math.log((1 + FLOOR) / FLOOR) / (1 + 2 * FLOOR)
    )


def test_texture_tells_stripes_from_noise_and_not_noise_from_noise():
    image = RNG.uniform(size=(64, 64))
    mask = np.zeros((64, 64), bool)
    mask[:, 32:] = True
    counted = np.ones_like(mask)
    alike = texture_kl(image, mask, counted)
    image[:, 32:] = np.indices((64, 32))[1] % 2
    assert alike < 0.05
    assert texture_kl(image, mask, counted) > 1


def test_a_volume_is_read_slice_by_slice():
    image, mask = RNG.uniform(size=(1, 16, 16)), RNG.uniform(size=(1, 16, 16)) > 0.5
    counted = np.ones_like(mask)
    assert texture_kl(image, mask, counted) == texture_kl(image[0], mask[0], counted[0])


def test_what_is_absent_or_everywhere_has_no_contrast():
    image, empty = RNG.uniform(size=(8, 8)), np.zeros((8, 8), bool)
    for mask in (empty, ~empty):
        assert math.isnan(contrast(image, mask, ~empty))
        assert math.isnan(texture_kl(image, mask, ~empty))
    assert math.isnan(contrast(np.ones((8, 8)), np.eye(8, dtype=bool), ~empty))
    assert all(map(math.isnan, boundary(empty, (1.0, 1.0))))


def test_ignored_voxels_count_for_neither_side():
    labels = np.zeros((16, 16), int)
    labels[4:8, 4:8], labels[12:] = 1, 2
    image = RNG.uniform(size=(16, 16))
    image[12:] = 100.0
    found = measure(image, labels, 1, (1.0, 1.0), ignore=2)
    inside, outside = image[labels == 1], image[labels == 0]
    assert found.contrast == pytest.approx(abs(inside.mean() - outside.mean()) / np.hypot(inside.std(), outside.std()))


def test_disc_has_half_its_diameter_as_thickness():
    rows, columns = np.indices((201, 201)) - 100
    per_area, thickness = boundary(np.hypot(rows, columns) <= 80, (0.25, 0.25))
    # Radius 20 mm: 2 pi r / (pi r^2) = 0.1 per mm; 2 area / length = r. Pixel contours are a few per cent longer.
    assert per_area == pytest.approx(0.1, rel=0.07)
    assert thickness == pytest.approx(20, rel=0.07)


def test_plate_is_as_thick_as_it_is():
    assert boundary(np.ones((300, 300, 3), bool), (1.0, 1.0, 2.0))[1] == pytest.approx(6, rel=0.05)


def test_summary_leaves_out_what_is_not_defined():
    nan = math.nan
    found = summarise([Complexity(1.0, nan, 2.0, nan), Complexity(3.0, nan, nan, nan)])
    assert found == {"texture_kl": 2.0, "contrast": None, "boundary": 2.0, "thickness_mm": None}


def test_probe_measures_the_prepared_cases(context: ProbeContext):
    result = probe(context)
    for name in context.classes:
        assert set(result.values[name]["cases"]) == {case.name for case in context.held_out}
    assert len(result.figures) == 3

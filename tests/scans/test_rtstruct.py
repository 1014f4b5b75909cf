from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from segmentation import SkipSegError
from segmentation.scans import Scan, read_rtstruct, read_series, roi_names
from segmentation.scans.rtstruct import fill_even_odd

MakeRtstruct = Callable[..., Path]
SHAPE = (17, 23, 9)
polygons = st.lists(st.tuples(st.floats(-3.03, 12.07), st.floats(-3.01, 15.09)), min_size=3, max_size=12)


def is_inside(point: tuple[int, int], polygon: Sequence[tuple[float, float]]) -> bool:
    """Count crossings of a ray along the first axis, one edge at a time."""
    crossings = 0
    for (i0, j0), (i1, j1) in zip(polygon, [*polygon[1:], polygon[0]], strict=True):
        if (j0 <= point[1]) != (j1 <= point[1]):
            crossings += i0 + (point[1] - j0) / (j1 - j0) * (i1 - i0) <= point[0]
    return crossings % 2 == 1


@given(st.lists(polygons, min_size=1, max_size=3))
def test_filling_equals_counting_crossings_pixel_by_pixel(contours):
    mask = fill_even_odd([np.array(contour) for contour in contours], (9, 12))
    expected = [[sum(is_inside((i, j), contour) for contour in contours) % 2 == 1 for j in range(12)] for i in range(9)]
    np.testing.assert_array_equal(mask, expected)


@given(polygons, st.integers(0, 11), st.integers(1, 11))
def test_direction_and_first_corner_do_not_matter(contour, start: int, length: int):
    points = np.round(np.array(contour), 3)
    mask = fill_even_odd([points], (9, 12))
    np.testing.assert_array_equal(fill_even_odd([np.roll(points, start, axis=0)], (9, 12)), mask)


@given(st.integers(0, 8), st.integers(0, 8))
def test_regions_that_share_an_edge_through_centres_share_no_pixel(i: int, j: int):
    def box(i0, i1, j0, j1) -> np.ndarray:
        return fill_even_odd([np.array([[i0, j0], [i1, j0], [i1, j1], [i0, j1]], dtype=float)], (9, 9))

    parts = [box(0, i, 0, j), box(i, 9, 0, j), box(0, i, j, 9), box(i, 9, j, 9)]
    np.testing.assert_array_equal(np.sum(parts, axis=0), 1)


def circle_lps(scan: Scan, axis: int, index: int, centre: tuple[float, float], radius: float) -> np.ndarray:
    """Corners of a circle in voxel units on one slice of a scan, in LPS."""
    angles = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    plane = np.stack([centre[0] + radius * np.cos(angles), centre[1] + radius * np.sin(angles)], axis=1)
    points = np.insert(plane, axis, index, axis=1)
    return ((np.column_stack([points, np.ones(400)]) @ scan.affine.T)[:, :3]) * (-1, -1, 1)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(
    ("order", "signs"), [((0, 1, 2), (-1, -1, 1)), ((2, 0, 1), (1, -1, -1)), ((1, 2, 0), (1, 1, 1))]
)
def test_a_ring_is_filled_on_an_oblique_grid_in_any_plane(make_rtstruct: MakeRtstruct, order, signs, axis: int):
    affine = np.eye(4)
    turned = Rotation.from_euler("xyz", [20, -8, 5], degrees=True).as_matrix()
    affine[:3, :3] = turned[:, list(order)] * signs * (0.7, 1.1, 2.9)
    affine[:3, 3] = (-31.5, 12.25, 87.0)
    scan = Scan(np.zeros((1, *SHAPE), np.int16), affine, "scan")
    centre, index = (4.3, 4.1), 2
    contours = [circle_lps(scan, axis, index, centre, radius) for radius in (3.6, 1.7)]
    mask = read_rtstruct(make_rtstruct([("GTV-1", contours)]), scan, "GTV-1")
    i, j = np.indices(np.delete(SHAPE, axis))
    distance = np.hypot(i - centre[0], j - centre[1])
    expected = np.zeros(SHAPE, np.uint8)
    np.moveaxis(expected, axis, 0)[index] = (distance <= 3.6) & (distance > 1.7)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, expected)


def test_contours_reach_the_slice_they_were_drawn_on(make_series: Callable[..., Path], make_rtstruct: MakeRtstruct):
    scan = read_series(make_series())
    square = np.array([(-11.8, 31, -40 + 2.5 * 4), (-5, 31, -30), (-5, 40, -30), (-11.8, 40, -30)])
    mask = read_rtstruct(make_rtstruct([("GTV-1", [square])]), scan, "GTV-1")
    assert np.flatnonzero(mask.any(axis=(0, 1))).tolist() == [4]
    i, j, _ = np.nonzero(mask)
    # Columns at -12 + 0.8 i mm, rows at 30.5 + 1.5 j mm.
    assert (i.min(), i.max(), j.min(), j.max()) == (1, 8, 1, 6)


@pytest.fixture
def scan() -> Scan:
    return Scan(np.zeros((1, *SHAPE), np.int16), np.diag([1.0, 1, 2, 1]), "scan")


def square_at(height: float) -> np.ndarray:
    return np.array([(-2, -2, height), (-8, -2, height), (-8, -8, height), (-2, -8, height)])


def test_names_are_listed_and_an_unknown_one_lists_them(make_rtstruct: MakeRtstruct, scan: Scan):
    path = make_rtstruct([("GTV-1", [square_at(4)]), ("lung left", [])])
    assert roi_names(path) == ["GTV-1", "lung left"]
    with pytest.raises(SkipSegError, match="0 regions named 'heart'; it holds 'GTV-1', 'lung left'"):
        read_rtstruct(path, scan, "heart")
    with pytest.raises(SkipSegError, match="'lung left' holds no contours"):
        read_rtstruct(path, scan, "lung left")


def test_two_regions_of_one_name_are_ambiguous(make_rtstruct: MakeRtstruct, scan: Scan):
    path = make_rtstruct([("GTV", [square_at(4)]), ("GTV", [square_at(6)])])
    with pytest.raises(SkipSegError, match="2 regions named 'GTV'"):
        read_rtstruct(path, scan, "GTV")


@pytest.mark.parametrize("height", [-2, 18, 5, 4.6])
def test_a_contour_off_the_slices_is_refused(make_rtstruct: MakeRtstruct, scan: Scan, height: float):
    with pytest.raises(SkipSegError, match="contour at slice"):
        read_rtstruct(make_rtstruct([("GTV", [square_at(height)])]), scan, "GTV")


def test_a_contour_a_little_off_its_slice_is_taken(make_rtstruct: MakeRtstruct, scan: Scan):
    mask = read_rtstruct(make_rtstruct([("GTV", [square_at(4.4)])]), scan, "GTV")
    assert mask[:, :, 2].sum() == 36


def test_points_have_no_inside(make_rtstruct: MakeRtstruct, scan: Scan):
    with pytest.raises(SkipSegError, match="POINT contour"):
        read_rtstruct(make_rtstruct([("seed", [square_at(4)])], kind="POINT"), scan, "seed")


def test_pictures_and_other_objects_are_refused(
    make_rtstruct: MakeRtstruct, make_series: Callable[..., Path], tmp_path: Path
):
    picture = Scan(np.zeros((1, 5, 5)), np.eye(4), "picture")
    with pytest.raises(SkipSegError, match="is a picture"):
        read_rtstruct(make_rtstruct([("GTV", [square_at(4)])]), picture, "GTV")
    with pytest.raises(SkipSegError, match="is no RTSTRUCT but CT"):
        roi_names(next(make_series().glob("*.dcm")))
    (tmp_path / "text.dcm").write_text("text")
    with pytest.raises(SkipSegError, match=r"text\.dcm is not DICOM"):
        roi_names(tmp_path / "text.dcm")
    with pytest.raises(SkipSegError, match=r"none\.dcm"):
        roi_names(tmp_path / "none.dcm")


def test_a_real_contour_on_a_slice_that_is_not_there(real_dicom: Path):
    series = read_series(real_dicom / "rtutils_mock")
    assert read_rtstruct(real_dicom / "rtutils_mock" / "rt.dcm", series, "ROI-1").any()
    with pytest.raises(SkipSegError, match=r"contour at slice 2.00 .* slices 0 to 1"):
        read_rtstruct(real_dicom / "rtutils_mock" / "invalid_reference_rt.dcm", series, "ROI-1")

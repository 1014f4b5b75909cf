"""Reliefs of surfaces: heights and colours follow the values, gaps stay open."""

import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from segmentation import SkipSegError
from segmentation.figures import Figure
from segmentation.report.relief import render

FLAT = Figure("surface", "Loss <b>", values=[[1.0] * 4 for _ in range(3)])


def polygons(figure):
    element = ElementTree.fromstring(render(figure))
    return [each for each in element.iter("polygon") if each.get("class") == "cell"]


def heights(polygon):
    return [float(point.split(",")[1]) for point in polygon.get("points").split()]


def test_one_cell_between_four_neighbours():
    assert len(polygons(FLAT)) == 2 * 3
    assert len({each.get("fill") for each in polygons(FLAT)}) == 1


def test_a_higher_value_is_drawn_higher_and_in_another_colour():
    low, high = ([[1.0, 1.0], [1.0, top]] for top in (1.0, 2.0))
    flat, risen = (polygons(replace(FLAT, values=values, limits=[1.0, 2.0]))[0] for values in (low, high))
    assert heights(risen)[2] < heights(flat)[2]  # upwards is towards smaller y
    assert heights(risen)[0] == heights(flat)[0]
    assert risen.get("fill") != flat.get("fill")


def test_near_cells_come_after_far_ones():
    first, *_, last = polygons(FLAT)
    assert max(heights(first)) < max(heights(last))


def test_gaps_and_values_without_a_logarithm_leave_holes():
    values = [[1.0, 1.0, None], [1.0, 1.0, 1.0], [0.0, 1.0, 1.0]]
    assert len(polygons(replace(FLAT, values=values))) == 3
    assert len(polygons(replace(FLAT, values=values, log_y=True))) == 2


def test_large_surfaces_are_thinned_out():
    assert len(polygons(replace(FLAT, values=[[1.0] * 101 for _ in range(101)]))) <= 51**2


def test_text_is_escaped_and_everything_stays_inside():
    markup = render(FLAT)
    assert "Loss &lt;b&gt;" in markup
    steep = [[10.0 * ((i + j) % 2) for j in range(5)] for i in range(5)]
    shapes = re.findall(r'points="([^"]*)"', render(replace(FLAT, values=steep)))
    numbers = [float(number) for shape in shapes for number in re.split("[ ,]", shape)]
    assert 0 <= min(numbers) <= max(numbers) <= 1000


@pytest.mark.parametrize(
    "change",
    [{"kind": "heatmap"}, {"values": [[1.0, 2.0]]}, {"values": [[1.0], [2.0]]}, {"values": [["x", 1], [1, 1]]}],
)
def test_what_is_no_surface_is_refused(change):
    with pytest.raises(SkipSegError, match=r"no surface|where a number is expected"):
        render(replace(FLAT, **change))

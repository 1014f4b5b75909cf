"""Every kind of figure is drawn where its numbers are, said in words, and refused where it makes no sense."""

import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segmentation import SkipSegError
from segmentation.figures import Figure, Series
from segmentation.report.axes import LogScale, axis_for, significant, tick_names
from segmentation.report.chart import LETTER, column_names
from segmentation.report.maps import palette_for
from segmentation.report.plots import render

LAYERS = [f"decoder.{i // 4}.units.{i % 4}.convolution" for i in range(64)]
SAMPLES = {
    "lines": Figure(
        "lines", "Gradient over depth", "convolutions", "RMS gradient", log_y=True, reference=1.0,
        series=[
            Series(
                "sigmoid", [1e-4, 1e-7, 1e-14, 0.0], [4, 8, 16, 32],
                low=[1e-5, None, 1e-15, 0.0], high=[1e-3, None, 1e-13, 1.0],
            ),
            Series("add", [0.8, None, 0.3, 0.2], [4, 8, 16, 32]),
        ],
    ),
    "bars": Figure(
        "bars", "Dice by task", y_label="Dice", ticks=["blob", "thin"],
        series=[Series("none", [0.8, 0.5], low=[0.75, None], high=[0.85, None]), Series("concat", [0.95, None])],
    ),
    "rows of bars": Figure(
        "bars", "Share of weights", y_label="share", ticks=LAYERS, series=[Series("", [i / 64 for i in range(64)])]
    ),
    "points": Figure(
        "points", "Differences", "Dice", reference=0.0, ticks=["add - none", "zeros - none, parameters matched, thin"],
        series=[Series("thin", [0.4, None], low=[0.3, None], high=[0.5, None])],
    ),
    "heatmap": Figure(
        "heatmap", "Updates", "epoch", "layer", rows=LAYERS, ticks=[str(i) for i in range(100)], log_y=True,
        values=[[10.0 ** -(i % 9) if j else None for j in range(100)] for i in range(64)], value_label="mean |dW|",
    ),
    "lesions": Figure(
        "heatmap", "Lesions", rows=["a"], ticks=["L0", "L1", "L2"], values=[[-0.4, 0.1, None]], reference=0.0
    ),
    "surface": Figure(
        "surface", "Loss", "first", "second", values=[[(x - 4) ** 2 + y**2 for x in range(9)] for y in range(7)],
        x=[x / 4 - 1 for x in range(9)], y=list(range(7)), path=[(-1.0, 6.0), (0.0, 0.0)], value_label="loss",
    ),
}  # fmt: skip


def parsed(figure):
    return ElementTree.fromstring(render(figure))


def marks(element, kind):
    """Elements of a class."""
    return [each for each in element.iter() if kind in (each.get("class") or "").split()]


def texts(element, kind):
    return ["".join(each.itertext()) for each in marks(element, kind)]


@pytest.mark.parametrize("name", SAMPLES)
def test_a_figure_is_well_formed_said_in_words_and_always_the_same(name):
    figure = SAMPLES[name]
    element = parsed(figure)
    spoken = [each.get("aria-label") for each in element.iter("svg") if each.get("role") == "img"]
    assert len(spoken) == 1
    assert spoken[0].startswith(figure.title)
    assert "from " in spoken[0]
    assert "".join(element.find("figcaption").itertext()) == figure.title
    assert render(figure) == render(Figure.from_plain(figure.to_plain()))
    assert len(render(figure)) < 60_000


def test_a_gap_breaks_the_line_and_zero_has_no_place_on_a_logarithmic_axis():
    element = parsed(SAMPLES["lines"])
    curves = [svg for svg in marks(element, "curve") if svg.tag == "svg"]
    lengths = [[len(stroke.get("points").split()) for stroke in svg.iter("polyline")] for svg in curves]
    assert lengths == [[3], [2]]  # 0 at the end; a single point before the gap
    assert "1 value of zero or below: no place on this axis." in "".join(element.itertext())
    assert len(marks(element, "reference")) == 1


def test_a_band_spans_the_intervals_and_one_alone_is_a_whisker():
    series = Series("a", [1.0, 2.0, 3.0, 4.0], low=[0.5, 1.5, None, 3.0], high=[1.5, 2.5, None, 5.0])
    element = parsed(Figure("lines", "Bands", series=[series]))
    (band,) = marks(element, "band")
    assert len(band.find("polygon").get("points").split()) == 4
    assert len(marks(element, "thin-ci")) == 1


def test_bars_are_as_high_as_their_values():
    element = parsed(SAMPLES["bars"])
    bars = [each for each in marks(element, "block") if each.get("y") != "1"]  # without the legend
    heights = [float(bar.get("height")) for bar in bars]
    assert heights == pytest.approx([240 * value for value in (0.8, 0.95, 0.5)], abs=0.05)
    assert texts(element, "number") == ["0.8", "0.95", "0.5"]
    whisker = [float(each.get("y2")) for each in marks(element, "error") if each.get("x1") == "0"]
    assert whisker == pytest.approx([240 * (1 - 0.85)])


def test_many_or_long_names_turn_bars_into_rows():
    element = parsed(SAMPLES["rows of bars"])
    names = ["".join(each.itertext()) for each in marks(element, "names")[0]]
    assert names == LAYERS
    widths = [float(bar.get("width").rstrip("%")) for bar in marks(element, "block")]
    assert widths == pytest.approx([100 * i / 64 for i in range(64)], abs=0.01)


def test_a_point_stands_at_its_value_between_the_ends_of_its_interval():
    element = parsed(SAMPLES["points"])
    (interval,) = marks(element, "ci")
    scale = axis_for([0.4, 0.3, 0.5], include=[0.0])
    assert [interval.get("x1"), interval.get("x2")] == [scale.percent(0.3), scale.percent(0.5)]
    assert scale.percent(0.4) in [mark.get("cx") for mark in marks(element, "mark")]


def test_cells_of_a_heat_map_cover_it_once():
    values = SAMPLES["heatmap"].values
    element = parsed(SAMPLES["heatmap"])
    (cells,) = marks(element, "cells")
    area = {path.get("fill"): sum(map(int, re.findall(r"h(\d+)v1", path.get("d")))) for path in cells}
    assert sum(area.values()) == 64 * 100
    assert area[None] == 64  # the gaps
    palette = palette_for([v for row in values for v in row if v], log=True, reference=None)
    assert area[palette.colour(1.0)] == 99 * sum(i % 9 == 0 for i in range(64))


def test_few_columns_print_their_values_and_zero_has_the_middle_colour():
    element = parsed(SAMPLES["lesions"])
    printed = texts(element, "on-dark") + texts(element, "on-light") + texts(element, "gap")
    assert sorted(text for text in printed if text) == sorted(["\N{MINUS SIGN}0.4", "0.1", "\N{EN DASH}"])
    palette = palette_for([-0.4, 0.1], log=False, reference=0.0)
    red, green, blue = (int(palette.colour(0.0)[i : i + 2], 16) for i in (1, 3, 5))
    assert min(red, green, blue) > 235
    assert palette.is_dark(-0.4)
    assert not palette.is_dark(0.0)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1.3e-7, "10⁻⁷"),
        (3.4e-7, "3x10⁻⁷"),
        (-3.4e-7, "-3e-7"),
        (-0.00123, "-0.001"),
        (9.87, "9.9"),
        (-54321.0, "-54321"),
        (-9_876_543, "-1e7"),
        (-8.1e-12, "-8e-12"),
        (6.6e15, "7x10¹⁵"),
    ],
)
def test_what_cells_print_fits_them(value, expected):
    element = parsed(Figure("heatmap", "Lesions", rows=["a"], ticks=["L0"], values=[[value]]))
    (printed,) = texts(element, "on-dark") + texts(element, "on-light")
    assert printed == expected.replace("-", "\N{MINUS SIGN}").replace("x", "\N{MULTIPLICATION SIGN}")
    assert LETTER * len(printed) < 42


def test_contours_of_a_plane_are_straight_and_in_order():
    plane = Figure("surface", "Plane", values=[[float(x) for x in range(15)] for _ in range(3)])
    bands = marks(parsed(plane), "contour")
    lefts = [min(int(x) for x in re.findall(r"[ML](\d+) ", path.get("d"))) for path in bands]
    assert lefts == pytest.approx([1000 * i / 14 for i in range(14)], abs=1)
    assert len({path.get("fill") for path in bands}) == 14


def test_a_path_goes_from_its_start_to_its_end():
    element = parsed(SAMPLES["surface"])
    ends = {kind: marks(element, f"trace-{kind}")[0] for kind in ("start", "end")}
    assert (ends["start"].get("cx"), ends["start"].get("cy")) == ("0%", "0")
    assert (ends["end"].get("cx"), ends["end"].get("cy")) == ("50%", "320")


def test_a_figure_without_values_says_so():
    assert "No values." in render(Figure("bars", "Empty", ticks=["a"], series=[Series("x", [float("nan")])]))
    assert "No values." in render(Figure("heatmap", "Empty"))


@given(st.text(max_size=25))
@settings(max_examples=25)
def test_any_name_stays_text(name):
    figures = [
        Figure("bars", name, name, name, [Series(name, [1.0])], ticks=[name]),
        Figure("points", name, name, series=[Series(name, [1.0])], ticks=[name]),
        Figure("lines", name, name, name, [Series(name, [1.0, 2.0])], ticks=[name, name]),
        Figure("heatmap", name, rows=[name], ticks=[name], values=[[1.0]], value_label=name),
    ]
    for figure in figures:
        known = {"figure", "figcaption", "ul", "li", "p", "div", "svg", "g", "text", "tspan", "title", "line", "rect"}
        known |= {"circle", "polyline", "polygon", "path", "span", "b"}
        assert {each.tag for each in parsed(figure).iter()} <= known


@given(
    st.lists(st.one_of(st.none(), st.floats(-1e30, 1e30), st.floats(1e-30, 1e-20)), min_size=1, max_size=6),
    st.sampled_from(["lines", "bars", "points"]),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_values_of_any_size_are_drawn_inside_the_picture(values, kind, log):
    ticks = [f"t{i}" for i in range(len(values))]
    element = parsed(Figure(kind, "Any", series=[Series("s", values)], ticks=ticks, log_y=log))
    for mark in marks(element, "mark"):
        assert 0 <= float((mark.get("cx") or "0%").rstrip("%")) <= 100
        assert float(mark.get("cy") or 0) >= 0
    assert not re.search(r"\bnan\b|\binf\b", "".join(element.itertext()))


BROKEN = {
    "a kind": ({"kind": "pie"}, "has the kind 'pie'; it must be one of lines"),
    "text for a number": ({"kind": "lines", "series": [Series("s", ["1"])]}, "has '1' in s, where a number"),
    "a truth value": ({"kind": "lines", "series": [Series("s", [True])]}, "has 'True' in s"),
    "no list": ({"kind": "lines", "series": [Series("s", 3)]}, "has '3' in s, where a list"),
    "one number for rows": ({"kind": "heatmap", "values": [3]}, "has one value where a list is expected"),
    "too few places": ({"kind": "lines", "series": [Series("s", [1, 2], [0])]}, "has 1 numbers in s for 2 places"),
    "no tick": ({"kind": "bars", "series": [Series("s", [1])]}, "has 1 numbers in s for 0 places"),
    "no text": ({"kind": "bars", "ticks": [3], "series": [Series("s", [1])]}, "has '3' in ticks, where text"),
    "odd rows": ({"kind": "heatmap", "values": [[1, 2], [3]]}, "has 1 numbers in values for 2 places"),
    "rows of a map": ({"kind": "heatmap", "values": [[1]], "rows": ["a", "b"]}, "has 2 rows for 1 of values"),
    "back": ({"kind": "surface", "values": [[1, 2], [3, 4]], "x": [1, 0]}, "coordinates that do not increase"),
    "x": ({"kind": "surface", "values": [[1, 2], [3, 4]], "x": [1, 2, 3]}, "has 3 numbers in x for 2 places"),
    "thin": ({"kind": "surface", "values": [[1, 2]]}, "needs at least two rows"),
    "path": ({"kind": "surface", "values": [[1, 2], [3, 4]], "path": [(1, 2, 3)]}, "has 3 numbers in path"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_drawn_is_refused_with_its_title(name):
    fields, message = BROKEN[name]
    with pytest.raises(SkipSegError, match=re.escape(message)) as caught:
        render(Figure(title="Loss", **fields))
    assert "figure 'Loss'" in str(caught.value)


def test_numbers_in_print():
    printed = {0.0: "0", -18.5: "\N{MINUS SIGN}18.5", 3.2e-19: "3.2\N{MULTIPLICATION SIGN}10⁻¹⁹", 123456.0: "123456"}
    printed |= {1e6: "10⁶", 99999.96: "100000", 0.00012: "0.00012", float("nan"): "\N{EN DASH}", 1234567: "1234567"}
    assert [significant(value) for value in printed] == list(printed.values())


def test_ticks_between_powers_of_ten_say_their_own_value():
    assert [text for _, text in tick_names(LogScale(2e-4, 5e-3))] == ["0.0002", "0.0005", "10⁻³", "0.002", "0.005"]


def test_a_short_logarithmic_axis_has_steps_between_the_powers():
    assert [text for _, text in tick_names(LogScale(0.1, 10.0))] == ["0.1", "0.2", "0.5", "1", "2", "5", "10"]
    assert axis_for([], log=True) == LogScale(0.1, 1.0)
    assert axis_for([-1.0, 1.0], log=True) == LogScale(1.0, 2.0)


def test_names_below_a_picture_stand_fold_or_turn():
    places = ["10%"] * 9
    below, least, drawn = column_names(["a b"] * 3, places[:3], 100)
    assert (least, len(drawn)) == (0, 3)
    folded, *_ = column_names(["long and short skips"] * 3, places[:3], 100)
    assert folded > below
    _, least, drawn = column_names(LAYERS[:9], places, 100)
    assert least == 9 * 14
    assert all("rotate(-90)" in each for each in drawn)
    assert all("…" in each for each in drawn)
    _, least, drawn = column_names([str(i) for i in range(300)], [f"{i / 3:.2f}%" for i in range(300)], 100)
    assert least == 0
    assert [re.sub("<.*?>", "", each) for each in drawn[:2]] == ["0", "50"]
    *_, drawn = column_names(["0", "314.5", "350.8"], ["0%", "85%", "95%"], 100)
    assert [re.sub("<.*?>", "", each) for each in drawn] == ["0", "314.5"], "values that would touch stand alone"


def test_a_flat_heat_map_and_a_single_value_have_colours():
    flat = replace(SAMPLES["lesions"], values=[[0.0, 0.0, 0.0]])
    assert "fill=" in render(flat)
    assert palette_for([2.0], log=True, reference=None).scale == LogScale(1.0, 4.0)

"""Axes hold their values, markup is escaped, markers differ."""

from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from segmentation.report.figures import clip
from segmentation.report.svg import SHAPES, marker, scale_for, tag

numbers = st.floats(-1e6, 1e6).map(lambda value: round(value, 6))


@given(st.lists(numbers, min_size=1, max_size=9))
def test_an_axis_holds_its_values_and_few_round_ticks(values):
    scale = scale_for(values)
    slack = 1e-6 * max(1.0, scale.high - scale.low)
    assert scale.low < scale.high
    assert scale.low - slack <= min(values)
    assert max(values) <= scale.high + slack
    assert 1 <= len(scale.ticks()) <= 12
    assert all(0 <= scale.share(value) <= 1 for value in values)


@given(st.text(max_size=30))
def test_any_text_becomes_text_again(text):
    text = "".join(c for c in text if c.isprintable())
    element = ElementTree.fromstring(tag("text", text, aria_label=text))
    assert (element.text or "") == text
    assert element.get("aria-label") == text


def test_markers_differ_in_shape_and_colour():
    drawn = {str(marker("5%", 3, slot)) for slot in range(SHAPES)}
    assert len(drawn) == SHAPES


def test_long_names_are_clipped():
    assert clip("abcdef", 6) == "abcdef"
    assert clip("abcdefg", 6) == "abcde…"

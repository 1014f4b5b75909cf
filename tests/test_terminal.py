"""Tables and text: drawn to the width of a terminal, plain elsewhere."""

import io
from pathlib import Path

import pytest

from segmentation.terminal import Table, as_text, is_terminal, show

WIDE = Table([["patient", *(f"condition-{i}" for i in range(9))], ["p1", *(f"0.{i}" for i in range(9))]], right=True)
REASON = "a reason so long that no terminal of eighty columns could ever hold it whole"
WHY = Table([["setting", "why"], ["depth", REASON]])


def widths(text):
    return {len(line.rstrip()) for line in text.splitlines()}


def test_a_pipe_gets_aligned_columns_of_any_width(capsys):
    show(["title", WHY, Path("a/b")])
    said = capsys.readouterr().out
    assert said == f"title\n{WHY}\na/b\n"
    assert "\x1b" not in said
    assert max(widths(said)) > 80


def test_numbers_are_aligned_to_the_right_and_rules_stand_where_rows_are_empty():
    table = Table([["", "n"], ["a", "1"], [], ["bb", "12"]], right=True)
    assert str(table).splitlines() == ["     n", "--  --", "a    1", "--  --", "bb  12"]


def test_a_terminal_gets_cells_wrapped_between_words(screen):
    show([WHY])
    lines = screen().splitlines()
    assert max(widths(screen())) <= 80
    assert lines[0].split() == ["setting", "why"]
    assert " ".join(line[9:].strip() for line in lines[2:]) == REASON


def test_too_many_columns_follow_below(screen):
    show([WIDE])
    lines = screen().splitlines()
    assert max(widths(screen())) <= 80
    assert [line.split()[0] for line in lines if "condition-" in line] == ["patient", "patient"]
    shown = [word for line in lines for word in line.split() if word.startswith("0.")]
    assert shown == list(WIDE.rows[1][1:])


def test_text_is_wrapped_and_a_path_stays_whole(screen):
    path = Path("/".join(["folder"] * 30))
    show(["  indented " + "word " * 30, path])
    *lines, last = screen().splitlines()
    assert last == str(path)
    assert len(lines) == 3
    assert all(line.startswith("  ") and len(line) <= 80 for line in lines)


def test_markup_and_emoji_codes_are_text(screen):
    show(["[bold]x[/bold] :smile:", Table([["[red]a", ":smile:"]], header=False)])
    assert screen().splitlines()[0] == "[bold]x[/bold] :smile:"
    assert screen().splitlines()[1].split() == ["[red]a", ":smile:"]


def test_no_color_is_respected(monkeypatch):
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "80", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    stream = io.StringIO()
    stream.isatty = lambda: True
    show([WHY], stream)
    assert "\x1b[3" not in stream.getvalue()
    assert "\x1b[9" not in stream.getvalue()


@pytest.mark.parametrize(
    ("term", "tty", "expected"), [("xterm", True, True), ("dumb", True, False), ("xterm", False, False)]
)
def test_a_dumb_terminal_counts_as_none(monkeypatch, term, tty, expected):
    monkeypatch.setenv("TERM", term)
    stream = io.StringIO()
    stream.isatty = lambda: tty
    assert is_terminal(stream) is expected


def test_parts_as_text():
    assert as_text(["a", Path("b"), Table([["c", "d"]], header=False)]) == "a\nb\nc  d"

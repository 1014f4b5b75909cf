"""Bars: on a terminal only, nested ones below each other, the time left by the pace so far."""

import gc
import subprocess
import sys

import pytest

from segmentation import progress
from segmentation.progress import Bar, Pace, close_bars, track


@pytest.fixture
def clock(monkeypatch):
    """Function that sets the time, in seconds."""
    time = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: time[0])
    return lambda now: time.__setitem__(0, now)


def test_without_a_terminal_there_is_nothing_and_nothing_is_loaded():
    code = (
        "import sys; from segmentation.progress import Bar, track\n"
        "with track([1, 2], 'a', 'b') as items, Bar('c', 'd') as bar:\n"
        "    bar.note('x'); bar.reach(1, 2); print(sum(items), 'rich' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("3 False\n", "")


def test_a_bar_counts_and_stays(screen):
    with track(["a", "b", "c"], "check", "cases") as cases:
        assert list(cases) == ["a", "b", "c"]
    assert "check" in screen()
    assert "3/3 cases" in screen().splitlines()[-1]
    assert not progress._open


@pytest.mark.parametrize(("seconds", "leaves"), [(0.9, True), (1.1, False)])
def test_a_brief_bar_leaves_no_line(screen, clock, seconds, leaves):
    bar = Bar("prepare", "cases", 1)
    clock(seconds)
    bar.close()
    assert bar._display.live.transient is leaves


def test_items_without_length_have_no_total(screen):
    with track(iter("ab"), "check", "cases") as cases:
        assert list(cases) == ["a", "b"]
    assert "2/? cases" in screen().splitlines()[-1]


def test_an_inner_bar_stands_below_and_leaves(screen):
    with Bar("predict", "scans", 2) as outer:
        with Bar("case_1", "windows") as inner:
            inner.reach(3, 4)
            outer._display.refresh()
        outer.advance()
    before, _, last = screen().rpartition("predict")
    assert "case_1" in before
    assert "3/4 windows" in before
    assert "1/2 scans" in last
    assert "case_1" not in last


def test_what_is_said_meanwhile_stands_above(screen):
    with Bar("predict", "scans", 1) as bar:
        print("a mask")
        print("a warning", file=sys.stderr)
        bar.advance()
    lines = screen().splitlines()
    assert {"a mask", "a warning"} <= {line.strip() for line in lines}
    assert "1/1 scans" in lines[-1]


def test_an_error_ends_the_bar(screen):
    with pytest.raises(ZeroDivisionError), track([1, 0], "check", "cases") as cases:
        _ = [1 / case for case in cases]
    assert not progress._open
    assert "1/2 cases" in screen().splitlines()[-1]


def test_bars_that_were_left_open_can_all_be_closed(screen):
    bars = [Bar("a", "x", 1), Bar("b", "x", 1)]
    close_bars()
    assert not progress._open
    bars[0].close()
    bars[0].advance()
    gc.collect()
    assert screen().count("\x1b[?25l") == 0


def test_a_long_name_keeps_its_end(screen):
    with Bar("folder/" * 9 + "scan.nii.gz", "windows", 1):
        pass
    assert "…lder/folder/scan.nii.gz 0/1" in " ".join(screen().replace("━", "").split())


def test_no_bar_is_wider_than_the_terminal(screen):
    with Bar("x" * 60, "windows", 10**6, done=999_999) as bar:
        bar.note("loss 0.123, Dice 0.456")
        bar.advance()
    assert max(map(len, screen().splitlines())) <= 80


def test_the_time_left_follows_from_the_pace_so_far(clock):
    pace = Pace()
    assert pace.text(10) == "0:00 so far"
    clock(30.0)
    assert pace.text(10) == "0:30 so far"
    pace.measure(2)
    assert pace.text(10) == "2:30 left"
    clock(40.0)
    assert pace.text(10) == "2:20 left", "it counts down between two steps"
    clock(1000.0)
    assert pace.text(10) == "0:00 left"
    pace.measure(12)
    clock(2000.0)
    assert pace.text(0) == "in 16:40"


def test_a_resumed_bar_counts_only_what_is_new(clock, screen):
    with Bar("train", "steps", 100, done=90) as bar:
        clock(5.0)
        bar.advance(5)
        assert bar._pace.text(5) == "0:05 left"
    assert "95/100 steps" in screen()


def test_without_total_the_time_so_far_is_shown(clock):
    pace = Pace()
    clock(61.0)
    assert pace.text(None) == "1:01 so far"

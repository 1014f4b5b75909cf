import io
import sys
from pathlib import Path

import pytest

from segmentation import SkipSegError
from segmentation.scans.series import Series, ask_series, choose_series


def series(uid: str, slices: int, rows: int = 256) -> Series:
    return Series(uid, "MR", f"scan {uid}", tuple(Path(f"{index}.dcm") for index in range(slices)), rows, 256)


SCOUT, HEAD, SLAB = series("1.2.1", 3, 512), series("1.2.2", 40), series("1.2.3", 20, 512)


def test_rules_choose():
    listing = [SCOUT, HEAD]
    assert choose_series(listing, "largest") == [HEAD]
    assert choose_series(listing, "all") == listing
    assert choose_series(listing, "1.2.1") == [SCOUT]
    assert choose_series([HEAD]) == [HEAD]
    assert choose_series([HEAD], "largest") == [HEAD]


@pytest.mark.parametrize("rule", ["all", "largest", None])
def test_of_none_nothing_is_chosen(rule: str | None):
    with pytest.raises(SkipSegError, match="no DICOM images found"):
        choose_series([], rule)


@pytest.mark.parametrize(
    ("listing", "rule", "words"),
    [
        ([SCOUT, HEAD], None, "2 of 2 series match where one is expected"),
        ([SCOUT, HEAD, SLAB], "largest", "2 of 3 series match largest"),  # as many voxels
        ([SCOUT, HEAD], "1.2.9", "0 of 2 series match 1.2.9"),
        ([], "1.2.9", "0 of 0 series"),
    ],
)
def test_what_stays_open_is_never_guessed(listing: list[Series], rule: str | None, words: str):
    with pytest.raises(SkipSegError, match=words) as error:
        choose_series(listing, rule)
    assert "\n" not in str(error.value)
    assert all(each.uid in str(error.value) for each in listing)


def sit_at_terminal(monkeypatch: pytest.MonkeyPatch, typed: str, is_terminal: bool = True) -> None:
    stdin = io.StringIO(typed)
    monkeypatch.setattr(stdin, "isatty", lambda: is_terminal, raising=False)
    monkeypatch.setattr(sys, "stdin", stdin)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal, raising=False)


@pytest.mark.parametrize(
    ("typed", "chosen"), [("1\n", [HEAD]), ("all\n", [SCOUT, HEAD]), (" 1.2.1 \n", [SCOUT]), ("largest\n", [HEAD])]
)
def test_a_person_is_asked(monkeypatch: pytest.MonkeyPatch, capsys, typed: str, chosen: list[Series]):
    sit_at_terminal(monkeypatch, typed)
    assert ask_series([SCOUT, HEAD]) == chosen
    asked = capsys.readouterr()
    assert "[1] MR 'scan 1.2.2', 40 slices" in asked.err
    assert asked.out == ""


@pytest.mark.parametrize("typed", ["7\n", "", "\n", "-1\n", "liver\n"])
def test_an_answer_that_is_none_chooses_nothing(monkeypatch: pytest.MonkeyPatch, typed: str):
    sit_at_terminal(monkeypatch, typed)
    with pytest.raises(SkipSegError, match="of 2 series match"):
        ask_series([SCOUT, HEAD])


def test_nobody_is_asked_where_nobody_sits_or_nothing_is_open(monkeypatch: pytest.MonkeyPatch, capsys):
    sit_at_terminal(monkeypatch, "0\n", is_terminal=False)
    with pytest.raises(SkipSegError, match="2 of 2 series match where one is expected"):
        ask_series([SCOUT, HEAD])
    sit_at_terminal(monkeypatch, "")
    assert ask_series([HEAD]) == [HEAD]
    assert capsys.readouterr().err == ""

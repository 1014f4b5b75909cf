"""Bars with the time left, on standard error, while something takes its time; nothing where that is no terminal.

All open bars share one display: a bar that is opened while another one is open stands below it and leaves with its
end; a bar that stands alone stays, if it took a second or more. What is printed meanwhile appears above them.
"""

import sys
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from segmentation.terminal import is_terminal

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

Item = TypeVar("Item")
_LONGEST_NAME = 24
_FRAMES_A_SECOND = 4
_BRIEF_S = 1.0


class Bar:
    """One bar.

    Args:
        what: What is done, or to what.
        unit: What is counted, in the plural.
        total: How many there are, if that is known.
        done: How many of them are done already.

    Examples:
        >>> with Bar("count", "sheep", total=3) as bar:
        ...     bar.advance()
    """

    def __init__(self, what: str, unit: str, total: int | None = None, done: int = 0) -> None:
        self._task: TaskID | None = None
        if not is_terminal(sys.stderr):
            return
        name = what if len(what) <= _LONGEST_NAME else f"…{what[1 - _LONGEST_NAME :]}"
        self._done = self._before = done
        self._pace = Pace()
        self._display = _open[0]._display if _open else _new_display()
        self._task = self._display.add_task(name, total=total, completed=done, unit=unit, note="", pace=self._pace)
        if not _open:
            self._display.start()
            self._display.console.show_cursor(True)  # a program that is killed could not bring it back
        _open.append(self)

    def advance(self, number: float = 1) -> None:
        """Count ``number`` more."""
        if self._task is not None:
            self._done += number
            self._pace.measure(self._done - self._before)
            self._display.update(self._task, completed=self._done)

    def reach(self, done: int, total: int) -> None:
        """Say how many are done, of how many."""
        if self._task is not None:
            self._display.update(self._task, total=total)
            self.advance(done - self._done)

    def note(self, text: str) -> None:
        """Show a few words at the end of the bar."""
        if self._task is not None:
            self._display.update(self._task, note=text)

    def close(self) -> None:
        """End the bar; once more does nothing."""
        if self._task is None:
            return
        task, self._task = self._task, None
        _open.remove(self)
        if _open:
            self._display.remove_task(task)
        else:
            self._display.live.transient = time.monotonic() - self._pace.began < _BRIEF_S
            self._display.stop()

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


@contextmanager
def track(items: Iterable[Item], what: str, unit: str) -> Generator[Iterator[Item]]:
    """Show a bar while ``items`` are gone through.

    Yields:
        The items.

    Examples:
        >>> with track("abc", "spell", "letters") as letters:
        ...     "-".join(letters)
        'a-b-c'
    """
    with Bar(what, unit, len(items) if isinstance(items, Sequence) else None) as bar:

        def each() -> Iterator[Item]:
            for item in items:
                yield item
                bar.advance()

        yield each()


def close_bars() -> None:
    """End all bars, before a last word is said."""
    for bar in _open[::-1]:
        bar.close()


_open: list[Bar] = []


class Pace:
    """How long one took so far, on average since the bar was opened, and what that means for the others."""

    def __init__(self) -> None:
        self.began = self.measured = time.monotonic()
        self.seconds_each: float | None = None

    def measure(self, done: float) -> None:
        """Take the time, when ``done`` are done."""
        self.measured = time.monotonic()
        self.seconds_each = (self.measured - self.began) / done if done > 0 else None

    def text(self, missing: float | None) -> str:
        """Say the time left for ``missing`` more, or the time that has passed."""
        now = time.monotonic()
        if missing is None or (missing and self.seconds_each is None):
            return f"{clock(now - self.began)} so far"
        if not missing:
            return f"in {clock(self.measured - self.began)}"
        return f"{clock(max(0.0, missing * (self.seconds_each or 0.0) - (now - self.measured)))} left"


def clock(seconds: float) -> str:
    """Seconds as a clock shows them.

    Examples:
        >>> clock(7.4), clock(75), clock(90_061)
        ('0:07', '1:15', '25:01:01')
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def _new_display() -> "Progress":
    """A display without bars."""
    from rich.console import Console  # only where something is drawn
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
    from rich.text import Text

    class Time(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(task.fields["pace"].text(task.remaining))

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}", markup=False),
        Time(),
        TextColumn("{task.fields[note]}", markup=False),
        console=Console(file=sys.stderr, highlight=False),
        refresh_per_second=_FRAMES_A_SECOND,
        redirect_stdout=is_terminal(sys.stdout),
    )

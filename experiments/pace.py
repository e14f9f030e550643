"""How far long work is, its rate and the time left: as a bar in a terminal, as lines elsewhere."""

import collections
import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator

import rich.console
import rich.live
import rich.progress_bar
import rich.table
import rich.text

EVERY = 30.0  # seconds between two lines, off a terminal
RECENT = 60.0  # seconds that the rate is taken over, or the last two reports if they are further
BAR = 8  # columns, so that all numbers fit into 80


@dataclasses.dataclass
class Pace:
    """Work under way.

    Attributes:
      done, total: how much of it is done, of how much.
      note: the latest words about it.
      began: when, by the clock of `time.monotonic`.
      reports: times and what was done then. The first one is after the first step, so that what
        comes before it, as compiling, is not taken for the rate.
    """

    what: str
    total: int
    done: int
    note: str = ""
    began: float = dataclasses.field(default_factory=lambda: time.monotonic())
    reports: collections.deque = dataclasses.field(default_factory=collections.deque)

    def advance(
        self,
        n: int = 1,
        note: str | None = None,
        completed: int | None = None,
        total: int | None = None,
    ) -> None:
        """Reports `n` more, or `completed` of `total`."""
        before, now = self.done, time.monotonic()
        self.done = before + n if completed is None else completed
        self.total = self.total if total is None else total
        self.note = self.note if note is None else note
        if self.done < before:  # another part of the work has begun
            self.reports.clear()
        if self.done != before:
            self.reports.append((now, self.done))
        while len(self.reports) > 2 and self.reports[0][0] < now - RECENT:
            self.reports.popleft()

    @property
    def rate(self) -> float:
        """Done in a second; 0 if that is not known yet."""
        if len(self.reports) < 2:
            return 0.0
        (first, before), (last, now) = self.reports[0], self.reports[-1]
        return (now - before) / (last - first) if last > first else 0.0

    def cells(self) -> tuple[str, str, str, str]:
        """How much is done, the rate, the time that has gone, the time that is left."""
        rate, speed, left = self.rate, "", ""
        if rate:
            left = f"{clock((self.total - self.done) / rate)} left"
            each = 1 / rate
            digits = 0 if each >= 10 else 1
            speed = f"{rate:.1f}/s" if rate >= 1 else f"{each:.{digits}f} s each"
        gone = clock(time.monotonic() - self.began)
        return f"{self.done}/{self.total}", speed, gone, left

    def line(self) -> str:
        """All of it in a line."""
        done, speed, gone, left = self.cells()
        told = ", ".join(filter(None, (f"{gone} gone", left, speed)))
        return f"{self.what} {done}: {told}" + (f"; {self.note}" if self.note else "")

    def bar(self) -> rich.console.Group:
        """A bar with its numbers, which keep their room, and the note below it."""
        done, *numbers = self.cells()
        grid = rich.table.Table.grid(padding=(0, 1))
        grid.add_column(no_wrap=True, overflow="ellipsis")
        grid.add_column(width=BAR)
        for _ in (done, *numbers):
            grid.add_column(no_wrap=True, justify="right")
        bar = rich.progress_bar.ProgressBar(max(self.total, 1), self.done, width=BAR)
        grid.add_row(self.what, bar, done, *numbers)
        note = rich.text.Text(self.note, no_wrap=True, overflow="ellipsis", style="dim")
        return rich.console.Group(grid, *([note] if self.note else []))


def clock(seconds: float) -> str:
    """Hours, minutes and seconds: 1:02:03, or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


@contextlib.contextmanager
def shown(pace: Pace, console: rich.console.Console, log: Callable[[str], None]) -> Iterator[None]:
    """Shows work under way until the block ends: a bar in a terminal, else a line every EVERY
    seconds, whatever the work is doing."""
    if console.is_terminal:
        with rich.live.Live(console=console, get_renderable=pace.bar, refresh_per_second=5):
            yield
        return
    ended = threading.Event()

    def tell() -> None:
        while not ended.wait(EVERY):
            log(pace.line())

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()

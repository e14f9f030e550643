"""Who is told how long work goes: lines for a log, and bars. A notebook may listen to nothing."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager


def _say_nothing(message: str) -> None:
    """For those who do not listen."""


@contextlib.contextmanager
def _show_nothing(what: str, total: int, start: int = 0) -> Iterator[Callable[..., None]]:
    yield lambda *args, **fields: None


@dataclasses.dataclass(frozen=True)
class Listener:
    """What long work calls as it goes.

    Attributes:
      log: a line.
      progress: `with progress(what, total, start=0) as advance:` shows a bar; `advance(n=1,
        note=None, completed=None, total=None)` moves it.
      shows_bars: whether anybody sees the bars; if not, lines tell instead.
    """

    log: Callable[[str], None] = _say_nothing
    progress: Callable[..., AbstractContextManager[Callable[..., None]]] = _show_nothing
    shows_bars: bool = True

    @contextlib.contextmanager
    def reading(self, what: str) -> Iterator[Callable[[int, int], None]]:
        """A bar for work that reports as `progress(done, total)`."""
        with self.progress(what, 1) as advance:
            yield lambda done, total: advance(0, completed=done, total=total)


SILENT = Listener()

"""Who is told how long work goes, by lines for a log and by bars, and who may ask it to stop. A
notebook may listen to nothing."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager


def _say_nothing(message: str) -> None:
    """For those who do not listen."""


@contextlib.contextmanager
def _show_nothing(what: str, total: int, start: int = 0) -> Iterator[Callable[..., None]]:
    yield lambda *args, **fields: None


@contextlib.contextmanager
def _never_stop() -> Iterator[Callable[[], bool]]:
    yield lambda: False


@dataclasses.dataclass(frozen=True)
class Listener:
    """What long work calls as it goes.

    Attributes:
      log: a line.
      progress: `with progress(what, total, start=0) as advance:` shows a bar; `advance(n=1,
        note=None, completed=None, total=None)` moves it.
      shows_bars: whether anybody sees the bars; if not, lines tell instead.
      stoppable: `with stoppable() as asked:` is around work that saves. After each step it calls
        `asked()`; if that is true, it saves and raises KeyboardInterrupt.
    """

    log: Callable[[str], None] = _say_nothing
    progress: Callable[..., AbstractContextManager[Callable[..., None]]] = _show_nothing
    shows_bars: bool = True
    stoppable: Callable[[], AbstractContextManager[Callable[[], bool]]] = _never_stop

    @contextlib.contextmanager
    def reading(self, what: str) -> Iterator[Callable[[int, int], None]]:
        """A bar for work that reports as `progress(done, total)`."""
        with self.progress(what, 1) as advance:
            yield lambda done, total: advance(0, completed=done, total=total)


SILENT = Listener()

"""How a process ends: when it is asked to by a signal, and when its parent has gone.

Python raises KeyboardInterrupt where the main thread is. If that is a callback of a library, the
exception is printed and lost; and while a library computes, nothing is raised at all. So a script
has a thread that watches, and ends the process if it has not ended itself in time. A notebook
installs nothing of this, and its KeyboardInterrupt stays as it is.
"""

import contextlib
import ctypes
import multiprocessing
import multiprocessing.connection
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SAVING = 8.0  # seconds that work which saves has for its step and its files
CLOSING = 3.0  # and other work, to close what is open
ONCE = 0.5  # signals that follow within these seconds are the same wish: of a terminal, a scheduler
PARENT = "MA2MI_PARENT"  # in the environment: the process without which this one is to end
PR_SET_PDEATHSIG = 1


class Watch:
    """SIGINT and SIGTERM of this process, from `install` on.

    Before `begin` and after `end` a signal ends the process at once, for there is nothing to close.
    Between them the first one raises KeyboardInterrupt in the main thread; but not inside
    `stoppable`, where the work asks, saves and ends itself. If the process is still there after
    SAVING or CLOSING seconds, or if a second signal comes, it is ended at once.

    Attributes:
      received: the first signal, None as long as there was none.
    """

    def __init__(self):
        self.received: int | None = None
        self._open = False  # whether there is something to close
        self._asks = False  # whether the work asks, and saves
        self._first = 0.0

    def install(self) -> None:
        """Takes the signals over; called once, in the main thread."""
        reading, self._writing = socket.socketpair()
        self._writing.setblocking(False)
        signal.set_wakeup_fd(self._writing.fileno(), warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, self._interrupt)
        sys.unraisablehook = self._unraisable
        threading.Thread(target=self._watch, args=(reading,), daemon=True).start()

    def begin(self) -> None:
        """From here on there is something to close."""
        self._open = True

    def end(self) -> None:
        """From here on all is closed: what Python does at its end would print a traceback."""
        self._open = False

    @property
    def exit_code(self) -> int:
        """By custom 128 + the signal."""
        return 128 + (self.received or signal.SIGINT)

    def leave(self) -> NoReturn:
        """Ends the process when all is closed; what libraries do at their end may take seconds."""
        sys.stdout.flush()
        sys.stderr.flush()
        if self.received is None:
            sys.exit(self.exit_code)
        os._exit(self.exit_code)

    @contextlib.contextmanager
    def stoppable(self) -> Iterator[Callable[[], bool]]:
        """Work that is not interrupted, but asks after each step whether it shall save and end.

        Yields:
          `asked()`, whether a signal came.

        Raises:
          KeyboardInterrupt: at the end of the block, if a signal came.
        """
        before, self._asks = self._asks, True
        try:
            yield lambda: self.received is not None
        finally:
            self._asks = before
        if self.received is not None:
            raise KeyboardInterrupt

    def _interrupt(self, number, frame) -> None:
        """The handler, in the main thread: perhaps late, perhaps where nobody hears of it."""
        first = self.received is None or time.monotonic() - self._first < ONCE
        self.received = self.received or number
        if first and self._open and not self._asks:
            raise KeyboardInterrupt

    def _unraisable(self, lost) -> None:
        """What a callback raised, which nobody hears of: of our own there is nothing to print."""
        if self.received is None or not issubclass(lost.exc_type, KeyboardInterrupt):
            sys.__unraisablehook__(lost)

    def _watch(self, reading: socket.socket) -> None:
        """The thread: hears of each signal at once, whatever the main thread does."""
        deadline = None
        while True:
            reading.settimeout(deadline and max(0.01, deadline - time.monotonic()))
            try:
                number = reading.recv(1)[0]
            except TimeoutError:
                os._exit(self.exit_code)
            if number not in SIGNALS:
                continue
            now = time.monotonic()
            if deadline is None:
                self.received, self._first = self.received or number, now
                if not self._open:
                    self._say("ended")
                    os._exit(self.exit_code)
                deadline = now + (SAVING if self._asks else CLOSING)
                if self._asks:
                    self._say("saving after this step; a second one ends at once")
            elif now - self._first > ONCE:
                os._exit(self.exit_code)

    def _say(self, what: str) -> None:
        # not by `print`, for the main thread may hold the lock of `sys.stderr`
        os.write(2, f"{signal.Signals(self.received).name}: {what}\n".encode())


# ----- children -----------------------------------------------------------------------------------


@contextlib.contextmanager
def unread() -> Iterator[None]:
    """Inside it the process ends without a word where nobody reads what it prints any more, as
    after `| head`: with the exit code of a command that SIGPIPE ends."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        out, poll = sys.stdout.fileno(), select.poll()
        poll.register(out, 0)
        if not any(event & select.POLLERR for _, event in poll.poll(0)):
            raise  # it was another pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), out)  # for what is still held back
        sys.exit(128 + signal.SIGPIPE)


def environment_of_child() -> dict[str, str]:
    """The environment for a script that calls `end_with_parent`."""
    return os.environ | {PARENT: str(os.getpid())}


def end_with_parent() -> None:
    """This script gets SIGTERM when the script that started it has ended, in whatever way."""
    parent = os.environ.pop(PARENT, None)
    if parent is None or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):  # it ended before
        sys.exit(128 + signal.SIGTERM)


def be_worker() -> None:
    """In a process of `multiprocessing`: it ends with its parent, and not before.

    A terminal and a scheduler send signals to parents and workers alike, and the parent wants to
    finish its step. SIGTERM may also be the parent's wish, so it counts after SAVING seconds.
    """

    def ends(number, frame):
        threading.Timer(SAVING, os._exit, (128 + number,)).start()

    def follow(parent):
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(0)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, ends)
    parent = multiprocessing.parent_process()
    threading.Thread(target=follow, args=(parent,), daemon=True).start()

"""What a command made of a fault, as a careful user sees it.

right   it goes on and says what it left out, or ends with one line and exit code 2
short   a traceback, several lines, or a line that does not name what is wrong
bad     it hangs, takes too much memory, dies without a word, or goes on with wrong content
"""

import dataclasses
import os
import pathlib
import random
import signal
import sys
import time
from collections.abc import Callable

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))

import commands

RIGHT, SHORT, BAD = "right", "short", "bad"
WORK, TO_COMPILE = 60.0, 600.0  # seconds of a processor that a command may take
IDLE = 40.0  # seconds without work: it hangs
MEMORY = 2.5e9  # bytes of a command at these sizes
TO_LEAVE = 10.0  # seconds after a signal
ASKING = 0.02  # seconds between two looks at a process


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a user would say of one try, and why."""

    kind: str
    why: str = ""


@dataclasses.dataclass(frozen=True)
class Case:
    """One fault. `run(rng, place)` makes it in an empty folder, and may give several verdicts."""

    group: str
    name: str
    run: Callable[[random.Random, pathlib.Path], Verdict | list[Verdict]]
    quick: bool = False

    @property
    def id(self) -> str:
        return f"{self.group}/{self.name}"


@dataclasses.dataclass(frozen=True)
class Done:
    """A command that has ended, or was ended.

    Attributes:
      code: its exit code, below 0 if a signal killed it; None if it was ended because it hung.
      out, err: what it printed.
      memory: bytes that it held at most, about.
      took: seconds from `signalled` to its end.
    """

    code: int | None
    out: str
    err: str
    memory: int
    took: float = 0.0

    @property
    def said(self) -> str:
        return f"{self.out}\n{self.err}"

    @property
    def last(self) -> str:
        lines = [line for line in self.err.splitlines() if line.strip()]
        return lines[-1] if lines else ""


def run(
    words: list,
    environment: dict,
    until: Callable[[], bool] | None = None,
    number: int = 0,
    work: float = WORK,
) -> Done:
    """Runs a command; sends it the signal `number` as soon as `until()` is true.

    After so many seconds of `work` of a processor it is ended.
    """
    with commands.started(words[0], *words[1:], environment=environment) as command:
        pid, sent, memory = command.process.pid, None, 0
        worked, active = 0.0, time.monotonic()
        while command.process.is_alive():
            memory, before = max(memory, _peak(pid)), worked
            worked = _work(pid) or worked
            now = time.monotonic()
            active = now if worked > before else active
            if sent is None and until is not None and until():
                os.kill(pid, number)
                sent = now
            stuck = worked > work or now - active > IDLE or (sent and now - sent > 6 * TO_LEAVE)
            if stuck or memory > MEMORY:  # before the system ends others for want of it
                os.kill(pid, signal.SIGKILL)
                command.process.join()
                return Done(None, *command.printed(), memory, now - (sent or now))
            command.process.join(ASKING)
        took = 0.0 if sent is None else time.monotonic() - sent
        return Done(command.process.exitcode, *command.printed(), memory, took)


def _work(pid: int) -> float:
    """Seconds of a processor that a process has taken, with the children it has waited for."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def _peak(pid: int) -> int:
    """Bytes that a process held at most."""
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:  # it ends at this very moment
        return 0
    found = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
    return int(found[0]) * 1024 if found else 0


def judged(done: Done, *, names: tuple[str, ...] = (), goes_on: bool = False) -> Verdict:
    """The verdict on a command that met a fault.

    Args:
      names: at least one of them must be in what it says; empty: it need say nothing.
      goes_on: whether exit code 0 is right; if not, only a refusal is.
    """
    if done.memory > MEMORY:
        return Verdict(BAD, f"takes {done.memory / 1e9:.1f} GB")
    if done.code is None:
        return Verdict(BAD, f"hangs, or takes minutes; last line: {done.last!r}")
    if done.code < 0:
        return Verdict(BAD, f"dies by signal {-done.code}")
    if "Traceback" in done.err:
        return Verdict(SHORT, f"traceback: {done.last!r}")
    told = not names or any(name in done.said for name in names)
    if done.code == 0:
        if not goes_on:
            return Verdict(BAD, "accepted without a word" if not told else "accepted")
        return Verdict(RIGHT) if told else Verdict(BAD, f"goes on and says nothing of {names}")
    if done.code not in (1, 2):
        return Verdict(BAD, f"exit code {done.code}; last line: {done.last!r}")
    if done.code == 2 and not done.last.startswith("error: "):
        return Verdict(SHORT, f"not one line of error: {done.last!r}")
    if not told:
        return Verdict(SHORT, f"does not name {' or '.join(names)}: {done.last!r}")
    return Verdict(RIGHT)

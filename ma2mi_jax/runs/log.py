"""How a run goes: a line of numbers for each step that is logged, for programs and for
TensorBoard."""

import collections
import json
import pathlib
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import RecordWriter
from tensorboardX.summary import scalar

from ma2mi_jax import files
from ma2mi_jax.runs import processes

METRICS = "metrics.jsonl"


class MetricsLog:
    """`metrics.jsonl` (an object on each line) and TensorBoard events in a run's folder.

    Each line names the step of the line before it (`after`), so that a missing one is seen.

    Use it as a context manager. A resumed run goes on from its checkpoint and writes the lines
    after it again; so the lines of those steps are dropped first. Of several processes the first
    alone writes.

    Args:
      path: the run's folder.
      start: lines of steps >= `start` are dropped.
      log: is told of lines that cannot be read, or are missing.
      every: so many steps lie between two lines from now on; None asks for no lost ones.

    Attributes:
      lines: all lines so far, as dictionaries.
    """

    def __init__(
        self,
        path: pathlib.Path,
        start: int = 0,
        log: Callable[[str], None] = lambda _: None,
        every: int | None = None,
    ):
        file, before = path / METRICS, read_metrics(path, log)
        self.lines = [line for line in before if line["step"] < start]
        if every and (missing := _missing(self.lines, start, every)):
            log(f"{file}: lines are missing, {', '.join(missing)}; the run goes on without them")
        self._writes = processes.is_first()
        if not self._writes:
            return
        with files.whole(file) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in self.lines))
        self._path, self._file = path, file.open("a")
        # not by tensorboardX's own thread, which dies at a full disk without a word
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}"
        self._events = RecordWriter(str(path / name))
        self._event(file_version="brain.Event:2")
        if start or before:  # TensorBoard forgets the steps from here on
            self._event(step=start, session_log=SessionLog(status=SessionLog.START))

    def write(
        self,
        step: int,
        values: Mapping[str, float],
        learned: Mapping[str, Any] | None = None,
        apart: Mapping[str, Any] | None = None,
    ) -> None:
        """Writes one line; `step` is the number of updates, or of epochs, already made.

        Args:
          learned: a look at what was learned (`training.learned`), where one was taken.
          apart: what stands in the line alone, and is not shown in TensorBoard.
        """
        after = self.lines[-1]["step"] if self.lines else None
        line = {"step": step, "after": after}
        line |= {name: float(value) for name, value in values.items()}
        line |= apart or {}
        if learned:
            line["learned"] = dict(learned)
        self.lines.append(line)
        if not self._writes:
            return
        with files.naming(self._path):
            self._file.write(json.dumps(files.plain(line)) + "\n")
            self._file.flush()
            for name, value in values.items():
                self._event(step=step, summary=scalar(name, float(value)))
            for name, value in _flat(learned or {}, "learned"):
                self._event(step=learned["step"], summary=scalar(name, value))
            self._events.flush()

    def _event(self, **content: Any) -> None:
        self._events.write(Event(wall_time=time.time(), **content).SerializeToString())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if not self._writes:
            return
        with files.naming(self._path):
            try:
                self._file.close()
            finally:
                self._events.close()


def _missing(lines: list[dict[str, Any]], start: int, every: int) -> list[str]:
    """Between which steps before `start` lines are missing. Each line names the one before it;
    those of earlier versions do not, and tell nothing."""
    steps = [None, *(line["step"] for line in lines)]
    found = [
        f"before step {line['step']}" if before is None else f"from {before} to {line['step']}"
        for before, line in zip(steps, lines, strict=False)
        if line.get("after", before) != before
    ]
    last = lines[-1] if lines else {"step": 0}
    # `every` may have been another for the last lines
    usual = max(every, last["step"] - (last.get("after") or 0))
    if start and (not lines or start - last["step"] > usual):
        found.append(f"before step {start}")
    return found


def _flat(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    """All numbers in nested mappings, by names like `learned/floors/copy`."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}/{name}")
        else:
            yield f"{prefix}/{name}", float(value)


def read_metrics(
    path: pathlib.Path, log: Callable[[str], None] = lambda _: None
) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`, `[]` if there is none.

    Lines that are not whole are left out, and `log` is told; but not of a last one that was cut
    short when the run was killed.
    """
    file = path / METRICS
    rows = file.read_bytes().splitlines(keepends=True) if file.exists() else []
    read = {number: _line(row) for number, row in enumerate(rows, 1)}
    whole = [_numbers(line) for line in read.values() if line is not None]
    counts = collections.Counter(name for names in whole for name in names)
    common = {name for name, count in counts.items() if 2 * count > len(whole)}
    alone = {name for name, count in counts.items() if count == 1}
    lines, broken = [], []
    for number, line in read.items():
        # A flipped letter of a name: a name of most lines is lacking, and there is one of no other.
        # An earlier version's lines lack names too, but are many.
        if line is not None and (common <= _numbers(line) or not alone & _numbers(line)):
            lines.append(line)
        elif number < len(rows) or rows[-1].endswith(b"\n"):
            broken.append(number)
    if broken:
        log(
            f"{file}: {len(broken)} lines are damaged and left out (first: line {broken[0]}); "
            "those around them are kept"
        )
    return lines


def _numbers(line: Mapping[str, Any]) -> set[str]:
    """The names of what is a number, or was none that JSON knows."""
    return {name for name, value in line.items() if value is None or isinstance(value, int | float)}


def _line(row: bytes) -> dict[str, Any] | None:
    """One line; None if it is not an object with a `step`."""
    try:
        line = json.loads(row)
    except (ValueError, RecursionError):  # not JSON, not even text, or nested without end
        return None
    whole = isinstance(line, dict) and type(line.get("step")) is int
    return line if whole else None

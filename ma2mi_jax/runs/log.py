"""How a run goes: a line of numbers for each step that is logged, for programs and for
TensorBoard."""

import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import tensorboardX

from ma2mi_jax import files

METRICS = "metrics.jsonl"


class MetricsLog:
    """`metrics.jsonl` (an object on each line) and TensorBoard events in a run's folder.

    Use it as a context manager. A resumed run goes on from its checkpoint and writes the lines
    after it again; so the lines of those steps are dropped first.

    Args:
      path: the run's folder.
      start: lines of steps >= `start` are dropped.

    Attributes:
      lines: all lines so far, as dictionaries.
    """

    def __init__(self, path: pathlib.Path, start: int = 0):
        file = path / METRICS
        self.lines = [line for line in read_metrics(path) if line["step"] < start]
        with files.whole(file) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in self.lines))
        self._file = file.open("a")
        self._events = tensorboardX.SummaryWriter(str(path), purge_step=start if start else None)

    def write(
        self, step: int, values: Mapping[str, float], learned: Mapping[str, Any] | None = None
    ) -> None:
        """Writes one line; `step` is the number of updates already made.

        Args:
          learned: a look at what was learned (`training.learned`), where one was taken.
        """
        line = {"step": step} | {name: float(value) for name, value in values.items()}
        if learned:
            line["learned"] = dict(learned)
        self.lines.append(line)
        self._file.write(json.dumps(files.plain(line)) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._events.add_scalar(name, float(value), step)
        for name, value in _flat(learned or {}, "learned"):
            self._events.add_scalar(name, value, learned["step"])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()
        self._events.close()


def _flat(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    """All numbers in nested mappings, by names like `learned/floors/copy`."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}/{name}")
        else:
            yield f"{prefix}/{name}", float(value)


def read_metrics(path: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`, `[]` if there is none.

    A last line that was cut short when the run was killed is left out.
    """
    file = path / METRICS
    lines = []
    for line in file.read_text().splitlines() if file.exists() else ():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return lines

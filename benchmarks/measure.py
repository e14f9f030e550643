"""Times several ways of doing one thing in turns, each in a process of its own.

A process of its own has its own first step and its own peak of memory, leaves the others their
threads, and takes nothing along when it dies. Between its turns it only waits.
"""

import contextlib
import dataclasses
import multiprocessing
import os
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from unittest import mock

from ma2mi_jax import memory

SPAWN = multiprocessing.get_context("spawn")  # a fork would share JAX's and PyTorch's threads

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Built:
    """Something that can be timed.

    Attributes:
      run: does it once, to the end, and returns what came out.
      peak: the most bytes that were in use, see `peak_of_process`.
      facts: what else is known of it, by name.
    """

    run: Callable[[], Any]
    peak: Callable[[], int]
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Way:
    """One way of doing it.

    Attributes:
      row: what names it, by column of the table.
      build: a function of a module; the way's process calls it with `arguments`.
      environment: variables of that process, beside those of this one.
    """

    row: Row
    build: Callable[..., Built]
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)


def peak_of_process() -> int:
    """The most bytes of main memory that this process ever had in use, libraries included."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def compare(ways: Sequence[Way], repeats: int, warm_up: int = 1) -> list[Row]:
    """Times all ways in turns: 1, 2, 3, then 3, 2, 1, and so on.

    They share a GPU's memory, which may hold one of them but not all. So a way that fails beside
    others is tried once more, alone.

    Returns:
      For each way its `row` and its facts, with `first` (seconds to build it and run it once,
      imports not counted), `seconds` (median of `repeats`), `fastest` and `peak_bytes`; or with
      `failed`, which says why there are none. `alone` says why it failed beside the others.
    """
    rows = _in_turns(ways, repeats, warm_up)
    if len(ways) == 1:
        return rows
    return [
        _in_turns([way], repeats, warm_up)[0] | {"alone": row["failed"]} if "failed" in row else row
        for way, row in zip(ways, rows, strict=True)
    ]


def _in_turns(ways: Sequence[Way], repeats: int, warm_up: int) -> list[Row]:
    with contextlib.ExitStack() as stack:
        # One after the other: nothing runs beside a first step.
        processes = [stack.enter_context(_process(way)) for way in ways]
        times: list[list[float]] = [[] for _ in ways]
        for turn in range(warm_up + repeats):
            order = range(len(ways))
            for number in order if turn % 2 == 0 else reversed(order):
                answer = processes[number].ask("run")
                if turn >= warm_up and "seconds" in answer:
                    times[number].append(answer["seconds"])
        return [
            _result(way.row, process, seconds)
            for way, process, seconds in zip(ways, processes, times, strict=True)
        ]


def _result(row: Row, process: "_Process", seconds: Sequence[float]) -> Row:
    peak = process.ask("peak")
    if "failed" in process.known:
        return row | {"failed": process.known["failed"]}
    timed = {"seconds": statistics.median(seconds), "fastest": min(seconds)} if seconds else {}
    return row | process.known | timed | peak


# ----- processes ----------------------------------------------------------------------------------


class _Process:
    """The parent's end of a process that serves one way."""

    def __init__(self, process, pipe):
        self._process, self._pipe = process, pipe
        self.known = self._answer()  # its first step and its facts; or `failed`

    def ask(self, what: str) -> Row:
        """The answer; empty from a process that failed."""
        if "failed" in self.known:
            return {}
        self._pipe.send(what)
        answer = self._answer()
        if "failed" in answer:
            self.known = answer
        return answer

    def _answer(self) -> Row:
        try:
            return self._pipe.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            return {"failed": f"its process ended with code {self._process.exitcode}"}


@contextlib.contextmanager
def _process(way: Way) -> Iterator[_Process]:
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=_serve, args=(theirs, way.build, way.arguments))
    with mock.patch.dict(os.environ, way.environment):
        process.start()
    theirs.close()
    try:
        yield _Process(process, ours)
    finally:
        ours.close()  # the process then ends by itself
        process.join()


def _serve(pipe, build: Callable[..., Built], arguments: Mapping[str, Any]) -> None:
    """Builds and runs once; then answers until the parent hangs up."""
    memory.keep()  # as scripts do; PyTorch, too
    try:
        began = time.perf_counter()
        built = build(**arguments)
        built.run()
        pipe.send({"first": time.perf_counter() - began, **built.facts})
        while True:
            try:
                question = pipe.recv()
            except EOFError:
                return
            if question == "peak":
                pipe.send({"peak_bytes": built.peak()})
                continue
            began = time.perf_counter()
            built.run()
            pipe.send({"seconds": time.perf_counter() - began})
    except Exception as error:  # whatever went wrong is this way's result, and the table tells it
        said = str(error).splitlines() or [""]
        pipe.send({"failed": f"{type(error).__name__}: {said[0][:200]}"})

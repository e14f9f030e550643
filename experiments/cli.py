"""What the scripts share: flags in plain words, one line for an error, progress and tables."""

import argparse
import contextlib
import math
import os
import pathlib
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

ROOT = pathlib.Path(__file__).resolve().parent.parent
if (ROOT / "ma2mi_jax" / "__init__.py").is_file():  # a clone: its scripts work without installing
    sys.path.insert(0, str(ROOT))  # in a wheel this folder is inside the package

from ma2mi_jax import memory, signals

FOLDER = pathlib.Path(__file__).resolve().parent
WATCH = signals.Watch()
if pathlib.Path(getattr(sys.modules["__main__"], "__file__", "")).resolve().parent == FOLDER:
    WATCH.install()  # first of all: imports take seconds. But not where tests import this file
    signals.end_with_parent()
    memory.keep()

try:
    import jax
    import pace
    import rich.console
    import rich.table

    from ma2mi_jax import files
    from ma2mi_jax.datasets import registry
    from ma2mi_jax.errors import UserError
    from ma2mi_jax.evaluation.blocks import (
        Block,
        Code,
        Heading,
        Items,
        Picture,
        Table,
        Text,
        of_numbers,
        without_empty,
    )
    from ma2mi_jax.runs import processes
    from ma2mi_jax.runs.listener import Listener
except ImportError as error:  # a package, or a library that it needs: OpenCV's libGL.so.1
    print(f"error: {error}; install the packages of requirements.txt", file=sys.stderr)
    sys.exit(2)

WIDTH = None if sys.stdout.isatty() else 2000  # no terminal bounds tables: they keep paths whole
PLAIN = {"highlight": False, "emoji": False}  # names and JSON as they are: `:x:` is no picture
out = rich.console.Console(width=WIDTH, **PLAIN)
err = rich.console.Console(stderr=True, **PLAIN)


class Parser(argparse.ArgumentParser):
    """argparse's, but a wrong flag is a `UserError` like any other: one line, no list of flags."""

    def error(self, message):
        raise UserError("{message}; --help lists the flags", message=message)


def parser(doc: str, speaks: bool = True) -> argparse.ArgumentParser:
    """A parser whose help is `doc`.

    Flags are never abbreviated, so that a new flag cannot change an old command. A parser that
    `speaks` is the running script's: it spells the parameters in the library's errors (`spell`).
    """
    raw = argparse.RawDescriptionHelpFormatter
    made = Parser(description=doc, allow_abbrev=False, formatter_class=raw)
    if speaks:
        SPEAKING[:] = [made]
    return made


SPEAKING: list[argparse.ArgumentParser] = []  # the running script's parser
FLAGS = {"root": "data-root", "latent": "posterior"}  # parameters with another name as a flag
EARLIER = {"latent": "--latent"}  # how a flag was called once; it is read, and not shown
ELSEWHERE = {  # what to call a parameter that the running script has no flag for
    "root": "the folder named in the run's config.json",
    "out": "the folder",
}


def spell(parameter: str) -> str:
    """How a person gives a parameter of the library to the running script: its flag, if any."""
    flag = f"--{FLAGS.get(parameter, parameter).replace('_', '-')}"
    known = {
        option for made in SPEAKING for action in made._actions for option in action.option_strings
    }
    if flag in known:
        return flag
    return ELSEWHERE.get(parameter, parameter.replace("_", " "))


def run(main) -> None:
    """Calls `main(argv)`. The exit code is 0 or what it returns; 2 after a `UserError`, or an error
    of the system, whose one line goes to stderr; 130 after SIGINT (Ctrl-C), 143 after SIGTERM. Of
    several processes none outlives one that fails."""
    WATCH.begin()
    try:
        with signals.unread():
            code = main(sys.argv[1:]) or 0
        processes.part()
        WATCH.end()
        sys.exit(code)
    except UserError as error:
        fail(error.spelled(spell))
    except (KeyboardInterrupt, Exception) as error:
        if isinstance(error, KeyboardInterrupt) or WATCH.received is not None:
            # a library may have made another error of the interruption
            WATCH.received = WATCH.received or processes.stopped_by()
            print("interrupted; the same command goes on with what is saved", file=sys.stderr)
            processes.leave(WATCH.exit_code)
            WATCH.leave()
        if processes.is_lost(error):
            reason = str(error).splitlines()[0]
            fail(
                f"another process has gone, or does not answer ({reason}); start all again, and "
                "they go on with what is saved"
            )
        if not isinstance(error, OSError):
            if processes.count() > 1:
                traceback.print_exc()
                processes.leave(1)
            raise
        # a full or lost disk, a folder that may not be written
        reason = error.strerror or " ".join(str(error).split())
        where = f"{files.printable(str(error.filename))}: " if error.filename else ""
        fail(f"{where}{reason}; mend that, and the same command goes on if it can")


def fail(reason: str) -> NoReturn:
    """Ends with exit code 2 and a line on stderr."""
    who = f"process {processes.index()}: " if processes.index() else ""
    print(f"error: {who}{reason}", file=sys.stderr)
    processes.leave(2)
    sys.exit(2)


def log(message: str) -> None:
    """A line on stderr."""
    err.print(message, markup=False, soft_wrap=True)


def truth(text: str) -> bool:
    """A flag's `true` or `false`."""
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r}: expected true or false")
    return text.lower() == "true"


def span(text: str) -> tuple[int, int]:
    """A flag's range of positive integers, `3:8`, or a single one."""
    try:
        low, high = map(int, (text if ":" in text else f"{text}:{text}").split(":"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected two integers as in 3:8") from None
    if not 1 <= low <= high:
        raise argparse.ArgumentTypeError(f"{text!r}: expected 1 <= first <= last")
    return low, high


def at_least(least: int):
    """A flag's integer >= `least`."""

    def read(text: str) -> int:
        with contextlib.suppress(ValueError):
            if int(text) >= least:
                return int(text)
        raise argparse.ArgumentTypeError(f"{text!r}: expected an integer >= {least}")

    return read


positive, natural = at_least(1), at_least(0)


def multiple_of(step: int):
    """A flag's positive integer that `step` divides."""

    def read(text: str) -> int:
        with contextlib.suppress(ValueError):
            if int(text) > 0 and int(text) % step == 0:
                return int(text)
        raise argparse.ArgumentTypeError(f"{text!r}: expected a positive multiple of {step}")

    return read


def above_zero(text: str) -> float:
    """A flag's finite number > 0."""
    with contextlib.suppress(ValueError):
        if 0 < float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r}: expected a number above 0")


def listed(allowed, kind=str):
    """A flag's comma-separated choices."""

    def read(text):
        try:
            chosen = [kind(word) for word in text.split(",")]
        except ValueError:
            chosen = [None]
        if not set(chosen) <= set(allowed):
            raise argparse.ArgumentTypeError(
                f"{text!r}: expected one or more of {', '.join(map(str, allowed))}, "
                "separated by commas"
            )
        return sorted(set(chosen), key=allowed.index)

    return read


def make_folder(path: pathlib.Path) -> None:
    """The folder of --out, if it is not there yet.

    Raises:
      UserError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            "[out={path}]: the folder cannot be made ({reason}); choose another",
            path=path,
            reason=error.strerror,
        ) from None


def keep_compiled_programs() -> None:
    """Compilations are kept on disk: the second start of a run takes seconds."""
    if not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(registry.cache_dir() / "xla"))


@contextlib.contextmanager
def progress(what: str, total: int, start: int = 0):
    """A bar on stderr with rate and time left; yields `advance(n=1, note=None)`.

    Off a terminal lines tell the same."""
    work = pace.Pace(what, total, start)
    with pace.shown(work, err, log):
        yield work.advance


LISTENER = Listener(log, progress, err.is_terminal, WATCH.stoppable)


def say(message: str) -> None:
    """A line on stdout, not folded."""
    out.print(message, markup=False, soft_wrap=True)


# ----- several processes --------------------------------------------------------------------------


def add_launch(to: argparse.ArgumentParser) -> tuple[str, ...]:
    """The flags of a process of several, by the names of `jax.distributed.initialize`; their
    names."""
    group = to.add_argument_group("several processes, where no launcher tells them of each other")
    helps = {
        "coordinator_address": ("HOST:PORT", str, "of process 0: its machine, and a free port"),
        "num_processes": ("N", positive, "how many processes make this run"),
        "process_id": ("I", natural, "number of this one, 0 to N-1"),
    }
    for name, (metavar, kind, help) in helps.items():
        flag = f"--{name.replace('_', '-')}"
        group.add_argument(flag, metavar=metavar, type=kind, help=help, default=argparse.SUPPRESS)
    return tuple(helps)


def join(argv: Sequence[str], *, apart: bool) -> Listener:
    """Joins the other processes of this run, if there are any; who listens to this one.

    Args:
      argv: of the script, with flags of `add_launch` or without.
      apart: see `processes.join`.

    Raises:
      UserError: a flag is missing, or the others do not come.
    """
    reader = Parser(add_help=False, allow_abbrev=False)
    names = add_launch(reader)
    given = vars(reader.parse_known_args(argv)[0])
    if missing := given and [name for name in names if name not in given]:
        raise UserError(
            "[{missing}] is missing; give [coordinator_address], [num_processes], [process_id], or "
            "none of them",
            missing=missing[0],
        )
    launch = processes.Launch(*given.values()) if given else processes.launched(os.environ)
    if launch is not None and launch.count > 1:
        processes.join(launch, apart=apart)
    return processes.listener(LISTENER, lambda: WATCH.received)


def print_absent(summary) -> None:
    """Says which classes count as 0 in UF1 because nothing of them is there."""
    for name in summary["absent_classes"]:
        say(f"{name}: neither labelled nor predicted; it counts as 0 in UF1")


MOST = 20  # clips set aside that are shown


def print_set_aside(rows, file: str) -> None:
    """The clips that cannot be used.

    Args:
      rows: id and reason of each.
      file: where all of them are listed, if there are too many to show.
    """
    if rows:
        more = f"and {len(rows) - MOST} more, in {file}" if len(rows) > MOST else ""
        table(f"{len(rows)} clips set aside", ("clip", "reason"), rows[:MOST], more)


def table(title: str, columns: tuple[str, ...], rows, caption: str = "") -> None:
    """A table on stdout; numbers come ready as text.

    Title and caption are lines of their own, not folded to the width of the table."""
    out.print(title, style="bold", markup=False, soft_wrap=True)
    grid(columns, rows, caption)


def grid(columns: Sequence[str], rows, caption: str = "") -> None:
    """A table without a title."""
    t = rich.table.Table(box=rich.table.box.SIMPLE)
    rows = [[str(cell) for cell in row] for row in rows]
    for i, (column, number) in enumerate(zip(columns, of_numbers(columns, rows), strict=True)):
        t.add_column(column, justify="right" if i and number else "left")
    for row in rows:
        t.add_row(*row)
    out.print(t, markup=False)
    if caption:
        out.print(f"{caption}\n", markup=False, soft_wrap=True)


def show(blocks: Sequence[Block]) -> None:
    """The blocks of a page on stdout, but for its pictures."""
    for block in blocks:
        match block:
            case Heading(text):
                out.print(text, style="bold", markup=False, soft_wrap=True)
            case Text(text):
                say(text)
            case Items(lines) | Code(lines):
                for line in lines:
                    say(f"  {line}")
            case Table():
                table = without_empty(block)
                grid(table.columns, table.rows, table.caption)
            case Picture():
                pass

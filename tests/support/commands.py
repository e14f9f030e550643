"""Scripts run as people run them: their words go in, text and an exit code come out.

A fresh interpreter takes about eight seconds to import everything. So a server imports it once and
forks; no JAX backend is there before the fork. What is started alone (`started`) has a process of
its own. What is run to its end (`run`) shares one, command after command, in which a program that
was compiled need not be compiled again.
"""

import atexit
import contextlib
import dataclasses
import multiprocessing
import os
import pathlib
import runpy
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parents[2]
IMPORTED = [
    "orbax.checkpoint",
    "tensorboardX",
    "ma2mi_jax.datasets.drawn.synthetic",
    "ma2mi_jax.evaluation.inference",
    "ma2mi_jax.evaluation.outcome",
    "ma2mi_jax.reproduction.page",
    "ma2mi_jax.training.pretraining_run",
]
TWELVE_CLIPS = [  # of three drawn subjects: the shortest fine-tuning of which clips can be asked
    "--target=synthetic",
    "--preset=smoke",
    "--subjects=3",
    "--clips-per-subject=4",
    "--batch-size=8",
    "--epochs=1",
    "--fold-chunk=1",
]
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(IMPORTED)


def one_device(**variables: str) -> dict[str, str]:
    """The environment without the eight fake devices of the other tests, and with `variables`."""
    # Fusions are compiled by XLA's older emitter, as in tests/conftest.py.
    fixed = {"XLA_FLAGS": "--xla_cpu_use_fusion_emitters=false", "MA2MI_DATA": ""}
    return os.environ | fixed | {"HF_HUB_OFFLINE": "1"} | variables


@dataclasses.dataclass(frozen=True)
class Started:
    """A command that runs: its process, and the files to which it prints."""

    process: multiprocessing.process.BaseProcess
    words: list[str]
    files: tuple[pathlib.Path, pathlib.Path]

    def printed(self) -> tuple[str, str]:
        """What it wrote to stdout and to stderr until now."""
        return _texts(self.files)


@contextlib.contextmanager
def started(
    script: str | pathlib.Path, *flags: object, environment: dict[str, str]
) -> Iterator[Started]:
    """Starts experiments/`script`.py, or a file by its whole path without `.py`.

    If it still runs at the end of the block, it is killed.
    """
    words = [_file(script), *map(str, flags)]
    with tempfile.TemporaryDirectory() as folder:
        files = pathlib.Path(folder, "out"), pathlib.Path(folder, "err")
        process = SERVER.Process(target=_run, args=(words, environment, *files))
        process.start()
        try:
            yield Started(process, words, files)
        finally:
            if process.is_alive():
                process.kill()
            process.join()


def run(
    script: str | pathlib.Path, *flags: object, environment: dict[str, str], timeout: float = 280
) -> subprocess.CompletedProcess:
    """Runs a command to its end; returns its exit code and all that it prints, as text.

    JAX takes its settings from the `environment` of the first command.
    """
    words = [_file(script), *map(str, flags)]
    with tempfile.TemporaryDirectory() as folder:
        files = pathlib.Path(folder, "out"), pathlib.Path(folder, "err")
        code = _Runner.now().ask((words, environment, *files), timeout)
        if code is None:
            raise subprocess.TimeoutExpired(words, timeout, *_texts(files))
        return subprocess.CompletedProcess(words, code, *_texts(files))


class _Runner:
    """A process that runs commands one after the other."""

    there: "_Runner | None" = None

    def __init__(self):
        self.ours, theirs = SERVER.Pipe()
        self.process = SERVER.Process(target=_serve, args=(theirs,))
        self.process.start()
        theirs.close()
        atexit.register(self.ours.close)  # at which it ends

    @classmethod
    def now(cls) -> "_Runner":
        """The one of this process; a new one if the last was lost with its command."""
        if cls.there is None or not cls.there.process.is_alive():
            cls.there = cls()
        return cls.there

    def ask(self, task: tuple, timeout: float) -> int | None:
        """The exit code of a command; None if it has none after so many seconds."""
        self.ours.send(task)
        try:
            if self.ours.poll(timeout):
                return self.ours.recv()
        except EOFError:  # a signal ended it
            self.process.join()
            return self.process.exitcode
        self.process.kill()
        self.process.join()
        return None


def _serve(asked):
    with contextlib.suppress(EOFError):
        while True:
            words, environment, *files = asked.recv()
            try:
                _run(words, environment, *files)
                code = 0
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else int(end.code is not None)
            except BaseException:  # as an interpreter ends with it
                traceback.print_exc()
                code = 1
            sys.stderr.flush()
            asked.send(code)


def _texts(files):
    return tuple(file.read_text(errors="replace") if file.exists() else "" for file in files)


def _file(script):
    return str(ROOT / "experiments" / f"{script}.py")


def _run(words, environment, out, err):
    for path, descriptor in ((out, 1), (err, 2)):
        with path.open("wb") as file:
            os.dup2(file.fileno(), descriptor)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(ROOT)
    sys.argv = words
    if (scripts := str(ROOT / "experiments")) not in sys.path:
        sys.path.insert(0, scripts)
    try:
        runpy.run_path(words[0], run_name="__main__")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def free_port() -> int:
    """A port of this machine at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]

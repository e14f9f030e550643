"""Scripts run as people run them: each in a process of its own, with its own exit code.

A fresh interpreter takes about eight seconds to import everything. So a server imports it once, and
forks for each command; no JAX backend is there before the fork.
"""

import multiprocessing
import os
import pathlib
import runpy
import subprocess
import sys
import tempfile

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
    "--preset=tiny",
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
    # Fusions are compiled by XLA's older emitter, in a third of the time. Its numbers are the same
    # on one device, whoever compiles.
    fixed = {"XLA_FLAGS": "--xla_cpu_use_fusion_emitters=false", "MA2MI_DATA": ""}
    return os.environ | fixed | {"HF_HUB_OFFLINE": "1"} | variables


def run(
    script: str | pathlib.Path, *flags: object, environment: dict[str, str], timeout: float = 280
) -> subprocess.CompletedProcess:
    """Runs experiments/`script`.py, or a file by its whole path without `.py`.

    Returns its exit code and all that it prints, as text.
    """
    words = [str(ROOT / "experiments" / f"{script}.py"), *map(str, flags)]
    with tempfile.TemporaryDirectory() as folder:
        out, err = (pathlib.Path(folder, name) for name in ("out", "err"))
        process = SERVER.Process(target=_run, args=(words, environment, out, err))
        process.start()
        process.join(timeout)
        if process.is_alive():
            process.kill()
            raise subprocess.TimeoutExpired(words, timeout, out.read_bytes(), err.read_bytes())
        printed = (path.read_text() for path in (out, err))
        return subprocess.CompletedProcess(words, process.exitcode, *printed)


def _run(words, environment, out, err):
    for path, descriptor in ((out, 1), (err, 2)):
        with path.open("wb") as file:
            os.dup2(file.fileno(), descriptor)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(ROOT)
    sys.argv = words
    sys.path.insert(0, str(ROOT / "experiments"))
    try:
        runpy.run_path(words[0], run_name="__main__")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()

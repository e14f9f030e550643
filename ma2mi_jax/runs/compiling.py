"""How to compile what runs once, and what a user is told while a program is compiled.

A compilation takes from seconds to minutes, in which nothing else is to be seen.
"""

import contextlib
import hashlib
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import jax

from ma2mi_jax import files
from ma2mi_jax.errors import UserError
from ma2mi_jax.runs.listener import Listener

FILE = "ma2mi_seconds.json"  # program -> seconds; beside the programs that JAX keeps
CACHED = 3.0  # seconds; what is ready sooner was not compiled, but read from a cache
ONCE = {
    "compiler_options": {
        "xla_backend_optimization_level": 1,
        "xla_llvm_disable_expensive_passes": True,
    }
}
"""`jax.jit(draw, **ONCE)` compiles in a quarter of the time what runs once, like the draw of the
first weights; its numbers were the same (docs/performance.md)."""


@contextlib.contextmanager
def told(what: str, program: Any, listener: Listener) -> Iterator[None]:
    """Around the first call of a compiled function.

    The seconds are kept where JAX keeps compiled programs; if it keeps none, nor are they.

    Args:
      what: is compiled, in words.
      program: what its text depends on; its `repr` tells it from others.
      listener: is told before, and after it if it was compiled and not read from a cache.
    """
    made_for = (jax.__version__, jax.devices()[0].device_kind, jax.device_count())
    key = hashlib.sha256(repr((what, program, made_for)).encode()).hexdigest()[:16]
    known = _read()
    last = f"took {known[key]:.0f} s last time" if key in known else "may take minutes"
    listener.log(f"compiling {what} ({last})")
    began = time.monotonic()
    yield
    seconds = time.monotonic() - began
    if seconds < CACHED:
        return
    listener.log(f"compiled in {seconds:.0f} s")
    if folder := _folder():
        with contextlib.suppress(OSError):  # it is for people to know; nothing depends on it
            folder.mkdir(parents=True, exist_ok=True)
            files.write_json(folder / FILE, _read() | {key: round(seconds, 1)})


def _folder() -> pathlib.Path | None:
    """Where JAX keeps compiled programs; None if it keeps none, or not on a disk."""
    folder = jax.config.jax_compilation_cache_dir
    return pathlib.Path(folder) if folder and "://" not in folder else None


def _read() -> dict[str, float]:
    try:
        return (
            files.read_json(folder / FILE, shape=dict[str, float]) if (folder := _folder()) else {}
        )
    except UserError:  # missing or damaged: then nothing is known
        return {}

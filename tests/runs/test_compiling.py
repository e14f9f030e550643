"""Before a compilation people are told so, and how long the last one of that program took."""

import types

import jax
import pytest

from ma2mi_jax.runs import compiling
from ma2mi_jax.runs.listener import Listener


@pytest.fixture
def compile_for(tmp_path, monkeypatch):
    """Compiles `program` in so many seconds of a clock; returns what is said."""
    kept = jax.config.jax_compilation_cache_dir

    def run(program, seconds, folder=tmp_path / "cache"):
        jax.config.update("jax_compilation_cache_dir", folder and str(folder))
        clock = iter((100.0, 100.0 + seconds))
        fake = types.SimpleNamespace(monotonic=lambda: next(clock))
        monkeypatch.setattr(compiling, "time", fake)
        said = []
        with compiling.told("the step", program, Listener(said.append)):
            said.append("-")
        return said

    yield run
    jax.config.update("jax_compilation_cache_dir", kept)


def test_the_last_duration_is_told_the_next_time(compile_for):
    new = "compiling the step (may take minutes)"
    assert compile_for({"batch": 8}, 41.2) == [new, "-", "compiled in 41 s"]
    assert compile_for({"batch": 8}, 0.6) == ["compiling the step (took 41 s last time)", "-"]
    assert compile_for({"batch": 9}, 5.0)[0] == new
    # what came from a cache took no compilation, so it does not count as the last one
    assert compile_for({"batch": 8}, 20.0)[0] == "compiling the step (took 41 s last time)"
    assert compile_for({"batch": 8}, 20.0)[0] == "compiling the step (took 20 s last time)"


def test_other_devices_compile_another_program(compile_for, monkeypatch):
    compile_for("p", 41.0)
    monkeypatch.setattr(jax, "device_count", lambda: 64)
    assert compile_for("p", 41.0)[0] == "compiling the step (may take minutes)"


def test_a_cache_that_is_damaged_or_cannot_be_written_ends_nothing(compile_for, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / compiling.FILE).write_text("{")
    compile_for("p", 41.0)
    assert compile_for("p", 0.1)[0] == "compiling the step (took 41 s last time)"
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", "gs://bucket/cache", None):
        for _ in range(2):
            assert compile_for("p", 41.0, folder) == [
                "compiling the step (may take minutes)",
                "-",
                "compiled in 41 s",
            ]

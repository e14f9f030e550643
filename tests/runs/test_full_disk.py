"""A disk that is full while a run writes: one line, and what was whole stays whole.

A limit on the size of files stands for the disk: the system refuses a write in the same way.
"""

import contextlib
import logging
import resource

import cli
import jax.numpy as jnp
import numpy as np
import pytest

from ma2mi_jax import files
from ma2mi_jax.errors import UserError
from ma2mi_jax.runs import checkpoint
from ma2mi_jax.runs.log import MetricsLog, read_metrics

REFUSED = "File too large"


@contextlib.contextmanager
def files_of_at_most(size):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_checkpoint_that_cannot_be_written_is_one_line_and_the_older_one_is_whole(
    tmp_path, caplog
):
    state = {"w": jnp.asarray(np.random.default_rng(0).normal(size=(400, 500)), jnp.float32)}

    def train():
        with checkpoint.manager(tmp_path / "checkpoints") as saved:
            checkpoint.save(saved, 1, state)
            checkpoint.wait(saved)
            with files_of_at_most(100_000):
                checkpoint.save(saved, 2, {"w": state["w"] + 1})
                checkpoint.wait(saved)

    with (
        caplog.at_level(logging.ERROR),
        pytest.raises(UserError, match=f"checkpoints: a checkpoint .*{REFUSED}") as refused,
    ):
        train()
    assert "\n" not in str(refused.value)
    assert not [record for record in caplog.records if record.exc_info]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["1"]

    folder = tmp_path / "checkpoints"
    assert (checkpoint.restore(folder, 1, state)["w"] == state["w"]).all()
    with checkpoint.manager(folder) as saved:
        checkpoint.save(saved, 2, {"w": state["w"] + 1})
    assert (checkpoint.restore(folder, 2, state)["w"] == state["w"] + 1).all()


def test_a_log_that_cannot_be_written_names_its_folder(tmp_path):
    def train():
        with files_of_at_most(400), MetricsLog(tmp_path) as log:
            for step in range(20):
                log.write(step, {"loss": 1.0})

    with pytest.raises(OSError, match=REFUSED) as refused:
        train()
    assert refused.value.filename == str(tmp_path)
    assert len(read_metrics(tmp_path)) > 1


def test_an_array_has_its_room_before_it_is_filled(tmp_path):
    with files_of_at_most(1000), pytest.raises(OSError, match=REFUSED) as refused:
        files.array_to_fill(tmp_path / "a.npy", np.uint8, (100, 100))
    assert str(tmp_path / "a.npy") in str(refused.value)
    rows = files.array_to_fill(tmp_path / "a.npy", np.uint8, (2, 3))
    rows[:] = 7
    rows.flush()
    assert (np.load(tmp_path / "a.npy") == np.full((2, 3), 7, np.uint8)).all()


def test_a_file_that_cannot_be_written_is_one_line_with_its_name(tmp_path, capsys):
    def main(argv):
        with files_of_at_most(100):
            files.write_json(tmp_path / "results.json", list(range(1000)))

    with pytest.raises(SystemExit) as ended:
        cli.run(main)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path / 'results.json'}: {REFUSED}")
    assert list(tmp_path.iterdir()) == []

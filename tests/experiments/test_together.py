"""Two processes make one run: a pre-training together, a fine-tuning fold by fold."""

import contextlib
import itertools
import json
import os
import shutil
import signal
import time

import cli
import commands
import finetune
import flags
import numpy as np
import pytest

from ma2mi_jax.errors import UserError
from ma2mi_jax.runs.listener import Listener
from ma2mi_jax.training import pretraining_run
from ma2mi_jax.training.run_config import PretrainRun

# One encoder, the smallest DiT, and batches that eight fake devices can share.
PRETRAIN = [
    *("--source=synthetic", "--preset=smoke", "--space=pixel", "--pixel-shrink=4", "--clips=40"),
    *("--fusion=action", "--batch-size=16", "--steps=1000", "--log-every=1", "--look-every=0"),
]
WAITING = 250  # seconds


@contextlib.contextmanager
def two(script, *words, devices):
    """Two processes that make one run, of so many devices each."""
    environment = commands.one_device()
    environment["XLA_FLAGS"] += f" --xla_force_host_platform_device_count={devices}"
    words += f"--coordinator-address=127.0.0.1:{commands.free_port()}", "--num-processes=2"
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(
                commands.started(script, *words, f"--process-id={i}", environment=environment)
            )
            for i in range(2)
        ]


def ends_of(both):
    """Exit code, stdout and stderr of each, when both have ended."""
    for each in both:
        each.process.join(WAITING)
        assert each.process.exitcode is not None, each.printed()
    return [(each.process.exitcode, *each.printed()) for each in both]


def losses(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    return [json.loads(line)["loss"] for line in lines if line.endswith("\n")]


def names_of(folder):
    return sorted(path.name for path in folder.iterdir() if "tfevents" not in path.name)


def stop_after(steps):
    """A listener that lets a run make so many more steps."""

    @contextlib.contextmanager
    def stoppable():
        calls = itertools.count(1)
        yield lambda: next(calls) >= steps

    return Listener(stoppable=stoppable)


def go_on(folder, steps):
    """Pre-trains by this process alone, on eight devices."""
    run = flags.parse(PretrainRun, [*PRETRAIN, f"--run={folder}"])
    with pytest.raises(KeyboardInterrupt):
        pretraining_run.carry_out(run, stop_after(steps))


@pytest.mark.timeout(600)
def test_a_pretraining_goes_on_with_other_processes_and_devices(tmp_path):
    """One process of eight devices, then two of two, then one of eight again: one curve."""
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    go_on(alone, 1)
    shutil.copytree(alone, shared)

    with two("pretrain", *PRETRAIN, f"--run={shared}", devices=2) as both:
        deadline = time.monotonic() + WAITING
        while len(losses(shared)) < 3:
            assert time.monotonic() < deadline, [each.printed() for each in both]
            time.sleep(0.1)
        os.kill(both[1].process.pid, signal.SIGTERM)  # of one alone: both save and leave
        (first, _, told), (second, *printed) = ends_of(both)
    assert (first, second) == (143, 143), (told, printed)
    assert "resuming" in told
    assert "resuming" not in printed[1], "process 0 alone speaks"
    made = losses(shared)
    assert max(int(path.name) for path in shared.glob("checkpoints/[0-9]*")) == len(made)
    assert len(list(shared.glob("events.out.tfevents*"))) <= 2, "of one process alone"

    go_on(shared, 1)
    go_on(alone, len(made))
    assert len(losses(shared)) == len(made) + 1 == len(losses(alone))
    np.testing.assert_allclose(losses(shared), losses(alone), rtol=1e-4)


@pytest.mark.timeout(600)
def test_a_finetuning_in_two_processes_is_that_of_one(tmp_path):
    one, both = tmp_path / "one", tmp_path / "both"
    environment = commands.one_device()
    words = [*commands.TWELVE_CLIPS, "--fusion=action"]
    with two("finetune", *words, f"--run={both}", devices=1) as processes:
        (first, said, told), (second, *printed) = ends_of(processes)
    assert (first, second) == (0, 0), (told, printed)
    assert "N = 12" in said
    assert printed[0] == ""
    assert commands.run("finetune", *words, f"--run={one}", environment=environment).returncode == 0
    assert (both / "predictions.csv").read_bytes() == (one / "predictions.csv").read_bytes()
    found, alone = (json.loads((run / "results.json").read_text()) for run in (both, one))
    assert {name for name in alone if found[name] != alone[name]} <= {"seconds"}
    assert sorted(losses(both)) == sorted(losses(one))
    assert names_of(both) == names_of(one)


SAVING = """
import pathlib
import sys
import jax
import numpy as np
from ma2mi_jax.runs import checkpoint, processes

_, folder, address, index = sys.argv
processes.join(processes.Launch(address, 2, int(index)), apart=True)
assert not jax.distributed.is_initialized(), "orbax asks this"
for step in range(8):
    checkpoint.write(pathlib.Path(folder, index), step, {"weights": np.full(100, step)})
processes.part()
"""


@pytest.mark.timeout(120)
def test_the_saves_of_one_process_do_not_wait_for_those_of_another(tmp_path):
    """Orbax hears of other processes if JAX does, and then took their saves for its own."""
    (tmp_path / "saving.py").write_text(SAVING)
    address, environment = f"127.0.0.1:{commands.free_port()}", commands.one_device()
    with contextlib.ExitStack() as stack:
        ends = ends_of(
            [
                stack.enter_context(
                    commands.started(
                        tmp_path / "saving", tmp_path, address, i, environment=environment
                    )
                )
                for i in range(2)
            ]
        )
    assert [code for code, *_ in ends] == [0, 0], ends
    assert len(list(tmp_path.glob("[01]/[0-9]*/state"))) == 16


def test_a_launch_says_what_is_missing(capsys):
    with pytest.raises(UserError) as refused:
        finetune.main(["--target=synthetic", "--num-processes=2"])
    assert refused.value.spelled(cli.spell) == (
        "--coordinator-address is missing; give --coordinator-address, --num-processes, "
        "--process-id, or none of them"
    )

"""A pre-training from its run object to its folder; the step and the looks are stand-ins."""

import functools
import json
import time

import jax.numpy as jnp
import pytest

from ma2mi_jax.datasets.registry import DatasetSpec
from ma2mi_jax.runs.listener import Listener
from ma2mi_jax.training import learned, pretraining_run
from ma2mi_jax.training.run_config import PretrainRun

STEPS, BATCH = 6, 16
COMPILING, STEP, LOOK = 1.0, 0.02, 0.5  # seconds


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Of so few steps that the looks, or the compiler, take much longer."""
    return PretrainRun(
        DatasetSpec("synthetic", "source", clips=BATCH),
        preset="smoke",
        space="pixel",
        steps=STEPS,
        batch_size=BATCH,
        log_every=2,
        look_every=3,
        run=str(tmp_path_factory.mktemp("runs") / "run"),
    )


@pytest.fixture
def carry_out(run, monkeypatch):
    """carry_out() -> what was told, as the run is made or goes on."""
    calls = []

    def step(config, state, batch, vae_params):
        time.sleep(STEP if calls else COMPILING)
        calls.append(batch)
        names = ("loss", "loss_rec", "copy_baseline")
        return state.replace(step=state.step + 1), dict.fromkeys(names, jnp.float32(0.5))

    def look(config, state, *_):
        time.sleep(LOOK)
        return {"step": int(state.step)}

    monkeypatch.setattr(pretraining_run, "STEP", step)
    for name, stand_in in {"held_out": None, "collapsed": "", "caution": ""}.items():
        monkeypatch.setattr(learned, name, functools.partial(lambda of, *_, **__: of, stand_in))
    monkeypatch.setattr(learned, "look", look)

    def carry_out():
        told = []
        done = pretraining_run.carry_out(run, Listener(told.append))
        return done, told

    return carry_out


def test_the_rate_is_that_of_the_steps_without_looks_and_compiling(run, carry_out):
    done, _ = carry_out()
    assert [line["step"] for line in done.lines] == [0, 2, 3, 4, 5]
    slowest = BATCH / (min(LOOK, COMPILING) - STEP)  # had one of these been counted
    assert all(line["pairs_per_second"] > slowest for line in done.lines)
    # 2, 1, 1 and 1 steps, and none of them for nothing
    assert all(line["pairs_per_second"] < BATCH / STEP for line in done.lines[1:])
    summary = json.loads((run.folder / "summary.json").read_text())
    assert summary["final"]["pairs_per_second"] > slowest


def test_a_whole_run_whose_log_is_lost_is_finished_without_it(run, carry_out):
    """Killed after its last step, before its summary."""
    if not (run.folder / "summary.json").exists():
        carry_out()
    for name in ("summary.json", "metrics.jsonl"):
        (run.folder / name).unlink()
    done, told = carry_out()
    assert any("lines are missing, before step 6" in line for line in told)
    assert (done.lines, done.final, done.averaged) == ([], {}, 0)
    summary = json.loads((run.folder / "summary.json").read_text())
    assert (summary["steps"], summary["final"], summary["learned"]) == (STEPS, {}, None)

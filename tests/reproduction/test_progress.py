"""What lies in the folders of a plan, what a stored run must be like, and making the rest."""

import concurrent.futures
import dataclasses
import functools
import json
import threading

import flags
import pytest
from stored_runs import Scripts, to_first_format, write_config

from ma2mi_jax import files
from ma2mi_jax.datasets.registry import DatasetSpec
from ma2mi_jax.models.architecture import PRESETS
from ma2mi_jax.reproduction import plans, progress
from ma2mi_jax.reproduction.plans import Size
from ma2mi_jax.runs.listener import Listener
from ma2mi_jax.training import finetuning, pretraining, run_files
from ma2mi_jax.training.run_config import FinetuneRun, PretrainRun

REAL = ("casme2", "samm", "mmew")
SIZE = Size(PretrainRun(DatasetSpec("dfew", "source")), FinetuneRun(DatasetSpec(REAL[0], "target")))
DRAWN = Size(
    PretrainRun(DatasetSpec("synthetic", "source", clips=40), preset="tiny", space="pixel"),
    FinetuneRun(DatasetSpec("synthetic", "target")),
)
SIZES = [(SIZE, REAL), (DRAWN, ("synthetic",))]


def runs_of_table(number, size=DRAWN, targets=("synthetic",)):
    return plans.runs_of(plans.plan([number], [], targets, size))


# ----- what a stored run must be like -------------------------------------------------------------


@pytest.fixture
def differ(tmp_path):
    """differ(wanted, **changes of the run that is there) -> how they differ."""

    def differ(planned, start=None, *, config=None, **changes):
        run = planned.placed(tmp_path)
        there = dataclasses.replace(run, **changes)
        write_config(there, start and start.resolved, **config or {})
        return progress.mismatch(run, run_files.read(there.folder), start)

    return differ


@pytest.fixture
def stored(tmp_path):
    """stored(planned) -> its config.json, as it is read back."""

    def stored(planned, **config):
        write_config(planned.placed(tmp_path), **config)
        return run_files.read(tmp_path / planned.folder)

    return stored


@pytest.mark.parametrize(("size", "targets"), SIZES)
@pytest.mark.parametrize("first_format", [False, True])
def test_a_run_as_the_plan_asks_is_taken(size, targets, first_format, tmp_path):
    """Also one whose config.json was written before it held a run object."""
    starts = {}
    for planned in plans.runs_of(plans.plan(plans.TABLES, plans.FIGURES, targets, size)):
        starts[planned] = write_config(planned.placed(tmp_path), starts.get(planned.init))
    for planned in starts if first_format else ():
        to_first_format(tmp_path / planned.folder)
    for planned in starts:
        found = progress.look(planned, tmp_path, flags.from_command)
        assert found == progress.State("unfinished"), planned.folder


def test_a_run_without_an_object_is_another_one_where_nobody_reads_its_command(tmp_path):
    planned = plans.pretraining(SIZE, 0)
    write_config(planned.placed(tmp_path))
    to_first_format(tmp_path / planned.folder)
    assert "an earlier version" in progress.look(planned, tmp_path).why


def test_a_run_without_an_object_is_compared_by_its_command(tmp_path):
    planned = plans.pretraining(SIZE, 0)
    write_config(planned.placed(tmp_path))
    to_first_format(tmp_path / planned.folder, ["--position-loss=false"])
    why = progress.look(planned, tmp_path, flags.from_command).why
    assert "position_loss is False there, True here" in why


def test_a_command_that_is_no_longer_understood_makes_it_another_run(tmp_path):
    planned = plans.pretraining(SIZE, 0)
    write_config(planned.placed(tmp_path))
    to_first_format(tmp_path / planned.folder, ["--no-such-flag=1"])
    found = progress.look(planned, tmp_path, flags.from_command)
    assert found.kind == "other"
    assert "no-such-flag" in found.why


def test_what_decides_no_number_does_not_matter(differ):
    neutral = {"workers": 4, "log_every": 1, "checkpoint_every": 9, "overwrite": True}
    assert differ(plans.pretraining(SIZE, 0), **neutral) == ""
    neutral = {"fold_chunk": 3, "checkpoint_every": 9, "overwrite": True, "compare": "there"}
    assert differ(plans.finetuning(SIZE, "samm", None), **neutral) == ""


def test_another_run_is_not_taken(differ):
    planned = plans.pretraining(SIZE, 0)
    assert differ(planned, learning_rate=1e-3) == "learning_rate is 0.001 there, 0.0004 here"
    assert differ(planned, delta=(1, 4)) == "delta is (1, 4) there, (3, 8) here"
    assert differ(planned, fusion="add") == "fusion is 'add' there, 'mul' here"
    assert differ(planned, preset="tiny") == "preset is 'tiny' there, 'paper' here"
    assert differ(planned, steps=9) == "steps is 9 there, None here"
    elsewhere = dataclasses.replace(planned.run.dataset, root="/elsewhere")
    assert differ(planned, dataset=elsewhere) == "root is '/elsewhere' there, None here"
    assert differ(planned, vae="mine") == "vae is 'mine' there, 'stabilityai/sd-vae-ft-mse' here"
    changed = dataclasses.replace(SIZE.pretrain, batch_size=8, learning_rate=1e-3)
    other = plans.pretraining(dataclasses.replace(SIZE, pretrain=changed), 0)
    assert differ(other, batch_size=32) == "batch_size is 32 there, 8 here"
    assert differ(other) == ""


def test_what_no_field_decides_must_be_as_today(differ, tmp_path):
    """Such as the range of τ: its value stands in the code, and was another one before."""
    planned = plans.pretraining(SIZE, 0)
    today = PRESETS["paper"]
    narrower = dataclasses.replace(today, width=32)
    assert differ(planned, config={"rotation": 9.0}) == "rotation is 9.0 there, 20.0 here"
    assert differ(planned, config={"architecture": narrower}) == "width is 32 there, 64 here"
    scratch = plans.finetuning(SIZE, "samm", None)
    assert differ(scratch, config={"architecture": narrower}) == "width is 32 there, 64 here"
    assert differ(scratch, config={"flip": False}) == "flip is False there, True here"

    write_config(planned.placed(tmp_path))
    file = tmp_path / planned.folder / "config.json"
    record = files.read_json(file)
    del record["resolved"]["config"]["position_scale"]  # made before there was that choice
    file.write_text(json.dumps(record))
    why = progress.mismatch(planned.run, run_files.read(file.parent), None)
    assert why == "position_scale is None there, 'unit' here"


OTHER = {
    "pretrain": {
        "delta": {"delta": (1, 4)},
        "delta_ms": {"delta_ms": (40, 120)},
        "preset": {"preset": "tiny"},
        "space": {"space": "pixel"},
        "vae": {"vae": "mine"},
        "cached_latents": {"cached_latents": False},
        "latent": {"latent": "sample"},
        "init": {"init": "a.safetensors"},
        "fusion": {"fusion": "add"},
        "pooling": {"pooling": "flatten"},
        "normalisation": {"normalisation": "imagenet"},
        "predict": {"predict": "latent"},
        "dit_scales": {"dit_scales": "published"},
        "pixel_shrink": {"pixel_shrink": 2, "space": "pixel"},
        "objective": {"objective": "maer"},
        "wrong_labels": {"wrong_labels": 0.25, "objective": "maer"},
        "position_loss": {"position_loss": False},
        "position_scale": {"position_scale": "raw"},
        "reconstruction_loss": {"reconstruction_loss": "l2"},
        "tau_rotation": {"tau_rotation": 10.0},
        "tau_translation": {"tau_translation": 0.2},
        "tau_flip": {"tau_flip": True},
        "epochs": {"epochs": 3},
        "steps": {"steps": 9},
        "batch_size": {"batch_size": 8},
        "learning_rate": {"learning_rate": 1e-3},
        "decay": {"decay": 0.5},
        "weight_decay": {"weight_decay": 0.5},
        "precision": {"precision": "bfloat16"},
        "seed": {"seed": 3},
    },
    "finetune": {
        "protocol": {"protocol": "kfold"},
        "folds": {"protocol": "kfold", "folds": 3},
        "folds_seed": {"folds_seed": 3},
        "folds_file": {"folds_file": "a.csv"},
        "test_target": {"test_target": "samm", "protocol": "cross"},
        "test_root": {"test_target": "samm", "protocol": "cross", "test_root": "/a"},
        "test_annotations": {"test_target": "samm", "protocol": "cross", "test_annotations": "a"},
        "select": {"select": "inner"},
        "seeds": {"seeds": 3},
        "preset": {"preset": "tiny"},
        "fusion": {"fusion": "add"},
        "pooling": {"pooling": "flatten"},
        "normalisation": {"normalisation": "imagenet"},
        "tune": {"tune": "action"},
        "frozen_statistics": {"frozen_statistics": "batch"},
        "keep_reconstruction": {"keep_reconstruction": True},
        "reconstruction_weight": {"reconstruction_weight": 0.5},
        "vae": {"vae": "mine"},
        "epochs": {"epochs": 3},
        "batch_size": {"batch_size": 8},
        "learning_rate": {"learning_rate": 1e-3},
        "decay": {"decay": 0.5},
        "weight_decay": {"weight_decay": 0.5},
        "augmentation": {"augmentation": "crop"},
        "rotation": {"rotation": 10.0},
        "translation": {"translation": 0.2},
        "flip": {"flip": False},
        "test_frames": {"test_frames": "filtered"},
        "precision": {"precision": "bfloat16"},
    },
}
"""Of each field that tells runs apart another value, and what must come with it."""
PLAIN = {"pretrain": SIZE.pretrain, "finetune": SIZE.finetune}


@pytest.mark.parametrize("script", OTHER)
def test_every_field_that_tells_runs_apart_has_another_value_here(script):
    apart = {field.name for field in dataclasses.fields(PLAIN[script]) if field.compare}
    if script == "finetune":  # what is in there counts, and not where it lies
        apart.remove("init")
    assert set(OTHER[script]) == apart - {"dataset", "further"}


@pytest.mark.parametrize(
    ("script", "name"), [(script, name) for script in OTHER for name in OTHER[script]]
)
def test_a_run_with_another_value_of_a_field_is_taken_where_it_is_asked_for(script, name, tmp_path):
    """Whatever the field is called in the configuration that the step is compiled for."""
    place = {"run": str(tmp_path / "run")}
    run = dataclasses.replace(PLAIN[script], **OTHER[script][name], **place)
    write_config(run)
    there = run_files.read(run.folder)
    assert progress.mismatch(run, there, None) == ""
    assert progress.mismatch(dataclasses.replace(PLAIN[script], **place), there, None) != ""


@pytest.mark.parametrize(
    ("script", "config", "decided"),
    [
        ("pretrain", pretraining.Config, {"classes", "steps", "dtype", "vae"}),
        ("finetune", finetuning.Config, {"architecture", "classes", "reconstruction", "dtype"}),
    ],
)
def test_what_data_and_device_do_not_decide_is_compared(script, config, decided):
    settings = set(progress.SETTINGS[script](PLAIN[script]))
    assert not settings & decided
    assert settings | decided == {field.name for field in dataclasses.fields(config)}


def test_a_fine_tune_from_another_start_is_not_taken(differ, stored, tmp_path):
    planned = plans.finetuning(SIZE, "samm", plans.pretraining(SIZE, 0))
    start = stored(planned.init)
    assert differ(planned, start) == ""
    there = run_files.read(tmp_path / planned.folder)
    other = stored(planned.init, learning_rate=1.0)
    run = planned.placed(tmp_path)
    assert progress.mismatch(run, there, other) == "it starts from another pre-training"
    scratch = stored(dataclasses.replace(planned, init=None))
    assert progress.mismatch(run, scratch, start) == "it starts from another pre-training"
    kept = "keep_reconstruction is True there, False here"
    assert differ(planned, start, keep_reconstruction=True) == kept
    assert differ(planned, start, epochs=3) == "epochs is 3 there, 80 here"
    assert progress.mismatch(run, start, start) == "it is no run of finetune.py"


def test_a_pretraining_may_lie_elsewhere_by_now(differ, stored):
    """What it is counts, and not where it lay: folders of runs may be moved."""
    planned = plans.finetuning(SIZE, "samm", plans.pretraining(SIZE, 0))
    assert differ(planned, stored(planned.init), init="/where/it/lay") == ""


# ----- making the rest ----------------------------------------------------------------------------


@pytest.fixture
def execute(tmp_path):
    """execute(todo, call, **more) -> what became of each run."""

    def execute(todo, call, **more):
        shown = lambda run: str(run.folder)  # noqa: E731
        look = lambda planned: progress.look(planned, tmp_path)  # noqa: E731
        return progress.execute(todo, tmp_path, call, look=look, shown=shown, **more)

    return execute


def test_every_run_is_made_once_and_taken_again(execute, tmp_path):
    todo = runs_of_table(4)
    first, second = Scripts(tmp_path), Scripts(tmp_path)
    assert set(execute(todo, first).values()) == {""}
    assert first.called == [planned.folder for planned in todo]
    assert set(execute(todo, second).values()) == {""}
    assert second.called == []
    other_table = Scripts(tmp_path)
    execute(runs_of_table(1), other_table)
    assert {planned.folder for planned in runs_of_table(1)} - set(other_table.called) == {
        "pretrain/synthetic-40-pixel-seed0",
        "synthetic/from-synthetic-40-pixel-seed0",
    }


def test_a_killed_plan_goes_on_where_it_stopped(execute, tmp_path):
    todo = runs_of_table(4)
    killed = Scripts(tmp_path, killed=(todo[2].folder,))
    with pytest.raises(KeyboardInterrupt):
        execute(todo, killed)
    kinds = ["finished", "finished", "unfinished", "absent", "absent", "absent"]
    assert [progress.look(planned, tmp_path).kind for planned in todo] == kinds
    again = Scripts(tmp_path)
    assert set(execute(todo, again).values()) == {""}
    assert again.called == [planned.folder for planned in todo[2:]]


def test_two_at_once_share_a_plan(execute, tmp_path, monkeypatch):
    """Each makes what the other one is not making, and both end with all of it."""
    monkeypatch.setattr(progress, "LOOKING", 0.01)
    todo, both = runs_of_table(4), threading.Barrier(2, timeout=60)
    scripts = [Scripts(tmp_path) for _ in range(2)]

    def call(number, run):
        if not scripts[number].called:
            both.wait()  # so that both have begun
        return scripts[number](run)

    with concurrent.futures.ThreadPoolExecutor() as pool:
        ends = [pool.submit(execute, todo, functools.partial(call, k)) for k in range(2)]
        assert [end.result() for end in ends] == [dict.fromkeys(todo, "")] * 2
    made = [folder for script in scripts for folder in script.called]
    assert sorted(made) == sorted(planned.folder for planned in todo)


def test_after_each_run_it_says_how_long_the_rest_takes(execute, tmp_path):
    todo, said = runs_of_table(4), []
    execute(
        todo,
        Scripts(tmp_path),
        estimate=lambda: dict.fromkeys(todo[:-1], 60.0),
        listener=Listener(said.append),
    )
    said = [line for line in said if "to make" in line]
    assert len(said) == len(todo) - 1
    assert said[0].startswith("5 runs to make; 4 min for 4 of them")
    assert said[-1] == "1 runs to make; unknown for 1, no run of whose kind is finished"


def test_a_failed_run_stops_only_what_starts_from_it(execute, tmp_path):
    todo = runs_of_table(4)
    broken = Scripts(tmp_path, broken=(todo[0].folder,))
    outcome = execute(todo, broken)
    assert outcome[todo[0]] == "failed with exit code 2"
    assert outcome[todo[1]] == f"skipped, since {todo[0].folder} is not finished"
    assert [outcome[planned] for planned in todo[2:]] == [""] * 4
    assert todo[1].folder not in broken.called
    mended = Scripts(tmp_path)
    assert set(execute(todo, mended).values()) == {""}
    assert mended.called == [todo[0].folder, todo[1].folder]


def test_a_script_that_ends_well_without_a_result_has_failed(execute):
    todo = runs_of_table(4)[:1]
    assert "exit code 0" in execute(todo, lambda run: 0)[todo[0]]


def test_a_run_of_another_configuration_is_reported_and_left_alone(execute, tmp_path):
    todo = runs_of_table(4)
    execute(todo, Scripts(tmp_path))
    changed = dataclasses.replace(DRAWN.pretrain, learning_rate=1e-3)
    longer = runs_of_table(4, dataclasses.replace(DRAWN, pretrain=changed))
    other = Scripts(tmp_path)
    outcome = execute(longer, other)
    assert other.called == []
    assert "learning_rate is 0.0004 there, 0.001 here" in outcome[longer[0]]
    assert f"another folder of runs than {tmp_path}" in outcome[longer[0]]
    assert (tmp_path / longer[0].folder / "summary.json").exists()


def test_a_fine_tune_whose_start_was_made_anew_is_not_taken(execute, tmp_path):
    todo = runs_of_table(4)
    execute(todo, Scripts(tmp_path))
    file = tmp_path / todo[0].folder / "config.json"
    stored = files.read_json(file)
    stored["resolved"]["fingerprint"] = "other clips"
    file.write_text(json.dumps(stored))
    assert progress.look(todo[0], tmp_path).kind == "finished"
    assert "another pre-training" in progress.look(todo[1], tmp_path).why
    file.unlink()
    assert "config.json" in progress.look(todo[0], tmp_path).why
    assert "is gone" in progress.look(todo[1], tmp_path).why

"""A run's config.json gives the run back; another file is refused; what is checked beforehand."""

import dataclasses
import json

import pytest

from ma2mi_jax import files, schema
from ma2mi_jax.datasets.registry import DatasetSpec
from ma2mi_jax.errors import UserError
from ma2mi_jax.models.architecture import PRESETS
from ma2mi_jax.training import run_files
from ma2mi_jax.training.run_config import FinetuneRun, PretrainRun

DFEW = DatasetSpec("dfew", "source")
FOLDER = DatasetSpec("folder", "source", root="/videos")
CASME2 = DatasetSpec("casme2", "target")
SAMM = DatasetSpec("samm", "target")
DRAWN = DatasetSpec("synthetic", "target", subjects=4, clips_per_subject=5, data_seed=7)
CROSS = {"protocol": "cross", "test_target": "samm"}


# ----- config.json --------------------------------------------------------------------------------

RUNS = [
    PretrainRun(DFEW),
    PretrainRun(FOLDER, delta=(1, 4), steps=7, init="a.safetensors", workers=3, run="there"),
    PretrainRun(DFEW, objective="maer", wrong_labels=0.25, epochs=2, position_loss=False),
    FinetuneRun(CASME2),
    FinetuneRun(CASME2, **CROSS, test_root="/a", fusion="add", preset="tiny"),
    FinetuneRun(CASME2, further=(SAMM, DRAWN), epochs=3),
    FinetuneRun(DRAWN, folds=3, protocol="kfold", fold_chunk=2, keep_reconstruction=True),
]


@pytest.mark.parametrize("run", RUNS)
def test_config_json_gives_the_run_back(run, tmp_path):
    content = run_files.to_json(run, {"steps": 3})
    files.write_json(tmp_path / "config.json", content | {"command": "pretrain.py"})
    stored = run_files.read(tmp_path)
    assert dataclasses.asdict(stored.asked) == dataclasses.asdict(run)  # neutral fields too
    assert stored.asked == run
    assert (stored.script, stored.resolved) == (run.script, {"steps": 3})
    assert type(stored.asked) is type(run)
    again = schema.from_json(type(run), json.loads(json.dumps(dataclasses.asdict(run))))
    assert again == run


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "not the configuration of a run"),
        ({"config": {"data": {}}}, "not the configuration of a run"),
        ({"asked": {}, "format": 99, "script": "pretrain"}, r"newer version .*99.*update"),
        ({"asked": {"hats": 3}, "format": 2, "script": "pretrain"}, "not the configuration"),
        ({"asked": {}, "format": 2, "script": "bake"}, "not the configuration"),
    ],
)
def test_another_file_is_refused(content, message, tmp_path):
    files.write_json(tmp_path / "config.json", content)
    with pytest.raises(UserError, match=message):
        run_files.read(tmp_path)
    with pytest.raises(UserError, match=r"config.json"):
        run_files.read(tmp_path / "nowhere")


ARCHITECTURE = dataclasses.asdict(PRESETS["tiny"])
FIRST_PRETRAIN = {
    "config": {
        "data": {"source": "synthetic", "clips": 12, "fingerprint": "a13a99e6b0fd7166"},
        "pretrain": {"architecture": ARCHITECTURE, "delta": [3, 8], "steps": 6, "seed": 0},
    },
    "command": "/old/experiments/pretrain.py --source=synthetic --steps=6 --run=pre",
    "versions": {"jax": "0.10.2"},
}
FIRST_TARGET = {
    "name": "casme2",
    "data_root": "/data/casme2",
    "annotations": None,
    "size": 96,
    "detector": "haar",
    "detector_model": None,
    "subjects": 12,
    "clips_per_subject": 14,
    "amplitude": 0.3,
    "data_seed": 0,
}
FIRST_FINETUNE = {
    "config": {
        "init": FIRST_PRETRAIN["config"],
        "target": FIRST_TARGET
        | {"test": FIRST_TARGET | {"name": "samm", "data_root": "/data/samm"}},
        "protocol": {"name": "cross", "k": 5, "seed": 0, "folds_file": None, "select": "last"},
        "seeds": [0],
        "clips": "85391af55f3f3efa",
        "folds": {"samm/006": "casme2 to samm"},
        "fold_chunk": 1,
        "finetune": {"architecture": ARCHITECTURE, "classes": 2, "tune": "both"},
    },
    "command": "/old/experiments/finetune.py --target=casme2 --test-target=samm --init=pre",
    "versions": {"jax": "0.10.2"},
}


def test_a_pretraining_of_the_first_format_is_read(tmp_path):
    files.write_json(tmp_path / "config.json", FIRST_PRETRAIN)
    stored = run_files.read(tmp_path)
    assert (stored.script, stored.asked) == ("pretrain", None)
    assert stored.command == FIRST_PRETRAIN["command"]
    assert stored.resolved == {
        **FIRST_PRETRAIN["config"]["data"],
        "config": FIRST_PRETRAIN["config"]["pretrain"],
    }


def test_a_fine_tuning_of_the_first_format_is_read(tmp_path):
    files.write_json(tmp_path / "config.json", FIRST_FINETUNE)
    stored = run_files.read(tmp_path)
    assert (stored.script, stored.asked) == ("finetune", None)
    there = FIRST_FINETUNE["config"]
    assert stored.resolved["config"] == there["finetune"]
    assert {name: stored.resolved[name] for name in ("seeds", "clips", "folds", "fold_chunk")} == {
        name: there[name] for name in ("seeds", "clips", "folds", "fold_chunk")
    }
    assert stored.resolved["init"]["fingerprint"] == "a13a99e6b0fd7166"
    assert stored.resolved["init"]["config"] == there["init"]["pretrain"]
    specs = [DatasetSpec(**entry) for entry in stored.resolved["datasets"]]
    assert specs == [
        DatasetSpec("casme2", "target", root="/data/casme2", detector="haar"),
        DatasetSpec("samm", "target", root="/data/samm", detector="haar"),
    ]


def test_drawn_faces_of_the_first_format_lie_nowhere(tmp_path):
    """Its config.json named the folder in which they would lie if they were prepared."""
    target = FIRST_TARGET | {"name": "synthetic", "data_root": str(tmp_path / "data/synthetic")}
    content = {**FIRST_FINETUNE["config"], "target": target, "init": "none"}
    files.write_json(tmp_path / "config.json", FIRST_FINETUNE | {"config": content})
    resolved = run_files.read(tmp_path).resolved
    assert resolved["init"] == "none"
    (spec,) = (DatasetSpec(**entry) for entry in resolved["datasets"])
    assert spec == DatasetSpec("synthetic", "target")


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (
            PretrainRun(DFEW, space="pixel", vae="mine"),
            "vae=mine: space=pixel needs no autoencoder",
        ),
        (FinetuneRun(CASME2, vae="mine"), "vae=mine: is only for keep_reconstruction"),
        (FinetuneRun(CASME2, augmentation="crop", rotation=9.0), "augmentation=crop does not rot"),
    ],
)
def test_what_nothing_would_use_is_refused_but_a_run_that_has_it_stays_open(run, message, tmp_path):
    run = dataclasses.replace(run, run=str(tmp_path / "run"))
    with pytest.raises(UserError, match=message):
        run_files.check(run)
    run.folder.mkdir()
    files.write_json(run.folder / "config.json", run_files.to_json(run, {}) | {"command": ""})
    assert run_files.read(run.folder).asked == run


def test_what_a_plan_gives_to_all_its_rows_is_let_pass(tmp_path):
    place = {"run": str(tmp_path / "run")}
    run_files.check(PretrainRun(DFEW, objective="maer", tau_rotation=9.0, delta=(1, 4), **place))
    run_files.check(PretrainRun(DFEW, space="pixel", latent="sample", **place))
    run_files.check(FinetuneRun(CASME2, frozen_statistics="batch", **place))
    run_files.check(FinetuneRun(CASME2, reconstruction_weight=0.5, **place))
    run_files.check(FinetuneRun(CASME2, augmentation="crop", rotation=0.0, **place))


# ----- before any long work -----------------------------------------------------------------------


def test_check_tells_before_any_long_work(tmp_path):
    (tmp_path / "summary.json").write_text("{}")
    (tmp_path / "config.json").write_text("{")  # damaged
    done = PretrainRun(DFEW, run=str(tmp_path))
    with pytest.raises(UserError, match=r"a finished run is there .* is kept: give another run"):
        run_files.check(done)
    run_files.check(dataclasses.replace(done, overwrite=True))
    made = run_files.to_json(done, {}) | {"command": "pretrain.py"}
    files.write_json(tmp_path / "config.json", made)
    with pytest.raises(UserError, match=r"a finished run is there"):
        run_files.check(done)
    with pytest.raises(
        UserError, match=r"another .* \(seed is 0 there, 3 here\); give another run$"
    ):
        run_files.check(dataclasses.replace(done, seed=3))
    free = {"run": str(tmp_path / "free")}
    with pytest.raises(UserError, match=r"clips=3 is only for source=synthetic"):
        run_files.check(PretrainRun(dataclasses.replace(DFEW, clips=3), **free))
    with pytest.raises(UserError, match=r"no/results.json"):
        run_files.check(FinetuneRun(CASME2, compare="no", **free))
    three = dataclasses.replace(CASME2, classes=3)
    with pytest.raises(UserError, match=r"classes=3: test_target=synthetic has no such class set"):
        run_files.check(FinetuneRun(three, test_target="synthetic", **free))
    with pytest.raises(UserError, match=r"classes=3: target=synthetic has no such class set"):
        run_files.check(
            FinetuneRun(three, further=(dataclasses.replace(DRAWN, classes=3),), **free)
        )
    with pytest.raises(UserError, match=r"folds_file=no.csv"):
        run_files.check(FinetuneRun(CASME2, folds_file="no.csv", **free))

"""From a run on all subjects to a model folder, and what such a folder says."""

import json
import pathlib
import runpy
import shutil

import chex
import commands
import drawn
import hub
import numpy as np
import pytest
from safetensors import safe_open

import ma2mi_jax
from ma2mi_jax import files
from ma2mi_jax.clips.clip import Clip
from ma2mi_jax.errors import UserError
from ma2mi_jax.evaluation import calibration, export, inference, model_card, predictions

ROOT = pathlib.Path(__file__).resolve().parents[2]
FLAGS = [
    *(*commands.TWELVE_CLIPS, "--protocol=all", "--seeds=2"),
    *("--epochs=2", "--checkpoint-every=1"),  # saved on the way, which it was not once
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on all subjects, and what it printed."""
    run = tmp_path_factory.mktemp("runs") / "all"
    environment = commands.one_device()
    done = commands.run("finetune", *FLAGS, f"--run={run}", environment=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return run, done


@pytest.fixture(scope="module")
def run(trained):
    return trained[0]


def left_out(run, folder, **resolved):
    """A run that leaves subjects out: the configuration of `run`, and predictions of its own."""
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns("checkpoints"))
    config = files.read_json(folder / "config.json")
    config["resolved"] |= {"protocol": config["resolved"]["protocol"] | {"name": "loso"}}
    config["resolved"] |= resolved
    files.write_json(folder / "config.json", config)
    names = files.read_json(run / "results.json")["classes"]
    clips = [
        Clip(f"s0{i // 4 + 1}_{i}", (), subject=f"s0{i // 4 + 1}", label=i % 3) for i in range(12)
    ]
    guessed = np.eye(len(names), dtype=np.float32)[[i % 2 for i in range(12)]][None]
    found = predictions.Predictions(clips, [c.subject for c in clips], [0], guessed)
    predictions.write_predictions(folder / "predictions.csv", found, names)
    record = predictions.summary(found, names) | {"protocol": "loso", "members": [[0, "s01"]]}
    files.write_json(folder / "results.json", record)
    return folder


@pytest.fixture(scope="module")
def model(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "model"
    export.export(run, folder, left_out(run, folder.parent / "loso"))
    return folder


def test_a_run_on_all_subjects_has_no_score_and_says_so(trained):
    run, done = trained
    there = {path.name for path in run.iterdir()}
    assert {name for name in there if not name.startswith("events.out.tfevents")} == {
        "config.json",
        "metrics.jsonl",
        "results.json",
        "curves.png",
        "checkpoints",
    }
    record = json.loads((run / "results.json").read_text())
    assert "there is no score" in record["no_score"]
    assert not record.keys() & {"accuracy", "uf1", "uar", "oracle", "confusion"}
    assert len(record["training_accuracy"]) == 2
    assert sum(record["clips_of"].values()) == record["n"] == 12
    assert "there is no score" in done.stdout
    assert "accuracy" not in done.stdout.replace("training accuracy", "")
    said = inference.caution(ma2mi_jax.open_run(run).run)
    assert "2 models, trained on all of 12 clips of 3 subjects" in said
    assert "accuracy" not in said


def test_the_folder_names_nobody_and_no_place(run, model):
    assert {path.name for path in model.iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
    }
    with safe_open(model / "model.safetensors", "np") as file:
        told = " ".join([*file.keys(), *map(str, file.metadata().items())])
    told += (model / "README.md").read_text() + (model / "config.json").read_text()
    for name in ("s01", "s02", "checkpoints", "opt_state", str(run), "/tmp", ".csv"):
        assert name not in told, name
    assert {key.partition(".")[0] for key in told.split() if key.startswith("member")} == {
        "member0",
        "member1",
    }


def test_the_card_says_what_the_score_is_of(model):
    card = " ".join((model / "README.md").read_text().split())
    assert "Not of this model: it was trained on all subjects" in card
    assert "protocol loso, 1 seed, N = 12 clips of 3 subjects" in card
    assert "| accuracy | 0.3333 |" in card
    assert "synthetic: 12 clips of 3 subjects" in card
    assert "started from random weights" in card
    assert "license: apache-2.0" in card
    assert "no lie detector" in card
    assert "64 px" in card


def test_without_a_run_that_leaves_subjects_out_the_card_knows_no_score(run, tmp_path):
    export.export(run, tmp_path / "model")
    card = " ".join((tmp_path / "model" / "README.md").read_text().split())
    assert "Nothing is known of how it does on people whom it has not seen" in card
    assert "| accuracy |" not in card


def test_what_is_trained_on_licensed_data_is_not_free():
    specs = [ma2mi_jax.DatasetSpec("megc2019", "target", without="smic")]
    data = export.data_of(specs)
    assert data["licences"] == {"CASME II": "licensed", "SAMM": "licensed"}
    own = export.data_of([ma2mi_jax.DatasetSpec("csv", "target", root="/home/anna/clips")])
    assert list(own["licences"].values()) == ["own"]
    assert "anna" not in str(own)
    assert model_card._head({"data": data}).count("license: other") == 1


def test_a_model_answers_as_its_run_does(run, model, tmp_path):
    images = [drawn.face(160, 120, 110, mouth=m) for m in (0, 0, 0, 0.3, 0.7, 1.0, 1.0)]
    clip = drawn.image_folder(tmp_path / "talk", images)
    script = runpy.run_path(str(ROOT / "experiments" / "predict.py"))
    asked = {"run": run, "model": model}
    told = {}
    for what, folder in asked.items():
        assert script["main"]([f"--{what}={folder}", str(clip), f"--out={tmp_path / what}"]) == 0
        told[what] = json.loads((tmp_path / what / "predictions.json").read_text())
    alike, cooled = ("clip", "onset", "apex", "contrast"), ma2mi_jax.load(model)
    temperature = cooled.run.content["score"]["temperature"]
    assert temperature > 1
    pairs = zip(told["run"]["clips"], told["model"]["clips"], strict=True)
    for ours, theirs in pairs:
        assert [ours[name] for name in alike] == [theirs[name] for name in alike]
    answers = [each.predict(clip)[0][0] for each in (ma2mi_jax.open_run(run), cooled)]
    np.testing.assert_allclose(
        answers[1].probabilities,
        calibration.cooled(answers[0].probabilities, temperature),
        atol=1e-6,
    )
    assert told["model"]["models"] == 2
    assert told["model"]["model"] == str(model)
    assert "on a part of these subjects reached accuracy 0.33" in told["model"]["caution"]
    crops = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    both = [ma2mi_jax.open_run(run), ma2mi_jax.load(model)]
    np.testing.assert_array_equal(*(each.condition(*crops) for each in both))


def test_a_score_of_another_kind_of_model_is_refused_and_the_difference_named(run, tmp_path):
    stored = files.read_json(run / "config.json")["resolved"]
    others = {
        "config.batch_size is 9 there, 8 here": {"config": stored["config"] | {"batch_size": 9}},
        "data.synthetic.amplitude is 0.9 there, 0.3 here": {
            "datasets": [stored["datasets"][0] | {"amplitude": 0.9}]
        },
        "fingerprint of the clips is 'x' there": {"clips": "x"},
        "start is 'a pre-training on dfew' there, 'random weights' here": {
            "init": {"source": "dfew"}
        },
    }
    for number, (message, resolved) in enumerate(others.items()):
        other = left_out(run, tmp_path / f"{number}", **resolved)
        with pytest.raises(UserError, match=message):
            export.export(run, tmp_path / "model", other)
    with pytest.raises(UserError, match="was trained on all subjects too"):
        export.export(run, tmp_path / "model", run)
    with pytest.raises(UserError, match=r"3: each of its models was trained without some"):
        export.export(other, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_model_goes_to_the_hub_and_comes_back(model, tmp_path, monkeypatch, capsys):
    script = runpy.run_path(str(ROOT / "experiments" / "push.py"))
    with hub.stand_in(monkeypatch, tmp_path / "hub") as server:
        script["main"]([str(model), "anna/model"])
        assert "anna/model: uploaded; only who you let can see it" in capsys.readouterr().out
        assert server.private == {"anna/model": True}
        there = {path.name: path.read_bytes() for path in model.iterdir()}
        assert server.files["anna/model"] == there
        assert server.tokens == {"Bearer hf_of_a_test"}
        loaded, ours = ma2mi_jax.load("anna/model"), ma2mi_jax.load(model)
        chex.assert_trees_all_equal(loaded.run.weights, ours.run.weights)
        assert loaded.run.path.is_relative_to(tmp_path / "hub")

        server.private["anna/model"] = False
        with pytest.raises(UserError, match=r"anna/model: everybody can see .* ask for public"):
            export.push(model, "anna/model")
        assert export.push(model, "anna/model", public=True)
        server.refuses = True
        with pytest.raises(UserError, match=r"does not take it \(.*\); log in by `hf auth login`"):
            export.push(model, "anna/new")
        with pytest.raises(UserError, match="anna/other: no such folder, and Hugging Face does"):
            ma2mi_jax.load("anna/other")
    assert ma2mi_jax.load("anna/model").run.path == loaded.run.path, "from the cache alone"


def test_only_a_model_folder_goes_to_the_hub(model, run, tmp_path):
    other = shutil.copytree(model, tmp_path / "model")
    (other / "notes.txt").write_text("s01 smiled")
    with pytest.raises(UserError, match=r"notes\.txt is no part of a model folder"):
        export.push(other, "anna/model")
    with pytest.raises(UserError, match="is not of a model folder"):
        export.push(run, "anna/model")
    with pytest.raises(UserError, match="expected an id as owner/name"):
        export.push(model, "anna")

"""Model folders: what was written is read back, what is wrong with one is one line, and what
fine-tuning starts from."""

import dataclasses
import json
import pathlib

import chex
import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from weights import shaken

from ma2mi_jax.datasets.registry import DatasetSpec
from ma2mi_jax.errors import UserError
from ma2mi_jax.models.architecture import Architecture
from ma2mi_jax.training import finetuning, initial, model_folder, pretraining, run_files
from ma2mi_jax.training.model_folder import CONFIG, WEIGHTS
from ma2mi_jax.training.run_config import FinetuneRun

TINY = Architecture(
    image_size=96, width=4, depth=1, dit_width=16, heads=2, space="pixel", blocks=(1, 1)
)
PRETRAINED = pretraining.Config(TINY)
FINETUNED = finetuning.Config(TINY, classes=3, reconstruction=PRETRAINED)
TARGET = DatasetSpec("casme2", "target")


def members(config, count):
    """Random weights of `count` members."""
    if isinstance(config, finetuning.Config):
        config, init = dataclasses.replace(config, reconstruction=None), finetuning.init
    else:
        init = pretraining.init
    state = jax.eval_shape(lambda: init(config, jax.random.key(0)))
    return [shaken((state.params, state.batch_stats), seed) for seed in range(count)]


@pytest.fixture
def write(tmp_path):
    def written(config, count=1):
        fine = isinstance(config, finetuning.Config)
        content = {
            "script": "finetune" if fine else "pretrain",
            "classes": ["a", "b", "c"] if fine else [],
            "autoencoder": "1234",
            "config": dataclasses.asdict(config),
        }
        weights = members(config, count)
        model_folder.write(tmp_path / "model", content, weights, "# A card\n")
        return tmp_path / "model", weights

    return written


@pytest.mark.parametrize("config", [PRETRAINED, FINETUNED], ids=["pre-training", "fine-tuning"])
def test_what_was_written_is_read_back(write, config):
    folder, weights = write(config, 2)
    assert {path.name for path in folder.parent.iterdir()} == {"model"}
    assert {path.name for path in folder.iterdir()} == set(model_folder.FILES)
    found = model_folder.read(folder)
    chex.assert_trees_all_equal(list(found.weights), weights)
    assert found.config == config
    assert len(found.members) == 2
    assert found.classes == (["a", "b", "c"] if config is FINETUNED else [])


def test_what_is_there_is_not_written_over(write):
    folder, _ = write(PRETRAINED)
    before = (folder / WEIGHTS).read_bytes()
    with pytest.raises(UserError, match=r"model: is there already; give another folder"):
        write(PRETRAINED)
    assert (folder / WEIGHTS).read_bytes() == before


def test_the_folder_one_stands_in_is_filled(write, tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    folder, _ = write(PRETRAINED)
    content = json.loads((folder / CONFIG).read_text())
    model_folder.write(pathlib.Path("."), content, members(PRETRAINED, 1), "# A card\n")
    assert {path.name for path in pathlib.Path().iterdir()} == set(model_folder.FILES)
    assert {path.name for path in tmp_path.iterdir()} == {"here", "model"}
    assert model_folder.read(here).config == PRETRAINED


def test_weights_may_be_of_half_precision(write):
    folder, ((params, _),) = write(FINETUNED)
    half = {name: t.astype(ml_dtypes.bfloat16) for name, t in load_file(folder / WEIGHTS).items()}
    save_file(half, folder / WEIGHTS)
    ((found, _),) = model_folder.read(folder).weights
    kernel, rounded = (tree["classifier"]["kernel"] for tree in (params, found))
    assert rounded.dtype == np.float32
    np.testing.assert_array_equal(rounded, kernel.astype(ml_dtypes.bfloat16).astype(np.float32))


def in_config(**changes):
    return lambda content, tensors: content.update(changes)


def in_networks(**changes):
    return lambda content, tensors: content["config"]["architecture"].update(changes)


def in_weights(change):
    return lambda content, tensors: tensors.update(change(tensors))


BIAS = "member0.params.classifier.bias"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (in_config(version=9), "newer version (format 9, this one knows 1); update ma2mi_jax"),
        (in_config(format="other"), "config.json there is not of a model folder"),
        (in_config(version=None), "not whole, or changed by hand"),
        (in_config(script="train"), "not whole, or changed by hand (KeyError('train'))"),
        (in_config(classes=["a"]), "1 classes, 1 members"),
        (in_config(members=0), "3 classes, 0 members"),
        (in_config(members=3), "tensors are not those of 3 members"),
        (in_config(members=10**9), "tensors are not those of 1000000000 members"),
        (in_networks(image_size="x"), "not whole, or changed by hand"),
        (in_networks(colour="red"), "not whole, or changed by hand"),
        (in_networks(fusion="concat"), "params.classifier.kernel is float32[8, 3], expected"),
        (in_weights(lambda t: {BIAS: t[BIAS][:2]}), f"{BIAS} is float32[2], expected"),
        (in_weights(lambda t: {BIAS: np.arange(3)}), f"{BIAS} is int64[3], expected"),
        (in_weights(lambda t: {BIAS: t[BIAS] * np.nan}), f"values of {BIAS} are not finite"),
        (in_weights(lambda t: {"more": t[BIAS]}), "1 unknown (first: more)"),
    ],
)
def test_what_is_wrong_is_one_line(write, change, message):
    folder, _ = write(FINETUNED)
    content = json.loads((folder / CONFIG).read_text())
    tensors = load_file(folder / WEIGHTS)
    change(content, tensors)
    (folder / CONFIG).write_text(json.dumps(content))
    save_file(tensors, folder / WEIGHTS)
    with pytest.raises(UserError) as caught:
        model_folder.read(folder)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_missing_is_one_line(write, tmp_path):
    folder, _ = write(FINETUNED)
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:1000])
    with pytest.raises(UserError, match="not a whole safetensors file"):
        model_folder.read(folder)
    (folder / WEIGHTS).unlink()
    with pytest.raises(UserError, match="there is no such file; give a folder that"):
        model_folder.read(folder)
    (folder / CONFIG).write_text("{")
    with pytest.raises(UserError, match="cannot be read as JSON"):
        model_folder.read(folder)
    (folder / CONFIG).unlink()
    with pytest.raises(UserError, match=r"found no config\.json"):
        model_folder.read(folder)
    with pytest.raises(UserError, match="no such folder; give a folder that"):
        model_folder.read(tmp_path / "elsewhere" / "model")


def test_a_model_folder_is_no_run(write):
    folder, _ = write(FINETUNED)
    with pytest.raises(UserError, match="is a model folder, not a run; give it as model"):
        run_files.read(folder)


# ----- what fine-tuning starts from ---------------------------------------------------------------


def test_fine_tuning_starts_from_a_model_folder_of_a_pre_training(write):
    folder, (weights,) = write(PRETRAINED)
    start = initial.read(FinetuneRun(TARGET, init=str(folder), keep_reconstruction=True))
    chex.assert_trees_all_equal(start.weights, weights)
    assert start.architecture == TINY
    assert start.pretrained == PRETRAINED
    assert start.identity["autoencoder"] == "1234"
    with pytest.raises(UserError, match="pooling=flatten: the networks of init were made with"):
        initial.read(FinetuneRun(TARGET, init=str(folder), pooling="flatten"))


def test_an_encoder_that_is_not_there_cannot_be_tuned(write):
    """The classifier alone would learn, under the name of a row of Table 2."""
    blind = dataclasses.replace(TINY, fusion="action")
    folder, _ = write(dataclasses.replace(PRETRAINED, architecture=blind))
    for start in ({"init": "none", "preset": "tiny", "fusion": "action"}, {"init": str(folder)}):
        with pytest.raises(UserError, match="tune=position: the networks have no position encoder"):
            initial.read(FinetuneRun(TARGET, tune="position", **start))
        initial.read(FinetuneRun(TARGET, tune="action", **start))


def test_fine_tuning_starts_from_the_first_model_of_a_fine_tuning(write):
    folder, (first, second) = write(FINETUNED, 2)
    start = initial.read(FinetuneRun(TARGET, init=str(folder)))
    chex.assert_trees_all_equal(start.weights, first)
    assert start.pretrained is None
    with pytest.raises(UserError, match=r"keep_reconstruction.*trained by fine-tuning"):
        initial.read(FinetuneRun(TARGET, init=str(folder), keep_reconstruction=True))

    chex.assert_trees_all_equal_shapes(first, second)
    save_file(load_file(folder / WEIGHTS) | {BIAS: np.ones(3, np.float32)}, folder / WEIGHTS)
    changed = initial.read(FinetuneRun(TARGET, init=str(folder)))
    assert changed.identity != start.identity

"""The probe: its regression is scikit-learn's on all features; its features are the network's."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from stored_runs import write_config

from ma2mi_jax.clips.clip import Clip, Dataset
from ma2mi_jax.datasets.registry import DatasetSpec
from ma2mi_jax.errors import UserError
from ma2mi_jax.evaluation import probe
from ma2mi_jax.images import to_float
from ma2mi_jax.models.architecture import Architecture
from ma2mi_jax.training import folds
from ma2mi_jax.training.run_config import FinetuneRun

TINY = Architecture(image_size=96, width=4, depth=1, dit_width=16, heads=2, blocks=(1, 1))
SPEC = DatasetSpec("synthetic", "target")
CLASSES = 3
SUBJECTS = np.repeat([f"s{i}" for i in range(6)], 5)
LABELS = np.random.default_rng(1).integers(0, CLASSES, len(SUBJECTS))
LOSO = folds.loso(SUBJECTS.tolist())


def features(count, told=0.5, seed=0):
    """Positive features of very different scales, some of which tell the class; one is dead."""
    rng = np.random.default_rng(seed)
    seen = rng.gamma(1, size=(len(LABELS), count)) * np.exp(rng.normal(size=count))
    seen[:, :CLASSES] += told * np.eye(CLASSES)[LABELS]
    seen[:, -1] = 2
    return seen.astype(np.float32)


# ----- logistic regression ------------------------------------------------------------------------


@pytest.mark.parametrize("count", [4, 24, 700])  # fewer than clips, nearly as many, far more
def test_the_regression_is_that_on_all_features(count):
    seen = features(count)
    for fold in LOSO:
        mean, spread = seen[fold.train].mean(0), seen[fold.train].std(0)
        spread = np.maximum(spread, 0.1 * spread.mean())
        x = (seen.astype(float) - mean) / spread
        x /= np.mean(np.sum(x[fold.train] ** 2, axis=1)) ** 0.5
        plain = LogisticRegression(C=probe.STRENGTH, tol=1e-9, max_iter=10_000)
        plain.fit(x[fold.train], LABELS[fold.train])
        found = probe.probabilities(seen, LABELS, fold, CLASSES)
        np.testing.assert_allclose(found, plain.predict_proba(x[fold.test]), atol=1e-4)


def test_nothing_is_taken_from_the_other_test_clips():
    seen, fold = features(100), LOSO[2]
    alone = probe.probabilities(seen, LABELS, fold, CLASSES)[0]
    seen[fold.test[1:]] = 1e3
    other = probe.probabilities(seen, LABELS, fold, CLASSES)[0]
    np.testing.assert_allclose(alone, other, atol=1e-6)
    labels = LABELS.copy()
    labels[fold.test] = (labels[fold.test] + 1) % CLASSES
    np.testing.assert_array_equal(probe.probabilities(seen, labels, fold, CLASSES)[0], other)


def test_a_class_that_nobody_shows_in_training_has_probability_zero():
    fold = LOSO[0]
    few = np.where(LABELS == 1, 2, LABELS)
    found = probe.probabilities(features(40), few, fold, CLASSES)
    assert np.all(found[:, 1] == 0)
    np.testing.assert_allclose(found.sum(1), 1)
    one = np.full_like(LABELS, 2)
    np.testing.assert_array_equal(
        probe.probabilities(features(40), one, fold, CLASSES), np.tile([0, 0, 1], (5, 1))
    )


def test_features_that_tell_nothing_end_in_the_frequencies_of_the_classes():
    dead = np.ones((len(LABELS), 50), np.float32)
    for fold in LOSO:
        found = probe.probabilities(dead, LABELS, fold, CLASSES)
        expected = probe.frequencies(LABELS, fold, CLASSES)
        np.testing.assert_allclose(found, expected, atol=1e-4)
        assert expected[0, 1] == np.mean(LABELS[fold.train] == 1)


def test_all_of_it_on_features_that_tell_and_some_that_do_not():
    rows = zip(SUBJECTS, LABELS, strict=True)
    clips = [Clip(f"{i}", (), subject=s, label=int(label)) for i, (s, label) in enumerate(rows)]
    dataset = Dataset("drawn", clips, classes=["a", "b", "c"])
    networks = {
        "knows": {"c_delta": features(20, told=50)},
        "does not": {"c_delta": features(20, told=0)},
    }
    found = probe.probe(dataset, LOSO, networks)
    assert (found["n"], found["subjects"], found["classes"]) == (30, 6, ["a", "b", "c"])
    knows, does_not = (of["c_delta"] for of in found["networks"].values())
    assert (knows["accuracy"], knows["uf1"], knows["values"]) == (1, 1, 20)
    assert does_not["accuracy"] < 0.7
    gained = found["difference"]["does not"]["c_delta"]["accuracy"]["difference"]
    assert gained == pytest.approx(1 - does_not["accuracy"])

    usual = [np.bincount(LABELS[fold.train]).argmax() for fold in LOSO]
    hits = [np.mean(LABELS[f.test] == c) for f, c in zip(LOSO, usual, strict=True)]
    assert found["majority"]["accuracy"] == pytest.approx(np.mean(hits))
    alone = probe.probe(dataset, LOSO, {"knows": networks["knows"]})
    assert alone["networks"]["knows"]["c_delta"]["per_subject"] == knows["per_subject"]
    assert alone["difference"] == {}


# ----- features -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data():
    frames = np.random.default_rng(0).integers(0, 255, (19, 2, 96, 96, 3), np.uint8)
    return {"frames": jnp.asarray(frames), "label": jnp.zeros(19, jnp.int32)}


def test_features_are_those_of_the_network(data):
    weights = params, batch_stats = probe.random_weights(TINY, 0)
    found = probe.features_of(TINY, weights, data)
    assert list(found) == list(probe.FEATURES)
    assert {name: of.shape for name, of in found.items()} == {
        "c_delta": (19, 8),
        "all_places": (19, 144 * 8),
        "action_mean": (19, 8),
        "action_all_places": (19, 144 * 8),
    }
    frames = to_float(data["frames"])
    variables = {"params": params["miacnet"], "batch_stats": batch_stats}
    c_delta = TINY.miacnet(jnp.float32).apply(variables, frames[:, 0], frames[:, 1])
    np.testing.assert_allclose(found["c_delta"], c_delta, rtol=1e-4, atol=1e-6)
    for mean, places in (("c_delta", "all_places"), ("action_mean", "action_all_places")):
        pooled = found[places].reshape(19, 144, 8).mean(1)
        np.testing.assert_allclose(found[mean], pooled, rtol=1e-4, atol=1e-6)

    on_host = data | {"frames": np.asarray(data["frames"])}
    for name, of in probe.features_of(TINY, weights, on_host).items():
        np.testing.assert_array_equal(of, found[name])


def test_without_a_position_encoder_there_is_f_a_alone(data):
    action = dataclasses.replace(TINY, fusion="action", pooling="flatten")
    found = probe.features_of(action, probe.random_weights(action, 0), data)
    assert list(found) == ["c_delta", "all_places"]
    np.testing.assert_array_equal(found["c_delta"], found["all_places"])  # pooled by `flatten`


# ----- what may be probed -------------------------------------------------------------------------


def test_a_fine_tuning_and_a_file_are_refused(tmp_path):
    write_config(FinetuneRun(SPEC, run=str(tmp_path / "fine-tuned")))
    (tmp_path / "resnet.safetensors").write_bytes(b"")
    for name, words in (("fine-tuned", "seen labelled subjects"), ("resnet.safetensors", "a file")):
        with pytest.raises(UserError) as refused:
            probe.read(FinetuneRun(SPEC, init=str(tmp_path / name)))
        message = str(refused.value)
        assert message.startswith(f"run={tmp_path / name}: is a")
        assert words in message
    with pytest.raises(UserError, match=r"^run=nowhere: no such folder"):
        probe.read(FinetuneRun(SPEC, init="nowhere"))
    start = probe.read(FinetuneRun(SPEC, preset="tiny", fusion="concat"))
    assert (start.architecture.width, start.architecture.fusion) == (16, "concat")
    assert start.weights is None

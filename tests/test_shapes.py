"""The shapes in the signatures of losses, networks and steps are true: jaxtyping checks them.

Processes of their own load the checked modules, so that the other tests run the plain ones. On the
device nothing is computed: `jax.eval_shape` traces every step once.
"""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]

STEPS = """
import dataclasses
from functools import partial

import jaxtyping

checked = ["images", "losses", "models.resnet", "models.miacnet", "models.dit",
           "models.architecture", "models.autoencoder", "training.pretraining",
           "training.finetuning", "training.learned", "evaluation.gradcam"]
with jaxtyping.install_import_hook(
    [f"ma2mi_jax.{name}" for name in checked], "beartype.beartype"
):
    import jax
    import jax.numpy as jnp
    import numpy as np

    from ma2mi_jax import losses
    from ma2mi_jax.evaluation import gradcam
    from ma2mi_jax.models import autoencoder
    from ma2mi_jax.models.architecture import Architecture
    from ma2mi_jax.training import finetuning, learned, pretraining

small = Architecture(
    image_size=64, width=2, depth=1, dit_width=8, heads=2, pixel_patch=16, space="pixel",
    blocks=(1, 1),
)


def pretrain(config, batch, key):
    state = pretraining.init(config, key)
    return pretraining.train_step(config, state, batch)[1]


def finetune(config, data, key):
    pretrained = None
    if config.reconstruction:
        before = pretraining.init(config.reconstruction, key)
        pretrained = before.params, before.batch_stats
    state = finetuning.init(config, key, pretrained)
    rows, total, active = data["label"], jnp.asarray(5), jnp.asarray(True)
    state, metrics = finetuning.fold_step(config, state, data, rows, key, total, active)
    found = gradcam.explain(config, state.params, state.batch_stats, data["frames"])
    heat = gradcam.upsample(found.places, 64)
    return metrics, finetuning.predict(config, state, data, rows), heat


def look(config, vae, pairs, key):
    state = pretraining.init(config, key)
    return learned.monitors(config, state, pairs), learned._ask(config, state, pairs, vae)


def there_and_back(frames, keys):
    vae = autoencoder.init(keys[0], autoencoder.TINY)
    for drawn in (None, keys):
        z = autoencoder.encode(autoencoder.TINY, vae, frames, keys=drawn)
        frames = autoencoder.decode(autoencoder.TINY, vae, z)
    return frames


key = jax.random.key(0)
shape = jax.ShapeDtypeStruct
data = {"frames": shape((4, 2, 64, 64, 3), jnp.uint8), "label": shape((4,), jnp.int32)}
for fusion, change in (
    ("mul", {}),
    ("regions", {"position_loss": False}),
    ("concat", {"objective": "maer", "classes": 7}),
):
    config = pretraining.Config(dataclasses.replace(small, fusion=fusion), **change)
    jax.eval_shape(partial(pretrain, config), data, key)
    jax.eval_shape(partial(look, config), None, data["frames"], key)
for fusion, keep in (("action", False), ("concat", True)):
    architecture = dataclasses.replace(small, fusion=fusion)
    kept = pretraining.Config(architecture) if keep else None
    config = finetuning.Config(architecture, classes=3, reconstruction=kept)
    jax.eval_shape(partial(finetune, config), data, key)

frames = shape((4, 48, 64, 3), jnp.float32)  # not square, so that a transposition shows
assert jax.eval_shape(there_and_back, frames, jax.random.split(key, 4)).shape == frames.shape
latent = dataclasses.replace(small, space="latent")
config = pretraining.Config(latent, vae=autoencoder.TINY)
jax.eval_shape(partial(look, config), autoencoder.shapes(config.vae), data["frames"], key)
seen = np.random.default_rng(0).normal(size=(12, 5))
assert learned.r2(seen, seen[:, :2]).shape == (2,)

try:
    jax.eval_shape(losses.l1, shape((4, 2, 8), jnp.float32))
except jaxtyping.TypeCheckError:
    print("checked")
"""

# `jax.custom_vmap` makes a state of booleans, where `finetuning` says integers; it is plain here.
MEMBERS = """
from functools import partial

import jaxtyping

checked = ["ma2mi_jax.training.members", "ma2mi_jax.training.protocol"]
with jaxtyping.install_import_hook(checked, "beartype.beartype"):
    import jax
    import jax.numpy as jnp
    import numpy as np

    from ma2mi_jax.models.architecture import Architecture
    from ma2mi_jax.training import finetuning, members, protocol
    from ma2mi_jax.training.folds import Fold

small = Architecture(image_size=64, width=2, space="pixel", blocks=(1, 1))
config = finetuning.Config(small, classes=3, epochs=2, batch_size=3)
folds = [
    Fold("a", 0, np.array([1, 2, 3]), np.array([0])),
    Fold("b", 1, np.array([0]), np.arange(3)),
]
trained = [members.Member(0, fold) for fold in folds]


def train(data, rows, keys):
    states = members._start(config, keys, None)
    total, active = jnp.asarray([5, 5]), jnp.asarray([True, False])
    before = members.predict_members(config, None, states, data, rows)
    states, metrics = members.step_members(config, None, states, data, rows, keys, total, active)
    return protocol._where(active, states, states), metrics, before


shape = jax.ShapeDtypeStruct
data = {"frames": shape((4, 2, 64, 64, 3), jnp.uint8), "label": shape((4,), jnp.int32)}
rows, keys = shape((2, 3), jnp.int32), jnp.stack([member.key("init") for member in trained])
jax.eval_shape(train, data, rows, keys)
batch = np.stack([member.batches(0, 3)[0] for member in trained])
assert batch.shape == rows.shape
on_host = {"frames": np.zeros((4, 2, 8, 8, 3), np.uint8), "label": np.zeros(4, np.int32)}
((at_hand, places),) = members.batches_at_hand(on_host, [batch])
assert at_hand["frames"].shape == (6, 2, 8, 8, 3)

history = protocol.History.blank(config, trained)
assert protocol.reported(history, "inner").shape == (2,)
for _ in range(20):  # of a list beartype looks at one item, drawn anew in each call
    tests = protocol.of_members([trained], [history])
    assert protocol.pool([trained], tests, [0], 4).shape == (2, 1, 4, 3)

try:
    jax.eval_shape(train, data, shape((3,), jnp.int32), keys)
except jaxtyping.TypeCheckError:
    print("checked")
"""


@pytest.mark.parametrize("traced", [STEPS, MEMBERS], ids=["steps", "members"])
def test_the_shapes_in_signatures_are_those_of_the_arrays(traced):
    done = subprocess.run(
        [sys.executable, "-c", traced],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "checked"

"""The shapes in the signatures of losses, networks and steps are true: jaxtyping checks them.

A process of its own loads the checked modules, so that the other tests run the plain ones. Nothing
is computed: `jax.eval_shape` traces every step once.
"""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
TRACED = """
import dataclasses
from functools import partial

import jaxtyping

checked = ["images", "losses", "models.resnet", "models.miacnet", "models.dit",
           "models.architecture", "training.pretraining", "training.finetuning",
           "evaluation.gradcam"]
with jaxtyping.install_import_hook(
    [f"ma2mi_jax.{name}" for name in checked], "beartype.beartype"
):
    import jax
    import jax.numpy as jnp

    from ma2mi_jax import losses
    from ma2mi_jax.evaluation import gradcam
    from ma2mi_jax.models.architecture import Architecture
    from ma2mi_jax.training import finetuning, pretraining

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
for fusion, keep in (("action", False), ("concat", True)):
    architecture = dataclasses.replace(small, fusion=fusion)
    kept = pretraining.Config(architecture) if keep else None
    config = finetuning.Config(architecture, classes=3, reconstruction=kept)
    jax.eval_shape(partial(finetune, config), data, key)

try:
    jax.eval_shape(losses.l1, shape((4, 2, 8), jnp.float32))
except jaxtyping.TypeCheckError:
    print("checked")
"""


def test_the_shapes_in_signatures_are_those_of_the_arrays():
    done = subprocess.run(
        [sys.executable, "-c", TRACED],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "checked"

"""The pre-training step of ma2mi_jax, whole or without one of its parts."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import numpy as np

from benchmarks.measure import Built, peak_of_process
from ma2mi_jax.models import autoencoder
from ma2mi_jax.models.architecture import PRESETS
from ma2mi_jax.runs.compiling import ONCE
from ma2mi_jax.training import pretraining
from ma2mi_jax.training.pretraining import Config

Input = Literal["autoencoder", "latents", "pixels"]
INPUTS: dict[str, str] = {
    "autoencoder": "Z by the autoencoder inside the step",
    "latents": "cached latents",
    "pixels": "Z is the frame",
}

WHOLE = "whole step"
# What is left out -> how. Of the time of the whole step, the part's is the difference.
ABLATIONS: dict[str, dict[str, Any]] = {
    "without the update": {"until": "gradients"},
    "without gradients and update": {"until": "loss"},
    "without L_pos and E_p(τ(I))": {"position_loss": False},
    "without E_p and L_pos": {"fusion": "action"},
    "without DiT's blocks": {"depth": 0},
}


def config_of(preset: str, given: Input, precision: str, batch_size: int) -> Config:
    """The pre-training of a preset from one kind of input."""
    space = "pixel" if given == "pixels" else "latent"
    return Config(
        dataclasses.replace(PRESETS[preset], space=space),
        batch_size=batch_size,
        dtype=precision,
        vae=autoencoder.SD_VAE if given == "autoencoder" else None,
    )


def without(config: Config, change: dict[str, Any]) -> Config:
    """The configuration of an ablation."""
    of_network = {k: v for k, v in change.items() if k in ("fusion", "depth")}
    of_run = {k: v for k, v in change.items() if k == "position_loss"}
    architecture = dataclasses.replace(config.architecture, **of_network)
    return dataclasses.replace(config, architecture=architecture, **of_run)


def batch_of(config: Config, given: Input) -> dict[str, np.ndarray]:
    """Noise of the right shapes: how long a step takes does not depend on what it sees."""
    rng = np.random.default_rng(0)
    size, side = config.batch_size, config.architecture.image_size
    batch = {"frames": rng.integers(0, 256, (size, 2, side, side, 3), np.uint8)}
    if given == "latents":
        shape = (size, 2, *config.architecture.latent_shape)
        batch["latents"] = rng.normal(size=shape).astype(np.float16)
    return batch


def filled(shapes: Any) -> Any:
    """Small normal values of these shapes."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: np.float32(0.02) * rng.normal(size=x.shape).astype("f4"), shapes)


def start(config: Config) -> pretraining.PretrainState:
    """A state to begin with, made without compiling anything; its statistics are zero."""
    shapes = jax.eval_shape(partial(pretraining.init, config), jax.random.key(0))
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    return zeros.replace(params=filled(shapes.params))


def with_attribute(fn: Callable, name: str, value: Any) -> Callable:
    """`fn`, in which every Flax module that has the attribute `name` has `value` there.

    Those modules must not change a variable, as BatchNorm does.
    """

    def intercept(next_call, args, kwargs, context):
        module = context.module
        if context.method_name != "__call__" or getattr(module, name, value) == value:
            return next_call(*args, **kwargs)
        changed = module.clone(parent=None, **{name: value})
        return changed.apply(module.variables, *args, **kwargs)

    def intercepted(*args):
        with nn.intercept_methods(intercept):
            return fn(*args)

    return intercepted


def build(
    config: Config,
    given: Input,
    until: Literal["update", "gradients", "loss"] = "update",
    batches: Callable[[Config], Iterator[Any]] | None = None,
    drawn: bool = False,
    attention: Literal["xla", "cudnn"] | None = None,
) -> Built:
    """The step, which gives its loss; `flops` are those of the uncompiled program.

    Args:
      until: what of the step is run.
      batches: reads them; by default one batch that lies on the device serves all steps.
      drawn: begin with the initial values of a pre-training, whose draws take long to compile.
      attention: of DiT's blocks, see `DiTBlock`. There are no `flops` then: those of cuDNN's
        attention are not counted.
    """
    batch = jax.device_put(batch_of(config, given))
    if drawn:
        state = jax.jit(pretraining.init, static_argnums=0, **ONCE)(config, jax.random.key(0))
    else:
        state = jax.device_put(start(config))
    vae_params = autoencoder.init(jax.random.key(0), config.vae) if config.vae else None
    if until == "update":
        fn, donated = partial(pretraining.train_step, config), (0,)
    else:
        part = pretraining.gradients if until == "gradients" else _loss
        fn, donated = partial(part, config), ()
    if attention:
        fn = with_attribute(fn, "attention", attention)
    lowered = jax.jit(fn, donate_argnums=donated).lower(state, batch, vae_params)
    step = lowered.compile()
    stream = batches(config) if batches else itertools.repeat(batch)

    def run():
        nonlocal state
        found = jax.block_until_ready(step(state, next(stream), vae_params))
        if until == "update":
            state, metrics = found
            return metrics["loss"]
        return found[1][1]["loss"] if until == "gradients" else found

    facts = {} if attention else {"flops": lowered.cost_analysis()["flops"]}
    return Built(run, peak_bytes, facts)


def _loss(config: Config, state, batch, vae_params):
    keys = jax.random.split(jax.random.key(0), config.batch_size)
    return pretraining.ma2mi_loss(config, state.params, state.batch_stats, batch, keys, vae_params)[
        0
    ]


def peak_bytes() -> int:
    """The most bytes in use: of the first device; on a CPU, of the process."""
    stats = jax.devices()[0].memory_stats()
    return stats["peak_bytes_in_use"] if stats else peak_of_process()

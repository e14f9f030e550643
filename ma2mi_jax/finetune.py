"""Fine-tuning on onset/apex pairs (paper §3.2): one fold's step, and leave-one-subject-out as `jax.vmap` of it.

A *member* is one fine-tune, of one fold under one seed. Members share the clips on the device and differ in index arrays, keys and weights;
what a member computes does not depend on the members beside it.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ma2mi_jax import architecture
from ma2mi_jax.architecture import Architecture
from ma2mi_jax.folds import Fold
from ma2mi_jax.miacnet import classify, condition, encode, init_classifier
from ma2mi_jax.pipeline import steps_per_epoch
from ma2mi_jax.pretrain import to_float
from ma2mi_jax.unroll import unrolled_under_vmap
from ma2mi_jax.warp import random_affine, warp

Tune = Literal["both", "action", "position"]


@dataclasses.dataclass(frozen=True)
class Config:
    """One fine-tuning run; defaults are the paper's (§4.3) or, where it is silent, those of SPEC §2.

    Attributes:
      tune: which encoder learns (Table 2); the other keeps its parameters and BatchNorm statistics.
      learning_rate, decay, weight_decay: AdamW; the rate falls exponentially to `decay` times its start over a member's own steps.
      rotation (degrees), translation (of the image's side; 16/256 is a crop from a reflection-padded 288), flip: of the augmentation,
        the same for onset and apex.
      dtype: of the computation, `float32` or `bfloat16`; parameters, statistics and losses are float32.
    """

    architecture: Architecture
    classes: int
    tune: Tune = "both"
    epochs: int = 80
    batch_size: int = 16
    learning_rate: float = 4e-4
    decay: float = 0.01
    weight_decay: float = 0.1
    rotation: float = 5.0
    translation: float = 16 / 256
    flip: bool = True
    dtype: str = "float32"


@flax.struct.dataclass
class State:
    """One member: `step` () int32, `params` {miacnet, classifier}, `batch_stats` of MIACNet, `opt_state`. Stacked: a leading axis."""

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any


def optimizer(config: Config) -> optax.GradientTransformation:
    """AdamW but for the learning rate, which depends on a member's number of steps and is applied in `fold_step`."""
    return optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(config.weight_decay))


def init(config: Config, key: jax.Array, pretrained: tuple[Any, Any] | None = None) -> State:
    """A member's start: random encoders by `key`, or the (params, batch_stats) of a pre-trained MIACNet; the classifier is zero."""
    if pretrained is None:
        size = config.architecture.image_size
        frame = jnp.zeros((1, size, size, 3))
        variables = architecture.miacnet(config.architecture, jnp.float32).init(key, frame, frame, False)
        pretrained = variables["params"], variables["batch_stats"]
    features = architecture.condition_features(config.architecture)
    params = {"miacnet": pretrained[0], "classifier": init_classifier(features, config.classes)}
    return State(jnp.zeros((), jnp.int32), params, pretrained[1], optimizer(config).init(params))


def _logits(config: Config, params, batch_stats, frames, train: bool):
    """(B, 2, H, W, 3) float pairs -> logits (B, classes) and BatchNorm statistics; a frozen encoder runs on its running statistics."""
    network = architecture.miacnet(config.architecture, jnp.dtype(config.dtype))
    onset, apex = frames[:, 0], frames[:, 1]
    trained = {name: train and config.tune in ("both", name) for name in ("action", "position")}
    action, batch_stats = encode(network, params["miacnet"], batch_stats, "action", onset, apex, train=trained["action"])
    position = None
    if config.architecture.fusion != "action":
        position, batch_stats = encode(network, params["miacnet"], batch_stats, "position", onset, train=trained["position"])
    return classify(params["classifier"], condition(action, position, config.architecture.fusion)), batch_stats


def _tuned(config: Config, params):
    """A tree of bools like `params`: does it learn?"""
    frozen = {"both": None, "action": "position_encoder", "position": "action_encoder"}[config.tune]
    return jax.tree_util.tree_map_with_path(lambda path, _: all(getattr(k, "key", None) != frozen for k in path), params)


def augment(config: Config, keys: jax.Array, frames: jax.Array) -> jax.Array:
    """Random rotation, crop and flip of float pairs (B, 2, H, W, 3), one transform a pair, by `keys` (B,)."""
    tau = random_affine(keys, rotation=config.rotation, translation=config.translation, flip=config.flip)
    onset, apex = frames[:, 0], frames[:, 1]
    return jnp.stack(jnp.split(warp(jnp.concatenate([onset, apex], axis=-1), tau), 2, axis=-1), axis=1)


def fold_step(config: Config, state: State, data, indices: jax.Array, key: jax.Array, total_steps: jax.Array, active: jax.Array):
    """One update of one member. Pure; `jax.vmap` over all but `config` and `data` trains members at once.

    Args:
      data: `frames` (N, 2, H, W, 3) uint8, onset and apex of every clip, and `label` (N,) int32.
      indices: (B,) int32, the batch, from the member's training clips.
      key: the member's own; the augmentation of a step depends on it and on `state.step` alone.
      total_steps: () the member's number of steps, over which the learning rate falls.
      active: () bool; where False the state stays as it is (the member waits for others with more clips).

    Returns:
      The next state and `loss`, `accuracy` of the batch, scalars.
    """
    step_key = jax.random.fold_in(key, state.step)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(step_key, jnp.arange(indices.shape[0]))
    frames, label = augment(config, keys, to_float(data["frames"][indices])), data["label"][indices]

    def loss(params):
        logits, batch_stats = _logits(config, params, state.batch_stats, frames, train=True)
        return optax.softmax_cross_entropy_with_integer_labels(logits, label).mean(), (logits, batch_stats)

    (value, (logits, batch_stats)), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
    directions, opt_state = optimizer(config).update(grads, state.opt_state, state.params)
    rate = config.learning_rate * config.decay ** (state.step / total_steps)
    params = jax.tree.map(lambda p, d, tuned: p - rate * d if tuned else p, state.params, directions, _tuned(config, state.params))
    after = State(state.step + 1, params, batch_stats, opt_state)
    state = jax.tree.map(lambda new, old: jnp.where(active, new, old), after, state)
    return state, {"loss": value, "accuracy": jnp.mean(jnp.argmax(logits, -1) == label)}


def predict(config: Config, state: State, data, indices: jax.Array) -> jax.Array:
    """Class probabilities (B, classes) float32 of the clips `indices` (B,), unaugmented, with running BatchNorm statistics."""
    logits, _ = _logits(config, state.params, state.batch_stats, to_float(data["frames"][indices]), train=False)
    return jax.nn.softmax(logits)


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def step_members(config: Config, states: State, data, indices, keys, total_steps, active):
    """`fold_step` of M members: stacked states, indices (M, B), keys, total_steps, active (M,). The states given are used up."""
    return jax.vmap(unrolled_under_vmap(partial(fold_step, config)), in_axes=(0, None, 0, 0, 0, 0))(
        states, data, indices, keys, total_steps, active
    )


@partial(jax.jit, static_argnums=0)
def predict_members(config: Config, states: State, data, indices):
    """`predict` of M members: indices (M, B) -> (M, B, classes)."""
    return jax.vmap(unrolled_under_vmap(partial(predict, config)), in_axes=(0, None, 0))(states, data, indices)


@dataclasses.dataclass(frozen=True)
class Member:
    """One fine-tune: `fold` under `seed`."""

    seed: int
    fold: Fold

    def key(self, purpose: str) -> jax.Array:
        """A key that depends on seed, fold and purpose (`init` or `augment`) alone."""
        key = jax.random.fold_in(jax.random.key(self.seed), self.fold.number)
        return jax.random.fold_in(key, {"init": 0, "augment": 1}[purpose])

    def batches(self, epoch: int, batch_size: int) -> np.ndarray:
        """(steps, batch_size) int32: the epoch's order of the training clips, whole batches only; a set smaller than a batch repeats."""
        clips = self.fold.train
        order = np.random.default_rng([self.seed, self.fold.number, epoch]).permutation(clips)
        steps = steps_per_epoch(len(clips), batch_size)
        return np.resize(order, (steps, batch_size))


def train_members(config: Config, members: Sequence[Member], states: State, data, on_epoch) -> State:
    """All epochs of `members` at once. `states` is used up; returns their last.

    Args:
      data: as for `fold_step`, on the device.
      on_epoch: called after each epoch with (epoch, states, history), history being `loss` and `accuracy`, (members,) means over the epoch.
    """
    steps = np.array([steps_per_epoch(len(m.fold.train), config.batch_size) for m in members])
    keys = jnp.stack([m.key("augment") for m in members])
    total = jnp.asarray(steps * config.epochs)
    for epoch in range(config.epochs):
        batches = [m.batches(epoch, config.batch_size) for m in members]
        sums = {"loss": 0.0, "accuracy": 0.0}
        for step in range(steps.max()):
            active = step < steps
            indices = np.stack([b[min(step, len(b) - 1)] for b in batches])
            states, metrics = step_members(config, states, data, indices, keys, total, active)
            sums = {k: sums[k] + jnp.where(active, metrics[k], 0) for k in sums}
        on_epoch(epoch, states, {k: np.asarray(v) / steps for k, v in sums.items()})
    return states


def predict_tests(config: Config, members: Sequence[Member], states: State, data) -> list[np.ndarray]:
    """Class probabilities (test clips, classes) of each member's own test clips, in the order of `fold.test`."""
    longest, size = max(len(m.fold.test) for m in members), config.batch_size
    rows = np.stack([np.resize(m.fold.test, -(-longest // size) * size) for m in members])  # without batch statistics, repeats are harmless
    parts = [predict_members(config, states, data, rows[:, i : i + size]) for i in range(0, rows.shape[1], size)]
    probabilities = np.concatenate([np.asarray(p) for p in parts], axis=1)
    return [p[: len(m.fold.test)] for p, m in zip(probabilities, members, strict=True)]

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
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ma2mi_jax.clips.pairs import steps_per_epoch
from ma2mi_jax.images import random_affine, to_float, warp
from ma2mi_jax.models import architecture
from ma2mi_jax.models.architecture import Architecture
from ma2mi_jax.models.miacnet import classify, condition, encode, init_classifier
from ma2mi_jax.training import pretraining
from ma2mi_jax.training.folds import Fold
from ma2mi_jax.training.unroll import unrolled_under_vmap

Tune = Literal["both", "action", "position"]


@dataclasses.dataclass(frozen=True)
class Config:
    """One fine-tuning run; defaults are the paper's (§4.3) or, where it is silent, those of SPEC §2.

    Attributes:
      tune: which encoder learns (Table 2); the other keeps its parameters and BatchNorm statistics.
      reconstruction: of the pre-training whose L_rec is kept beside the cross-entropy (Table 2), or None.
      learning_rate, decay, weight_decay: AdamW; the rate falls exponentially to `decay` times its start over a member's own steps.
      rotation (degrees), translation (of the image's side; 16/256 is a crop from a reflection-padded 288), flip: of the augmentation,
        the same for onset and apex.
      dtype: of the computation, `float32` or `bfloat16`; parameters, statistics and losses are float32.
    """

    architecture: Architecture
    classes: int
    tune: Tune = "both"
    reconstruction: pretraining.Config | None = None
    epochs: int = 80
    batch_size: int = 16
    learning_rate: float = 4e-4
    decay: float = 0.01
    weight_decay: float = 0.1
    rotation: float = 5.0
    translation: float = 16 / 256
    flip: bool = True
    dtype: str = "float32"


def config_from_json(content: dict[str, Any]) -> Config:
    """The inverse of `dataclasses.asdict` after a way through JSON."""
    kept = content.get("reconstruction")
    nested = {
        "architecture": Architecture(**content["architecture"]),
        "reconstruction": kept and pretraining.config_from_json(kept),
    }
    return Config(**content | nested)


@flax.struct.dataclass
class State:
    """One member: `step` () int32, `params` {miacnet, classifier, and dit where L_rec is kept}, `batch_stats` of MIACNet, `opt_state`.

    Stacked: a leading axis.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any


def optimizer(config: Config) -> optax.GradientTransformation:
    """AdamW but for the learning rate, which depends on a member's number of steps and is applied in `fold_step`."""
    return optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(config.weight_decay))


def init(config: Config, key: jax.Array, pretrained: tuple[Any, Any] | None = None) -> State:
    """A member's start: random encoders by `key`, or what was learned before; the classifier is zero.

    Args:
      pretrained: `params` {miacnet, and dit where L_rec is kept} and `batch_stats` of MIACNet, or None.
    """
    if pretrained is None:
        size = config.architecture.image_size
        frame = jnp.zeros((1, size, size, 3))
        variables = architecture.miacnet(config.architecture, jnp.float32).init(
            key, frame, frame, False
        )
        pretrained = {"miacnet": variables["params"]}, variables["batch_stats"]
    learned, batch_stats = pretrained
    params = {"miacnet": learned["miacnet"]}
    params["classifier"] = init_classifier(
        architecture.condition_features(config.architecture), config.classes
    )
    if config.reconstruction:
        params["dit"] = learned["dit"]
    return State(jnp.zeros((), jnp.int32), params, batch_stats, optimizer(config).init(params))


def _forward(config: Config, params, batch_stats, frames, train: bool):
    """(B, 2, H, W, 3) float pairs -> logits (B, classes), C_Δ and BatchNorm statistics; a frozen encoder runs on its running statistics."""
    network = architecture.miacnet(config.architecture, jnp.dtype(config.dtype))
    onset, apex = frames[:, 0], frames[:, 1]
    trained = {name: train and config.tune in ("both", name) for name in ("action", "position")}
    action, batch_stats = encode(
        network, params["miacnet"], batch_stats, "action", onset, apex, train=trained["action"]
    )
    position = None
    if config.architecture.fusion != "action":
        position, batch_stats = encode(
            network, params["miacnet"], batch_stats, "position", onset, train=trained["position"]
        )
    c_delta = condition(action, position, config.architecture.fusion)
    return classify(params["classifier"], c_delta), c_delta, batch_stats


def _reconstruction_loss(config: Config, params, vae_params, frames, c_delta) -> jax.Array:
    """L_rec (Eq. 9) of onset → apex.

    It reaches every encoder that is tuned, the position encoder too: were it stopped there as in pre-training, keeping it could change
    nothing where the position encoder alone is tuned, and in Table 2 it does.
    """
    kept = dataclasses.replace(config.reconstruction, dtype=config.dtype)
    z, z_apex = (pretraining.latents(kept, vae_params, frames[:, k]) for k in range(2))
    return pretraining.reconstruction_loss(
        pretraining.predict_future(kept, params["dit"], z, c_delta), z_apex
    )


def _tuned(config: Config, params):
    """A tree of bools like `params`: does it learn?"""
    frozen = {"both": None, "action": "position_encoder", "position": "action_encoder"}[config.tune]
    return jax.tree_util.tree_map_with_path(
        lambda path, _: all(getattr(k, "key", None) != frozen for k in path), params
    )


def augment(config: Config, keys: jax.Array, frames: jax.Array) -> jax.Array:
    """Random rotation, crop and flip of float pairs (B, 2, H, W, 3), one transform a pair, by `keys` (B,)."""
    tau = random_affine(
        keys, rotation=config.rotation, translation=config.translation, flip=config.flip
    )
    onset, apex = frames[:, 0], frames[:, 1]
    return jnp.stack(
        jnp.split(warp(jnp.concatenate([onset, apex], axis=-1), tau), 2, axis=-1), axis=1
    )


def fold_step(
    config: Config,
    state: State,
    data,
    indices: jax.Array,
    key: jax.Array,
    total_steps: jax.Array,
    active: jax.Array,
):
    """One update of one member. Pure; `jax.vmap` over all but `config` and `data` trains members at once.

    Args:
      data: `frames` (N, 2, H, W, 3) uint8, onset and apex of every clip; `label` (N,) int32; and `vae`, the autoencoder's parameters,
        where L_rec is kept in latent space.
      indices: (B,) int32, the batch, from the member's training clips.
      key: the member's own; the augmentation of a step depends on it and on `state.step` alone.
      total_steps: () the member's number of steps, over which the learning rate falls.
      active: () bool; where False the state stays as it is (the member waits for others with more clips).

    Returns:
      The next state and, of the batch, `loss` (with L_rec, where kept) and `accuracy`, scalars.
    """
    step_key = jax.random.fold_in(key, state.step)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(step_key, jnp.arange(indices.shape[0]))
    frames, label = augment(config, keys, to_float(data["frames"][indices])), data["label"][indices]

    tuned = _tuned(config, state.params)

    def loss(params):
        params = jax.tree.map(
            lambda p, learns: p if learns else jax.lax.stop_gradient(p), params, tuned
        )
        logits, c_delta, batch_stats = _forward(
            config, params, state.batch_stats, frames, train=True
        )
        value = optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()
        if config.reconstruction:
            value += _reconstruction_loss(config, params, data.get("vae"), frames, c_delta)
        return value, (logits, batch_stats)

    (value, (logits, batch_stats)), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
    directions, opt_state = optimizer(config).update(grads, state.opt_state, state.params)
    rate = config.learning_rate * config.decay ** (state.step / total_steps)
    params = jax.tree.map(
        lambda p, d, learns: p - rate * d if learns else p, state.params, directions, tuned
    )
    after = State(state.step + 1, params, batch_stats, opt_state)
    state = jax.tree.map(lambda new, old: jnp.where(active, new, old), after, state)
    return state, {"loss": value, "accuracy": jnp.mean(jnp.argmax(logits, -1) == label)}


def predict(config: Config, state: State, data, indices: jax.Array) -> jax.Array:
    """Class probabilities (B, classes) float32 of the clips `indices` (B,), unaugmented, with running BatchNorm statistics."""
    logits, _, _ = _forward(
        config, state.params, state.batch_stats, to_float(data["frames"][indices]), train=False
    )
    return jax.nn.softmax(logits)


def members_mesh() -> Mesh | None:
    """All devices, among which members are shared out; None where there is but one."""
    return Mesh(np.array(jax.devices()), ("members",)) if jax.device_count() > 1 else None


def _over_members(fn, in_axes: tuple[int | None, ...], mesh: Mesh | None):
    """`jax.vmap` of `fn`, laid out once a member; over `mesh` each device has its share of them, and none speaks to another."""
    mapped = jax.vmap(unrolled_under_vmap(fn), in_axes=in_axes)
    if mesh is None:
        return mapped
    specs = tuple(PartitionSpec() if axis is None else PartitionSpec("members") for axis in in_axes)
    return jax.shard_map(
        mapped, mesh=mesh, in_specs=specs, out_specs=PartitionSpec("members"), check_vma=False
    )


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=2)
def step_members(
    config: Config, mesh: Mesh | None, states: State, data, indices, keys, total_steps, active
):
    """`fold_step` of M members: stacked states, indices (M, B), keys, total_steps, active (M,). The states given are used up.

    With a mesh, M is a multiple of its size.
    """
    step = _over_members(partial(fold_step, config), (0, None, 0, 0, 0, 0), mesh)
    return step(states, data, indices, keys, total_steps, active)


@partial(jax.jit, static_argnums=(0, 1))
def predict_members(config: Config, mesh: Mesh | None, states: State, data, indices):
    """`predict` of M members: indices (M, B) -> (M, B, classes)."""
    return _over_members(partial(predict, config), (0, None, 0), mesh)(states, data, indices)


def placed(tree, mesh: Mesh | None, *axes: str):
    """Arrays on the device, or on those of `mesh`: shared out along their first axis where `axes` is `members`, else whole on each."""
    return jax.device_put(
        tree, jax.devices()[0] if mesh is None else NamedSharding(mesh, PartitionSpec(*axes))
    )


def _at_hand(data, indices: np.ndarray):
    """What a step reads: all clips where they lie on the device; where `frames` are NumPy's, those of `indices` alone, and their places."""
    if not isinstance(data["frames"], np.ndarray):
        return data, indices
    rows = indices.ravel()
    return data | {k: data[k][rows] for k in ("frames", "label")}, np.arange(
        rows.size, dtype=np.int32
    ).reshape(indices.shape)


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


def train_members(
    config: Config,
    members: Sequence[Member],
    states: State,
    data,
    on_epoch,
    *,
    first_epoch: int = 0,
    mesh: Mesh | None = None,
) -> State:
    """The epochs of `members` from `first_epoch` on, all members at once. `states` is used up; returns their last.

    Args:
      data: as for `fold_step`, on the device; or with `frames` and `label` as NumPy arrays, of which each step takes what it needs along.
      on_epoch: called after each epoch with (epoch, states, history), history being `loss` and `accuracy`, (members,) means over the epoch.
      mesh: devices that share the members, whose number then is a multiple of theirs.
    """
    steps = np.array([steps_per_epoch(len(m.fold.train), config.batch_size) for m in members])
    keys = jnp.stack([m.key("augment") for m in members])
    total = jnp.asarray(steps * config.epochs)
    states, keys, total = placed((states, keys, total), mesh, "members")
    for epoch in range(first_epoch, config.epochs):
        batches = [m.batches(epoch, config.batch_size) for m in members]
        sums = {"loss": 0.0, "accuracy": 0.0}
        for step in range(steps.max()):
            active = step < steps
            few, indices = _at_hand(data, np.stack([b[min(step, len(b) - 1)] for b in batches]))
            states, metrics = step_members(config, mesh, states, few, indices, keys, total, active)
            sums = {k: sums[k] + jnp.where(active, metrics[k], 0) for k in sums}
        on_epoch(epoch, states, {k: np.asarray(v) / steps for k, v in sums.items()})
    return states


def predict_clips(
    config: Config, states: State, data, clips: Sequence[np.ndarray], *, mesh: Mesh | None = None
) -> list[np.ndarray]:
    """Class probabilities (len(clips[k]), classes) by each member k of its own list of clips."""
    size = config.batch_size
    length = -(-max(map(len, clips)) // size) * size
    rows = np.stack([np.resize(c, length) if len(c) else np.zeros(length, int) for c in clips])
    states = placed(
        states, mesh, "members"
    )  # rows are filled up by repeats: without batch statistics these are harmless
    parts = [
        predict_members(config, mesh, states, *_at_hand(data, rows[:, i : i + size]))
        for i in range(0, rows.shape[1], size)
    ]
    probabilities = np.concatenate([np.asarray(p) for p in parts], axis=1)
    return [p[: len(c)] for p, c in zip(probabilities, clips, strict=True)]

"""Fine-tuning on onset/apex pairs (paper §3.2): one fold's step, and leave-one-subject-out as `jax.vmap` of it.

A *member* is one fine-tune, of one fold under one seed. Members share the clips on the device and differ in index arrays, keys and weights;
what a member computes does not depend on the members beside it.
"""

import dataclasses
from typing import Any, Literal

import flax
import jax
import jax.numpy as jnp
import optax

from ma2mi_jax.images import random_affine, to_float, warp
from ma2mi_jax.losses import reconstruction_loss
from ma2mi_jax.models.architecture import Architecture
from ma2mi_jax.models.miacnet import classify, condition, encode, init_classifier
from ma2mi_jax.training import pretraining

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
class MemberState:
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


def init(config: Config, key: jax.Array, pretrained: tuple[Any, Any] | None = None) -> MemberState:
    """A member's start: random encoders by `key`, or what was learned before; the classifier is zero.

    Args:
      pretrained: `params` {miacnet, and dit where L_rec is kept} and `batch_stats` of MIACNet, or None.
    """
    if pretrained is None:
        size = config.architecture.image_size
        frame = jnp.zeros((1, size, size, 3))
        variables = config.architecture.miacnet(jnp.float32).init(key, frame, frame, False)
        pretrained = {"miacnet": variables["params"]}, variables["batch_stats"]
    learned, batch_stats = pretrained
    params = {"miacnet": learned["miacnet"]}
    params["classifier"] = init_classifier(config.architecture.condition_features, config.classes)
    if config.reconstruction:
        params["dit"] = learned["dit"]
    return MemberState(
        jnp.zeros((), jnp.int32), params, batch_stats, optimizer(config).init(params)
    )


def _forward(config: Config, params, batch_stats, frames, train: bool):
    """(B, 2, H, W, 3) float pairs -> logits (B, classes), C_Δ and BatchNorm statistics; a frozen encoder runs on its running statistics."""
    network = config.architecture.miacnet(jnp.dtype(config.dtype))
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
    return reconstruction_loss(pretraining.predict_future(kept, params["dit"], z, c_delta), z_apex)


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
    state: MemberState,
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
    after = MemberState(state.step + 1, params, batch_stats, opt_state)
    state = jax.tree.map(lambda new, old: jnp.where(active, new, old), after, state)
    return state, {"loss": value, "accuracy": jnp.mean(jnp.argmax(logits, -1) == label)}


def predict(config: Config, state: MemberState, data, indices: jax.Array) -> jax.Array:
    """Class probabilities (B, classes) float32 of the clips `indices` (B,), unaugmented, with running BatchNorm statistics."""
    logits, _, _ = _forward(
        config, state.params, state.batch_stats, to_float(data["frames"][indices]), train=False
    )
    return jax.nn.softmax(logits)

"""Fine-tuning on onset/apex pairs (paper §3.2): one member's start, step and prediction.

A *member* is one fine-tune, of one fold under one seed; `members` trains many at once. All here is
of a single member, and pure.
"""

import dataclasses
from typing import Any, Literal

import chex
import flax
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key, UInt8

from ma2mi_jax.images import Affine, check_pairs, random_affine, to_float, warp, whole_pixels
from ma2mi_jax.losses import reconstruction_loss
from ma2mi_jax.models.architecture import Architecture
from ma2mi_jax.models.miacnet import ENCODERS, classify, features, init_classifier
from ma2mi_jax.training import pretraining

Tune = Literal["both", "action", "position"]
Statistics = Literal["running", "batch"]
Augmentation = Literal["affine", "crop"]
TestFrames = Literal["sharp", "filtered"]
Data = dict[str, Any]
Metrics = dict[str, Float[Array, ""]]


@dataclasses.dataclass(frozen=True)
class Config:
    """One fine-tuning run. Defaults are the paper's (§4.3); where it is silent: docs/choices.md.

    Attributes:
      tune: which encoder learns (Table 2); the other keeps its parameters.
      frozen_statistics: BatchNorm of an encoder that does not learn uses, and keeps, its `running`
        statistics; or it takes those of the `batch`, and the running ones move.
      reconstruction: the pre-training whose L_rec is kept beside the cross-entropy (Table 2), or
        None.
      reconstruction_weight: of that L_rec.
      learning_rate, decay, weight_decay: of AdamW. Over a member's own steps the rate falls
        exponentially to `decay` times its start.
      augmentation: `affine` rotates and crops at any place, which averages neighbouring pixels;
        `crop` has no rotation and crops at whole pixels, which averages none.
      rotation (degrees), translation (of the image's side), flip: of the augmentation, which is the
        same for onset and apex. A translation of 16/256 is a crop from a reflection-padded 288.
      test_frames: clips are tested as they are (`sharp`), or `filtered`: moved by half a pixel, so
        that they are as smooth as what `affine` trains on.
      dtype: of the computation, `float32` or `bfloat16`. Parameters, statistics and losses are
        float32.
    """

    architecture: Architecture
    classes: int
    tune: Tune = "both"
    frozen_statistics: Statistics = "running"
    reconstruction: pretraining.Config | None = None
    reconstruction_weight: float = 1.0
    epochs: int = 80
    batch_size: int = 16
    learning_rate: float = 4e-4
    decay: float = 0.01
    weight_decay: float = 0.1
    augmentation: Augmentation = "affine"
    rotation: float = 5.0
    translation: float = 16 / 256
    flip: bool = True
    test_frames: TestFrames = "sharp"
    dtype: str = "float32"


@flax.struct.dataclass
class MemberState:
    """What a step of one member changes. Stacked, each array has a leading axis of members.

    Attributes:
      params: {miacnet, classifier}, and dit where L_rec is kept.
      batch_stats: of MIACNet.
    """

    step: Int[Array, "*members"]
    params: Any
    batch_stats: Any
    opt_state: Any


def optimizer(config: Config) -> optax.GradientTransformation:
    """AdamW without the learning rate.

    The rate depends on a member's number of steps; `fold_step` applies it.
    """
    return optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(config.weight_decay))


def init(
    config: Config, key: Key[Array, ""], pretrained: tuple[Any, Any] | None = None
) -> MemberState:
    """A member's start: random encoders by `key`, or what was learned before.

    The classifier is zero.

    Args:
      pretrained: `params` {miacnet, and dit where L_rec is kept} and `batch_stats` of MIACNet, or
        None.
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


def augment(
    config: Config, keys: Key[Array, " B"], frames: Float[Array, "B 2 H W 3"]
) -> Float[Array, "B 2 H W 3"]:
    """Random rotation, crop and flip: one transform a pair, the same for onset and apex."""
    tau = random_affine(
        keys, rotation=config.rotation, translation=config.translation, flip=config.flip
    )
    if config.augmentation == "crop":
        tau = whole_pixels(tau, frames.shape[2])
    return _warp_pairs(frames, tau)


def tested_frames(config: Config, pairs: UInt8[Array, "B 2 H W 3"]) -> Float[Array, "B 2 H W 3"]:
    """Onset and apex as a model is asked about them, in [−1, 1].

    `filtered` moves them by half a pixel in x and y: each pixel becomes the mean of four.
    """
    check_pairs(pairs)
    frames = to_float(pairs)
    if config.test_frames == "sharp":
        return frames
    zero = jnp.zeros(len(frames))
    shift = zero + 1 / frames.shape[2]  # in units of half an image
    return _warp_pairs(frames, Affine(zero, zero + 1, shift, shift))


def _warp_pairs(frames: Float[Array, "B 2 H W 3"], tau: Affine) -> Float[Array, "B 2 H W 3"]:
    """τ of each pair applied to its onset and its apex."""
    onset, apex = frames[:, 0], frames[:, 1]
    moved = warp(jnp.concatenate([onset, apex], axis=-1), tau)
    return jnp.stack(jnp.split(moved, 2, axis=-1), axis=1)


def fold_step(
    config: Config,
    state: MemberState,
    data: Data,
    indices: Int[Array, " B"],
    key: Key[Array, ""],
    total_steps: Int[Array, ""],
    active: Bool[Array, ""],
) -> tuple[MemberState, Metrics]:
    """One update. `jax.vmap` over all but `config` and `data` trains members at once.

    Args:
      data: `frames` (N, 2, H, W, 3) uint8, onset and apex of every clip; `label` (N,) int32; and
        `vae`, the autoencoder's parameters, where L_rec is kept in latent space.
      indices: the batch, of the member's training clips.
      key: the member's own. The augmentation depends on it and on `state.step` alone.
      total_steps: the member's number of steps, over which the learning rate falls.
      active: where False the state stays as it is: the member waits for others with more clips.

    Returns:
      The next state; and of the batch `loss` (with L_rec, where it is kept) and `accuracy`.
    """
    check_pairs(data["frames"])
    chex.assert_rank(indices, 1, custom_message="expected a batch of clips, (B,)")
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
            kept = _reconstruction_loss(config, params, data.get("vae"), frames, c_delta)
            value += config.reconstruction_weight * kept
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


def predict(
    config: Config, state: MemberState, data: Data, indices: Int[Array, " B"]
) -> Float[Array, "B classes"]:
    """Class probabilities of clips, unaugmented, with running BatchNorm statistics.

    Args:
      data: as for `fold_step`.
      indices: the clips.
    """
    frames = tested_frames(config, data["frames"][indices])
    logits, _, _ = _forward(config, state.params, state.batch_stats, frames, train=False)
    return jax.nn.softmax(logits)


# ----- parts of the step --------------------------------------------------------------------------


def _forward(
    config: Config, params: Any, batch_stats: Any, frames: Float[Array, "B 2 H W 3"], train: bool
) -> tuple[Float[Array, "B classes"], Float[Array, "B K"], Any]:
    """Logits, C_Δ and BatchNorm statistics of pairs in [−1, 1]."""
    network = config.architecture.miacnet(jnp.dtype(config.dtype))
    anew = "both" if config.frozen_statistics == "batch" else config.tune
    measured = [name for name in ENCODERS if anew in ("both", name)]
    maps, batch_stats = features(
        network,
        params["miacnet"],
        batch_stats,
        frames[:, 0],
        frames[:, 1],
        train=measured if train else (),
    )
    c_delta = config.architecture.condition(maps.action, maps.position)
    return classify(params["classifier"], c_delta), c_delta, batch_stats


def _reconstruction_loss(
    config: Config,
    params: Any,
    vae_params: Any,
    frames: Float[Array, "B 2 H W 3"],
    c_delta: Float[Array, "B K"],
) -> Float[Array, ""]:
    """L_rec (Eq. 9) of onset → apex.

    It reaches every encoder that is tuned, the position encoder too. If its gradient stopped there
    as in pre-training, keeping L_rec could change nothing where the position encoder alone is
    tuned; in Table 2 it does.
    """
    kept = dataclasses.replace(config.reconstruction, dtype=config.dtype)
    z, z_apex = (pretraining.latents(kept, vae_params, frames[:, k]) for k in range(2))
    predicted = pretraining.predict_future(kept, params["dit"], z, c_delta)
    return reconstruction_loss(predicted, z_apex, kept.reconstruction_loss)


def _tuned(config: Config, params: Any) -> Any:
    """A tree of bools like `params`: does it learn?"""
    frozen = {"both": None, "action": "position_encoder", "position": "action_encoder"}[config.tune]
    return jax.tree_util.tree_map_with_path(
        lambda path, _: all(getattr(k, "key", None) != frozen for k in path), params
    )

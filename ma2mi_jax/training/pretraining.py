"""Pre-training on macro-expression videos (paper §3.2, Fig. 3): L_pre = L_rec + L_pos (Eq. 10).

`ma2mi_loss` is the method: its lines are the paper's equations. `train_step` is one pure update.

The two branches train independently. The position encoder learns from L_pos alone: its map enters
C_Δ under a stopped gradient. The action encoder and DiT learn from L_rec. With
`position_loss=False` L_rec reaches both encoders (Table 4, second row). `objective="maer"` is
Table 1's baseline: macro-expression recognition, seven-way cross-entropy on MIACNet.
"""

import dataclasses
from functools import partial
from typing import Any, Literal

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key, UInt8

from ma2mi_jax.clips.pairs import DEFAULT_DELTA
from ma2mi_jax.images import Affine, check_pairs, enlarge, random_affine, shrink, to_float
from ma2mi_jax.losses import Norm, Scale, position_losses, reconstruction_loss
from ma2mi_jax.models import autoencoder
from ma2mi_jax.models.architecture import Architecture
from ma2mi_jax.models.miacnet import (
    ENCODERS,
    Features,
    classify,
    features,
    init_classifier,
)

Batch = dict[str, Array]
Metrics = dict[str, Float[Array, ""]]


@dataclasses.dataclass(frozen=True)
class Config:
    """One pre-training run. Defaults are the paper's (§4.3); where it is silent: docs/choices.md.

    Attributes:
      architecture: sizes of the networks and the open choices among them.
      objective: `ma2mi`, or `maer` (then `classes` is the number of macro labels).
      position_loss: train E_p by L_pos alone (True) or by L_rec (False).
      position_scale: L3 on `unit` vectors or on `raw` features.
      reconstruction_loss: the norm of L_rec; `l1` is the paper's.
      rotation (degrees), translation (of the image's side), flip: the range of τ.
      delta: the range of δ, both ends included.
      steps, batch_size, learning_rate, decay, weight_decay: of AdamW. Over `steps` the rate falls
        exponentially to `decay` times its start.
      dtype: of the computation, `float32` or `bfloat16`. Parameters, statistics and losses are
        float32.
      vae: shape of the frozen autoencoder in latent space, None in pixel space.
      latent: Z is the `mean` of the autoencoder's posterior, or in training a `sample` of it.
    """

    architecture: Architecture
    objective: Literal["ma2mi", "maer"] = "ma2mi"
    classes: int = 0
    position_loss: bool = True
    position_scale: Scale = "unit"
    reconstruction_loss: Norm = "l1"
    rotation: float = 20.0
    translation: float = 0.1
    flip: bool = False
    delta: tuple[int, int] = DEFAULT_DELTA
    steps: int = 1000
    batch_size: int = 32
    learning_rate: float = 4e-4
    decay: float = 0.01
    weight_decay: float = 0.01
    seed: int = 0
    dtype: str = "float32"
    vae: autoencoder.Autoencoder | None = None
    latent: Literal["mean", "sample"] = "mean"


@flax.struct.dataclass
class PretrainState:
    """What a step changes.

    Attributes:
      params: {miacnet, dit}, or {miacnet, classifier} for the `maer` objective.
      batch_stats: of MIACNet.
      first_bad_step: −1 until a loss or gradient is not finite, then the number of that step.
    """

    step: Int[Array, ""]
    params: Any
    batch_stats: Any
    opt_state: Any
    first_bad_step: Int[Array, ""]


def learning_rate(config: Config) -> optax.Schedule:
    """Exponential decay from `learning_rate` to `decay` times that, reached after `steps`."""
    return optax.exponential_decay(config.learning_rate, config.steps, config.decay)


def optimizer(config: Config) -> optax.GradientTransformation:
    """AdamW."""
    return optax.adamw(learning_rate(config), weight_decay=config.weight_decay)


def init(
    config: Config, key: Key[Array, ""], encoders: tuple[Any, Any] | None = None
) -> PretrainState:
    """A fresh state. Run it under `jax.jit`: one by one its many small draws are slow.

    Args:
      encoders: MIACNet's params and batch_stats to start from, or None for random ones.
    """
    size = config.architecture.image_size
    frame = jnp.zeros((1, size, size, 3))
    encoder_key, rest_key = jax.random.split(key)
    network = config.architecture.miacnet(jnp.float32)
    c_delta, variables = network.init_with_output(encoder_key, frame, frame, False)
    learned, batch_stats = encoders or (variables["params"], variables["batch_stats"])
    params = {"miacnet": learned}
    if config.objective == "maer":
        params["classifier"] = init_classifier(c_delta.shape[-1], config.classes)
    else:
        latent = jnp.zeros((1, *config.architecture.latent_shape))
        dit = config.architecture.dit(jnp.float32)
        params["dit"] = dit.init(rest_key, latent, c_delta)["params"]
    return PretrainState(
        jnp.zeros((), jnp.int32),
        params,
        batch_stats,
        optimizer(config).init(params),
        jnp.full((), -1, jnp.int32),
    )


# ----- the loss -----------------------------------------------------------------------------------


def ma2mi_loss(
    config: Config,
    params: Any,
    batch_stats: Any,
    batch: Batch,
    keys: Key[Array, " B"],
    vae_params: Any = None,
    axis_name: str | None = None,
) -> tuple[Float[Array, ""], tuple[Any, Metrics, Float[Array, "B S S C"]]]:
    """L_pre (Eq. 10) of one batch, from pairs of frames to the sum of the losses.

    Args:
      params: {miacnet, dit}.
      batch: `frames` (B, 2, H, W, 3) uint8, the pairs (I_t, I_{t+δ}). With `latents`
        (B, 2, h, w, 4) float16 the autoencoder is not run. Such a cache loses nothing: τ moves
        what E_p sees, never Z.
      keys: one for each sample's τ, and for the draw of Z where Z is a sample.
      vae_params: of the frozen autoencoder, in latent space without a cache.
      axis_name: the mapped axis over which BatchNorm takes its statistics, or None.

    Returns:
      The loss and (new batch statistics, metrics, Ẑ_{t+δ}).
    """
    frame, future = _frames(batch)  # I_t, I_{t+δ}
    tau = _tau(config, keys)
    maps, batch_stats = _features(config, params, batch_stats, frame, future, tau, axis_name)
    l_pos = _position_losses(config, maps, tau)  # Eq. 2-6
    c_delta = config.architecture.condition(maps.action, _for_condition(maps, tau))

    z, z_future = _latent_pair(config, vae_params, batch, frame, future, keys)  # Eq. 7
    predicted = predict_future(config, params["dit"], z, c_delta)  # Eq. 8
    l_rec = reconstruction_loss(predicted, z_future, config.reconstruction_loss)  # Eq. 9

    parts = {"loss_rec": l_rec, **l_pos}
    loss = sum(parts.values())  # Eq. 10
    metrics = {"loss": loss, **parts, **_monitors(config, maps, z, z_future)}
    return loss, (batch_stats, metrics, predicted)


def maer_loss(
    config: Config,
    params: Any,
    batch_stats: Any,
    batch: Batch,
    keys: Key[Array, " B"],
    vae_params: Any = None,
    axis_name: str | None = None,
) -> tuple[Float[Array, ""], tuple[Any, Metrics, Float[Array, "B classes"]]]:
    """Cross-entropy of the macro label from the first and the middle frame (Table 1's baseline).

    Args:
      params: {miacnet, classifier}.
      batch: `frames` (B, 2, H, W, 3) uint8 and `label` (B,) int32.

    Returns:
      The loss and (new batch statistics, metrics, logits).
    """
    first, middle = _frames(batch)
    maps, batch_stats = _features(config, params, batch_stats, first, middle, None, axis_name)
    c_delta = config.architecture.condition(maps.action, maps.position)
    logits = classify(params["classifier"], c_delta)

    loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean()
    accuracy = jnp.mean(jnp.argmax(logits, -1) == batch["label"])
    return loss, (batch_stats, {"loss": loss, "accuracy": accuracy}, logits)


def latents(
    config: Config,
    vae_params: Any,
    frames: Float[Array, "B H W 3"],
    keys: Key[Array, " B"] | None = None,
) -> Float[Array, "B S S C"]:
    """Z = E_ae(I) (Eq. 7), without gradient; frames in [−1, 1].

    In latent space S = H/8 and C = 4; in pixel space Z is the frame, averaged over squares where
    the architecture shrinks it. With `keys` Z is a sample of the posterior, else its mean.
    """
    if config.architecture.space == "pixel":
        return shrink(frames, config.architecture.pixel_shrink)
    # In float32 whatever the step computes in: in bfloat16 rounding hides how a latent changes by
    # half a pixel of motion.
    return jax.lax.stop_gradient(autoencoder.encode(config.vae, vae_params, frames, keys=keys))


def predict_future(
    config: Config, dit_params: Any, z: Float[Array, "B S S C"], c_delta: Float[Array, "B K"]
) -> Float[Array, "B S S C"]:
    """Ẑ_{t+δ} = DiT(Z_t, C_Δ) (Eq. 8)."""
    dit = config.architecture.dit(jnp.dtype(config.dtype))
    return dit.apply({"params": dit_params}, z, c_delta)


# ----- parts of the loss --------------------------------------------------------------------------


def _frames(batch: Batch) -> tuple[Float[Array, "B H W 3"], Float[Array, "B H W 3"]]:
    frames = batch["frames"]
    check_pairs(frames)
    return to_float(frames[:, 0]), to_float(frames[:, 1])


def _features(
    config: Config, params: Any, batch_stats: Any, frame, future, tau: Affine | None, axis_name
) -> tuple[Features, Any]:
    network = config.architecture.miacnet(jnp.dtype(config.dtype), axis_name)
    return features(network, params["miacnet"], batch_stats, frame, future, tau, train=ENCODERS)


def _tau(config: Config, keys: Key[Array, " B"]) -> Affine | None:
    """τ of Eq. 5, one for each sample; None where nothing is learned from L_pos."""
    if config.architecture.fusion == "action" or not config.position_loss:
        return None
    return random_affine(
        keys, rotation=config.rotation, translation=config.translation, flip=config.flip
    )


def _position_losses(config: Config, maps: Features, tau: Affine | None) -> Metrics:
    if tau is None:
        return {}
    return position_losses(maps.position, maps.position_of_warped, tau, config.position_scale)


def _for_condition(maps: Features, tau: Affine | None) -> Float[Array, "B h w D"] | None:
    """F^p as it enters C_Δ. An E_p that learns from L_pos learns nothing from L_rec."""
    return maps.position if tau is None else jax.lax.stop_gradient(maps.position)


def _latent_pair(
    config: Config, vae_params: Any, batch: Batch, frame, future, keys: Key[Array, " B"]
) -> tuple[Float[Array, "B S S C"], Float[Array, "B S S C"]]:
    """Z_t and Z_{t+δ}: cached, or by the autoencoder."""
    if "latents" in batch:
        z, z_future = jnp.moveaxis(batch["latents"].astype(jnp.float32), 1, 0)
        return z, z_future
    own = (None, None)
    if config.latent == "sample":  # by numbers that the draws of τ from the same keys do not use
        own = [jax.vmap(jax.random.fold_in, (0, None))(keys, number) for number in (100, 101)]
    return (
        latents(config, vae_params, frame, own[0]),
        latents(config, vae_params, future, own[1]),
    )


def _monitors(config: Config, maps: Features, z, z_future) -> Metrics:
    """`copy_baseline`, the L_rec of a copy of the frame, and the mean feature norm of F^p."""
    found = {"copy_baseline": reconstruction_loss(z, z_future, config.reconstruction_loss)}
    if maps.position is not None:
        norms = jnp.linalg.norm(jax.lax.stop_gradient(maps.position), axis=-1)
        found["position_norm"] = jnp.mean(norms)
    return found


# ----- the step -----------------------------------------------------------------------------------


def gradients(
    config: Config,
    state: PretrainState,
    batch: Batch,
    vae_params: Any = None,
    axis_name: str | None = None,
) -> tuple[Any, tuple[Any, Metrics]]:
    """Gradients of the step's loss, averaged over `axis_name` where given.

    Returns:
      The gradients and (new batch statistics, metrics).
    """
    # A sample's τ depends on its place in the whole batch.
    size = batch["frames"].shape[0]
    first = size * jax.lax.axis_index(axis_name) if axis_name else 0
    step_key = jax.random.fold_in(jax.random.key(config.seed), state.step)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(step_key, first + jnp.arange(size))
    loss = maer_loss if config.objective == "maer" else ma2mi_loss

    def of_params(params):
        return loss(config, params, state.batch_stats, batch, keys, vae_params, axis_name)

    grads, (batch_stats, metrics, _) = jax.grad(of_params, has_aux=True)(state.params)
    if axis_name:
        grads, metrics = jax.lax.pmean((grads, metrics), axis_name)
    return grads, (batch_stats, metrics)


def train_step(
    config: Config,
    state: PretrainState,
    batch: Batch,
    vae_params: Any = None,
    axis_name: str | None = None,
) -> tuple[PretrainState, Metrics]:
    """One update by Eq. 10. Pure.

    Run it as `jax.jit(train_step, static_argnums=0, donate_argnums=1)`; the state given is used up.

    It computes the same gradients with a batch that is sharded over devices under jit, and with
    `axis_name` under pmap or shard_map. BatchNorm statistics are those of the whole batch each
    time. shard_map needs `check_vma=False`: that check would sum the gradients a second time.

    Args:
      batch: `frames` (B, 2, H, W, 3) uint8, B even; `label` (B,) int32 for the `maer` objective;
        `latents` if cached, see `ma2mi_loss`. Other keys are ignored.
      vae_params: of the frozen autoencoder, in latent space.

    Returns:
      The next state and scalar float32 metrics: the losses, `copy_baseline`, `position_norm` (mean
      feature norm of F^p), `grad_norm`, `learning_rate`.
    """
    grads, (batch_stats, metrics) = gradients(config, state, batch, vae_params, axis_name)
    updates, opt_state = optimizer(config).update(grads, state.opt_state, state.params)

    grad_norm = optax.tree.norm(grads)
    metrics = metrics | {"grad_norm": grad_norm, "learning_rate": learning_rate(config)(state.step)}
    is_bad = ~jnp.isfinite(grad_norm + metrics["loss"])
    is_first = (state.first_bad_step < 0) & is_bad
    after = PretrainState(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        batch_stats=batch_stats,
        opt_state=opt_state,
        first_bad_step=jnp.where(is_first, state.step, state.first_bad_step),
    )
    return after, metrics


# ----- pictures (Fig. 5) --------------------------------------------------------------------------


def reconstruct(
    config: Config, state: PretrainState, frames: UInt8[np.ndarray, "N 2 H W 3"], vae_params=None
) -> tuple[Float[np.ndarray, "N H W 3"], Float[np.ndarray, "N H W 3"]]:
    """Î_{t+δ} of pairs (Fig. 5), and I_t by the same way without DiT.

    Both are float32 in [−1, 1]. Their difference is the predicted change: in latent space both have
    the autoencoder's own error. BatchNorm uses its running statistics. Pairs go one at a time, so
    that pictures need no more memory than a step of training.
    """
    one = jax.jit(partial(_reconstruct, config))
    predicted, copied = zip(*(one(state, pair[None], vae_params) for pair in frames), strict=True)
    return np.concatenate(predicted), np.concatenate(copied)


def _reconstruct(config: Config, state: PretrainState, frames, vae_params):
    frame, future = _frames({"frames": frames})
    network = config.architecture.miacnet(jnp.dtype(config.dtype))
    maps, _ = features(network, state.params["miacnet"], state.batch_stats, frame, future)
    c_delta = config.architecture.condition(maps.action, maps.position)
    z = latents(config, vae_params, frame)
    predicted = predict_future(config, state.params["dit"], z, c_delta)

    if config.architecture.space == "pixel":
        times = config.architecture.pixel_shrink
        return enlarge(jnp.clip(predicted, -1, 1), times), enlarge(z, times)
    return tuple(
        autoencoder.decode(config.vae, vae_params, each, dtype=config.dtype)
        for each in (predicted, z)
    )

"""Pre-training on macro-expression videos (paper §3.2, Fig. 3): L_pre = L_rec + L_pos (Eq. 9-10), one pure step.

The two branches are trained independently: the position encoder learns from L_pos alone, its map enters C_Δ under a stopped gradient;
the action encoder and DiT learn from L_rec. `position_loss=False` is Table 4's second row: L_rec reaches both encoders.
`objective="maer"` is Table 1's baseline: macro-expression recognition, seven-way cross-entropy on MIACNet.
"""

import dataclasses
from functools import partial
from typing import Any, Literal

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ma2mi_jax.images import random_affine, to_float, warp
from ma2mi_jax.losses import Scale, position_losses, reconstruction_loss
from ma2mi_jax.models import autoencoder
from ma2mi_jax.models.architecture import Architecture
from ma2mi_jax.models.miacnet import classify, condition, encode, init_classifier


@dataclasses.dataclass(frozen=True)
class Config:
    """One pre-training run; defaults are the paper's (§4.3) or, where it is silent, those of SPEC §2-3.

    Attributes:
      architecture: sizes of the networks and the open choices among them.
      objective: `ma2mi`, or `maer` (then `classes` is the number of macro labels).
      position_loss: train E_p by L_pos alone (True) or by L_rec (False).
      position_scale: L3 on `unit` vectors or on `raw` features.
      rotation (degrees), translation (of the image's side), flip: the range of τ.
      steps, batch_size, learning_rate, decay, weight_decay: AdamW; the rate falls exponentially to `decay` times its start over `steps`.
      dtype: of the computation, `float32` or `bfloat16`; parameters, statistics and losses are float32.
      vae: shape of the frozen autoencoder in latent space, None in pixel space.
      latent: Z is the `mean` of the autoencoder's posterior, or in training a `sample` of it.
    """

    architecture: Architecture
    objective: Literal["ma2mi", "maer"] = "ma2mi"
    classes: int = 0
    position_loss: bool = True
    position_scale: Scale = "unit"
    rotation: float = 20.0
    translation: float = 0.1
    flip: bool = True
    delta: tuple[int, int] = (3, 8)
    steps: int = 1000
    batch_size: int = 32
    learning_rate: float = 4e-4
    decay: float = 0.01
    weight_decay: float = 0.01
    seed: int = 0
    dtype: str = "float32"
    vae: autoencoder.Autoencoder | None = None
    latent: Literal["mean", "sample"] = "mean"


def config_from_json(content: dict[str, Any]) -> Config:
    """The inverse of `dataclasses.asdict` after a way through JSON, where tuples are lists."""
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}
    fields["architecture"] = Architecture(**content["architecture"])
    if content["vae"]:
        vae = {k: tuple(v) if isinstance(v, list) else v for k, v in content["vae"].items()}
        fields["vae"] = autoencoder.Autoencoder(**vae)
    return Config(**fields)


@flax.struct.dataclass
class PretrainState:
    """What a step changes: `step` () int32, `params` {miacnet, dit} or {miacnet, classifier}, `batch_stats` of MIACNet, `opt_state`.

    `first_bad_step` () int32 is −1 until a loss or gradient is not finite, then the number of that step.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any
    first_bad_step: jax.Array


def learning_rate(config: Config) -> optax.Schedule:
    """Exponential decay from `learning_rate` to `decay` times that after `steps` steps."""
    return optax.exponential_decay(config.learning_rate, config.steps, config.decay)


def optimizer(config: Config) -> optax.GradientTransformation:
    """AdamW."""
    return optax.adamw(learning_rate(config), weight_decay=config.weight_decay)


def init(config: Config, key: jax.Array, encoders: tuple[Any, Any] | None = None) -> PretrainState:
    """A fresh state (jit this: thousands of small random draws are slow one by one).

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
        params["dit"] = config.architecture.dit(jnp.float32).init(rest_key, latent, c_delta)[
            "params"
        ]
    return PretrainState(
        jnp.zeros((), jnp.int32),
        params,
        batch_stats,
        optimizer(config).init(params),
        jnp.full((), -1, jnp.int32),
    )


def latents(
    config: Config, vae_params: Any, frames: jax.Array, keys: jax.Array | None = None
) -> jax.Array:
    """Z = E_ae(I) (Eq. 7), without gradient: (B, H, W, 3) in [−1, 1] -> (B, H/8, W/8, 4); in pixel space Z is the frame.

    By `keys` (B,) a sample of the posterior, else its mean.
    """
    if config.architecture.space == "pixel":
        return frames
    # In float32 whatever the step computes in: in bfloat16 the change of a latent by half a pixel of motion drowns in rounding.
    return jax.lax.stop_gradient(autoencoder.encode(config.vae, vae_params, frames, keys=keys))


def predict_future(config: Config, dit_params: Any, z: jax.Array, c_delta: jax.Array) -> jax.Array:
    """Ẑ_{t+δ} = DiT(Z_t, C_Δ) (Eq. 8)."""
    return config.architecture.dit(jnp.dtype(config.dtype)).apply(
        {"params": dit_params}, z, c_delta
    )


def ma2mi_loss(config: Config, params, batch_stats, batch, keys, vae_params=None, axis_name=None):
    """L_pre (Eq. 10) of one batch.

    Args:
      params: {miacnet, dit}.
      batch: `frames` (B, 2, H, W, 3) uint8, the pair (I_t, I_{t+δ}); and `latents` (B, 2, h, w, 4) float16, if they are at hand: the
        autoencoder then is not run. Nothing is lost by a cache: τ moves what E_p sees for L3, never Z.
      keys: (B,) random keys, one for each sample's τ (and posterior, if Z is drawn from it).

    Returns:
      The loss and (new batch statistics, metrics, Ẑ_{t+δ}).
    """
    encoders = config.architecture.miacnet(jnp.dtype(config.dtype), axis_name)
    frame, future = to_float(batch["frames"][:, 0]), to_float(batch["frames"][:, 1])

    def run(batch_stats, encoder, *frames):
        return encode(encoders, params["miacnet"], batch_stats, encoder, *frames, train=True)

    action, batch_stats = run(batch_stats, "action", frame, future)  # (B, h, w, D)
    position, parts, monitors = None, {}, {}
    if config.architecture.fusion != "action":
        if config.position_loss:  # one launch, and one BatchNorm update, for E_p(I) and E_p(τ(I))
            tau = random_affine(
                keys, rotation=config.rotation, translation=config.translation, flip=config.flip
            )
            both, batch_stats = run(
                batch_stats, "position", jnp.concatenate([frame, warp(frame, tau)])
            )
            position, position_of_warped = jnp.split(both, 2)
            parts = position_losses(position, position_of_warped, tau, config.position_scale)
        else:
            position, batch_stats = run(batch_stats, "position", frame)
        monitors["position_norm"] = jnp.mean(
            jnp.linalg.norm(jax.lax.stop_gradient(position), axis=-1)
        )
        if config.position_loss:
            position = jax.lax.stop_gradient(position)

    c_delta = condition(action, position, config.architecture.fusion)
    if "latents" in batch:
        z, z_future = jnp.moveaxis(batch["latents"].astype(jnp.float32), 1, 0)
    else:
        own = [None, None]
        if config.latent == "sample":  # numbers that the draws of τ from the same keys do not use
            own = [jax.vmap(jax.random.fold_in, (0, None))(keys, number) for number in (100, 101)]
        z, z_future = (
            latents(config, vae_params, f, k) for f, k in zip((frame, future), own, strict=True)
        )
    predicted = predict_future(config, params["dit"], z, c_delta)
    parts = {"loss_rec": reconstruction_loss(predicted, z_future), **parts}
    loss = sum(parts.values())
    return loss, (
        batch_stats,
        {"loss": loss, **parts, "copy_baseline": reconstruction_loss(z, z_future), **monitors},
        predicted,
    )


def maer_loss(config: Config, params, batch_stats, batch, keys, vae_params=None, axis_name=None):
    """Table 1's baseline: cross-entropy of the macro label from the first and the middle frame; returns as `ma2mi_loss`."""
    encoders = config.architecture.miacnet(jnp.dtype(config.dtype), axis_name)
    first, middle = to_float(batch["frames"][:, 0]), to_float(batch["frames"][:, 1])
    variables = {"params": params["miacnet"], "batch_stats": batch_stats}
    c_delta, updated = encoders.apply(variables, first, middle, True, mutable=["batch_stats"])
    logits = classify(params["classifier"], c_delta)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean()
    accuracy = jnp.mean(jnp.argmax(logits, -1) == batch["label"])
    return loss, (updated["batch_stats"], {"loss": loss, "accuracy": accuracy}, logits)


def gradients(
    config: Config, state: PretrainState, batch, vae_params=None, axis_name: str | None = None
):
    """Gradients of the step's loss, averaged over `axis_name` where given: (grads, (batch_stats, metrics))."""
    size = batch["frames"].shape[0]
    first = (
        size * jax.lax.axis_index(axis_name) if axis_name else 0
    )  # a sample's τ depends on its place in the whole batch
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
    config: Config, state: PretrainState, batch, vae_params=None, axis_name: str | None = None
) -> tuple[PretrainState, dict[str, jax.Array]]:
    """One update by Eq. 10. Pure; run it as `jax.jit(partial(train_step, config), donate_argnums=0)`: the state given is used up.

    With a batch sharded over devices under jit, and with `axis_name` under pmap or shard_map (`check_vma=False`: the check would sum the
    gradients a second time), it computes the same gradients, BatchNorm statistics being those of the whole batch each time.

    Args:
      batch: `frames` (B, 2, H, W, 3) uint8; `label` (B,) int32 for the `maer` objective; `latents` if cached, see
        `ma2mi_loss`. B is even; more keys are ignored.
      vae_params: of the frozen autoencoder, in latent space.

    Returns:
      The next state and scalar float32 metrics: the losses, `copy_baseline`, `position_norm` (mean feature norm of F^p), `grad_norm`,
      `learning_rate`.
    """
    grads, (batch_stats, metrics) = gradients(config, state, batch, vae_params, axis_name)
    updates, opt_state = optimizer(config).update(grads, state.opt_state, state.params)
    grad_norm = optax.tree.norm(grads)
    metrics = metrics | {"grad_norm": grad_norm, "learning_rate": learning_rate(config)(state.step)}
    bad = ~jnp.isfinite(grad_norm + metrics["loss"])
    return PretrainState(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        batch_stats=batch_stats,
        opt_state=opt_state,
        first_bad_step=jnp.where(
            (state.first_bad_step < 0) & bad, state.step, state.first_bad_step
        ),
    ), metrics


def reconstruct(
    config: Config, state: PretrainState, frames: np.ndarray, vae_params=None
) -> tuple[np.ndarray, np.ndarray]:
    """Î_{t+δ} (Fig. 5) for pairs (N, 2, H, W, 3) uint8, with running BatchNorm statistics; and I_t by the same way but for DiT.

    Both (N, H, W, 3) float32 in [−1, 1]. Their difference is the predicted change: in latent space both have the autoencoder's own error.
    One pair at a time, so that pictures need no more memory than a step of training.
    """
    one = jax.jit(partial(_reconstruct, config))
    predicted, copied = zip(*(one(state, pair[None], vae_params) for pair in frames), strict=True)
    return np.concatenate(predicted), np.concatenate(copied)


def _reconstruct(config: Config, state: PretrainState, frames, vae_params):
    encoders = config.architecture.miacnet(jnp.dtype(config.dtype))
    frame, future = to_float(frames[:, 0]), to_float(frames[:, 1])
    c_delta = encoders.apply(
        {"params": state.params["miacnet"], "batch_stats": state.batch_stats}, frame, future, False
    )
    z = latents(config, vae_params, frame)
    predicted = predict_future(config, state.params["dit"], z, c_delta)
    if config.architecture.space == "pixel":
        return jnp.clip(predicted, -1, 1), z
    return tuple(
        autoencoder.decode(config.vae, vae_params, each, dtype=config.dtype)
        for each in (predicted, z)
    )

"""MIACNet (paper §3.1, Fig. 2): two independent encoders, one for where the face is, one for how it moves; together the condition C_Δ."""

from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp

from ma2mi_jax.models.resnet import ResNet18

Fusion = Literal["mul", "add", "concat", "regions", "action"]
FUSIONS = get_args(Fusion)


class MIACNet(nn.Module):
    """Facial action encoder E_a and facial position encoder E_p.

    Attributes:
      width: first-stage channels of both ResNet18s; a feature map has D = 8 * width channels.
      fusion: how F^a and F^p become C_Δ, see `fuse`; `action` has no position encoder (Table 4, row 1).
      dtype, axis_name: as in `ResNet18`.
    """

    width: int = 64
    fusion: Fusion = "mul"
    dtype: Any = jnp.float32
    axis_name: str | None = None

    def setup(self):
        self.action_encoder = ResNet18(self.width, self.dtype, self.axis_name)
        if self.fusion != "action":
            self.position_encoder = ResNet18(self.width, self.dtype, self.axis_name)

    def action(self, frame: jax.Array, future: jax.Array, train: bool) -> jax.Array:
        """F^a = E_a(I_{t+δ} − I_t) (Eq. 1): frames (B, H, W, 3) in [−1, 1] -> (B, H/32, W/32, D) float32."""
        return self.action_encoder(future - frame, train).astype(jnp.float32)

    def position(self, frame: jax.Array, train: bool) -> jax.Array:
        """F^p = E_p(I_t): (B, H, W, 3) in [−1, 1] -> (B, H/32, W/32, D) float32."""
        return self.position_encoder(frame, train).astype(jnp.float32)

    def __call__(self, frame: jax.Array, future: jax.Array, train: bool) -> jax.Array:
        """C_Δ of the pair (I_t, I_{t+δ}) or (onset, apex): -> (B, D), or (B, 2 D) with `concat`; float32."""
        position = None if self.fusion == "action" else self.position(frame, train)
        return condition(self.action(frame, future, train), position, self.fusion)


def condition(action: jax.Array, position: jax.Array | None, fusion: Fusion) -> jax.Array:
    """C_Δ: the mean over the plane of F^a and F^p, fused -> (B, D) (`concat`: (B, 2 D))."""
    return fuse(action, position, fusion).mean(axis=(1, 2))


def fuse(action: jax.Array, position: jax.Array | None, fusion: Fusion) -> jax.Array:
    """F^a and F^p, each (B, h, w, D) and >= 0, place by place -> (B, h, w, D) (`concat`: (B, h, w, 2 D)).

    With `mul` position gates action at each place. `add` cannot: the mean of a sum is the sum of the means (SPEC §3).
    `regions` is `mul` without the length of F^p, which L_pos does not see: each channel of F^p is a soft region of the face, whose weights
    average 1 over the plane (uniform where the channel is silent), so that C_Δ is channel by channel the mean of F^a in that region.
    """
    match fusion:
        case "mul":
            return action * position
        case "add":
            return action + position
        case "concat":
            return jnp.concatenate([action, position], axis=-1)
        case "regions":
            region = position + 1e-3
            return action * region / region.mean(axis=(1, 2), keepdims=True)
        case "action":
            return action
        case _:
            raise ValueError(f"fusion {fusion!r}: expected one of {', '.join(FUSIONS)}")


def encode(
    network: MIACNet,
    params: Any,
    batch_stats: Any,
    encoder: Literal["action", "position"],
    *frames: jax.Array,
    train: bool,
):
    """One encoder's feature map and the new BatchNorm statistics, which are `batch_stats` itself where `train` is False."""
    variables = {"params": params, "batch_stats": batch_stats}
    if not train:
        return network.apply(variables, *frames, False, method=encoder), batch_stats
    features, updated = network.apply(
        variables, *frames, True, method=encoder, mutable=["batch_stats"]
    )
    return features, updated["batch_stats"]


def init_classifier(features: int, classes: int) -> dict[str, jax.Array]:
    """The single fully connected layer of fine-tuning (paper §3.2), zero-initialised (§4.3)."""
    return {"kernel": jnp.zeros((features, classes)), "bias": jnp.zeros((classes,))}


def classify(params: dict[str, jax.Array], c_delta: jax.Array) -> jax.Array:
    """C_Δ (B, D) -> logits (B, classes)."""
    return c_delta @ params["kernel"] + params["bias"]

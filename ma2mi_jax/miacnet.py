"""MIACNet (paper §3.1, Fig. 2): two independent encoders, one for where the face is, one for how it moves; together the condition C_Δ."""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from ma2mi_jax.resnet import ResNet18

Fusion = Literal["mul", "add", "concat", "action"]


class MIACNet(nn.Module):
    """Facial action encoder E_a and facial position encoder E_p.

    Attributes:
      width: first-stage channels of both ResNet18s; a feature map has D = 8 * width channels.
      fusion: how F^a and F^p become C_Δ, see `condition`; `action` has no position encoder (Table 4, row 1).
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
    """C_Δ: F^a and F^p, each (B, h, w, D), fused and averaged over the plane -> (B, D) (`concat`: (B, 2 D)).

    With `mul` position gates action at each place. `add` cannot: the mean of a sum is the sum of the means (SPEC §3).
    """
    match fusion:
        case "mul":
            fused = action * position
        case "add":
            fused = action + position
        case "concat":
            fused = jnp.concatenate([action, position], axis=-1)
        case "action":
            fused = action
        case _:
            raise ValueError(f"fusion {fusion!r}: expected mul, add, concat or action")
    return fused.mean(axis=(1, 2))


def encode(network: MIACNet, params: Any, batch_stats: Any, encoder: Literal["action", "position"], *frames: jax.Array, train: bool):
    """One encoder's feature map and the new BatchNorm statistics, which are `batch_stats` itself where `train` is False."""
    variables = {"params": params, "batch_stats": batch_stats}
    if not train:
        return network.apply(variables, *frames, False, method=encoder), batch_stats
    features, updated = network.apply(variables, *frames, True, method=encoder, mutable=["batch_stats"])
    return features, updated["batch_stats"]


def init_classifier(features: int, classes: int) -> dict[str, jax.Array]:
    """The single fully connected layer of fine-tuning (paper §3.2), zero-initialised (§4.3)."""
    return {"kernel": jnp.zeros((features, classes)), "bias": jnp.zeros((classes,))}


def classify(params: dict[str, jax.Array], c_delta: jax.Array) -> jax.Array:
    """C_Δ (B, D) -> logits (B, classes)."""
    return c_delta @ params["kernel"] + params["bias"]

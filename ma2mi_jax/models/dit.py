"""DiT (Peebles & Xie 2023) as MA2MI uses it (Eq. 8, Fig. 3): Ẑ_{t+δ} = DiT(Z_t, C_Δ).

No noise and no timestep; C_Δ takes the label's place.

Three scales differ from DiT's, unless the published ones are asked for. With those, pre-training
stays at the copy of the frame for hundreds to thousands of steps before C_Δ is used at all
(docs/experiments.md).

- The change to predict is small, so the output is divided by √width. Otherwise a step of Adam moves
  it by as much as there is to predict, or more.
- Positions are added at a fifth; at full scale they drown the patch.
- C_Δ is embedded at the scale of its length. DiT's 0.02 is for its own embedding of time.
"""

from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Predict = Literal["change", "latent"]
Scales = Literal["ours", "published"]
dense = nn.initializers.xavier_uniform()
zeros = nn.initializers.zeros
POSITIONS = 0.2  # our scale of the table of positions beside the patches
EMBEDDING = nn.initializers.normal(0.02)  # DiT's, of the two layers that embed time


class DiTBlock(nn.Module):
    """Transformer block with adaLN-Zero: T tokens `x`, condition `c`.

    Attributes:
      attention: the `implementation` of `jax.nn.dot_product_attention`; None is JAX's own choice.
    """

    heads: int
    mlp_ratio: int = 4
    dtype: Any = jnp.float32
    attention: Literal["xla", "cudnn"] | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"], c: Float[Array, "B D"]) -> Float[Array, "B T D"]:
        width = x.shape[-1]
        modulation = nn.Dense(6 * width, kernel_init=zeros, dtype=self.dtype, name="modulation")(
            nn.silu(c)
        )
        parts = jnp.split(modulation[:, None], 6, axis=-1)  # each (B, 1, D)
        shift1, scale1, gate1, shift2, scale2, gate2 = parts

        h = modulate(_norm(self.dtype)(x), shift1, scale1)
        qkv = nn.Dense(3 * width, kernel_init=dense, dtype=self.dtype, name="qkv")(h)
        by_head = qkv.reshape(*qkv.shape[:2], 3, self.heads, -1)
        q, k, v = jnp.moveaxis(by_head, 2, 0)  # each (B, T, heads, D / heads)
        h = jax.nn.dot_product_attention(q, k, v, implementation=self.attention).reshape(x.shape)
        x = x + gate1 * nn.Dense(width, kernel_init=dense, dtype=self.dtype, name="proj")(h)

        h = modulate(_norm(self.dtype)(x), shift2, scale2)
        h = nn.gelu(
            nn.Dense(self.mlp_ratio * width, kernel_init=dense, dtype=self.dtype, name="fc1")(h),
            approximate=True,
        )
        return x + gate2 * nn.Dense(width, kernel_init=dense, dtype=self.dtype, name="fc2")(h)


class DiT(nn.Module):
    """Predicts the future frame's latent Ẑ_{t+δ}, float32, from Z_t and C_Δ.

    With depth 12, width 768, 12 heads and patch 2 on a (32, 32, 4) latent this is DiT-B/2.
    In pixel space (Table 1, †) Z is the frame itself.

    Attributes:
      depth, width, heads: of the transformer.
      patch: side of a patch; S must be divisible by it.
      predict: `change`: Ẑ = Z_t + output, which starts as a copy of the frame; `latent`: the
        output alone (docs/choices.md).
      scales: of the output, the positions and C_Δ's embedding: `ours`, see above, or `published`.
    """

    depth: int = 12
    width: int = 768
    heads: int = 12
    patch: int = 2
    predict: Predict = "change"
    scales: Scales = "ours"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, z: Float[Array, "B S S C"], c: Float[Array, "B K"]
    ) -> Float[Array, "B S S C"]:
        size, channels = z.shape[2:]
        side = size // self.patch
        x = nn.Dense(self.width, kernel_init=dense, dtype=self.dtype, name="patches")(
            patchify(z, self.patch)
        )  # (B, T, D)
        ours = self.scales == "ours"
        positions = jnp.asarray(sincos_positions(side, self.width), x.dtype)
        x = x + (POSITIONS if ours else 1) * positions

        embed = partial(
            nn.Dense,
            self.width,
            kernel_init=nn.initializers.lecun_normal() if ours else EMBEDDING,
            dtype=self.dtype,
        )
        c = embed(name="condition2")(nn.silu(embed(name="condition1")(c)))  # (B, D)

        for i in range(self.depth):
            x = DiTBlock(self.heads, dtype=self.dtype, name=f"block{i}")(x, c)

        modulation = nn.Dense(
            2 * self.width, kernel_init=zeros, dtype=self.dtype, name="modulation"
        )(nn.silu(c))
        shift, scale = jnp.split(modulation[:, None], 2, axis=-1)
        x = modulate(_norm(self.dtype)(x), shift, scale)
        x = nn.Dense(self.patch**2 * channels, kernel_init=zeros, dtype=self.dtype, name="output")(
            x
        )  # (B, T, patch² C)
        output = unpatchify(x, self.patch, channels).astype(jnp.float32)
        if self.predict == "latent":
            return output
        return z + (output / self.width**0.5 if ours else output)


def _norm(dtype):
    return nn.LayerNorm(epsilon=1e-6, use_bias=False, use_scale=False, dtype=dtype)


def modulate(
    x: Float[Array, "B T D"], shift: Float[Array, "B 1 D"], scale: Float[Array, "B 1 D"]
) -> Float[Array, "B T D"]:
    """adaLN: x (1 + scale) + shift."""
    return x * (1 + scale) + shift


def patchify(z: Float[Array, "B S S C"], patch: int) -> Float[Array, "B T D"]:
    """Patches row by row: T = (S/patch)² of D = patch² C values."""
    batch, size, _, channels = z.shape
    side = size // patch
    z = z.reshape(batch, side, patch, side, patch, channels).transpose(0, 1, 3, 2, 4, 5)
    return z.reshape(batch, side * side, patch * patch * channels)


def unpatchify(x: Float[Array, "B T D"], patch: int, channels: int) -> Float[Array, "B S S C"]:
    """The inverse of `patchify`."""
    batch, tokens, _ = x.shape
    side = round(tokens**0.5)
    x = x.reshape(batch, side, side, patch, patch, channels).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, side * patch, side * patch, channels)


def sincos_positions(side: int, width: int) -> Float[np.ndarray, "places width"]:
    """Fixed two-dimensional sine-cosine positions, float32.

    Half of the channels are for the column, half for the row.
    """
    frequencies = 1 / 10000 ** (np.arange(width // 4) / (width // 4))
    rows, columns = np.divmod(np.arange(side * side), side)
    angles = [np.outer(places, frequencies) for places in (columns, rows)]
    return np.concatenate([f(a) for a in angles for f in (np.sin, np.cos)], axis=1).astype(
        np.float32
    )

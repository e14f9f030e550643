"""What precision of the frozen autoencoder costs, and what is lost without it.

A latent hardly changes by half a pixel of motion, and DiT has to predict that. So the error counts
that a precision makes in such a change.
"""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.measure import Built
from benchmarks.steps import peak_bytes
from ma2mi_jax.images import Affine, to_float, warp
from ma2mi_jax.models import autoencoder
from ma2mi_jax.models.autoencoder import Autoencoder

# `default` is what training does: float32, which NVIDIA cards multiply as TF32. `highest`
# multiplies it as float32.
Precision = Literal["default", "highest", "bfloat16"]
PRECISIONS = get_args(Precision)


def build(config: Autoencoder, precision: Precision, size: int, frames: int) -> Built:
    """Latents of so many frames of side `size`, by random weights.

    The fact `error`: of the change that half a pixel of motion makes, the share that differs from
    `highest`.
    """
    params = autoencoder.init(jax.random.key(0), config)
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (frames, size // 8, size // 8, 3), np.uint8)
    still = to_float(jnp.asarray(coarse.repeat(8, axis=1).repeat(8, axis=2)))
    zero = jnp.zeros(frames)
    moved = warp(still, Affine(zero, zero + 1, zero + 1 / size, zero))
    encode = _encoder(config, precision)

    def change(encode):
        return np.asarray(encode(params, moved)) - np.asarray(encode(params, still))

    exact = change(_encoder(config, "highest"))
    error = np.linalg.norm(change(encode) - exact) / np.linalg.norm(exact)
    return Built(
        lambda: jax.block_until_ready(encode(params, still)), peak_bytes, {"error": float(error)}
    )


def _encoder(config: Autoencoder, precision: Precision):
    dtype = "bfloat16" if precision == "bfloat16" else "float32"
    multiplied = "highest" if precision == "highest" else None

    def encode(params, frames):
        with jax.default_matmul_precision(multiplied):
            return autoencoder.encode(config, params, frames, dtype=dtype)

    return jax.jit(encode)

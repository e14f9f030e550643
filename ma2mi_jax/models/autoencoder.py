"""The frozen Stable-Diffusion autoencoder, Z = E_ae(I) (Eq. 7). The only file that imports
diffusers.

The network is diffusers' `FlaxAutoencoderKL`, imported when it is first used. Frames and latents
are NHWC. `weights/diffusers.py` reads and writes the weights, without torch.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float, Key

from ma2mi_jax import files
from ma2mi_jax.errors import UserError

Params = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Autoencoder:
    """Shape and latent scale of a Stable-Diffusion autoencoder.

    It has four stages, so a side of the latent is an eighth of the frame's. The names of the fields
    are those of a diffusers `config.json`.
    """

    block_out_channels: tuple[int, int, int, int] = (128, 256, 512, 512)
    layers_per_block: int = 2
    latent_channels: int = 4
    norm_num_groups: int = 32
    scaling_factor: float = 0.18215


# stabilityai's sd-vae-ft-mse and sd-vae-ft-ema, 83,653,863 parameters
SD_VAE = Autoencoder()
# for tests
TINY = Autoencoder(block_out_channels=(8, 16, 16, 16), layers_per_block=1, norm_num_groups=4)


def encode(
    config: Autoencoder,
    params: Params,
    frames: Float[Array, "B H W 3"],
    *,
    keys: Key[Array, " B"] | None = None,
    dtype: Any = jnp.float32,
) -> Float[Array, "B H//8 W//8 C"]:
    """Z = E_ae(I) (Eq. 7).

    Args:
      config: the network.
      params: its weights.
      frames: in [−1, 1]; H and W are multiples of 8.
      keys: the Z of each frame is drawn from the posterior with its own random key. None takes the
        mean of the posterior.
      dtype: of the computation. In bfloat16 the difference of two latents has an error of 40 % of
        what half a pixel of local motion changes; in float32 it is under 2 %, even if frames or
        weights were bfloat16 (measured on a CPU at the real shape with random weights). On NVIDIA
        cards since Ampere, JAX multiplies float32 as TF32, which has three bits more than bfloat16;
        that was not measured.

    Returns:
      float32, times `scaling_factor`.
    """
    moments = _module(config, dtype).apply(
        {"params": params}, frames, method=lambda vae, x: vae.quant_conv(vae.encoder(x))
    )
    z, log_variance = jnp.split(moments.astype(jnp.float32), 2, axis=-1)
    if keys is not None:
        noise = jax.vmap(lambda key: jax.random.normal(key, z.shape[1:]))(keys)
        z += jnp.exp(0.5 * jnp.clip(log_variance, -30, 20)) * noise
    return config.scaling_factor * z


def decode(
    config: Autoencoder,
    params: Params,
    latents: Float[Array, "B h w C"],
    *,
    dtype: Any = jnp.float32,
) -> Float[Array, "B 8*h 8*w 3"]:
    """Frames of latents.

    Args:
      config: the network.
      params: its weights.
      latents: as `encode` returns them.
      dtype: of the computation.

    Returns:
      float32, clipped to [−1, 1].
    """
    z = latents / config.scaling_factor
    frames = _module(config, dtype).apply(
        {"params": params}, z, method=lambda vae, z: vae.decoder(vae.post_quant_conv(z))
    )
    return jnp.clip(frames.astype(jnp.float32), -1, 1)


def init(key: Key[Array, ""], config: Autoencoder) -> Params:
    """Random weights, float32: kernels are normal with variance 1 / fan-in, norms 1, biases 0."""
    leaves = flatten_dict(shapes(config), sep=".")
    sizes = {path: leaf.shape for path, leaf in leaves.items()}
    kernels = {path: shape for path, shape in sizes.items() if path.endswith(".kernel")}
    ends = np.cumsum([math.prod(shape) for shape in kernels.values()])

    # One draw that is cut into pieces. A draw for each kernel, as in Flax, takes half a minute to
    # compile.
    @jax.jit
    def draw(key):
        pieces = jnp.split(jax.random.normal(key, (int(ends[-1]),)), ends[:-1])
        drawn = {
            path: piece.reshape(shape) / math.prod(shape[:-1]) ** 0.5
            for piece, (path, shape) in zip(pieces, kernels.items(), strict=True)
        }
        others = {
            path: jnp.full(shape, float(path.endswith(".scale")))
            for path, shape in sizes.items()
            if path not in kernels
        }
        return unflatten_dict(drawn | others, sep=".")

    return draw(key)


def shapes(config: Autoencoder) -> Params:
    """The weights of this network as `jax.ShapeDtypeStruct`s."""
    frames = jnp.zeros((1, 3, 16, 16))  # diffusers' __call__ is NCHW
    return jax.eval_shape(_module(config).init, jax.random.key(0), frames)["params"]


def fingerprint(params: Params) -> str:
    """16 hexadecimal digits that name these weights: their paths, dtypes, shapes and values."""
    leaves = sorted(flatten_dict(params, sep=".").items())
    return files.fingerprint(
        part
        for path, leaf in leaves
        for part in (f"{path} {leaf.dtype} {leaf.shape}", np.ascontiguousarray(leaf).tobytes())
    )


def _module(config: Autoencoder, dtype: Any = jnp.float32):
    try:
        from diffusers.models.vae_flax import FlaxAutoencoderKL, logger
    except ImportError as error:
        raise UserError(
            "diffusers: its Flax autoencoder cannot be imported ({reason}); "
            "pip install 'diffusers<0.40', or give [space=pixel]",
            reason=str(error).splitlines()[0],
        ) from None
    logger.addFilter(_is_news)

    stages = len(config.block_out_channels)
    return FlaxAutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * stages,
        up_block_types=("UpDecoderBlock2D",) * stages,
        dtype=jnp.dtype(dtype),
        **dataclasses.asdict(config),
    )


def _is_news(record) -> bool:
    # diffusers says this once for each layer and trace; its version is pinned
    return not record.getMessage().startswith("Flax classes are deprecated")

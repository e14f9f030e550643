"""Random rotation, translation and flip of square images and feature maps: τ of Eq. 5, and the augmentation of fine-tuning.

Coordinates are those of the plane, x and y in [−1, 1] over the whole image whatever its resolution, so that one transform moves an image
and its much smaller feature map alike. A pixel is sampled at its centre.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


def to_float(frames: jax.Array) -> jax.Array:
    """uint8 frames to float32 in [−1, 1]."""
    return frames.astype(jnp.float32) / 127.5 - 1


class Affine(NamedTuple):
    """τ(I)(p) = I(R(angle) · flip(p) + shift), each field of shape (B,) float32: radians, −1 or 1, and units of half an image."""

    angle: jax.Array
    flip: jax.Array
    shift_x: jax.Array
    shift_y: jax.Array


def random_affine(
    keys: jax.Array, *, rotation: float, translation: float, flip: bool = True
) -> Affine:
    """One transform for each of `keys` (B,): uniform within ±`rotation` degrees and ±`translation` of the image's side, flipped or not."""

    def one(key):
        turn, flipped, x, y = jax.random.split(key, 4)
        return Affine(
            angle=jnp.deg2rad(jax.random.uniform(turn, minval=-rotation, maxval=rotation)),
            flip=jnp.where(jax.random.bernoulli(flipped) & flip, -1.0, 1.0),
            shift_x=2 * jax.random.uniform(x, minval=-translation, maxval=translation),
            shift_y=2 * jax.random.uniform(y, minval=-translation, maxval=translation),
        )

    return jax.vmap(one)(keys)


def sources(affine: Affine, size: int) -> tuple[jax.Array, jax.Array]:
    """For each place of a (size, size) output, where in the plane it is read: x and y, each (B, size, size)."""
    centres = (jnp.arange(size) + 0.5) * 2 / size - 1
    y, x = jnp.meshgrid(centres, centres, indexing="ij")
    angle, flip, shift_x, shift_y = (a[:, None, None] for a in affine)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    x = flip * x
    return cos * x - sin * y + shift_x, sin * x + cos * y + shift_y


def inside(affine: Affine, size: int) -> jax.Array:
    """(B, size, size) bool: does the place's source lie within the image?"""
    x, y = sources(affine, size)
    return (jnp.abs(x) <= 1) & (jnp.abs(y) <= 1)


def warp(images: jax.Array, affine: Affine) -> jax.Array:
    """τ applied to (B, S, S, C), bilinear; sources beyond the border are read from the image's reflection."""
    size = images.shape[1]
    x, y = (_reflect((p + 1) * size / 2 - 0.5, size) for p in sources(affine, size))
    x0, y0 = (jnp.clip(jnp.floor(p).astype(jnp.int32), 0, size - 1) for p in (x, y))
    x1, y1 = (jnp.minimum(p + 1, size - 1) for p in (x0, y0))
    right, down = (x - x0)[..., None].astype(images.dtype), (y - y0)[..., None].astype(images.dtype)
    read = jax.vmap(lambda image, rows, columns: image[rows, columns])
    top = read(images, y0, x0) * (1 - right) + read(images, y0, x1) * right
    bottom = read(images, y1, x0) * (1 - right) + read(images, y1, x1) * right
    return top * (1 - down) + bottom * down


def _reflect(p: jax.Array, size: int) -> jax.Array:
    """Pixel coordinates folded back into [−½, size − ½] at the image's edges, then onto the outermost centres."""
    p = jnp.abs((p + 0.5) % (2 * size))
    return jnp.clip(jnp.minimum(p, 2 * size - p) - 0.5, 0, size - 1)

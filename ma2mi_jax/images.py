"""Random rotation, translation and flip of square images and feature maps.

It is τ of Eq. 5, and the augmentation of fine-tuning.

Coordinates are those of the plane: x and y in [−1, 1] over the whole image, whatever its
resolution. So one transform moves an image and its much smaller feature map alike. A pixel is
sampled at its centre.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, UInt8

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of RGB in [0, 1]


def to_float(frames: UInt8[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Frames of 0 to 255 as float32 in [−1, 1]."""
    return frames.astype(jnp.float32) / 127.5 - 1


def imagenet(frames: Float[Array, "*shape 3"]) -> Float[Array, "*shape 3"]:
    """RGB in [−1, 1] normalised as ImageNet's networks were trained: (x − mean)/std in [0, 1]."""
    mean, std = jnp.array(IMAGENET_MEAN), jnp.array(IMAGENET_STD)
    return ((frames + 1) / 2 - mean) / std


def check_pairs(frames: Array) -> None:
    """Raises AssertionError unless `frames` is (B, 2, H, W, 3) with H = W. Free under jit."""
    size = frames.shape[2] if frames.ndim == 5 else None
    chex.assert_shape(
        frames,
        (None, 2, size, size, 3),
        custom_message="expected pairs of square RGB frames, (B, 2, H, H, 3)",
    )


def shrink(images: Float[Array, "B S S C"], times: int) -> Float[Array, "B s s C"]:
    """Means over squares of `times` × `times` pixels; `times` divides S."""
    if times == 1:
        return images
    batch, size, _, channels = images.shape
    side = size // times
    return images.reshape(batch, side, times, side, times, channels).mean(axis=(2, 4))


def enlarge(images: Float[Array, "B s s C"], times: int) -> Float[Array, "B S S C"]:
    """Each pixel as a square of `times` × `times` equal ones."""
    return images.repeat(times, axis=1).repeat(times, axis=2)


class Affine(NamedTuple):
    """τ(I)(p) = I(R(angle) · flip(p) + shift), one for each of B images.

    The angle is in radians, the flip −1 or 1, the shift in units of half an image.
    """

    angle: Float[Array, " B"]
    flip: Float[Array, " B"]
    shift_x: Float[Array, " B"]
    shift_y: Float[Array, " B"]


def random_affine(
    keys: Key[Array, " B"], *, rotation: float, translation: float, flip: bool = True
) -> Affine:
    """One transform for each key, uniform within ±`rotation` and ±`translation`.

    Args:
      rotation: degrees.
      translation: share of the image's side.
      flip: whether half of them are mirrored left to right.
    """

    def one(key):
        turn, flipped, x, y = jax.random.split(key, 4)
        return Affine(
            angle=jnp.deg2rad(jax.random.uniform(turn, minval=-rotation, maxval=rotation)),
            flip=jnp.where(jax.random.bernoulli(flipped) & flip, -1.0, 1.0),
            shift_x=2 * jax.random.uniform(x, minval=-translation, maxval=translation),
            shift_y=2 * jax.random.uniform(y, minval=-translation, maxval=translation),
        )

    return jax.vmap(one)(keys)


def whole_pixels(affine: Affine, size: int) -> Affine:
    """The same flips, without rotation and with shifts of whole pixels of images of side `size`.

    `warp` then only moves pixels: it averages none, so that noise and grain stay as they are.
    """
    pixels = size / 2
    return affine._replace(
        angle=jnp.zeros_like(affine.angle),
        shift_x=jnp.round(affine.shift_x * pixels) / pixels,
        shift_y=jnp.round(affine.shift_y * pixels) / pixels,
    )


def sources(affine: Affine, size: int) -> tuple[Float[Array, "B S S"], Float[Array, "B S S"]]:
    """Where in the plane each place of an output of S = `size` is read: x and y."""
    centres = (jnp.arange(size) + 0.5) * 2 / size - 1
    y, x = jnp.meshgrid(centres, centres, indexing="ij")
    angle, flip, shift_x, shift_y = (a[:, None, None] for a in affine)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    x = flip * x
    return cos * x - sin * y + shift_x, sin * x + cos * y + shift_y


def inside(affine: Affine, size: int) -> Bool[Array, "B S S"]:
    """Does the place's source lie within the image? S = `size`."""
    x, y = sources(affine, size)
    return (jnp.abs(x) <= 1) & (jnp.abs(y) <= 1)


def warp(images: Float[Array, "B S S C"], affine: Affine) -> Float[Array, "B S S C"]:
    """τ applied, bilinear. Sources beyond the border are read from the image's reflection."""
    size = images.shape[1]
    x, y = (_reflect((p + 1) * size / 2 - 0.5, size) for p in sources(affine, size))
    x0, y0 = (jnp.clip(jnp.floor(p).astype(jnp.int32), 0, size - 1) for p in (x, y))
    x1, y1 = (jnp.minimum(p + 1, size - 1) for p in (x0, y0))
    right, down = (x - x0)[..., None].astype(images.dtype), (y - y0)[..., None].astype(images.dtype)

    read = jax.vmap(lambda image, rows, columns: image[rows, columns])
    top = read(images, y0, x0) * (1 - right) + read(images, y0, x1) * right
    bottom = read(images, y1, x0) * (1 - right) + read(images, y1, x1) * right
    return top * (1 - down) + bottom * down


def _reflect(p: Array, size: int) -> Array:
    """Pixel coordinates, folded back at the image's edges and then onto the outermost centres."""
    p = jnp.abs((p + 0.5) % (2 * size))
    return jnp.clip(jnp.minimum(p, 2 * size - p) - 0.5, 0, size - 1)

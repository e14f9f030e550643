"""Grad-CAM (Selvaraju et al. 2017) of MIACNet's two encoders: which places of a face speak for a class (paper Fig. 6).

With fusion `mul` Grad-CAM of one encoder takes the other's map by its mean over the plane, and the gating is lost. But C_Δ is a mean over
places and the classifier is linear, so a logit is exactly the bias plus a mean of what each place gives it: that is `places`. On drawn
action units it finds the region that moved better than either Grad-CAM (tests/test_gradcam.py).

A map has one value for each 32 x 32 pixels of a frame, and each looks at more of the face than that: it tells a region, never a muscle.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ma2mi_jax.images import to_float
from ma2mi_jax.models.architecture import Architecture
from ma2mi_jax.models.miacnet import classify, condition, encode, fuse

STRIDE = 32  # of ResNet18's last map
BLUR = 0.5  # standard deviation of the upsampling kernel, in places of the map: the least that leaves no steps


class Explanation(NamedTuple):
    """For pairs and classes, float32: `probabilities` (B, K) and heat maps (B, K, h, w) >= 0.

    `action` and `position` are Grad-CAM of the encoders, `position` being None with fusion `action`, which has no such encoder;
    `places` is the positive part of what each place of the fused map gives the logit: without the ReLU its mean is logit − bias.
    """

    probabilities: jax.Array
    action: jax.Array
    position: jax.Array | None
    places: jax.Array


@partial(jax.jit, static_argnums=0)
def explain(config: Architecture, params: Any, batch_stats: Any, pairs: jax.Array) -> Explanation:
    """What a fine-tuned model says about pairs, and which places speak for each class's logit.

    Args:
      params: {miacnet, classifier} of one model; `batch_stats` is MIACNet's.
      pairs: (B, 2, H, W, 3) uint8, onset and apex.
    """
    network = config.miacnet(jnp.float32)
    frames = to_float(pairs)
    onset, apex = frames[:, 0], frames[:, 1]
    maps = {
        "action": encode(
            network, params["miacnet"], batch_stats, "action", onset, apex, train=False
        )[0]
    }
    if config.fusion != "action":
        maps["position"] = encode(
            network, params["miacnet"], batch_stats, "position", onset, train=False
        )[0]

    def logits(maps):
        return classify(
            params["classifier"], condition(maps["action"], maps.get("position"), config.fusion)
        )

    found, back = jax.vjp(logits, maps)
    each = jnp.eye(found.shape[-1])[:, None] * jnp.ones_like(
        found
    )  # (K, B, K): pairs do not mix, so one pull-back serves all
    (gradients,) = jax.vmap(back)(each)
    heat = {
        name: jax.vmap(class_activation, (None, 0), 1)(maps[name], gradients[name]) for name in maps
    }
    given = (
        fuse(maps["action"], maps.get("position"), config.fusion) @ params["classifier"]["kernel"]
    )  # (B, h, w, K)
    places = jax.nn.relu(jnp.moveaxis(given, -1, 1))
    return Explanation(jax.nn.softmax(found), heat["action"], heat.get("position"), places)


def class_activation(features: jax.Array, gradient: jax.Array) -> jax.Array:
    """ReLU(Σ_k α_k F_k), α_k being the mean over the plane of ∂y/∂F_k: two (B, h, w, D) -> (B, h, w)."""
    return jax.nn.relu(jnp.einsum("bhwd,bd->bhw", features, gradient.mean(axis=(1, 2))))


def upsample(heat: jax.Array, size: int) -> jax.Array:
    """Maps (..., h, w) spread smoothly over the frame: (..., size, size), each pixel a convex mix of the places near it.

    Place i looks at pixel 32 i, not at the middle of the i-th 32 pixels: in torchvision's geometry each stride begins at the first pixel.
    Stretching the map over the frame would shift it by half a place, which at 96 pixels is a sixth of the face.
    """

    def kernel(places: int) -> jax.Array:
        distance = jnp.arange(size)[:, None] / STRIDE - jnp.arange(places)
        return jax.nn.softmax(-jnp.square(distance / BLUR) / 2, axis=-1)  # (size, places)

    return jnp.einsum("yh,...hw,xw->...yx", kernel(heat.shape[-2]), heat, kernel(heat.shape[-1]))

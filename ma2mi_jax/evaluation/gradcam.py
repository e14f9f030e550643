"""Grad-CAM (Selvaraju et al. 2017) of MIACNet: which places of a face speak for a class (Fig. 6).

With fusion `mul`, Grad-CAM of one encoder sees of the other's map only the mean over the plane, and
the gating is lost. But C_Δ is a mean over places and the classifier is linear. So a logit is
exactly the bias plus a mean of what each place gives it: that is `places`. On drawn action units it
finds the region that moved better than either Grad-CAM (tests/evaluation/test_gradcam.py).

A map has one value for each 32 x 32 pixels of a frame, and each value depends on more of the face
than that. It tells a region, never a muscle.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from ma2mi_jax.models.miacnet import classify, features, fuse
from ma2mi_jax.training.finetuning import Config, tested_frames

# Standard deviation of the upsampling kernel, in places of the map: the least that leaves no steps.
BLUR = 0.5


class Explanation(NamedTuple):
    """What a model says about B pairs and K classes, and heat maps, which are >= 0.

    `action` and `position` are Grad-CAM of the encoders; `position` is None with fusion `action`,
    which has no such encoder. `places` is the positive part of what each place of the fused map
    gives the logit; without the ReLU its mean is logit − bias.
    """

    probabilities: Float[Array, "B K"]
    action: Float[Array, "B K h w"]
    position: Float[Array, "B K h w"] | None
    places: Float[Array, "B K h w"]


@partial(jax.jit, static_argnums=0)
def explain(
    config: Config, params: Any, batch_stats: Any, pairs: UInt8[Array, "B 2 H W 3"]
) -> Explanation:
    """What a fine-tuned model says about onset/apex pairs, and why.

    Args:
      params: {miacnet, classifier} of one model; `batch_stats` is MIACNet's.
      pairs: onset and apex.
    """
    frames, architecture = tested_frames(config, pairs), config.architecture
    network = architecture.miacnet(jnp.float32)
    found, _ = features(network, params["miacnet"], batch_stats, frames[:, 0], frames[:, 1])
    maps = {"action": found.action}
    if found.position is not None:
        maps["position"] = found.position

    def logits(maps):
        c_delta = architecture.condition(maps["action"], maps.get("position"))
        return classify(params["classifier"], c_delta)

    # Pairs do not mix, so one pull-back for each class serves all pairs: (K, B, K).
    found, back = jax.vjp(logits, maps)
    each = jnp.eye(found.shape[-1])[:, None] * jnp.ones_like(found)
    (gradients,) = jax.vmap(back)(each)
    of_classes = jax.vmap(class_activation, (None, 0), 1)
    heat = {name: of_classes(maps[name], gradients[name]) for name in maps}

    fused = fuse(maps["action"], maps.get("position"), architecture.fusion)
    kernel = params["classifier"]["kernel"]
    if architecture.pooling == "flatten":  # a kernel for each place, and a sum for a mean
        places = fused.shape[1:3]
        kernel = kernel.reshape(*fused.shape[1:], -1)
        given = np.prod(places) * jnp.einsum("bhwd,hwdk->bhwk", fused, kernel)
    else:
        given = fused @ kernel  # (B, h, w, K)
    places = jax.nn.relu(jnp.moveaxis(given, -1, 1))
    return Explanation(jax.nn.softmax(found), heat["action"], heat.get("position"), places)


def class_activation(
    features: Float[Array, "B h w D"], gradient: Float[Array, "B h w D"]
) -> Float[Array, "B h w"]:
    """ReLU(Σ_k α_k F_k), α_k being the mean over the plane of ∂y/∂F_k."""
    return jax.nn.relu(jnp.einsum("bhwd,bd->bhw", features, gradient.mean(axis=(1, 2))))


def upsample(heat: Float[Array, "*maps h w"], size: int) -> Float[Array, "*maps size size"]:
    """Maps spread smoothly over the frame; each pixel is a convex mix of the places near it.

    Of 8 places at 256 px place i looks at pixel 32 i, not at the middle: in torchvision's geometry
    each stride begins at the first pixel. To stretch the map over the frame would shift it by half
    a place, which at 96 pixels is a sixth of the face.
    """

    def kernel(places: int) -> Float[Array, "size places"]:
        distance = jnp.arange(size)[:, None] / (size // places) - jnp.arange(places)
        return jax.nn.softmax(-jnp.square(distance / BLUR) / 2, axis=-1)

    return jnp.einsum("yh,...hw,xw->...yx", kernel(heat.shape[-2]), heat, kernel(heat.shape[-1]))

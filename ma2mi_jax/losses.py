"""The losses of pre-training: L_pos (Eq. 2-6) and L_rec (Eq. 9).

L_pos = L1 + L2 + L3 makes F^p tell facial places apart, alike across faces, and moving with the
face. Feature maps are (B, h, w, D) with n = h·w places. u_i is the unit vector at place i, so that
⟨u_i, u_j⟩ is the cosine similarity.
"""

from typing import Literal

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ma2mi_jax.images import Affine, inside, warp

Scale = Literal["unit", "raw"]
Norm = Literal["l1", "l2"]


def unit(features: Float[Array, "*places D"]) -> Float[Array, "*places D"]:
    """Channel vectors scaled to norm 1; a zero vector stays zero."""
    square = jnp.sum(features**2, axis=-1, keepdims=True)
    return features * jax.lax.rsqrt(jnp.maximum(square, 1e-24))


def _places(features: Float[Array, "B h w D"]) -> Float[Array, "B n D"]:
    return unit(features).reshape(features.shape[0], -1, features.shape[-1])


def l1(features: Float[Array, "B h w D"]) -> Float[Array, ""]:
    """Eq. 2: mean cosine between different places of one face, in [−1/(n−1), 1].

    The sum over i ≠ j in closed form: (‖Σ u_i‖² − n) / (n (n − 1)). The result is the mean over the
    batch.
    """
    u = _places(features)
    n = u.shape[1]
    square = jnp.sum(u.sum(axis=1) ** 2, axis=-1)  # (B,)
    own = jnp.sum(u**2, axis=(1, 2))  # n, but for zero vectors
    return jnp.mean((square - own) / (n * (n - 1)))


def l2(features1: Float[Array, "B h w D"], features2: Float[Array, "B h w D"]) -> Float[Array, ""]:
    """Eq. 3-4: each place of face 1 should match one place j* of face 2 and no other.

    With S_ij = ⟨u_i, v_j⟩ and m_i = max_j S_ij: (ΣS − Σm) / (n (n − 1)) − mean(m). The result is
    the mean over the batch.
    """
    similarity = jnp.einsum("bid,bjd->bij", _places(features1), _places(features2))
    n = similarity.shape[1]
    best = similarity.max(axis=2)  # (B, n), S_ij at j = j*_i
    others = similarity.sum(axis=(1, 2)) - best.sum(axis=1)
    return jnp.mean(others / (n * (n - 1)) - best.mean(axis=1))


def l3(
    features_of_warped: Float[Array, "B S S D"],
    features: Float[Array, "B S S D"],
    affine: Affine,
    scale: Scale = "unit",
) -> Float[Array, ""]:
    """Eq. 5: ‖E_p(τ(I)) − τ(E_p(I))‖₂ over channels, mean over places and batch.

    Only the places count whose source lies in the image. `unit` compares unit vectors: L1 and L2
    are blind to scale, so that `raw` features can lower this loss by shrinking (docs/choices.md).
    """
    moved = warp(features, affine)
    if scale == "unit":
        features_of_warped, moved = unit(features_of_warped), unit(moved)
    valid = inside(affine, features.shape[1])
    square = jnp.sum((features_of_warped - moved) ** 2, axis=-1)

    # The slope of the root at 0 is infinite, so it is not taken there.
    distance = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)
    total, count = jnp.sum(distance * valid, axis=(1, 2)), jnp.sum(valid, axis=(1, 2))
    return jnp.mean(total / jnp.maximum(count, 1))


def other_face(features: Float[Array, "B h w D"]) -> Float[Array, "B h w D"]:
    """The other clip's map for L2: neighbours of the batch exchanged (0 ↔ 1, 2 ↔ 3, ...).

    Pairs never reach across an even boundary, so the loss does not depend on how the batch is split
    over devices.
    """
    pairs = features.reshape(-1, 2, *features.shape[1:])
    return pairs[:, ::-1].reshape(features.shape)


def position_losses(
    features: Float[Array, "B S S D"],
    features_of_warped: Float[Array, "B S S D"],
    affine: Affine,
    scale: Scale = "unit",
) -> dict[str, Float[Array, ""]]:
    """L1, L2 and L3 of E_p(I) and E_p(τ(I)); L_pos (Eq. 6) is their sum. B is even.

    Raises:
      AssertionError: the maps differ in shape, or B is odd.
    """
    chex.assert_rank(features, 4, custom_message="expected maps (B, h, w, D)")
    chex.assert_equal_shape(
        [features, features_of_warped],
        custom_message="expected E_p(I) and E_p(τ(I)) of one shape",
    )
    chex.assert_is_divisible(
        features.shape[0], 2, custom_message="expected an even batch: L2 compares neighbours in it"
    )
    return {
        "loss_l1": l1(features),
        "loss_l2": l2(features, other_face(features)),
        "loss_l3": l3(features_of_warped, features, affine, scale),
    }


def reconstruction_loss(
    predicted: Float[Array, "B S S C"], future: Float[Array, "B S S C"], norm: Norm = "l1"
) -> Float[Array, ""]:
    """L_rec = mean |Ẑ_{t+δ} − Z_{t+δ}| (Eq. 9); with `l2` the mean of the squares.

    Raises:
      AssertionError: the two differ in shape.
    """
    chex.assert_equal_shape(
        [predicted, future], custom_message="expected Ẑ_{t+δ} and Z_{t+δ} of one shape"
    )
    difference = predicted - future
    return jnp.mean(jnp.abs(difference) if norm == "l1" else difference**2)

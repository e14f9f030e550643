"""The position loss L_pos = L1 + L2 + L3 (Eq. 2-6): what makes F^p tell facial places apart, alike across faces, and moving with the face.

Feature maps are (B, h, w, D), n = h·w places, u_i the unit vector at place i, so that ⟨u_i, u_j⟩ is the cosine similarity.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from ma2mi_jax.images import Affine, inside, warp

Scale = Literal["unit", "raw"]


def unit(features: jax.Array) -> jax.Array:
    """Channel vectors scaled to norm 1 (a zero vector stays zero)."""
    square = jnp.sum(features**2, axis=-1, keepdims=True)
    return features * jax.lax.rsqrt(jnp.maximum(square, 1e-24))


def _places(features: jax.Array) -> jax.Array:
    return unit(features).reshape(features.shape[0], -1, features.shape[-1])  # (B, n, D)


def l1(features: jax.Array) -> jax.Array:
    """Eq. 2, mean over the batch: mean cosine between different places of one face, in [−1/(n−1), 1].

    The sum over i ≠ j in closed form: (‖Σ u_i‖² − n) / (n (n − 1)).
    """
    u = _places(features)
    n = u.shape[1]
    square = jnp.sum(u.sum(axis=1) ** 2, axis=-1)  # (B,)
    own = jnp.sum(u**2, axis=(1, 2))  # n, but for zero vectors
    return jnp.mean((square - own) / (n * (n - 1)))


def l2(features1: jax.Array, features2: jax.Array) -> jax.Array:
    """Eq. 3-4, mean over the batch: each place of face 1 should match one place j* of face 2 and no other.

    With S_ij = ⟨u_i, v_j⟩ and m_i = max_j S_ij: (ΣS − Σm) / (n (n − 1)) − mean(m).
    """
    similarity = jnp.einsum("bid,bjd->bij", _places(features1), _places(features2))
    n = similarity.shape[1]
    best = similarity.max(axis=2)  # (B, n), S_ij at j = j*_i
    others = similarity.sum(axis=(1, 2)) - best.sum(axis=1)
    return jnp.mean(others / (n * (n - 1)) - best.mean(axis=1))


def l3(
    features_of_warped: jax.Array, features: jax.Array, affine: Affine, scale: Scale = "unit"
) -> jax.Array:
    """Eq. 5, mean over the batch: ‖E_p(τ(I)) − τ(E_p(I))‖₂ over channels, averaged over the places whose source lies in the image.

    `unit` compares unit vectors: L1 and L2 are blind to scale, so `raw` features can lower this loss by shrinking (SPEC §3).
    """
    moved = warp(features, affine)
    if scale == "unit":
        features_of_warped, moved = unit(features_of_warped), unit(moved)
    valid = inside(affine, features.shape[1])
    square = jnp.sum((features_of_warped - moved) ** 2, axis=-1)
    distance = jnp.where(
        square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0
    )  # the root's slope at 0 is infinite
    return jnp.mean(
        jnp.sum(distance * valid, axis=(1, 2)) / jnp.maximum(jnp.sum(valid, axis=(1, 2)), 1)
    )


def other_face(features: jax.Array) -> jax.Array:
    """Neighbours of the batch exchanged (0 ↔ 1, 2 ↔ 3, ...): the other clip's map for L2.

    Pairs never reach across an even boundary, so the loss does not depend on how the batch is split over devices.
    """
    pairs = features.reshape(-1, 2, *features.shape[1:])
    return pairs[:, ::-1].reshape(features.shape)


def position_losses(
    features: jax.Array, features_of_warped: jax.Array, affine: Affine, scale: Scale = "unit"
) -> dict[str, jax.Array]:
    """L1, L2 and L3 of E_p(I) and E_p(τ(I)), both (B, h, w, D) with B even; L_pos (Eq. 6) is their sum."""
    return {
        "loss_l1": l1(features),
        "loss_l2": l2(features, other_face(features)),
        "loss_l3": l3(features_of_warped, features, affine, scale),
    }


def reconstruction_loss(predicted: jax.Array, future: jax.Array) -> jax.Array:
    """L_rec = mean |Ẑ_{t+δ} − Z_{t+δ}| (Eq. 9), of two arrays of one shape."""
    return jnp.mean(jnp.abs(predicted - future))

"""MIACNet (paper §3.1, Fig. 2): two independent encoders, which together give the condition C_Δ.

One encoder sees where the face is, the other how it moves. `features` is the forward pass of all
that trains, predicts or explains; `condition` makes C_Δ of it.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from ma2mi_jax.images import Affine, imagenet, warp
from ma2mi_jax.models.resnet import BLOCKS, ResNet18

Fusion = Literal["mul", "add", "concat", "regions", "action"]
FUSIONS = get_args(Fusion)

Pooling = Literal["gap", "flatten"]

Normalisation = Literal["imagenet"]

Encoder = Literal["action", "position"]
ENCODERS = get_args(Encoder)


class Features(NamedTuple):
    """Feature maps of B pairs, with h = H/32, w = W/32 and D = 8 * width channels; all >= 0.

    `position` is None with fusion `action`, which has no such encoder; `position_of_warped` is
    E_p(τ(I_t)), None where no τ was given.
    """

    action: Float[Array, "B h w D"]
    position: Float[Array, "B h w D"] | None
    position_of_warped: Float[Array, "B h w D"] | None = None


class MIACNet(nn.Module):
    """Facial action encoder E_a and facial position encoder E_p.

    Attributes:
      width: first-stage channels of both ResNet18s; a feature map has D = 8 * width channels.
      fusion: how F^a and F^p become C_Δ, see `fuse`; `action` has no position encoder (Table 4,
        row 1).
      pooling: how the fused map becomes a vector, see `condition`.
      dtype, axis_name: as in `ResNet18`.
      normalisation: what is done to frames before the encoders, see `images.imagenet`; by default
        nothing.
      blocks: as in `ResNet18`.
    """

    width: int = 64
    fusion: Fusion = "mul"
    pooling: Pooling = "gap"
    dtype: Any = jnp.float32
    axis_name: str | None = None
    normalisation: Normalisation | None = None
    blocks: tuple[int, ...] = BLOCKS

    def setup(self):
        sizes = (self.width, self.dtype, self.axis_name, self.blocks)
        self.action_encoder = ResNet18(*sizes)
        if self.fusion != "action":
            self.position_encoder = ResNet18(*sizes)

    def action(
        self, frame: Float[Array, "B H W 3"], future: Float[Array, "B H W 3"], train: bool
    ) -> Float[Array, "B h w D"]:
        """F^a = E_a(I_{t+δ} − I_t) (Eq. 1), float32; frames in [−1, 1]."""
        change = self.seen(future) - self.seen(frame)
        return self.action_encoder(change, train).astype(jnp.float32)

    def position(self, frame: Float[Array, "B H W 3"], train: bool) -> Float[Array, "B h w D"]:
        """F^p = E_p(I_t), float32; frames in [−1, 1]."""
        return self.position_encoder(self.seen(frame), train).astype(jnp.float32)

    def seen(self, frame: Float[Array, "B H W 3"]) -> Float[Array, "B H W 3"]:
        """A frame as the encoders see it."""
        return frame if self.normalisation is None else imagenet(frame)

    def features(
        self,
        frame: Float[Array, "B H W 3"],
        future: Float[Array, "B H W 3"],
        tau: Affine | None = None,
        train: Sequence[Encoder] = (),
    ) -> Features:
        """The forward pass of both encoders; see the function `features`."""
        action = self.action(frame, future, "action" in train)
        if self.fusion == "action":
            return Features(action, None)

        learns = "position" in train
        if tau is None:
            return Features(action, self.position(frame, learns))

        # One launch, and one BatchNorm update, for E_p(I) and E_p(τ(I)). They lie side by side, so
        # that where the batch is shared out over devices both are on the device of their sample.
        both = jnp.stack([frame, warp(frame, tau)], axis=1)  # (B, 2, H, W, 3)
        maps = self.position(both.reshape(-1, *frame.shape[1:]), learns)
        maps = maps.reshape(-1, 2, *maps.shape[1:])
        return Features(action, maps[:, 0], maps[:, 1])

    def __call__(
        self, frame: Float[Array, "B H W 3"], future: Float[Array, "B H W 3"], train: bool = False
    ) -> Float[Array, "B K"]:
        """C_Δ of the pair (I_t, I_{t+δ}) or (onset, apex), float32; frames in [−1, 1].

        K is `Architecture.condition_features`.
        """
        found = self.features(frame, future, train=ENCODERS if train else ())
        return condition(found.action, found.position, self.fusion, self.pooling)


def features(
    network: MIACNet,
    params: Any,
    batch_stats: Any,
    frame: Float[Array, "B H W 3"],
    future: Float[Array, "B H W 3"],
    tau: Affine | None = None,
    *,
    train: Sequence[Encoder] = (),
) -> tuple[Features, Any]:
    """F^a and F^p of pairs (I_t, I_{t+δ}) or (onset, apex), and the new BatchNorm statistics.

    Args:
      frame, future: in [−1, 1].
      tau: τ of Eq. 5, one for each frame, where E_p(τ(I_t)) is wanted too.
      train: the encoders that take BatchNorm statistics over the batch, and add them to their
        running ones; the others use the running ones and keep them.
    """
    found, updated = network.apply(
        {"params": params, "batch_stats": batch_stats},
        frame,
        future,
        tau,
        train,
        method="features",
        mutable=["batch_stats"],
    )
    return found, updated["batch_stats"]


def condition(
    action: Float[Array, "B h w D"],
    position: Float[Array, "B h w D"] | None,
    fusion: Fusion,
    pooling: Pooling = "gap",
) -> Float[Array, "B K"]:
    """C_Δ: F^a and F^p fused, then pooled.

    `gap` is the mean over the plane (K is D, or 2 D with `concat`); `flatten` keeps all places one
    after the other (h·w times as many).
    """
    fused = fuse(action, position, fusion)
    if pooling == "flatten":
        return fused.reshape(fused.shape[0], -1)
    return fused.mean(axis=(1, 2))


def fuse(
    action: Float[Array, "B h w D"], position: Float[Array, "B h w D"] | None, fusion: Fusion
) -> Float[Array, "B h w K"]:
    """F^a and F^p, place by place; both are >= 0. K is D, or 2 D with `concat`.

    With `mul` position gates the action at each place. With `add` it cannot: the mean of a sum is
    the sum of the means (docs/choices.md).

    `regions` is `mul` without the length of F^p, to which L_pos is blind. Each channel of F^p is a
    soft region of the face. Its weights average 1 over the plane (they are uniform where the
    channel is silent). So each channel of C_Δ is the mean of F^a in that region.

    Raises:
      ValueError: there is no such fusion.
    """
    match fusion:
        case "mul":
            return action * position
        case "add":
            return action + position
        case "concat":
            return jnp.concatenate([action, position], axis=-1)
        case "regions":
            region = position + 1e-3
            return action * region / region.mean(axis=(1, 2), keepdims=True)
        case "action":
            return action
        case _:
            raise ValueError(f"fusion {fusion!r}: expected one of {', '.join(FUSIONS)}")


def init_classifier(features: int, classes: int) -> dict[str, Float[Array, "..."]]:
    """The single fully connected layer of fine-tuning (paper §3.2), zero-initialised (§4.3)."""
    return {"kernel": jnp.zeros((features, classes)), "bias": jnp.zeros((classes,))}


def classify(
    params: dict[str, Float[Array, "..."]], c_delta: Float[Array, "B K"]
) -> Float[Array, "B classes"]:
    """The logits of C_Δ."""
    return c_delta @ params["kernel"] + params["bias"]

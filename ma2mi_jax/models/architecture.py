"""Sizes of the networks, as presets, and the choices SPEC §3 leaves open. Shared by pre-training and fine-tuning."""

import dataclasses
from typing import Any, Literal

from ma2mi_jax.models.dit import DiT, Predict
from ma2mi_jax.models.miacnet import Fusion, MIACNet

Space = Literal["latent", "pixel"]
LATENT_SHRINK = 8  # side of a frame / side of its latent, and the latent's channels: the Stable-Diffusion autoencoder's
LATENT_CHANNELS = 4


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Everything that decides the shape of a parameter.

    Attributes:
      image_size: side of the square frames, a multiple of 32.
      width: first-stage channels of the ResNet18s (64 in the paper).
      depth, dit_width, heads: of DiT.
      space: `latent` (the paper's) or `pixel` (Table 1, †).
      pixel_patch: DiT's patch in pixel space; in latent space it is 2.
      fusion, predict: SPEC §3.
    """

    image_size: int = 256
    width: int = 64
    depth: int = 12
    dit_width: int = 768
    heads: int = 12
    pixel_patch: int = 16
    space: Space = "latent"
    fusion: Fusion = "mul"
    predict: Predict = "change"


PRESETS = {
    "paper": Architecture(),
    "small": Architecture(image_size=128, width=32, depth=6, dit_width=384, heads=6, pixel_patch=8),
    "tiny": Architecture(image_size=96, width=16, depth=4, dit_width=128, heads=2, pixel_patch=8),
}


def latent_shape(architecture: Architecture) -> tuple[int, int, int]:
    """Shape of Z for one frame: (32, 32, 4) at 256 px in latent space, the frame itself in pixel space."""
    if architecture.space == "pixel":
        return (architecture.image_size, architecture.image_size, 3)
    side = architecture.image_size // LATENT_SHRINK
    return (side, side, LATENT_CHANNELS)


def patch(architecture: Architecture) -> int:
    """Side of DiT's patches, in samples of Z."""
    return architecture.pixel_patch if architecture.space == "pixel" else 2


def condition_features(architecture: Architecture) -> int:
    """Length of C_Δ."""
    return 8 * architecture.width * (2 if architecture.fusion == "concat" else 1)


def miacnet(architecture: Architecture, dtype: Any, axis_name: str | None = None) -> MIACNet:
    """The encoders of `architecture`."""
    return MIACNet(architecture.width, architecture.fusion, dtype, axis_name)


def dit(architecture: Architecture, dtype: Any) -> DiT:
    """The predictor of `architecture`."""
    a = architecture
    return DiT(a.depth, a.dit_width, a.heads, patch(a), a.predict, dtype)

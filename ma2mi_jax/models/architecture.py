"""Sizes of the networks, as presets, and the choices that the paper leaves open (docs/choices.md).

Pre-training and fine-tuning share them.
"""

import dataclasses
from typing import Any, Literal

from jaxtyping import Array, Float

from ma2mi_jax.errors import UserError
from ma2mi_jax.models import resnet
from ma2mi_jax.models.dit import DiT, Predict, Scales
from ma2mi_jax.models.miacnet import Fusion, MIACNet, Normalisation, Pooling, condition

Space = Literal["latent", "pixel"]

# Of the Stable-Diffusion autoencoder: side of a frame / side of its latent, and the latent's
# channels.
LATENT_SHRINK = 8
LATENT_CHANNELS = 4


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Everything that decides the shape of a parameter. The defaults are the paper's.

    Attributes:
      image_size: side of the square frames, a multiple of 32.
      width: first-stage channels of the ResNet18s.
      depth, dit_width, heads: of DiT; `DIT_SIZES` has the published ones.
      space: what DiT predicts: Z of the autoencoder (`latent`), or the frame itself (`pixel`,
        Table 1, †).
      pixel_patch: DiT's patch in pixel space, in pixels of the frame; in latent space it is 2.
      pixel_shrink: in pixel space Z is the frame averaged over squares of so many pixels a side.
        A patch then has fewer values, as many as DiT's width can carry (docs/choices.md).
      fusion: how F^a and F^p become C_Δ, see `miacnet.fuse`.
      pooling: how their map becomes a vector, see `miacnet.condition`.
      predict: what DiT's output is, see `DiT`.
      dit_scales: inside DiT, see `DiT`.
      normalisation: of frames before the encoders, see `MIACNet`.
      blocks: of each stage of the encoders, see `ResNet18`; None are a ResNet18's.

    Raises:
      UserError: `pixel_shrink` does not divide the patch, or `blocks` are not four numbers at most.
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
    pixel_shrink: int = 1
    pooling: Pooling = "gap"
    dit_scales: Scales = "ours"
    normalisation: Normalisation | None = None
    blocks: tuple[int, ...] | None = None

    def __post_init__(self):
        if self.blocks is not None:
            blocks = tuple(self.blocks) if isinstance(self.blocks, list | tuple) else ()
            if not (1 <= len(blocks) <= 4 and all(type(n) is int and 0 < n < 100 for n in blocks)):
                raise UserError(
                    "blocks of the encoders: expected a number for each of four stages at most, "
                    "found {found}; give [preset]",
                    found=self.blocks,
                )
            object.__setattr__(self, "blocks", blocks)  # JSON has lists, which have no hash
        if self.pixel_shrink < 1 or self.pixel_patch % self.pixel_shrink:
            raise UserError(
                "[pixel_shrink={shrink}]: expected a divisor of the patch of {patch} pixels",
                shrink=self.pixel_shrink,
                patch=self.pixel_patch,
            )

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape of Z of one frame: (32, 32, 4) at 256 px; in pixel space (H/s, H/s, 3)."""
        if self.space == "pixel":
            side = self.image_size // self.pixel_shrink
            return (side, side, 3)
        side = self.image_size // LATENT_SHRINK
        return (side, side, LATENT_CHANNELS)

    @property
    def patch(self) -> int:
        """Side of DiT's patches, in samples of Z."""
        return self.pixel_patch // self.pixel_shrink if self.space == "pixel" else 2

    @property
    def encoder_blocks(self) -> tuple[int, ...]:
        """`blocks`, or a ResNet18's where these are None."""
        return self.blocks or resnet.BLOCKS

    @property
    def places(self) -> int:
        """Places of a feature map along a side: 8 at 256 px."""
        return self.image_size // resnet.shrink(self.encoder_blocks)

    @property
    def condition_features(self) -> int:
        """Length of C_Δ."""
        features = resnet.features(self.width, self.encoder_blocks)
        places = self.places**2 if self.pooling == "flatten" else 1
        return features * (2 if self.fusion == "concat" else 1) * places

    def miacnet(self, dtype: Any, axis_name: str | None = None) -> MIACNet:
        """The two encoders; `dtype` and `axis_name` as in `ResNet18`."""
        sizes = (self.width, self.fusion, self.pooling)
        return MIACNet(*sizes, dtype, axis_name, self.normalisation, self.encoder_blocks)

    def condition(
        self, action: Float[Array, "B h w D"], position: Float[Array, "B h w D"] | None
    ) -> Float[Array, "B K"]:
        """C_Δ of the encoders' maps; K is `condition_features`."""
        return condition(action, position, self.fusion, self.pooling)

    def dit(self, dtype: Any) -> DiT:
        """The predictor of Ẑ_{t+δ}; it computes in `dtype`."""
        sizes = (self.depth, self.dit_width, self.heads, self.patch)
        return DiT(*sizes, self.predict, self.dit_scales, dtype)


DIT_SIZES = {  # Peebles & Xie 2023, Table 1; the 2 in the name is the patch in latent space
    "DiT-S/2": {"depth": 12, "dit_width": 384, "heads": 6},
    "DiT-B/2": {"depth": 12, "dit_width": 768, "heads": 12},
    "DiT-L/2": {"depth": 24, "dit_width": 1024, "heads": 16},
    "DiT-XL/2": {"depth": 28, "dit_width": 1152, "heads": 16},
}

PRESETS = {
    "paper": Architecture(image_size=256, width=64, **DIT_SIZES["DiT-B/2"]),
    "small": Architecture(image_size=128, width=32, depth=6, dit_width=384, heads=6, pixel_patch=8),
    # The smallest whose maps have places enough to speak about L_pos, for the drawn benchmark.
    "bench": Architecture(
        image_size=192, width=16, depth=4, dit_width=128, heads=2, pixel_patch=16, pixel_shrink=4
    ),
    "tiny": Architecture(image_size=96, width=16, depth=4, dit_width=128, heads=2, pixel_patch=8),
    # The least that compiles and runs, to see whether all does; it learns nothing.
    "smoke": Architecture(
        image_size=64, width=8, depth=1, dit_width=64, heads=2, pixel_patch=16, blocks=(1, 1)
    ),
}

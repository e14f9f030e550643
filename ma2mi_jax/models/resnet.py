"""ResNet18's trunk (He et al. 2016), without a classifier head.

The geometry is torchvision's to the letter, explicit padding included.
"""

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

BLOCKS = (2, 2, 2, 2)  # of each stage, those of a ResNet18

# torchvision's kaiming_normal_(mode="fan_out")
KERNEL_INIT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class BasicBlock(nn.Module):
    """conv-bn-relu-conv-bn plus shortcut; the output's sides are h = H/stride, w = W/stride."""

    features: int
    stride: int
    conv: Any
    norm: Any

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w features"]:
        shortcut = x
        x = self.conv(self.features, (3, 3), (self.stride, self.stride), padding=1, name="conv1")(x)
        x = nn.relu(self.norm(name="bn1")(x))
        x = self.conv(self.features, (3, 3), padding=1, name="conv2")(x)
        x = self.norm(name="bn2")(x)
        if shortcut.shape != x.shape:
            shortcut = self.conv(
                self.features, (1, 1), (self.stride, self.stride), padding=0, name="downsample_conv"
            )(shortcut)
            shortcut = self.norm(name="downsample_bn")(shortcut)
        return nn.relu(x + shortcut)


class ResNet18(nn.Module):
    """Images to feature maps of h = H/32, w = W/32 places and D = 8 * width channels.

    With fewer stages the map is finer and has fewer channels (`shrink`, `features`). With
    `width=64` it has 11,176,512 trainable parameters: the trunk that both encoders of MIACNet use
    (paper §3.1).

    Attributes:
      width: channels of the first stage; doubled at each later one.
      dtype: of the computation and the result; parameters and BatchNorm statistics are float32.
      axis_name: the mapped axis (of pmap or shard_map) over which BatchNorm takes its statistics,
        or None.
      blocks: of each stage, from the first on.
    """

    width: int = 64
    dtype: Any = jnp.float32
    axis_name: str | None = None
    blocks: tuple[int, ...] = BLOCKS

    @nn.compact
    def __call__(self, x: Float[Array, "B H W 3"], train: bool) -> Float[Array, "B h w D"]:
        conv = functools.partial(nn.Conv, use_bias=False, dtype=self.dtype, kernel_init=KERNEL_INIT)
        norm = functools.partial(
            nn.BatchNorm,
            use_running_average=not train,
            momentum=0.9,
            epsilon=1e-5,
            dtype=self.dtype,
            axis_name=self.axis_name,
        )

        x = conv(self.width, (7, 7), (2, 2), padding=3, name="conv1")(x.astype(self.dtype))
        x = nn.relu(norm(name="bn1")(x))
        x = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))

        for stage, blocks in enumerate(self.blocks):
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                x = BasicBlock(
                    self.width * 2**stage, stride, conv, norm, name=f"layer{stage + 1}_{block}"
                )(x)
        return x


def shrink(blocks: tuple[int, ...] = BLOCKS) -> int:
    """Pixels of the image to a place of the map, along a side: 32 with four stages."""
    return 2 ** (1 + len(blocks))


def features(width: int, blocks: tuple[int, ...] = BLOCKS) -> int:
    """Channels of the map, D: 8 * `width` with four stages."""
    return width * 2 ** (len(blocks) - 1)

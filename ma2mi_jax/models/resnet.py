"""ResNet18 trunk (He et al. 2016) in torchvision's geometry to the letter: explicit padding, no classifier head."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

BLOCKS = (2, 2, 2, 2)
KERNEL_INIT = nn.initializers.variance_scaling(
    2.0, "fan_out", "normal"
)  # torchvision's kaiming_normal_(mode="fan_out")


class BasicBlock(nn.Module):
    """conv-bn-relu-conv-bn plus shortcut; `x` (B, H, W, C) -> (B, H/stride, W/stride, features)."""

    features: int
    stride: int
    conv: Any
    norm: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
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
    """Images to feature maps: (B, H, W, 3) float -> (B, H/32, W/32, 8 * width), dtype `dtype`.

    With `width=64`: 11,176,512 trainable parameters, the trunk both encoders of MIACNet use (paper §3.1).

    Attributes:
      width: channels of the first stage; doubled at each of the three later ones.
      dtype: of the computation; parameters and BatchNorm statistics are float32.
      axis_name: mapped axis over which BatchNorm statistics are synchronised (under pmap or shard_map), or None.
    """

    width: int = 64
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
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
        for stage, blocks in enumerate(BLOCKS):
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                x = BasicBlock(
                    self.width * 2**stage, stride, conv, norm, name=f"layer{stage + 1}_{block}"
                )(x)
        return x  # (B, H/32, W/32, 8 * width)

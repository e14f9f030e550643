"""MA2MI in plain PyTorch: what ma2mi_jax is timed against.

The same networks, losses and shapes, written the way PyTorch is written: NCHW, modules,
`scaled_dot_product_attention`, `grid_sample`. A test holds its losses to ours for the same weights,
batch and τ. Of the open choices it knows those that are timed: fusion `mul` and `action`, mean
pooling, L3 on unit vectors, our scales in DiT, Ẑ = Z + change. Initial values are PyTorch's own.

Maps are (B, D, h, w), frames (B, 3, H, W) in [−1, 1], Z is (B, C, S, S).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ma2mi_jax.models.architecture import Architecture
from ma2mi_jax.models.dit import POSITIONS, sincos_positions

# ----- encoders -----------------------------------------------------------------------------------


class BasicBlock(nn.Module):
    def __init__(self, before: int, features: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(before, features, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(features)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(features)
        self.downsample = nn.Identity()
        if stride != 1 or before != features:
            shortcut = nn.Conv2d(before, features, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(features))

    def forward(self, x: Tensor) -> Tensor:
        h = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(h)) + self.downsample(x))


class ResNet18(nn.Module):
    """The trunk, under torchvision's names, with so many blocks in each stage."""

    def __init__(self, width: int, blocks: tuple[int, ...]):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        self.stages = len(blocks)
        before = width
        for stage, count in enumerate(blocks):
            features, stride = width * 2**stage, 1 if stage == 0 else 2
            first = BasicBlock(before, features, stride)
            others = [BasicBlock(features, features, 1) for _ in range(count - 1)]
            self.add_module(f"layer{stage + 1}", nn.Sequential(first, *others))
            before = features

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(functional.relu(self.bn1(self.conv1(x))))
        for stage in range(self.stages):
            x = getattr(self, f"layer{stage + 1}")(x)
        return x


class MIACNet(nn.Module):
    """E_a and E_p (Fig. 2)."""

    def __init__(self, architecture: Architecture):
        super().__init__()
        if architecture.fusion not in ("mul", "action") or architecture.pooling != "gap":
            raise ValueError("expected fusion mul or action, and the mean over places")
        sizes = (architecture.width, architecture.encoder_blocks)
        self.action_encoder = ResNet18(*sizes)
        self.position_encoder = None
        if architecture.fusion == "mul":
            self.position_encoder = ResNet18(*sizes)

    def action(self, frame: Tensor, future: Tensor) -> Tensor:
        return self.action_encoder(future - frame).float()

    def position(self, frame: Tensor) -> Tensor:
        return self.position_encoder(frame).float()


def condition(action: Tensor, position: Tensor | None) -> Tensor:
    """C_Δ."""
    return (action if position is None else action * position).mean((2, 3))


# ----- DiT ----------------------------------------------------------------------------------------


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


class DiTBlock(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.modulation = nn.Linear(width, 6 * width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        parts = self.modulation(functional.silu(c))[:, None].chunk(6, -1)
        shift1, scale1, gate1, shift2, scale2, gate2 = parts
        by_head = self.qkv(modulate(x, shift1, scale1)).unflatten(-1, (3, self.heads, -1))
        q, k, v = by_head.permute(2, 0, 3, 1, 4)  # each (B, heads, T, D / heads)
        h = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + gate1 * self.proj(h)
        h = functional.gelu(self.fc1(modulate(x, shift2, scale2)), approximate="tanh")
        return x + gate2 * self.fc2(h)


class DiT(nn.Module):
    def __init__(self, architecture: Architecture):
        super().__init__()
        a, width = architecture, architecture.dit_width
        side, self.patch, channels = a.latent_shape[0], a.patch, a.latent_shape[2]
        self.patches = nn.Linear(a.patch**2 * channels, width)
        positions = POSITIONS * torch.from_numpy(sincos_positions(side // a.patch, width))
        self.register_buffer("positions", positions, persistent=False)
        self.condition1 = nn.Linear(a.condition_features, width)
        self.condition2 = nn.Linear(width, width)
        self.blocks = nn.ModuleList(DiTBlock(width, a.heads) for _ in range(a.depth))
        self.modulation = nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, a.patch**2 * channels)

    def forward(self, z: Tensor, c: Tensor) -> Tensor:
        p, side = self.patch, z.shape[-1] // self.patch
        cut = z.unflatten(3, (side, p)).unflatten(2, (side, p))  # (B, C, side, p, side, p)
        x = self.patches(cut.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)) + self.positions
        c = self.condition2(functional.silu(self.condition1(c)))
        for block in self.blocks:
            x = block(x, c)
        shift, scale = self.modulation(functional.silu(c))[:, None].chunk(2, -1)
        x = self.output(modulate(x, shift, scale)).float()
        cut = x.unflatten(2, (p, p, -1)).unflatten(1, (side, side))  # (B, side, side, p, p, C)
        change = cut.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)
        return z + change / c.shape[-1] ** 0.5


# ----- τ ------------------------------------------------------------------------------------------


class Tau(NamedTuple):
    """τ(I)(p) = I(R(angle) · flip(p) + shift), (B,) each: as `ma2mi_jax.images.Affine`."""

    angle: Tensor
    flip: Tensor
    shift_x: Tensor
    shift_y: Tensor


def random_tau(
    count: int, rotation: float, translation: float, device: str, flip: bool = False
) -> Tau:
    """Uniform within ±`rotation` degrees and ±`translation` of the side."""
    angle, x, y = 2 * torch.rand(3, count, device=device) - 1
    sign = torch.ones_like(x)
    if flip:
        sign = sign - 2 * torch.randint(2, (count,), device=device)
    return Tau(torch.deg2rad(rotation * angle), sign, 2 * translation * x, 2 * translation * y)


def sources(tau: Tau, size: int) -> Tensor:
    """Where each place is read, (B, size, size, 2) as x and y in [−1, 1]."""
    centres = (torch.arange(size, device=tau.angle.device) + 0.5) * 2 / size - 1
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    angle, flip, shift_x, shift_y = (part[:, None, None] for part in tau)
    cos, sin, x = angle.cos(), angle.sin(), flip * x
    return torch.stack([cos * x - sin * y + shift_x, sin * x + cos * y + shift_y], -1)


def warp(images: Tensor, tau: Tau) -> Tensor:
    where = sources(tau, images.shape[-1])
    return functional.grid_sample(images, where, padding_mode="reflection", align_corners=False)


# ----- losses -------------------------------------------------------------------------------------


def position_losses(features: Tensor, of_warped: Tensor, tau: Tau) -> dict[str, Tensor]:
    """L1, L2 and L3 (Eq. 2-5)."""
    u = functional.normalize(features.flatten(2), dim=1)  # (B, D, n)
    n = u.shape[2]
    l1 = ((u.sum(2) ** 2).sum(1) - (u**2).sum((1, 2))) / (n * (n - 1))

    v = u.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)  # the neighbour's
    similarity = u.transpose(1, 2) @ v
    best = similarity.amax(2)
    others = similarity.sum((1, 2)) - best.sum(1)
    l2 = others / (n * (n - 1)) - best.mean(1)

    side = features.shape[-1]
    moved = functional.normalize(warp(features, tau), dim=1)
    distance = torch.linalg.vector_norm(functional.normalize(of_warped, dim=1) - moved, dim=1)
    valid = (sources(tau, side).abs() <= 1).all(-1)
    l3 = (distance * valid).sum((1, 2)) / valid.sum((1, 2)).clamp(min=1)
    return {"loss_l1": l1.mean(), "loss_l2": l2.mean(), "loss_l3": l3.mean()}


def to_float(frames: Tensor) -> Tensor:
    """(B, H, W, 3) uint8 to (B, 3, H, W) in [−1, 1]."""
    return frames.permute(0, 3, 1, 2).float() / 127.5 - 1


def autocast(beside: Tensor, dtype: torch.dtype) -> torch.autocast:
    """The networks' precision, on the device of a tensor."""
    return torch.autocast(beside.device.type, dtype=dtype, enabled=dtype != torch.float32)


class MA2MI(nn.Module):
    """Pre-training: both encoders, DiT and the losses of Eq. 10.

    Args:
      position_loss: as in `pretraining.Config`.
      dtype: of the networks, under autocast; losses are float32.
    """

    def __init__(
        self, architecture: Architecture, position_loss: bool = True, dtype: str = "float32"
    ):
        super().__init__()
        self.miacnet, self.dit = MIACNet(architecture), DiT(architecture)
        self.position_loss = position_loss and self.miacnet.position_encoder is not None
        self.dtype, self.pixel_shrink = getattr(torch, dtype), architecture.pixel_shrink

    def forward(self, frames: Tensor, tau: Tau, latents: Tensor | None) -> dict[str, Tensor]:
        """The losses.

        Args:
          frames: (B, 2, H, W, 3) uint8.
          latents: (B, 2, 4, S, S), or None where Z is the frame.
        """
        frame, future = to_float(frames[:, 0]), to_float(frames[:, 1])
        if latents is None:
            z, z_future = (functional.avg_pool2d(x, self.pixel_shrink) for x in (frame, future))
        else:
            z, z_future = latents.float().unbind(1)
        losses, position = {}, None
        with autocast(frames, self.dtype):
            action = self.miacnet.action(frame, future)
        if self.position_loss:
            seen = torch.cat([frame, warp(frame, tau)])
            with autocast(frames, self.dtype):
                position, of_warped = self.miacnet.position(seen).chunk(2)
            losses = position_losses(position, of_warped, tau)
            position = position.detach()
        elif self.miacnet.position_encoder is not None:
            with autocast(frames, self.dtype):
                position = self.miacnet.position(frame)
        c_delta = condition(action, position)
        with autocast(frames, self.dtype):
            predicted = self.dit(z, c_delta)
        return {"loss_rec": (predicted - z_future).abs().mean(), **losses}


class Recognition(nn.Module):
    """Fine-tuning: the encoders and one linear layer (paper §3.2)."""

    def __init__(self, architecture: Architecture, classes: int, dtype: str = "float32"):
        super().__init__()
        self.miacnet = MIACNet(architecture)
        self.classifier = nn.Linear(architecture.condition_features, classes)
        self.dtype = getattr(torch, dtype)

    def forward(self, frames: Tensor, tau: Tau, label: Tensor) -> Tensor:
        """The cross-entropy of pairs (B, 2, H, W, 3) uint8, augmented by τ."""
        both = torch.cat([to_float(frames[:, 0]), to_float(frames[:, 1])], 1)
        onset, apex = warp(both, tau).chunk(2, 1)
        with autocast(frames, self.dtype):
            maps = self.miacnet.action(onset, apex), self.miacnet.position(onset)
        return functional.cross_entropy(self.classifier(condition(*maps)), label)

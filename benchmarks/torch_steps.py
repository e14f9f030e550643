"""The steps of `reference_torch`, as PyTorch is run: eager, channels-last, compiled."""

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
import torch

from benchmarks import reference_torch as reference
from benchmarks import steps
from benchmarks.measure import Built, peak_of_process
from ma2mi_jax.models.autoencoder import SD_VAE
from ma2mi_jax.training import finetuning, pretraining

Mode = Literal["eager", "channels-last", "compile"]
MODES = get_args(Mode)  # `compile` is channels-last too


def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def build(
    config: pretraining.Config,
    given: steps.Input,
    mode: Mode,
    until: Literal["update", "gradients", "loss"] = "update",
) -> Built:
    """The pre-training step on a batch that lies on the device."""
    # As JAX does by default on NVIDIA cards: float32 is multiplied as TF32.
    torch.set_float32_matmul_precision("high")
    network = reference.MA2MI(config.architecture, config.position_loss, config.dtype)
    batch = to_device(steps.batch_of(config, given))
    encode = autoencoder() if given == "autoencoder" else None
    loss = laid_out(network, mode)
    update = updater(network, config.learning_rate, config.decay ** (1 / config.steps), 0.01)

    def of_batch():
        tau = reference.random_tau(
            config.batch_size, config.rotation, config.translation, device(), config.flip
        )
        z = batch.get("latents")
        if z is not None:
            z = z.movedim(-1, 2)  # (B, 2, 4, S, S)
        if encode:
            z = encode(batch["frames"])
        return sum(loss(batch["frames"], tau, z).values())

    def run():
        if until == "loss":
            with torch.no_grad():
                of_batch().item()
        elif until == "gradients":
            network.zero_grad()
            of_batch().backward()
            finish()
        else:
            update(of_batch)
            finish()

    return Built(run, peak_bytes)


def build_folds(config: finetuning.Config, frames: np.ndarray, members: int, mode: Mode) -> Built:
    """One fine-tuning step of each of several folds, one after the other."""
    torch.set_float32_matmul_precision("high")
    data = to_device({"frames": frames})["frames"]
    label = torch.arange(len(data), device=device()) % config.classes
    rng = np.random.default_rng(0)

    def fold() -> Callable[[], None]:
        network = reference.Recognition(config.architecture, config.classes, config.dtype)
        loss = laid_out(network, mode)
        update = updater(network, config.learning_rate, 0.999, config.weight_decay)

        def step():
            chosen = torch.from_numpy(rng.permutation(len(data))[: config.batch_size]).to(device())
            tau = reference.random_tau(
                config.batch_size, config.rotation, config.translation, device(), config.flip
            )
            update(lambda: loss(data[chosen], tau, label[chosen]))

        return step

    folds = [fold() for _ in range(members)]

    def run():
        for step in folds:
            step()
        finish()

    return Built(run, peak_bytes)


def build_matmul(size: int, dtype: str) -> Built:
    """The product of two square matrices."""
    torch.set_float32_matmul_precision("high")
    a, b = torch.randn(2, size, size, device=device(), dtype=getattr(torch, dtype))

    def run():
        torch.matmul(a, b)
        finish()

    return Built(run, peak_bytes)


# ----- parts --------------------------------------------------------------------------------------


def to_device(batch: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array).to(device()) for name, array in batch.items()}


def laid_out(network: torch.nn.Module, mode: Mode) -> Callable:
    """The network on the device, its convolutions in the layout and form of `mode`."""
    network.to(device())
    if mode != "eager":
        network.to(memory_format=torch.channels_last)
    return torch.compile(network) if mode == "compile" else network


def updater(network: torch.nn.Module, rate: float, decay: float, weight_decay: float) -> Callable:
    """A function that takes one step of fused AdamW down a loss."""
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=rate, weight_decay=weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, decay)

    def update(loss: Callable[[], torch.Tensor]) -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        schedule.step()

    return update


def autoencoder() -> Callable[[torch.Tensor], torch.Tensor]:
    """diffusers' own encoder in PyTorch, frozen, random weights, float32: Z of pairs."""
    from diffusers import AutoencoderKL

    stages = len(SD_VAE.block_out_channels)
    network = AutoencoderKL(
        block_out_channels=SD_VAE.block_out_channels,
        layers_per_block=SD_VAE.layers_per_block,
        latent_channels=SD_VAE.latent_channels,
        norm_num_groups=SD_VAE.norm_num_groups,
        down_block_types=("DownEncoderBlock2D",) * stages,
        up_block_types=("UpDecoderBlock2D",) * stages,
    ).to(device(), memory_format=torch.channels_last)

    @torch.no_grad()
    def encode(frames: torch.Tensor) -> torch.Tensor:
        both = [network.encode(reference.to_float(frames[:, k])).latent_dist.mean for k in range(2)]
        return SD_VAE.scaling_factor * torch.stack(both, 1)

    return encode


def finish() -> None:
    """Waits for the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_bytes() -> int:
    """The most bytes in use: of the accelerator; on a CPU, of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return peak_of_process()

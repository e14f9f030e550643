"""The steps of `reference_torch`, as PyTorch is run: eager, channels-last, compiled."""

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
import torch

from benchmarks import reference_torch as reference
from benchmarks import steps
from benchmarks.measure import Built, peak_of_process
from ma2mi_jax.models.autoencoder import Autoencoder
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
    """The pre-training step on a batch that lies on the device; it gives its loss."""
    # As JAX does by default on NVIDIA cards: float32 is multiplied as TF32.
    torch.set_float32_matmul_precision("high")
    network = reference.MA2MI(config.architecture, config.position_loss, config.dtype)
    batch = to_device(steps.batch_of(config, given))
    encode = autoencoder(config.vae, mode) if config.vae else None
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
                found = of_batch()
        elif until == "gradients":
            network.zero_grad()
            found = of_batch()
            found.backward()
        else:
            found = update(of_batch)
        finish()
        return found.detach()

    return Built(run, peak_bytes)


def build_folds(config: finetuning.Config, frames: np.ndarray, members: int, mode: Mode) -> Built:
    """One fine-tuning step of each of several folds, one after the other; it gives the losses."""
    torch.set_float32_matmul_precision("high")
    data = to_device({"frames": frames})["frames"]
    label = torch.arange(len(data), device=device()) % config.classes
    rng = np.random.default_rng(0)

    def fold() -> Callable[[], torch.Tensor]:
        network = reference.Recognition(config.architecture, config.classes, config.dtype)
        loss = laid_out(network, mode)
        update = updater(network, config.learning_rate, 0.999, config.weight_decay)

        def step():
            chosen = torch.from_numpy(rng.permutation(len(data))[: config.batch_size]).to(device())
            tau = reference.random_tau(
                config.batch_size, config.rotation, config.translation, device(), config.flip
            )
            return update(lambda: loss(data[chosen], tau, label[chosen])).detach()

        return step

    folds = [fold() for _ in range(members)]

    def run():
        found = [step() for step in folds]
        finish()
        return found

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
    """A function that takes one step of fused AdamW down a loss, and returns it."""
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=rate, weight_decay=weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, decay)

    def update(loss: Callable[[], torch.Tensor]) -> torch.Tensor:
        optimizer.zero_grad()
        found = loss()
        found.backward()
        optimizer.step()
        schedule.step()
        return found

    return update


def autoencoder(config: Autoencoder, mode: Mode) -> Callable[[torch.Tensor], torch.Tensor]:
    """diffusers' own encoder in PyTorch, frozen, random weights, float32.

    It makes Z (B, 2, 4, S, S) of frames (B, 2, H, W, 3) uint8.
    """
    from diffusers import AutoencoderKL

    stages = len(config.block_out_channels)
    whole = AutoencoderKL(
        block_out_channels=config.block_out_channels,
        layers_per_block=config.layers_per_block,
        latent_channels=config.latent_channels,
        norm_num_groups=config.norm_num_groups,
        down_block_types=("DownEncoderBlock2D",) * stages,
        up_block_types=("UpDecoderBlock2D",) * stages,
    )
    moments = laid_out(torch.nn.Sequential(whole.encoder, whole.quant_conv), mode)

    @torch.no_grad()
    def encode(frames: torch.Tensor) -> torch.Tensor:
        both = [moments(reference.to_float(frames[:, k])).chunk(2, 1)[0] for k in range(2)]
        return config.scaling_factor * torch.stack(both, 1)

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

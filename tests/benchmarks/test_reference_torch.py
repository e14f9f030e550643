"""The reference in PyTorch has our losses and gradients for the same weights, batch and τ."""

import dataclasses
import re
from functools import partial

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from weights import WHY_TORCH, shaken

from ma2mi_jax.images import random_affine
from ma2mi_jax.models.architecture import Architecture
from ma2mi_jax.models.weights.torchvision import to_torchvision
from ma2mi_jax.training import pretraining

torch = pytest.importorskip("torch", reason=WHY_TORCH)
from benchmarks import reference_torch  # noqa: E402

ARCHITECTURE = Architecture(
    image_size=96, width=4, depth=2, dit_width=16, heads=2, pixel_patch=16, space="pixel"
)
BATCH = 4


def tensor(array):
    return torch.from_numpy(np.array(array))


def tensors_of(params, batch_stats):
    """Our weights under the reference's names."""
    found = {}
    for encoder, learned in params["miacnet"].items():
        named = to_torchvision(learned, batch_stats[encoder])
        found |= {f"miacnet.{encoder}.{name}": tensor(value) for name, value in named.items()}
    for path, leaf in flatten_dict(params["dit"]).items():
        name = re.sub(r"^block(\d+)\.", r"blocks.\1.", ".".join(path[:-1]) + ".")
        kind = "weight" if path[-1] == "kernel" else "bias"
        found[f"dit.{name}{kind}"] = tensor(np.array(leaf).T)
    return found


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"pixel_shrink": 4, "position_loss": False},
        {"fusion": "action", "space": "latent"},
    ],
)
def test_losses_and_gradients_are_ours(change):
    of_run = {k: v for k, v in change.items() if k == "position_loss"}
    of_network = {k: v for k, v in change.items() if k != "position_loss"}
    architecture = dataclasses.replace(ARCHITECTURE, **of_network)
    config = pretraining.Config(architecture, batch_size=BATCH, **of_run)
    state = jax.eval_shape(partial(pretraining.init, config), jax.random.key(0))
    params, batch_stats = shaken((state.params, state.batch_stats))

    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 255, (BATCH, 2, 12, 12, 3))
    batch = {"frames": np.kron(coarse, np.ones((1, 1, 8, 8, 1))).astype(np.uint8)}
    latents = None
    if architecture.space == "latent":
        shape = (BATCH, 2, *architecture.latent_shape)
        batch["latents"] = rng.normal(size=shape).astype(np.float16)
        latents = tensor(np.moveaxis(batch["latents"], -1, 2))
    keys = jax.random.split(jax.random.key(0), BATCH)

    def loss(params):
        total, (_, metrics, _) = pretraining.ma2mi_loss(config, params, batch_stats, batch, keys)
        return total, {name: metrics[name] for name in metrics if name.startswith("loss_")}

    grads, ours = jax.jit(jax.grad(loss, has_aux=True))(params)

    network = reference_torch.MA2MI(architecture, config.position_loss)
    network.load_state_dict(tensors_of(params, batch_stats))
    tau = random_affine(
        keys, rotation=config.rotation, translation=config.translation, flip=config.flip
    )
    tau = reference_torch.Tau(*map(tensor, tau))
    theirs = network(tensor(batch["frames"]), tau, latents)
    sum(theirs.values()).backward()

    assert {k: v.item() for k, v in theirs.items()} == pytest.approx(
        {k: float(v) for k, v in ours.items()}, rel=1e-4, abs=1e-5
    )
    expected = tensors_of(grads, batch_stats)
    for name, weight in network.named_parameters():
        scale = expected[name].abs().max().item()
        assert scale > 0, name
        assert (weight.grad - expected[name]).abs().max().item() < 2e-2 * scale, name

"""The reference in PyTorch has our losses and gradients for the same weights, batch and τ."""

import dataclasses
import re
from functools import partial

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from weights import WHY_TORCH, shaken, state_of

from ma2mi_jax.images import random_affine
from ma2mi_jax.models import autoencoder
from ma2mi_jax.models.architecture import Architecture
from ma2mi_jax.models.weights.torchvision import to_torchvision
from ma2mi_jax.training import finetuning, pretraining

torch = pytest.importorskip("torch", reason=WHY_TORCH)
from benchmarks import reference_torch, torch_steps  # noqa: E402

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
    dense = {name: params[name] for name in ("dit", "classifier") if name in params}
    for path, leaf in flatten_dict(dense).items():
        name = re.sub(r"^dit\.block(\d+)\.", r"dit.blocks.\1.", ".".join(path[:-1]) + ".")
        kind = "weight" if path[-1] == "kernel" else "bias"
        found[f"{name}{kind}"] = tensor(np.array(leaf).T)
    return found


def pairs():
    """Blurred noise, so that a place of an image is like the one beside it."""
    coarse = np.random.default_rng(0).uniform(0, 255, (BATCH, 2, 12, 12, 3))
    return np.kron(coarse, np.ones((1, 1, 8, 8, 1))).astype(np.uint8)


def check_gradients(network, expected):
    for name, weight in network.named_parameters():
        scale = expected[name].abs().max().item()
        assert scale > 0, name
        assert (weight.grad - expected[name]).abs().max().item() < 2e-2 * scale, name


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

    batch, latents = {"frames": pairs()}, None
    if architecture.space == "latent":
        shape = (BATCH, 2, *architecture.latent_shape)
        batch["latents"] = np.random.default_rng(1).normal(size=shape).astype(np.float16)
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
    check_gradients(network, tensors_of(grads, batch_stats))


def test_the_loss_and_gradients_of_fine_tuning_are_ours():
    config = finetuning.Config(ARCHITECTURE, classes=3, batch_size=BATCH)
    state = state_of(finetuning.init, config)
    frames, label, key = pairs(), np.array([2, 0, 1, 2], np.int32), jax.random.key(0)
    data, indices = {"frames": frames, "label": label}, np.arange(BATCH)
    step = jax.jit(partial(finetuning.fold_step, config))
    after, ours = step(state, data, indices, key, np.int32(9), np.bool_(True))
    # The first step of Adam keeps a tenth of the gradient, as its mean.
    grads = jax.tree.map(lambda mean: 10 * mean, after.opt_state[0].mu)

    network = reference_torch.Recognition(ARCHITECTURE, config.classes)
    network.load_state_dict(tensors_of(state.params, state.batch_stats))
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(key, 0), indices)
    tau = random_affine(
        keys, rotation=config.rotation, translation=config.translation, flip=config.flip
    )
    theirs = network(tensor(frames), reference_torch.Tau(*map(tensor, tau)), tensor(label).long())
    theirs.backward()
    assert theirs.item() == pytest.approx(float(ours["loss"]), rel=1e-4)
    check_gradients(network, tensors_of(grads, state.batch_stats))


def test_the_mode_is_that_of_the_autoencoder_too(monkeypatch):
    """Compiling is only noted here: it takes long."""
    compiled, seen = [], {}
    monkeypatch.setattr(torch, "compile", lambda network: compiled.append(network) or network)
    for mode in torch_steps.MODES:
        torch.manual_seed(0)
        encode = torch_steps.autoencoder(autoencoder.TINY, mode)
        seen[mode] = encode(tensor(pairs())).numpy()
        assert len(compiled) == (mode == "compile")
        assert seen[mode].shape == (BATCH, 2, 4, 12, 12)
        np.testing.assert_allclose(seen[mode], seen["eager"], atol=1e-4)
    assert np.ptp(seen["eager"]) > 0.01
    kernels = [weight for weight in compiled[0].parameters() if weight.ndim == 4]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in kernels)

"""ResNet18 and the DiT block against PyTorch implementations with the same weights."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from weights import WHY_TORCH, count, shaken

from ma2mi_jax.errors import UserError
from ma2mi_jax.models import dit
from ma2mi_jax.models.architecture import PRESETS, Architecture
from ma2mi_jax.models.miacnet import FUSIONS, MIACNet, condition, features
from ma2mi_jax.models.resnet import ResNet18


def test_parameter_counts():
    frame = jnp.zeros((1, 256, 256, 3))
    trunk = jax.eval_shape(lambda: ResNet18().init(jax.random.key(0), frame, True))
    assert count(trunk["params"]) == 11_176_512
    predictor = jax.eval_shape(
        lambda: dit.DiT().init(jax.random.key(0), jnp.zeros((1, 32, 32, 4)), jnp.zeros((1, 512)))
    )
    assert count(predictor["params"]) == pytest.approx(130e6, rel=0.01)


def test_resnet18_is_that_of_transformers():
    torch = pytest.importorskip("torch", reason=WHY_TORCH)
    transformers = pytest.importorskip("transformers", reason=WHY_TORCH)
    config = transformers.ResNetConfig(
        embedding_size=64, hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], layer_type="basic"
    )
    theirs = transformers.ResNetModel(config).eval()
    ours = ResNet18()
    x = np.random.default_rng(0).normal(size=(2, 96, 96, 3)).astype(np.float32)
    variables = shaken(jax.eval_shape(lambda: ours.init(jax.random.key(0), x, True)))

    def weights(block, convolution, normalisation, to):
        params, stats = variables["params"], variables["batch_stats"]
        for part in block:
            params, stats = params[part], stats.get(part, {})
        return {
            f"{to}.convolution.weight": params[convolution]["kernel"].transpose(3, 2, 0, 1),
            f"{to}.normalization.weight": params[normalisation]["scale"],
            f"{to}.normalization.bias": params[normalisation]["bias"],
            f"{to}.normalization.running_mean": stats[normalisation]["mean"],
            f"{to}.normalization.running_var": stats[normalisation]["var"],
        }

    state = weights((), "conv1", "bn1", "embedder.embedder")
    for stage in range(4):
        for block in range(2):
            to, name = f"encoder.stages.{stage}.layers.{block}", (f"layer{stage + 1}_{block}",)
            state |= weights(name, "conv1", "bn1", f"{to}.layer.0") | weights(
                name, "conv2", "bn2", f"{to}.layer.1"
            )
            if stage and not block:
                state |= weights(name, "downsample_conv", "downsample_bn", f"{to}.shortcut")
    missing, unexpected = theirs.load_state_dict(
        {k: torch.from_numpy(np.array(v)) for k, v in state.items()}, strict=False
    )
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)

    with torch.no_grad():
        expected = (
            theirs(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()))
            .last_hidden_state.numpy()
            .transpose(0, 2, 3, 1)
        )
    found = np.asarray(jax.jit(lambda v: ours.apply(v, x, False))(variables))
    assert found.shape == (2, 3, 3, 512)
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def test_dit_block_is_its_definition():
    """The adaLN-Zero block of Peebles & Xie.

    x + g1 Attn(LN(x)(1 + s1) + b1), then x + g2 MLP(LN(x)(1 + s2) + b2).
    """
    torch = pytest.importorskip("torch", reason=WHY_TORCH)
    functional = torch.nn.functional
    rng = np.random.default_rng(0)
    x, c = (
        rng.normal(size=(2, 9, 24)).astype(np.float32),
        rng.normal(size=(2, 24)).astype(np.float32),
    )
    block = dit.DiTBlock(heads=3)
    params = shaken(jax.eval_shape(lambda: block.init(jax.random.key(0), x, c)))["params"]
    w = {
        k: (torch.from_numpy(np.array(p["kernel"]).T.copy()), torch.from_numpy(np.array(p["bias"])))
        for k, p in params.items()
    }
    linear = lambda name, value: functional.linear(value, *w[name])  # noqa: E731
    h, t = torch.from_numpy(x), torch.from_numpy(c)
    b1, s1, g1, b2, s2, g2 = linear("modulation", functional.silu(t)).unsqueeze(1).chunk(6, dim=-1)
    attention = torch.nn.MultiheadAttention(24, 3, batch_first=True)
    with torch.no_grad():
        attention.in_proj_weight.copy_(w["qkv"][0])
        attention.in_proj_bias.copy_(w["qkv"][1])
        attention.out_proj.weight.copy_(w["proj"][0])
        attention.out_proj.bias.copy_(w["proj"][1])
        n = functional.layer_norm(h, (24,), eps=1e-6) * (1 + s1) + b1
        h = h + g1 * attention(n, n, n, need_weights=False)[0]
        n = functional.layer_norm(h, (24,), eps=1e-6) * (1 + s2) + b2
        h = h + g2 * linear("fc2", functional.gelu(linear("fc1", n), approximate="tanh"))
    found = np.asarray(jax.jit(block.apply)({"params": params}, x, c))
    assert np.abs(found - h.numpy()).max() < 1e-4 * np.abs(found).max()


def test_dit_starts_as_a_copy_of_the_frame_and_patches_round_trip():
    z = np.random.default_rng(0).normal(size=(2, 8, 8, 4)).astype(np.float32)
    c = np.ones((2, 6), np.float32)
    for predict, start in (("change", z), ("latent", 0 * z)):
        network = dit.DiT(depth=1, width=16, heads=2, predict=predict)
        np.testing.assert_array_equal(
            jax.jit(network.init_with_output)(jax.random.key(0), z, c)[0], start
        )
    np.testing.assert_array_equal(dit.unpatchify(dit.patchify(z, 2), 2, 4), z)
    np.testing.assert_array_equal(
        dit.patchify(z, 2)[0, 1], z[0, :2, 2:4].ravel()
    )  # the second patch lies to the right of the first


@pytest.mark.parametrize(("scales", "positions", "output"), [("ours", 0.2, 4), ("published", 1, 1)])
def test_scales_of_dit(scales, positions, output):
    """Without blocks DiT is two linear maps, which its condition shifts and scales."""
    z = np.random.default_rng(0).normal(size=(2, 8, 8, 4)).astype(np.float32)
    c = np.ones((2, 6), np.float32)
    network = dit.DiT(depth=0, width=16, heads=2, scales=scales)
    fresh = jax.jit(network.init)(jax.random.key(0), z, c)
    params = shaken(fresh)["params"]
    w = {name: np.asarray(p["kernel"]) for name, p in params.items()}
    b = {name: np.asarray(p["bias"]) for name, p in params.items()}
    silu = lambda x: x / (1 + np.exp(-x))  # noqa: E731
    embedded = silu(c @ w["condition1"] + b["condition1"]) @ w["condition2"] + b["condition2"]
    shift, scale = np.split(silu(embedded) @ w["modulation"] + b["modulation"], 2, -1)

    x = dit.patchify(z, 2) @ w["patches"] + b["patches"]
    x = x + positions * dit.sincos_positions(4, 16)
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    x = (x * (1 + scale[:, None]) + shift[:, None]) @ w["output"] + b["output"]
    expected = z + dit.unpatchify(x, 2, 4) / output
    np.testing.assert_allclose(
        network.apply({"params": params}, z, c), expected, rtol=2e-4, atol=1e-4
    )
    embeds = np.asarray(fresh["params"]["condition2"]["kernel"]).std()
    assert 0.015 < embeds < 0.025 if scales == "published" else embeds > 0.2


@pytest.mark.parametrize("width", [64, 256])
def test_a_step_of_adam_moves_the_predicted_change_by_less_than_there_is_to_predict(width):
    """Otherwise L1 keeps pulling it back to the copy.

    Undivided, the output moved by .08 at width 256 and by .3 at 768 (docs/experiments.md).
    """
    network = dit.DiT(depth=1, width=width, heads=2)
    z, noise = jax.random.normal(jax.random.key(0), (2, 4, 16, 16, 4))
    c = jnp.ones((4, 8))
    adam = optax.adam(1e-3)

    @jax.jit
    def moved():
        params = network.init(jax.random.key(1), z, c)
        gradient = jax.grad(lambda p: jnp.abs(network.apply(p, z, c) - (z + 0.05 * noise)).mean())(
            params
        )
        step, _ = adam.update(gradient, adam.init(params))
        return jnp.abs(network.apply(optax.apply_updates(params, step), z, c) - z).mean()

    assert 0 < moved() < 0.01


def test_position_table_is_that_of_dit():
    """One token's row written out.

    The first half of the channels has sin and cos of the column, the second half of the row.
    """
    table = dit.sincos_positions(side=5, width=16)
    row, column = 3, 2
    frequencies = np.array([10000 ** (-k / 4) for k in range(4)])
    expected = np.concatenate(
        [
            np.sin(column * frequencies),
            np.cos(column * frequencies),
            np.sin(row * frequencies),
            np.cos(row * frequencies),
        ]
    )
    np.testing.assert_allclose(table[row * 5 + column], expected, rtol=1e-6)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_fusions(fusion):
    rng = np.random.default_rng(0)
    a, p = rng.uniform(size=(2, 2, 3, 3, 4))
    expected = {"mul": (a * p).mean((1, 2)), "add": (a + p).mean((1, 2)), "action": a.mean((1, 2))}
    region = (p + 1e-3) / (p + 1e-3).sum((1, 2), keepdims=True)
    expected["regions"] = (region * a).sum((1, 2))
    expected["concat"] = np.concatenate([a.mean((1, 2)), p.mean((1, 2))], -1)
    np.testing.assert_allclose(condition(a, p, fusion), expected[fusion], rtol=1e-5)
    kept = condition(a, p, fusion, "flatten")
    assert kept.shape == (2, 9 * expected[fusion].shape[-1])
    np.testing.assert_allclose(kept.reshape(2, 9, -1).mean(1), expected[fusion], rtol=1e-5)
    for pooling, found in (("gap", expected[fusion]), ("flatten", kept)):
        asked = Architecture(image_size=96, width=0.5, fusion=fusion, pooling=pooling)
        assert asked.condition_features == found.shape[-1]
        np.testing.assert_allclose(asked.condition(a, p), found, rtol=1e-5)
    with pytest.raises(ValueError, match="sum"):
        condition(a, p, "sum")


def test_regions_do_not_depend_on_the_length_of_the_position_map():
    a, p = np.random.default_rng(0).uniform(size=(2, 2, 3, 3, 4))
    np.testing.assert_allclose(
        condition(a, 100 * p, "regions"), condition(a, 50 * p, "regions"), rtol=1e-3
    )
    np.testing.assert_allclose(
        condition(a, 0 * p, "regions"), condition(a, None, "action"), rtol=1e-5
    )  # silent: the whole face


def test_action_fusion_has_no_position_encoder_and_both_branches_see_what_they_should():
    frame = jnp.zeros((2, 96, 96, 3))
    alone = jax.eval_shape(lambda: MIACNet(8, "action").init(jax.random.key(0), frame, frame, True))
    assert set(alone["params"]) == {"action_encoder"}
    network = MIACNet(8, "mul")
    variables = network.init(jax.random.key(0), frame, frame, False)
    shifted = jnp.full_like(frame, 0.25)

    def run(frame, future):
        return features(network, **variables, frame=frame, future=future)[0]

    # Eq. 1 sees the difference alone.
    np.testing.assert_array_equal(run(frame, frame).action, run(shifted, shifted).action)
    assert np.abs(run(frame, frame).position - run(shifted, frame).position).max() > 0


def test_a_shrunk_frame_has_the_same_patches_with_fewer_values():
    whole = dataclasses.replace(PRESETS["bench"], space="pixel", pixel_shrink=1)
    small = dataclasses.replace(whole, pixel_shrink=4)
    assert (*whole.latent_shape, whole.patch) == (192, 192, 3, 16)
    assert (*small.latent_shape, small.patch) == (48, 48, 3, 4)
    for shrink in (0, 3, 32):
        with pytest.raises(UserError, match=rf"pixel_shrink={shrink}: expected a divisor"):
            dataclasses.replace(whole, pixel_shrink=shrink)


def test_presets_fit_their_patches():
    for preset in PRESETS.values():
        assert preset.image_size % 32 == 0
        assert preset.image_size % preset.pixel_patch == 0
        assert preset.dit_width % (4 * preset.heads) == 0


def test_frames_may_be_normalised_as_imagenet_s_networks_saw_them():
    """The same as to hand over frames that torchvision's transform made of them."""
    rng = np.random.default_rng(0)
    raw = rng.uniform(0, 1, (2, 1, 64, 64, 3)).astype(np.float32)
    frames, mean, std = 2 * raw - 1, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    theirs = ((raw - mean) / std).astype(np.float32)
    plain = Architecture(image_size=64, width=4)
    normalised = dataclasses.replace(plain, normalisation="imagenet")
    networks = [each.miacnet(jnp.float32) for each in (plain, normalised)]
    variables = jax.jit(networks[0].init)(jax.random.key(0), *frames)
    expected = networks[0].apply(variables, *theirs)
    np.testing.assert_allclose(networks[1].apply(variables, *frames), expected, rtol=1e-3)
    assert np.abs(networks[0].apply(variables, *frames) - expected).max() > 0.01


@pytest.mark.parametrize("blocks", [None, [1, 1], (1, 2, 1)])
def test_c_delta_is_as_long_as_the_stages_of_the_encoders_say(blocks):
    architecture = Architecture(image_size=64, width=4, pooling="flatten", blocks=blocks)
    assert hash(architecture) == hash(dataclasses.replace(architecture))  # JSON has lists
    frame = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    network = architecture.miacnet(jnp.float32)
    found, _ = jax.eval_shape(partial(network.init_with_output, train=False), key, frame, frame)
    assert found.shape == (2, architecture.condition_features)
    stages = len(blocks or (2, 2, 2, 2))
    assert architecture.places == 32 // 2**stages
    assert architecture.condition_features == architecture.places**2 * 4 * 2 ** (stages - 1)


@pytest.mark.parametrize("blocks", [1, "22", [], [1, 0], [1, True], [2] * 5])
def test_stages_that_cannot_be_are_refused(blocks):
    with pytest.raises(UserError, match="blocks of the encoders: expected a number for each"):
        Architecture(blocks=blocks)

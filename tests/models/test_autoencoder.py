"""The autoencoder against PyTorch's in diffusers, its files in every naming, and every way its
weights can be wrong."""

import json
import logging
import shutil
import subprocess
import sys

import chex
import httpx
import huggingface_hub
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from huggingface_hub.errors import (
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
)
from safetensors.numpy import load_file, save_file

from ma2mi_jax.errors import UserError
from ma2mi_jax.models.autoencoder import SD_VAE, TINY, decode, encode, fingerprint, init
from ma2mi_jax.models.weights.diffusers import CONFIG, SD_VAE_HUB, WEIGHTS, load, save

OLD = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
# not square, so that a transposition shows
FRAMES = np.random.default_rng(0).uniform(-1, 1, (2, 48, 64, 3)).astype(np.float32)
run_encode, run_decode = (
    jax.jit(run, static_argnums=0, static_argnames="dtype") for run in (encode, decode)
)


@pytest.fixture(scope="module")
def params():
    return jax.jit(init, static_argnums=1)(jax.random.key(0), TINY)


@pytest.fixture
def folder(tmp_path, params):
    save(tmp_path / "vae", TINY, params)
    return tmp_path / "vae"


def rewrite(folder, change):
    """Replaces the weights in `folder` by `change` of them."""
    save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS)


def old_names(tensors, suffix=()):
    """The tensors as old files name them, attention matrices of shape (C, C, *suffix)."""
    renamed = {}
    for name, tensor in tensors.items():
        for new, old in OLD.items():
            if f".{new}." in name:
                name = name.replace(f".{new}.", f".{old}.")
                tensor = (
                    tensor.reshape(*tensor.shape, *suffix) if name.endswith("weight") else tensor
                )
        renamed[name] = tensor
    return renamed


def check_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


# ----- against PyTorch ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def torch_vae(tmp_path_factory):
    """PyTorch's autoencoder and its folder. Every weight is random, because a new one has norms of
    1 and 0, which would hide a mix-up."""
    torch = pytest.importorskip(
        "torch",
        reason="PyTorch, the independent implementation, is not installed (pip install torch)",
    )
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=TINY.block_out_channels,
        layers_per_block=TINY.layers_per_block,
        norm_num_groups=TINY.norm_num_groups,
    ).eval()
    with torch.no_grad():
        for weight in vae.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    folder = tmp_path_factory.mktemp("torch_vae")
    vae.save_pretrained(folder, safe_serialization=True)
    return vae, folder


def torch_encode(vae, frames):
    import torch

    with torch.no_grad():
        return 0.18215 * vae.encode(
            torch.tensor(frames.transpose(0, 3, 1, 2))
        ).latent_dist.mean.numpy().transpose(0, 2, 3, 1)


def torch_decode(vae, latents):
    import torch

    with torch.no_grad():
        return (
            vae.decode(torch.tensor(latents.transpose(0, 3, 1, 2)) / 0.18215)
            .sample.clamp(-1, 1)
            .numpy()
            .transpose(0, 2, 3, 1)
        )


def check_close(actual, expected):
    assert actual.dtype == np.float32
    assert expected.std() > 0.05
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


# by diffusers' save_pretrained
@pytest.mark.filterwarnings("ignore:unclosed file .*config.json:ResourceWarning")
@pytest.mark.parametrize("naming", ["new", "old", "old, 1x1 convolutions"])
def test_matches_pytorch(torch_vae, tmp_path, naming):
    vae, source = torch_vae
    folder = shutil.copytree(source, tmp_path / "vae")
    if naming != "new":
        rewrite(
            folder, lambda tensors: old_names(tensors, suffix=(1, 1) if "1x1" in naming else ())
        )
        assert any("proj_attn" in name for name in load_file(folder / WEIGHTS))
    config, params = load(folder)
    assert config == TINY
    latents = torch_encode(vae, FRAMES)
    assert latents.shape == (2, 6, 8, 4)
    frames = torch_decode(vae, latents)
    assert np.mean(np.abs(frames) < 1) > 0.5  # most values are not clipped
    with jax.default_matmul_precision("highest"):  # on a GPU float32 would be TF32
        check_close(run_encode(config, params, FRAMES), latents)
        check_close(run_decode(config, params, latents), frames)


@pytest.mark.filterwarnings("ignore:unclosed file .*config.json:ResourceWarning")
def test_pytorch_reads_what_save_writes(torch_vae, tmp_path):
    from diffusers import AutoencoderKL

    vae, source = torch_vae
    save(tmp_path / "vae", *load(source))
    np.testing.assert_array_equal(
        torch_encode(AutoencoderKL.from_pretrained(tmp_path / "vae"), FRAMES),
        torch_encode(vae, FRAMES),
    )


# ----- encode and decode -------------------------------------------------------------------------


def test_real_shape_has_its_parameters():
    shapes = jax.eval_shape(lambda key: init(key, SD_VAE), jax.random.key(0))
    counts = {
        part: sum(leaf.size for leaf in jax.tree.leaves(tree)) for part, tree in shapes.items()
    }
    assert counts == {
        "encoder": 34_163_592,
        "quant_conv": 72,
        "post_quant_conv": 20,
        "decoder": 49_490_179,
    }  # together 83,653,863
    latents = jax.eval_shape(lambda p: encode(SD_VAE, p, jnp.zeros((1, 256, 256, 3))), shapes)
    assert latents.shape == (1, 32, 32, 4)


def test_sample_is_mean_plus_noise_of_the_posterior(params):
    mean = run_encode(TINY, params, FRAMES)
    one, same, other = (
        run_encode(TINY, params, FRAMES, keys=jax.random.split(jax.random.key(seed), len(FRAMES)))
        for seed in (1, 1, 2)
    )
    check_same(one, same)
    assert not np.allclose(one, other)
    silent = jax.tree.map(lambda x: x, params)
    silent["quant_conv"]["kernel"] = params["quant_conv"]["kernel"].at[..., 4:].set(0)
    log_variance = 2 * np.log(3.0)  # a standard deviation of 3
    silent["quant_conv"]["bias"] = params["quant_conv"]["bias"].at[4:].set(log_variance)
    keys = jax.random.split(jax.random.key(1), len(FRAMES))
    noise = (run_encode(TINY, silent, FRAMES, keys=keys) - mean) / TINY.scaling_factor
    # each frame has its own noise, whatever frames are beside it
    expected = [3 * jax.random.normal(key, mean.shape[1:]) for key in keys]
    np.testing.assert_allclose(noise, expected, rtol=1e-3, atol=1e-4)


def test_bfloat16_is_close_and_returns_float32(params):
    latents = run_encode(TINY, params, FRAMES)
    for run, of in ((run_encode, FRAMES), (run_decode, latents)):
        exact = run(TINY, params, of)
        rough = run(TINY, params, of, dtype="bfloat16")
        assert rough.dtype == jnp.float32
        assert 1e-5 < np.linalg.norm(rough - exact) / np.linalg.norm(exact) < 0.03


def test_vmap_and_grad(params):
    each = jax.jit(jax.vmap(lambda frame: encode(TINY, params, frame[None])[0]))
    np.testing.assert_allclose(each(FRAMES), run_encode(TINY, params, FRAMES), rtol=1e-4, atol=1e-4)

    latents = jax.random.normal(jax.random.key(0), (1, 4, 4, 4))
    direction = jax.random.normal(jax.random.key(1), latents.shape)
    mean = jax.jit(lambda z: jnp.mean(decode(TINY, params, z) ** 2))
    slope = jnp.vdot(jax.jit(jax.grad(mean))(latents), direction)
    numeric = (mean(latents + 1e-3 * direction) - mean(latents - 1e-3 * direction)) / 2e-3
    assert abs(slope) > 1e-2
    np.testing.assert_allclose(slope, numeric, rtol=1e-2)


def test_diffusers_is_silent_and_lazy(params, monkeypatch):
    heard, handler = [], logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())
    logger = logging.getLogger("diffusers.models.vae_flax")
    monkeypatch.setattr(logger, "handlers", [handler])
    jax.eval_shape(lambda p: encode(TINY, p, jnp.zeros((1, 16, 16, 3))), params)
    logger.warning("something else")
    assert heard == ["something else"]
    check = "import ma2mi_jax.models.weights.diffusers, sys; sys.exit('diffusers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check]).returncode == 0


def test_without_flax_in_diffusers(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers.models.vae_flax", None)
    check_error(lambda: init(jax.random.key(0), TINY), "diffusers<0.40", "space=pixel")


# ----- files -------------------------------------------------------------------------------------


def test_save_and_load_agree(folder, params):
    config, loaded = load(folder)
    assert config == TINY
    check_same(loaded, params)
    assert fingerprint(loaded) == fingerprint(params)


def test_loads_from_a_subfolder_and_in_bfloat16(folder, params):
    _, loaded = load(folder.parent, dtype=jnp.bfloat16)
    check_same(loaded, jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params))


def test_files_in_half_precision(folder, params):
    rewrite(
        folder,
        lambda tensors: {name: tensor.astype(jnp.bfloat16) for name, tensor in tensors.items()},
    )
    check_same(
        load(folder)[1],
        jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16).astype(jnp.float32), params),
    )


def test_fingerprint_names_the_weights(params):
    assert fingerprint(params) == fingerprint(jax.device_get(params))
    assert len(fingerprint(params)) == 16
    changed = jax.tree.map(lambda x: x, params)
    changed["decoder"]["conv_out"]["bias"] = params["decoder"]["conv_out"]["bias"].at[0].add(1e-6)
    assert fingerprint(changed) != fingerprint(params)


def check_error(call, *parts):
    with pytest.raises(UserError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message
    return message


K = "encoder.mid_block.attentions.0.to_k.weight"


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (
            lambda t: t | {"decoder.conv_in.weight": np.zeros((16, 5, 3, 3))},
            ["decoder.conv_in.weight", "(16, 5, 3, 3)", "(16, 4, 3, 3)"],
        ),
        (lambda t: t | {K: np.zeros((16, 16, 3, 3))}, [K, "(16, 16, 3, 3)", "(16, 16)"]),
        (lambda t: {n: a for n, a in t.items() if n != K}, ["1 missing", K]),
        (lambda t: t | {"loss.logvar": np.zeros(1)}, ["1 unknown", "loss.logvar"]),
        (
            lambda t: {f"vae.{n}": a for n, a in t.items()},
            ["missing (first: decoder.", "unknown (first: vae.decoder."],
        ),
    ],
    ids=["shape", "no 1x1 convolution", "missing", "unknown", "other names"],
)
def test_tensors_that_do_not_fit(folder, change, parts):
    rewrite(folder, change)
    check_error(lambda: load(folder), str(folder / WEIGHTS), *parts)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"latent_channels": 16}, ["latent_channels", "4", "16"]),
        ({"_class_name": "UNet2DConditionModel"}, ["_class_name", "UNet2DConditionModel"]),
        ({"down_block_types": ["DownEncoderBlock2D"] * 3}, ["down_block_types"]),
        ({"shift_factor": 0.06}, ["shift_factor", "0.06"]),
        ({"block_out_channels": [8, 16, 16]}, ["block_out_channels", "[8, 16, 16]"]),
        ({"norm_num_groups": 32}, ["norm_num_groups", "32"]),
        ({"layers_per_block": 2}, ["missing", "resnets.2.conv1"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_config_of_another_network(folder, change, parts):
    content = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(content | change))
    check_error(lambda: load(folder), str(folder), *parts)


def test_broken_files(folder):
    (folder / WEIGHTS).write_text(
        "version https://git-lfs.github.com/spec/v1\n"
        "oid sha256:a1d993488569e928462932c8c38a0760b874d166399b14414135bd9c42df5815\n"
    )
    check_error(lambda: load(folder), WEIGHTS, "git-lfs")
    (folder / CONFIG).write_text("{")
    check_error(lambda: load(folder), CONFIG, "JSON")


def test_a_pickle_is_refused_with_the_remedy(folder):
    (folder / WEIGHTS).rename(folder / "diffusion_pytorch_model.bin")
    check_error(lambda: load(folder), "diffusion_pytorch_model.bin", "save_pretrained")


def test_weights_or_config_absent(folder):
    (folder / WEIGHTS).unlink()
    check_error(lambda: load(folder), WEIGHTS, "found none")
    (folder / CONFIG).unlink()
    check_error(lambda: load(folder), f"vae={folder}", "space=pixel")


# ----- the hub -----------------------------------------------------------------------------------


WAYS_OUT = ("vae=DIR", "network", "cache", "space=pixel")


def raiser(error):
    def call(*_, **__):
        raise error

    return call


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (httpx.ConnectError("Name or service not known"), "Name or service not known"),
        (httpx.ConnectTimeout(""), "ConnectTimeout"),
        (OfflineModeIsEnabled("HF_HUB_OFFLINE is set.\nMore words"), "(HF_HUB_OFFLINE is set)"),
        (OSError("No space left on device"), "No space left"),
    ],
)
def test_no_network_names_the_three_ways_out(monkeypatch, error, reason):
    monkeypatch.setattr(
        huggingface_hub, "hf_hub_download", raiser(LocalEntryNotFoundError("not in the cache"))
    )
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", raiser(error))
    check_error(
        lambda: load(SD_VAE_HUB),
        f"vae={SD_VAE_HUB}",
        reason,
        *WAYS_OUT,
    )


@pytest.mark.parametrize("where", ["/no/such/folder", "no such folder"])
def test_a_folder_that_is_not_there(where):
    check_error(lambda: load(where), f"vae={where}", "no such folder", *WAYS_OUT)


def test_the_cache_is_enough(monkeypatch, folder, params):
    monkeypatch.setattr(
        huggingface_hub, "hf_hub_download", lambda repository, file, local_files_only: folder / file
    )
    monkeypatch.setattr(
        huggingface_hub, "get_hf_file_metadata", raiser(AssertionError("asked the network"))
    )
    check_same(load("some/vae")[1], params)


def only_from_the_hub(folder):
    def download(repository, file, local_files_only=False, **_):
        if local_files_only:
            raise LocalEntryNotFoundError(file)
        return folder / file

    return download


def test_fetches_what_the_cache_lacks(monkeypatch, folder, params):
    asked = []
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", only_from_the_hub(folder))
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda url, **_: asked.append(url))
    check_same(load("some/vae")[1], params)
    assert [url.rsplit("/", 1)[1] for url in asked] == [CONFIG, WEIGHTS]


def repository_of(monkeypatch, folder):
    """The hub has what is in the folder, under any id."""

    def metadata(url, **_):
        if not (folder / url.rpartition("/")[2]).exists():
            raise RemoteEntryNotFoundError(
                "404", response=httpx.Response(404, request=httpx.Request("HEAD", url))
            )

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", only_from_the_hub(folder))
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", metadata)


@pytest.mark.parametrize(("absent", "remedy"), [(CONFIG, "vae=DIR"), (WEIGHTS, "save_pretrained")])
def test_a_repository_that_lacks_a_file(monkeypatch, folder, absent, remedy):
    (folder / absent).unlink()
    repository_of(monkeypatch, folder)
    check_error(lambda: load("some/vae"), "vae=some/vae", absent, remedy)


@pytest.mark.parametrize(("kind", "dtype"), [("fp16", np.float16), ("bf16", ml_dtypes.bfloat16)])
def test_half_precision_is_read_where_there_is_nothing_else(
    monkeypatch, folder, params, kind, dtype
):
    half = {name: t.astype(dtype) for name, t in load_file(folder / WEIGHTS).items()}
    save_file(half, folder / WEIGHTS.replace(".", f".{kind}.", 1))
    chex.assert_trees_all_equal(load(folder)[1], params)
    (folder / WEIGHTS).unlink()
    repository_of(monkeypatch, folder)
    rounded = jax.tree.map(lambda x: np.asarray(x).astype(dtype).astype(np.float32), params)
    for where in (folder, "some/vae"):
        chex.assert_trees_all_equal(load(where)[1], rounded)

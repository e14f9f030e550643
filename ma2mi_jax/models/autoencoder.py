"""The frozen Stable-Diffusion autoencoder, Z = E_ae(I) (Eq. 7), on NHWC frames. The only file that knows diffusers.

The network is diffusers' `FlaxAutoencoderKL`, imported when first used. Its weights are read from PyTorch's safetensors without torch.
"""

import dataclasses
import json
import math
import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from ma2mi_jax import files
from ma2mi_jax.errors import UserError

Params = dict[str, Any]
CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
WAYS_OUT = (
    "give a local diffusers folder by --vae=DIR, use a machine with network or with these weights in its Hugging Face cache, "
    "or train without an autoencoder by --space=pixel"
)
CONVERT = (
    "only safetensors are read, never a pickle; convert once where torch is installed: "
    "python -c \"from diffusers import AutoencoderKL as A; A.from_pretrained('IN').save_pretrained('OUT')\", then --vae=OUT"
)


@dataclasses.dataclass(frozen=True)
class Autoencoder:
    """Shape and latent scale of a Stable-Diffusion autoencoder: four stages, so a latent's side is an eighth of the frame's.

    Field names are those of a diffusers `config.json`.
    """

    block_out_channels: tuple[int, int, int, int] = (128, 256, 512, 512)
    layers_per_block: int = 2
    latent_channels: int = 4
    norm_num_groups: int = 32
    scaling_factor: float = 0.18215


SD_VAE = Autoencoder()  # stabilityai/sd-vae-ft-mse and -ema: 83,653,863 parameters
TINY = Autoencoder(
    block_out_channels=(8, 16, 16, 16), layers_per_block=1, norm_num_groups=4
)  # for tests


def encode(
    config: Autoencoder,
    params: Params,
    frames: jax.Array,
    *,
    keys: jax.Array | None = None,
    dtype: Any = jnp.float32,
) -> jax.Array:
    """Z = E_ae(I) (Eq. 7).

    Args:
      frames: (B, H, W, 3) in [−1, 1]; H and W are multiples of 8.
      keys: (B,) draw each frame's Z from the posterior; None gives its mean.
      dtype: of the computation. In bfloat16 the difference of two latents errs by 40 % of what half a pixel of local motion changes, in
        float32 by under 2 % even from bfloat16 frames or weights (measured on a CPU at the real shape, random weights). On NVIDIA cards
        since Ampere JAX multiplies float32 as TF32, with three bits more than bfloat16's: not measured.

    Returns:
      (B, H/8, W/8, 4) float32, times `scaling_factor`.
    """
    moments = _module(config, dtype).apply(
        {"params": params}, frames, method=lambda vae, x: vae.quant_conv(vae.encoder(x))
    )
    z, log_variance = jnp.split(moments.astype(jnp.float32), 2, axis=-1)
    if keys is not None:
        noise = jax.vmap(lambda key: jax.random.normal(key, z.shape[1:]))(keys)
        z += jnp.exp(0.5 * jnp.clip(log_variance, -30, 20)) * noise
    return config.scaling_factor * z


def decode(
    config: Autoencoder, params: Params, latents: jax.Array, *, dtype: Any = jnp.float32
) -> jax.Array:
    """Frames of latents: (B, h, w, 4) as `encode` returns them -> (B, 8h, 8w, 3) float32, clipped to [−1, 1]."""
    z = latents / config.scaling_factor
    frames = _module(config, dtype).apply(
        {"params": params}, z, method=lambda vae, z: vae.decoder(vae.post_quant_conv(z))
    )
    return jnp.clip(frames.astype(jnp.float32), -1, 1)


def init(key: jax.Array, config: Autoencoder) -> Params:
    """Random weights of the shape of `config`, float32: kernels normal with variance 1 / fan-in, norms 1, biases 0."""
    shapes = {path: leaf.shape for path, leaf in flatten_dict(_shapes(config), sep=".").items()}
    kernels = {path: shape for path, shape in shapes.items() if path.endswith(".kernel")}
    ends = np.cumsum([math.prod(shape) for shape in kernels.values()])

    @jax.jit  # one draw, cut to pieces: a draw for each kernel, as in Flax, takes half a minute to compile
    def draw(key):
        pieces = jnp.split(jax.random.normal(key, (int(ends[-1]),)), ends[:-1])
        drawn = {
            path: piece.reshape(shape) / math.prod(shape[:-1]) ** 0.5
            for piece, (path, shape) in zip(pieces, kernels.items(), strict=True)
        }
        others = {
            path: jnp.full(shape, float(path.endswith(".scale")))
            for path, shape in shapes.items()
            if path not in kernels
        }
        return unflatten_dict(drawn | others, sep=".")

    return draw(key)


def fingerprint(params: Params) -> str:
    """16 hexadecimal digits that name these weights: their paths, dtypes, shapes and values."""
    leaves = sorted(flatten_dict(params, sep=".").items())
    return files.fingerprint(
        part
        for path, leaf in leaves
        for part in (f"{path} {leaf.dtype} {leaf.shape}", np.ascontiguousarray(leaf).tobytes())
    )


def load(where: str | pathlib.Path, dtype: Any = jnp.float32) -> tuple[Autoencoder, Params]:
    """Reads a Stable-Diffusion autoencoder in diffusers format.

    Args:
      where: a folder that holds `config.json` and `diffusion_pytorch_model.safetensors`, itself or in `vae/`, or a hub id with both
        at its top; the cache is asked before the network.
      dtype: of the parameters.

    Raises:
      UserError: nothing there, no network and nothing in the cache, another kind of network, or tensors that do not fit `config.json`.
    """
    config_file, weights_file = (
        _local_files(where) if pathlib.Path(where).exists() else _hub_files(str(where))
    )
    config = _read_config(config_file)
    return config, _read_params(weights_file, config, dtype)


def save(directory: str | pathlib.Path, config: Autoencoder, params: Params) -> None:
    """Writes a folder that `load` and PyTorch's `AutoencoderKL.from_pretrained` read."""
    from safetensors.numpy import (
        save as serialized,  # as bytes: save_file makes a file that its owner alone can read
    )

    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / CONFIG).write_text(
        json.dumps(_FIXED | dataclasses.asdict(config), indent=2) + "\n"
    )
    flat = flatten_dict(params, sep=".")
    tensors = {
        _torch_name(path): np.ascontiguousarray(np.transpose(leaf, _TO_TORCH[leaf.ndim]))
        for path, leaf in flat.items()
    }
    (directory / WEIGHTS).write_bytes(serialized(tensors, {"format": "pt"}))


# ------------------------------------------------------------------------------------------------------------------------ the module


def _module(config: Autoencoder, dtype: Any = jnp.float32):
    try:
        from diffusers.models.vae_flax import FlaxAutoencoderKL, logger
    except ImportError as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"diffusers: its Flax autoencoder is not there ({reason}); pip install 'diffusers<0.40', or use --space=pixel"
        ) from None
    logger.addFilter(_is_news)
    stages = len(config.block_out_channels)
    return FlaxAutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * stages,
        up_block_types=("UpDecoderBlock2D",) * stages,
        dtype=jnp.dtype(dtype),
        **dataclasses.asdict(config),
    )


def _shapes(config: Autoencoder) -> Params:
    frames = jnp.zeros((1, 3, 16, 16))  # diffusers' __call__ is NCHW
    return jax.eval_shape(_module(config).init, jax.random.key(0), frames)["params"]


def _is_news(record) -> bool:
    return not record.getMessage().startswith(
        "Flax classes are deprecated"
    )  # once a layer and trace; the version is pinned


# --------------------------------------------------------------------------------------------------------------------- finding files


def _local_files(where: str | pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    root = pathlib.Path(where)
    folder = next((f for f in (root, root / "vae") if (f / CONFIG).is_file()), None)
    if folder is None:
        raise UserError(
            f"--vae={where}: expected a folder with {CONFIG} and {WEIGHTS} (itself or in vae/), found no {CONFIG}; {WAYS_OUT}"
        )
    if not (folder / WEIGHTS).is_file():
        pickles = sorted(f.name for f in folder.glob("*.bin"))
        found, remedy = (
            (pickles[0], CONVERT) if pickles else ("none", "download that file into the folder")
        )
        raise UserError(f"--vae={where}: expected {folder / WEIGHTS}, found {found}; {remedy}")
    return folder / CONFIG, folder / WEIGHTS


def _hub_files(where: str) -> tuple[pathlib.Path, pathlib.Path]:
    import httpx
    from huggingface_hub.errors import HFValidationError, RemoteEntryNotFoundError

    remedies = {
        CONFIG: "give an autoencoder's own repository, or a download of this one by --vae=DIR",
        WEIGHTS: CONVERT,
    }
    found = []
    for file, remedy in remedies.items():
        try:
            found.append(_download(where, file))
        except RemoteEntryNotFoundError:
            raise UserError(
                f"--vae={where}: expected {file} at the top of that Hugging Face repository, found none; {remedy}"
            ) from None
        except HFValidationError:
            raise UserError(
                f"--vae={where}: no such folder, and not the form of a Hugging Face id; {WAYS_OUT}"
            ) from None
        except (OSError, httpx.HTTPError) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
            raise UserError(
                f"--vae={where}: neither a folder here nor to be had from Hugging Face ({reason}); {WAYS_OUT}"
            ) from None
    return found[0], found[1]


def _download(repository: str, file: str) -> pathlib.Path:
    import huggingface_hub as hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return pathlib.Path(
            hub.hf_hub_download(repository, file, local_files_only=True)
        )  # from the cache, no network
    except LocalEntryNotFoundError:
        hub.get_hf_file_metadata(
            hub.hf_hub_url(repository, file), timeout=5
        )  # fails at once where hf_hub_download retries for 25 s
        return pathlib.Path(hub.hf_hub_download(repository, file, etag_timeout=5))


# --------------------------------------------------------------------------------------------------------------------- reading files

_FIXED = {  # what `encode` and `decode` take for granted; later families (SD3, Flux) differ in some of these
    "_class_name": "AutoencoderKL",
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "act_fn": "silu",
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "mid_block_add_attention": True,
    "use_quant_conv": True,
    "use_post_quant_conv": True,
    "shift_factor": None,
    "latents_mean": None,
    "latents_std": None,
}


def _read_config(file: pathlib.Path) -> Autoencoder:
    try:
        content = json.loads(file.read_text())
    except ValueError as error:
        raise UserError(f"{file}: not readable as JSON ({error}); download it again") from None
    for name, expected in _FIXED.items():
        if content.get(name, expected) != expected:
            raise UserError(
                f"{file}: expected {name} {expected!r}, found {content[name]!r}; "
                "give an autoencoder of Stable Diffusion 1 or 2, such as stabilityai/sd-vae-ft-mse"
            )
    fields = {f.name: content[f.name] for f in dataclasses.fields(Autoencoder) if f.name in content}
    config = Autoencoder(
        **fields | {"block_out_channels": tuple(content.get("block_out_channels", ()))}
    )
    if len(config.block_out_channels) != 4 or any(
        c % config.norm_num_groups for c in config.block_out_channels
    ):
        raise UserError(
            f"{file}: expected four block_out_channels, multiples of norm_num_groups {config.norm_num_groups}, "
            f"found {list(config.block_out_channels)}; download it again"
        )
    return config


# Flax names a layer `up_blocks_0.resnets_1.conv1.kernel` where PyTorch has `up_blocks.0.resnets.1.conv1.weight`, and keeps diffusers' old
# names of the attention layers, which some PyTorch files have too. Convolutions are HWIO here and OIHW there, matrices transposed.
_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_TO_TORCH = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}
_FROM_TORCH = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}


def _torch_name(path: str) -> str:
    name = re.sub(r"_(\d+)\.", r".\1.", path)
    return _new_name(re.sub(r"\.(kernel|scale)$", ".weight", name))


def _new_name(name: str) -> str:
    return re.sub(
        r"(?<=attentions\.0\.)(query|key|value|proj_attn)(?=\.)",
        lambda old: _ATTENTION[old[0]],
        name,
    )


def _read_params(file: pathlib.Path, config: Autoencoder, dtype: Any) -> Params:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        found = {_new_name(name): tensor for name, tensor in load_file(file).items()}
    except SafetensorError as error:
        size = file.stat().st_size
        raise UserError(
            f"{file}: not a whole safetensors file ({error}; {size} bytes); download it again (git clone needs git-lfs)"
        ) from None
    expected = {
        _torch_name(path): (path, leaf)
        for path, leaf in flatten_dict(_shapes(config), sep=".").items()
    }
    missing, superfluous = (
        sorted(expected.keys() - found.keys()),
        sorted(found.keys() - expected.keys()),
    )
    if missing or superfluous:
        parts = [
            f"{len(names)} {what} (first: {names[0]})"
            for names, what in ((missing, "missing"), (superfluous, "superfluous"))
            if names
        ]
        raise UserError(
            f"{file}: tensors do not match {CONFIG}: {', '.join(parts)}; both files must come from one diffusers AutoencoderKL"
        )
    flat = {}
    for name, (path, leaf) in expected.items():
        tensor, shape = found[name], tuple(leaf.shape[axis] for axis in _TO_TORCH[leaf.ndim])
        if tensor.shape == (
            *shape,
            1,
            1,
        ):  # the oldest files hold attention matrices as 1×1 convolutions
            tensor = tensor.reshape(shape)
        if tensor.shape != shape:
            raise UserError(
                f"{file}: {name} has shape {tensor.shape}, expected {shape} by {CONFIG}; both files must come from one autoencoder"
            )
        flat[path] = jnp.asarray(tensor.transpose(_FROM_TORCH[tensor.ndim]), dtype)
    return unflatten_dict(flat, sep=".")

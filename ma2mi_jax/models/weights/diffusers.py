"""The files of a Stable-Diffusion autoencoder in diffusers' format: from a folder or the Hugging
Face hub, and to a folder. Needs no torch, and only reads safetensors.

Flax names a layer `up_blocks_0.resnets_1.conv1.kernel` where PyTorch has
`up_blocks.0.resnets.1.conv1.weight`. Flax also keeps diffusers' old names of the attention layers,
which some PyTorch files have too.
"""

import contextlib
import dataclasses
import pathlib
import re
from typing import Any

import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from ma2mi_jax import files, hub
from ma2mi_jax.errors import UserError
from ma2mi_jax.models.autoencoder import Autoencoder, Params, shapes
from ma2mi_jax.models.weights import tensors
from ma2mi_jax.schema import mismatch

SD_VAE_HUB = "stabilityai/sd-vae-ft-mse"  # the autoencoder that DiT used
CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
HALF = tuple(WEIGHTS.replace(".", f".{kind}.", 1) for kind in ("fp16", "bf16"))
"""The same weights in half precision, which are taken where there are no others."""


def load(where: str | pathlib.Path, dtype: Any = jnp.float32) -> tuple[Autoencoder, Params]:
    """Reads an autoencoder.

    Args:
      where: a folder with `config.json` and `diffusion_pytorch_model.safetensors`, itself or in
        `vae/`; or the id of a Hugging Face repository that has both at its top. The cache of
        Hugging Face is asked before the network.
      dtype: of the parameters.

    Returns:
      The network and its weights.

    Raises:
      UserError: nothing is there; or there is no network and nothing in the cache; or it is another
        kind of autoencoder; or the tensors do not fit `config.json`.
    """
    config, weights_file = locate(where)
    return config, _read_params(weights_file, config, dtype)


def locate(where: str | pathlib.Path) -> tuple[Autoencoder, pathlib.Path]:
    """The network, and the file of its weights, which is not read. Args and errors as of `load`."""
    is_here = pathlib.Path(where).exists()
    config_file, weights_file = _local_files(where) if is_here else _hub_files(str(where))
    return _read_config(config_file), weights_file


def save(directory: str | pathlib.Path, config: Autoencoder, params: Params) -> None:
    """Writes a folder that `load` and PyTorch's `AutoencoderKL.from_pretrained` can read."""
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    files.write_json(directory / CONFIG, _FIXED | dataclasses.asdict(config))
    flat = flatten_dict(params, sep=".")
    named = {_torch_name(path): tensors.to_torch(leaf) for path, leaf in flat.items()}
    tensors.write(directory / WEIGHTS, named)


# ----- finding files -----------------------------------------------------------------------------


def _local_files(where: str | pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    root = pathlib.Path(where)
    folder = next((f for f in (root, root / "vae") if (f / CONFIG).is_file()), None)
    if folder is None:
        raise _no_autoencoder(
            where,
            f"expected a folder with {CONFIG} and {WEIGHTS} (itself or in vae/), found no {CONFIG}",
        )

    config, weights = folder / CONFIG, folder / WEIGHTS
    there = [folder / name for name in (WEIGHTS, *HALF) if (folder / name).is_file()]
    if not there:
        pickles = sorted(file.name for file in folder.glob("*.bin"))
        if pickles:
            raise _no_safetensors(where, f"expected {weights}, found {pickles[0]}")
        raise UserError(
            "[vae={where}]: expected {weights}, found none; download that file into the folder",
            where=where,
            weights=weights,
        )
    return config, there[0]


def _hub_files(where: str) -> tuple[pathlib.Path, pathlib.Path]:
    from huggingface_hub.errors import RemoteEntryNotFoundError

    try:
        config = _download(where, CONFIG)
    except RemoteEntryNotFoundError:
        raise UserError(
            "[vae={where}]: expected {file} at the top of that Hugging Face repository, found "
            "none; give an autoencoder's own repository, or a download of this one by [vae=DIR]",
            where=where,
            file=CONFIG,
        ) from None

    for name in (WEIGHTS, *HALF):
        with contextlib.suppress(RemoteEntryNotFoundError):
            return config, _download(where, name)
    raise _no_safetensors(
        where, f"expected {WEIGHTS} at the top of that Hugging Face repository, found none"
    )


def _download(where: str, file: str) -> pathlib.Path:
    """The file in the cache of Hugging Face, fetched if it is not there yet.

    Raises:
      RemoteEntryNotFoundError: the repository has no such file.
      UserError: it cannot be fetched.
    """
    import httpx
    from huggingface_hub.errors import HFValidationError, RemoteEntryNotFoundError

    try:
        return hub.fetch(where, file)
    except RemoteEntryNotFoundError:
        raise
    except HFValidationError:
        problem = "no such folder, and not the form of a Hugging Face id"
        raise _no_autoencoder(where, problem) from None
    except (OSError, httpx.HTTPError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
        problem = f"no such folder, and Hugging Face does not give it ({reason})"
        raise _no_autoencoder(where, problem) from None


def _no_autoencoder(where: str | pathlib.Path, problem: str) -> UserError:
    return UserError(
        "[vae={where}]: {problem}; give a local diffusers folder by [vae=DIR], or use a machine "
        "with network or with these weights in its Hugging Face cache, or train without an "
        "autoencoder by [space=pixel]",
        where=where,
        problem=problem,
    )


def _no_safetensors(where: str | pathlib.Path, problem: str) -> UserError:
    return UserError(
        "[vae={where}]: {problem}; only safetensors are read, never a pickle; convert them once "
        'where torch is installed: python -c "from diffusers import AutoencoderKL as A; '
        "A.from_pretrained('IN').save_pretrained('OUT')\", then give [vae=OUT]",
        where=where,
        problem=problem,
    )


# ----- reading files -----------------------------------------------------------------------------

# What `encode` and `decode` rely on. Later families (SD3, Flux) differ in some of these.
_FIXED = {
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


_BOUNDS = {  # type, least and most
    "block_out_channels": (list[int], 1, 1 << 14),
    "layers_per_block": (int, 1, 64),
    "latent_channels": (int, 1, 64),
    "norm_num_groups": (int, 1, 1 << 14),
    "scaling_factor": (float, 1e-6, 1e6),
}


def _read_config(file: pathlib.Path) -> Autoencoder:
    content = files.read_json(file, "download it again", dict[str, Any])
    for name, expected in _FIXED.items():
        if content.get(name, expected) != expected:
            raise UserError(
                "{file}: expected {name} {expected!r}, found {found!r}; give an autoencoder of "
                "Stable Diffusion 1 or 2, such as {hub}",
                file=file,
                name=name,
                expected=expected,
                found=content[name],
                hub=SD_VAE_HUB,
            )

    for name, (hint, least, most) in _BOUNDS.items():
        value = content.get(name, getattr(Autoencoder, name))
        values = value if isinstance(value, list | tuple) else [value]
        if (what := mismatch(list(value) if values is value else value, hint, name)) or not all(
            least <= each <= most for each in values
        ):
            raise UserError(
                "{file}: {what}; download it again",
                file=file,
                what=what or f"{name}: expected {least:g} to {most:g}, found {value!r}",
            )

    fields = {f.name: content[f.name] for f in dataclasses.fields(Autoencoder) if f.name in content}
    channels = tuple(content.get("block_out_channels", ()))
    config = Autoencoder(**fields | {"block_out_channels": channels})
    groups = config.norm_num_groups
    if len(channels) != 4 or any(channel % groups for channel in channels):
        raise UserError(
            "{file}: expected four block_out_channels, multiples of norm_num_groups {groups}, "
            "found {found}; download it again",
            file=file,
            groups=groups,
            found=list(channels),
        )
    return config


def _read_params(file: pathlib.Path, config: Autoencoder, dtype: Any) -> Params:
    found = {_new_name(name): tensor for name, tensor in tensors.read(file).items()}
    leaves = flatten_dict(shapes(config), sep=".")
    expected = {_torch_name(path): (path, leaf) for path, leaf in leaves.items()}
    if difference := tensors.difference(expected, found):
        raise UserError(
            "{file}: its tensors do not match {config}: {difference}; both files must come from "
            "one diffusers AutoencoderKL",
            file=file,
            config=CONFIG,
            difference=difference,
        )

    flat = {}
    for name, (path, leaf) in expected.items():
        tensor, shape = found[name], tensors.torch_shape(leaf.shape)
        # the oldest files keep the matrices of attention as 1×1 convolutions
        if tensor.shape == (*shape, 1, 1):
            tensor = tensor.reshape(shape)
        if tensor.shape != shape:
            raise UserError(
                "{file}: {name} has shape {found}, expected {expected} by {config}; both files "
                "must come from one autoencoder",
                file=file,
                name=name,
                found=tensor.shape,
                expected=shape,
                config=CONFIG,
            )
        if what := tensors.impossible(name, tensor):
            raise tensors.refusal(file, what)
        flat[path] = jnp.asarray(tensors.from_torch(tensor), dtype)
    return unflatten_dict(flat, sep=".")


# ----- names -------------------------------------------------------------------------------------

_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_OLD_ATTENTION = re.compile(r"(?<=attentions\.0\.)(query|key|value|proj_attn)(?=\.)")


def _torch_name(path: str) -> str:
    """PyTorch's name of the parameter at this path in Flax."""
    name = re.sub(r"_(\d+)\.", r".\1.", path)
    return _new_name(re.sub(r"\.(kernel|scale)$", ".weight", name))


def _new_name(name: str) -> str:
    """The name with which diffusers writes this tensor today."""
    return _OLD_ATTENTION.sub(lambda old: _ATTENTION[old[0]], name)

"""ResNet18 weights in and out: one encoder as a safetensors file under torchvision's names, and such a file as one encoder. No torch.

timm's `resnet18` has torchvision's names and geometry. Convolutions are HWIO here and OIHW there.

BatchNorm: PyTorch's momentum 0.1 is Flax's 0.9, and ε is 1e-5 in both. PyTorch's `running_var` averages unbiased batch variances, Flax's
biased ones; the factor n/(n − 1), n = B·H·W, is 1.001 at 8×8 places and B = 16. A file does not tell n, so statistics stay as they are.

Inputs: weights are taken and given as they are. ImageNet's were trained on z = (x' − mean)/std of x' in [0, 1]; our encoders see x in
[−1, 1], and z is 2.18 to 2.23 x, by channel, plus 0.07 to 0.42. BatchNorm on a batch's own statistics takes that away but for the border,
where zero padding is another colour (random weights, smooth images, 256 px: bn1's output for x is within 5 % of that for z, within 1 % away
from the border). Folding z into conv1 would be wrong at the same places, and is not done. A file's running statistics, however, fit z and
not x, still less the differences that the action encoder sees: an ImageNet encoder is to be trained before it predicts.
"""

import pathlib
import re
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from ma2mi_jax import __version__
from ma2mi_jax.errors import UserError
from ma2mi_jax.files import sha256, whole
from ma2mi_jax.models.architecture import Architecture
from ma2mi_jax.models.resnet import ResNet18

INPUTS = {
    "action_encoder": "later frame minus frame, both RGB in [-1, 1]",
    "position_encoder": "frame, RGB in [-1, 1]",
}


def to_torchvision(params: Any, batch_stats: Any) -> dict[str, np.ndarray]:
    """One `ResNet18`, such as `params["miacnet"]["action_encoder"]`, as a state dict of torchvision's without `fc`.

    Returns:
      120 float32 arrays, but for `num_batches_tracked`: int64 0, since it is unknown and PyTorch does not use it at a fixed momentum.
    """
    tensors = {}
    for path, leaf in flatten_dict({"params": params, "batch_stats": batch_stats}).items():
        leaf = np.array(leaf, np.float32)
        tensors[_torch_name(path)] = (
            np.ascontiguousarray(leaf.transpose(3, 2, 0, 1)) if leaf.ndim == 4 else leaf
        )
    norms = [name.removesuffix("running_var") for name in tensors if name.endswith("running_var")]
    return tensors | {f"{norm}num_batches_tracked": np.zeros((), np.int64) for norm in norms}


def from_torchvision(
    tensors: Mapping[str, np.ndarray], width: int, source: str = "these tensors"
) -> tuple[Any, Any]:
    """The inverse of `to_torchvision`: (params, batch_stats) of a `ResNet18(width)`, float32.

    Args:
      tensors: floating-point arrays of any precision under torchvision's names, all after one prefix (`module.`, `backbone.`, ...) if any;
        `fc.*`, `num_batches_tracked` and what lies outside the prefix are left alone.
      source: what the errors call `tensors`.

    Raises:
      UserError: no ResNet18 there or more than one; tensors missing, unknown, of another shape or no floating-point numbers.
    """
    trunk = _trunk(tensors, source)
    layout = _layout(width)
    missing, unknown = sorted(layout.keys() - trunk.keys()), sorted(trunk.keys() - layout.keys())
    if missing or unknown:
        parts = [
            f"{len(names)} {what} (first: {names[0]})"
            for names, what in ((missing, "missing"), (unknown, "unknown"))
            if names
        ]
        raise UserError(
            f"{source}: not the tensors of a ResNet18: {', '.join(parts)}; give weights of torchvision's or timm's resnet18"
        )
    found = trunk["conv1.weight"].shape[0]
    if found != width:
        raise UserError(
            f"{source}: a ResNet18 of width {found}, expected width {width}; choose a --preset of that width (paper has 64)"
        )
    flat = {}
    for name, (path, shape) in layout.items():
        tensor = trunk[name]
        if tensor.shape != shape or not jnp.issubdtype(tensor.dtype, jnp.floating):
            raise UserError(
                f"{source}: {name} is {tensor.dtype}{list(tensor.shape)}, expected floating-point numbers {list(shape)}; "
                "give weights of torchvision's or timm's resnet18 for RGB images"
            )
        flat[path] = jnp.array(
            tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor, jnp.float32
        )
    variables = unflatten_dict(flat)
    return variables["params"], variables["batch_stats"]


def write(
    path: str | pathlib.Path,
    params: Any,
    batch_stats: Any,
    encoder: Literal["action_encoder", "position_encoder"],
) -> None:
    """Writes `to_torchvision(params, batch_stats)` as a safetensors file whose metadata say what it is; makes the folder.

    Raises:
      UserError: the file cannot be written.
    """
    path = pathlib.Path(path)
    metadata = {
        "format": "pt",
        "network": "ResNet18, torchvision's names, without fc",
        "encoder": encoder,
        "input": INPUTS[encoder],
    }
    content = save(
        to_torchvision(params, batch_stats), metadata | {"library": f"ma2mi_jax {__version__}"}
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as temporary:
            temporary.write_bytes(
                content
            )  # safetensors' own save_file makes a file that its owner alone can read
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); give another folder"
        ) from None


def read(path: str | pathlib.Path, width: int) -> tuple[Any, Any]:
    """(params, batch_stats) of a `ResNet18(width)` from a safetensors file of torchvision's, timm's or `write`.

    Raises:
      UserError: no such file, a pickle, not a whole safetensors file, or as `from_torchvision`.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise UserError(
            f"{path}: no such file; expected the weights of a ResNet18, a .safetensors file"
        )
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise UserError(_refusal(path, error)) from None
    return from_torchvision(tensors, width, str(path))


def read_encoders(path: str | pathlib.Path, architecture: Architecture) -> tuple[Any, Any]:
    """MIACNet's (params, batch_stats), each encoder as `read` finds it in the one file. Raises as `read`."""
    params, batch_stats = read(path, architecture.width)
    encoders = ("action_encoder", "position_encoder")[: 1 if architecture.fusion == "action" else 2]
    return dict.fromkeys(encoders, params), dict.fromkeys(encoders, batch_stats)


def fingerprint(path: str | pathlib.Path) -> str:
    """What names a weight file in a run's configuration: `weights` and 16 hexadecimal digits of its content's hash."""
    return f"weights {sha256(path)[:16]}"


# -------------------------------------------------------------------------------------------------------------------------------- names

_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
_ANCHOR = "layer1.0.conv1.weight"  # in every ResNet of torchvision's names; what stands before it is the prefix


def _torch_name(path: tuple[str, ...]) -> str:
    """("params", "layer2_0", "downsample_bn", "scale") -> layer2.0.downsample.1.weight"""
    _, *modules, leaf = path
    name = ".".join([*modules, _LEAVES[leaf]])
    return (
        re.sub(r"_(\d)\.", r".\1.", name)
        .replace("downsample_conv", "downsample.0")
        .replace("downsample_bn", "downsample.1")
    )


def _layout(width: int) -> dict[str, tuple[tuple[str, ...], tuple[int, ...]]]:
    """torchvision's name -> (path in Flax's variables, torchvision's shape)."""
    variables = jax.eval_shape(
        lambda: ResNet18(width).init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), False)
    )
    shapes = {path: leaf.shape for path, leaf in flatten_dict(variables).items()}
    return {
        _torch_name(path): (path, (s[3], s[2], s[0], s[1]) if len(s) == 4 else s)
        for path, s in shapes.items()
    }


def _trunk(tensors: Mapping[str, np.ndarray], source: str) -> dict[str, np.ndarray]:
    """What stands after the one prefix, without the classifier and the counters."""
    prefixes = sorted(
        name.removesuffix(_ANCHOR)
        for name in tensors
        if re.fullmatch(rf"(.*\.)?{re.escape(_ANCHOR)}", name)
    )
    if len(prefixes) != 1:
        found = f"{len(prefixes)} networks ({', '.join(p or 'no prefix' for p in prefixes)})"
        if not prefixes:
            found = f"no {_ANCHOR} among {len(tensors)} tensors" + (
                f" (first: {min(tensors)})" if tensors else ""
            )
        raise UserError(
            f"{source}: expected one ResNet18 under torchvision's names, found {found}; give weights of its or timm's resnet18"
        )
    inside = {
        name.removeprefix(prefixes[0]): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefixes[0])
    }
    return {
        name: tensor
        for name, tensor in inside.items()
        if not re.search(r"^fc\.|\.num_batches_tracked$", name)
    }


def _refusal(path: pathlib.Path, error: SafetensorError) -> str:
    with path.open("rb") as file:
        zipped = file.read(4) == b"PK\x03\x04"  # what torch.save makes
    if not zipped and path.suffix not in (".pth", ".pt", ".bin", ".ckpt", ".tar", ".pkl"):
        return f"{path}: not a whole safetensors file ({error}; {path.stat().st_size} bytes); download it again (git clone needs git-lfs)"
    load, to = f"torch.load({str(path)!r}, 'cpu', weights_only=True)", f"{path}.safetensors"
    return (
        f"{path}: expected a safetensors file, found a pickle of PyTorch's, which is never read; convert it once where torch is installed: "
        f"python -c \"import torch, safetensors.torch as s; w = {load}; s.save_file(w.get('state_dict', w), {to!r})\""
    )

"""ResNet18 weights under torchvision's names: an encoder to a safetensors file, and such a file to
an encoder. Needs no torch.

timm's `resnet18` has torchvision's names and geometry.

BatchNorm: PyTorch's momentum 0.1 is Flax's 0.9, and ε is 1e-5 in both. PyTorch's `running_var`
averages unbiased variances of batches, Flax's averages biased ones. They differ by n/(n − 1), where
n = B·H·W; this is 1.001 at 8×8 places and B = 16. A file does not contain n, so the statistics stay
as they are.

Inputs: weights are taken and given as they are. ImageNet's weights were trained on
z = (x' − mean)/std of x' in [0, 1]. Our encoders see x in [−1, 1], and z is 2.18 to 2.23 times x,
depending on the channel, plus 0.07 to 0.42. BatchNorm on the statistics of a batch removes this
difference, except at the border, where zero padding is another colour. (With random weights and
smooth images at 256 px, the output of bn1 for x is within 5 % of that for z, and within 1 % away
from the border.) Folding z into conv1 would be wrong at the same places, so it is not done. With
the normalisation `imagenet` the encoders see z itself, and differences of it. But the running
statistics of such a file do not fit differences, which the action encoder sees, and without that
normalisation they fit z and not x: an ImageNet encoder must be trained before it predicts.
"""

import pathlib
import re
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from ma2mi_jax import __version__
from ma2mi_jax.errors import UserError
from ma2mi_jax.files import sha256, unwritable
from ma2mi_jax.models.architecture import Architecture
from ma2mi_jax.models.miacnet import Normalisation
from ma2mi_jax.models.resnet import BLOCKS, ResNet18
from ma2mi_jax.models.weights import tensors as weights

SEEN = {None: "RGB in [-1, 1]", "imagenet": "RGB normalised by ImageNet's mean and std"}
INPUTS = {
    "action_encoder": "later frame minus frame, both {}",
    "position_encoder": "frame, {}",
}


def to_torchvision(params: Any, batch_stats: Any) -> dict[str, np.ndarray]:
    """The state dict of one `ResNet18`, such as `params["miacnet"]["action_encoder"]`, without
    `fc`.

    Returns:
      120 arrays under torchvision's names. All are float32 except `num_batches_tracked`, which is
      int64 0: it is not known, and PyTorch does not use it if the momentum is fixed.
    """
    variables = flatten_dict({"params": params, "batch_stats": batch_stats})
    tensors = {
        _torch_name(path): weights.to_torch(np.array(leaf, np.float32))
        for path, leaf in variables.items()
    }
    norms = [name.removesuffix("running_var") for name in tensors if name.endswith("running_var")]
    return tensors | {f"{norm}num_batches_tracked": np.zeros((), np.int64) for norm in norms}


def from_torchvision(
    tensors: Mapping[str, np.ndarray],
    width: int,
    source: str = "these tensors",
    network: str = "",
    blocks: tuple[int, ...] = BLOCKS,
) -> tuple[Any, Any]:
    """The inverse of `to_torchvision`.

    Args:
      tensors: floating-point arrays of any precision under torchvision's names. All may have one
        prefix (`module.`, `backbone.`, ...). `fc.*`, `num_batches_tracked` and names without the
        prefix are ignored.
      width: of the ResNet18: the number of features of its first stage.
      source: what the errors call `tensors`.
      network: the prefix of the one to take, or its end, where there are several: `encoder_q`.
      blocks: of each stage, as in `ResNet18`.

    Returns:
      (params, batch_stats) of a `ResNet18(width)`, float32.

    Raises:
      UserError: there is no ResNet18 of that name, or more than one; or tensors are missing,
        unknown, of another shape, or not floating-point numbers.
    """
    trunk = _trunk(tensors, source, network)
    layout = _layout(width, blocks)
    if difference := weights.difference(layout, trunk):
        raise UserError(
            "{source}: not the tensors of a ResNet18: {difference}; give weights of torchvision's "
            "or timm's resnet18",
            source=source,
            difference=difference,
        )
    found = sum(trunk["conv1.weight"].shape[:1])  # 0 of what is no array at all
    if found != width:
        raise UserError(
            "{source}: a ResNet18 of width {found}, expected width {width}; give a [preset] of "
            "that width (paper has 64)",
            source=source,
            found=found,
            width=width,
        )

    flat = {}
    for name, (path, shape) in layout.items():
        tensor = trunk[name]
        if tensor.shape != shape or not jnp.issubdtype(tensor.dtype, jnp.floating):
            raise UserError(
                "{source}: {name} is {dtype}{found}, expected floating-point numbers {shape}; "
                "give weights of torchvision's or timm's resnet18 for RGB images",
                source=source,
                name=name,
                dtype=tensor.dtype,
                found=list(tensor.shape),
                shape=list(shape),
            )
        if what := weights.impossible(name, tensor):
            raise weights.refusal(source, what)
        flat[path] = jnp.array(weights.from_torch(tensor), jnp.float32)
    variables = unflatten_dict(flat)
    return variables["params"], variables["batch_stats"]


def write(
    path: str | pathlib.Path,
    params: Any,
    batch_stats: Any,
    encoder: Literal["action_encoder", "position_encoder"],
    normalisation: Normalisation | None = None,
) -> None:
    """Writes `to_torchvision(params, batch_stats)` as a safetensors file; makes its folder.

    The metadata of the file say what the network is and what it was trained to see.

    Raises:
      UserError: the file cannot be written.
    """
    path = pathlib.Path(path)
    metadata = {
        "network": "ResNet18, torchvision's names, without fc",
        "encoder": encoder,
        "input": INPUTS[encoder].format(SEEN[normalisation]),
        "library": f"ma2mi_jax {__version__}",
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        weights.write(path, to_torchvision(params, batch_stats), metadata)
    except OSError as error:
        raise unwritable(path, error) from None


def read(path: str | pathlib.Path, width: int, blocks: tuple[int, ...] = BLOCKS) -> tuple[Any, Any]:
    """(params, batch_stats) of a `ResNet18(width)` from a file of torchvision's, timm's or `write`.

    Args:
      path: `FILE`, or `FILE#NETWORK` for one of several in it, see `from_torchvision`.
      width, blocks: of the network.

    Raises:
      UserError: there is no such file, or it is not a safetensors file, or as `from_torchvision`.
    """
    path, network = located(path)
    if not path.is_file():
        raise UserError(
            "{path}: no such file; expected the weights of a ResNet18, give a .safetensors file",
            path=path,
        )
    return from_torchvision(weights.read(path), width, str(path), network, blocks)


def located(path: str | pathlib.Path) -> tuple[pathlib.Path, str]:
    """File and network of `FILE#NETWORK`; the network is empty where none is named."""
    if pathlib.Path(path).is_file() or "#" not in pathlib.Path(path).name:
        return pathlib.Path(path), ""
    file, _, network = str(path).rpartition("#")
    return pathlib.Path(file), network


def read_encoders(path: str | pathlib.Path, architecture: Architecture) -> tuple[Any, Any]:
    """MIACNet's (params, batch_stats), where every encoder has the weights that `read` returns.

    Raises:
      UserError: as `read`.
    """
    params, batch_stats = read(path, architecture.width, architecture.encoder_blocks)
    encoders = ("action_encoder", "position_encoder")[: 1 if architecture.fusion == "action" else 2]
    return dict.fromkeys(encoders, params), dict.fromkeys(encoders, batch_stats)


def fingerprint(path: str | pathlib.Path) -> str:
    """The name of weights in a run's configuration: `weights`, 16 digits of the file's hash, and
    the network that is taken of it, if it is named."""
    file, network = located(path)
    return f"weights {sha256(file)[:16]}" + (f"#{network}" if network else "")


# ----- names -------------------------------------------------------------------------------------

_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
# A tensor of every ResNet with torchvision's names. What stands before it is the prefix.
_ANCHOR = "layer1.0.conv1.weight"


def _torch_name(path: tuple[str, ...]) -> str:
    """("params", "layer2_0", "downsample_bn", "scale") -> layer2.0.downsample.1.weight"""
    _, *modules, leaf = path
    name = ".".join([*modules, _LEAVES[leaf]])
    name = re.sub(r"_(\d)\.", r".\1.", name)
    name = name.replace("downsample_conv", "downsample.0")
    return name.replace("downsample_bn", "downsample.1")


def _layout(
    width: int, blocks: tuple[int, ...]
) -> dict[str, tuple[tuple[str, ...], tuple[int, ...]]]:
    """torchvision's name -> (path in Flax's variables, torchvision's shape)."""
    network = ResNet18(width, blocks=blocks)
    variables = jax.eval_shape(
        lambda: network.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), False)
    )
    return {
        _torch_name(path): (path, weights.torch_shape(leaf.shape))
        for path, leaf in flatten_dict(variables).items()
    }


def _trunk(tensors: Mapping[str, np.ndarray], source: str, network: str) -> dict[str, np.ndarray]:
    """What comes after the one prefix, without the classifier and the counters."""
    anchors = [name for name in tensors if re.fullmatch(rf"(.*\.)?{re.escape(_ANCHOR)}", name)]
    there = sorted(name.removesuffix(_ANCHOR) for name in anchors)
    prefixes = [each for each in there if f".{each}".endswith(f".{network}.")] if network else there
    if not there:
        first = f" (first: {min(tensors)})" if tensors else ""
        raise UserError(
            "{source}: expected one ResNet18 under torchvision's names, found no {anchor} among "
            "{count} tensors{first}; give weights of torchvision's or timm's resnet18",
            source=source,
            anchor=_ANCHOR,
            count=len(tensors),
            first=first,
        )
    if len(prefixes) != 1:
        raise UserError(
            "{source}: expected one ResNet18{named} under torchvision's names, found {count} "
            "networks ({names}); choose one by its prefix: FILE#{last}",
            source=source,
            named=f" called {network}" if network else "",
            count=len(there),
            names=", ".join(each or "no prefix" for each in there),
            last=there[-1].rstrip("."),
        )

    (prefix,) = prefixes
    inside = {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
    ignored = re.compile(r"^fc\.|\.num_batches_tracked$")
    return {name: tensor for name, tensor in inside.items() if not ignored.search(name)}

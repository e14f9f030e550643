"""What the files of weights of different programs have in common.

They are safetensors files, written by PyTorch or for it. PyTorch keeps convolutions as OIHW and
Flax as HWIO; matrices are transposed; vectors are the same.
"""

import pathlib
from collections.abc import Collection

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file
from safetensors.numpy import save as serialized

from ma2mi_jax.errors import UserError
from ma2mi_jax.files import fingerprint, opened, whole

CHECKSUM = "ma2mi_sha256"  # in the metadata of the files we write
_TO_TORCH = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}  # axes, by the number of dimensions
_FROM_TORCH = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}
_PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".tar", ".pkl")


def to_torch(leaf: np.ndarray) -> np.ndarray:
    """A parameter of Flax, of 1, 2 or 4 dimensions, as PyTorch keeps it."""
    return np.ascontiguousarray(np.transpose(leaf, _TO_TORCH[leaf.ndim]))


def from_torch(tensor: np.ndarray) -> np.ndarray:
    """The inverse of `to_torch`."""
    return np.transpose(tensor, _FROM_TORCH[tensor.ndim])


def torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in PyTorch of a parameter that has this shape in Flax."""
    return tuple(shape[axis] for axis in _TO_TORCH[len(shape)])


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file, by name.

    Raises:
      UserError: the file is a pickle, which is never read, or not a whole safetensors file.
    """
    with opened(path):  # no pipe, for which safetensors would wait
        pass
    try:
        with safe_open(path, "np") as file:
            written = (file.metadata() or {}).get(CHECKSUM)
        tensors = load_file(path)
    # numpy has no numbers of 8 bits: KeyError, TypeError or AttributeError by the version
    except (SafetensorError, KeyError, TypeError, AttributeError, ValueError) as error:
        if _is_pickle(path):
            raise _pickle(path) from None
        raise UserError(
            "{path}: not a whole safetensors file ({reason}; {size} bytes); download it again "
            "(git clone needs git-lfs)",
            path=path,
            reason=error if isinstance(error, SafetensorError) else f"numpy cannot read {error}",
            size=path.stat().st_size,
        ) from None
    if written not in (None, _checksum(tensors)):
        raise UserError(
            "{path}: damaged, for its weights are not those that were written; copy the file "
            "again, or export it again",
            path=path,
        )
    return tensors


def _checksum(tensors: dict[str, np.ndarray]) -> str:
    """Of names and content; files of other programs have none."""
    parts = ((name, np.ascontiguousarray(tensors[name]).tobytes()) for name in sorted(tensors))
    return fingerprint((part for pair in parts for part in pair), digits=64)


def write(
    path: pathlib.Path, tensors: dict[str, np.ndarray], metadata: dict[str, str] | None = None
) -> None:
    """Writes a safetensors file for PyTorch, whole or not at all.

    Raises:
      OSError: the file cannot be written.
    """
    metadata = {"format": "pt", CHECKSUM: _checksum(tensors)} | (metadata or {})
    content = serialized(tensors, metadata)
    # safetensors' own `save_file` makes a file that only its owner can read
    with whole(path) as temporary:
        temporary.write_bytes(content)


def impossible(name: str, tensor: np.ndarray) -> str:
    """Why a tensor of this name is no weight; empty if it may be one."""
    values = np.asarray(tensor, np.float32)
    if bad := values.size - int(np.isfinite(values).sum()):
        return f"{bad} of the {values.size} values of {name} are not finite"
    if name.endswith(("running_var", ".var")) and values.size and values.min() < 0:
        return f"{name} is a variance, and {values.min():g} is below 0"
    return ""


def refusal(path: str | pathlib.Path, what: str) -> UserError:
    """The error for a file of weights in which something is `impossible`."""
    return UserError(
        "{path}: {what}; the file is damaged, or its training had diverged: get it again",
        path=path,
        what=what,
    )


def difference(expected: Collection[str], found: Collection[str]) -> str:
    """What is missing among the names that were found, and what is unknown; empty if they agree."""
    missing, unknown = (sorted(set(a) - set(b)) for a, b in ((expected, found), (found, expected)))
    parts = [
        f"{len(names)} {what} (first: {names[0]})"
        for names, what in ((missing, "missing"), (unknown, "unknown"))
        if names
    ]
    return ", ".join(parts)


def _is_pickle(path: pathlib.Path) -> bool:
    with path.open("rb") as file:
        zipped = file.read(4) == b"PK\x03\x04"  # what torch.save makes
    return zipped or path.suffix in _PICKLES


def _pickle(path: pathlib.Path) -> UserError:
    load = f"torch.load({str(path)!r}, 'cpu', weights_only=True)"
    to = f"{path}.safetensors"
    return UserError(
        "{path}: expected a safetensors file, found a pickle of PyTorch, which is never read; "
        'convert it once where torch is installed: python -c "{command}"',
        path=path,
        command=f"import torch, safetensors.torch as s; w = {load}; "
        f"s.save_file(w.get('state_dict', w), {to!r})",
    )

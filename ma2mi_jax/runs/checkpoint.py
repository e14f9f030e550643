"""Orbax checkpoints: the training state and, with it, the place in the data."""

import pathlib
from typing import Any

import grain
import jax
import orbax.checkpoint as ocp

from ma2mi_jax.errors import UserError


def manager(directory: str | pathlib.Path, keep: int | None = 2) -> ocp.CheckpointManager:
    """Checkpoints `directory/<step>/`, the last `keep` of them (None: all); saves run in the background, so use it as a context manager."""
    return ocp.CheckpointManager(
        pathlib.Path(directory).absolute(),
        options=ocp.CheckpointManagerOptions(max_to_keep=keep, create=True),
    )


def save(checkpoints: ocp.CheckpointManager, step: int, state: Any, data: Any = None) -> None:
    """Saves `state` (a pytree of arrays) and the grain iterator `data` as `step`; returns as soon as the arrays are copied."""
    items = {"state": ocp.args.StandardSave(state)}
    if data is not None:
        items["data"] = grain.checkpoint.CheckpointSave(data)
    checkpoints.save(step, args=ocp.args.Composite(**items))


def restore(
    checkpoints: ocp.CheckpointManager, state: Any, data: Any = None, step: int | None = None
) -> Any:
    """The state saved as `step` (None: the newest), in the shapes, dtypes and shardings of `state`; moves `data` to its place.

    Args:
      state: a tree of arrays or `jax.ShapeDtypeStruct`s, which without a sharding mean the first device.
      data: the grain iterator that was saved with it, or None.

    Raises:
      UserError: there is no checkpoint, or its tree or shapes are not those of `state`.
    """
    step = checkpoints.latest_step() if step is None else step
    if step not in checkpoints.all_steps():
        raise UserError(
            f"{checkpoints.directory}: no finished checkpoint {'' if step is None else step} there; was the run interrupted?"
        )
    here = jax.sharding.SingleDeviceSharding(
        jax.devices()[0]
    )  # or orbax would ask for the devices of the machine that saved

    def shape(leaf):
        if isinstance(leaf, jax.ShapeDtypeStruct) and leaf.sharding is None:
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here)
        return ocp.utils.to_shape_dtype_struct(leaf)

    abstract = jax.tree.map(shape, state)
    items = {"state": ocp.args.StandardRestore(abstract)}
    if data is not None:
        items["data"] = grain.checkpoint.CheckpointRestore(data)
    try:
        return checkpoints.restore(step, args=ocp.args.Composite(**items))["state"]
    except (ValueError, KeyError, FileNotFoundError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{checkpoints.directory}/{step}: the checkpoint is not one of this network ({reason})"
        ) from error

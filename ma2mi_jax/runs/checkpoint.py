"""Orbax checkpoints: the training state, and with it the place in the data."""

import pathlib
from typing import Any

import grain
import jax
import orbax.checkpoint as ocp

from ma2mi_jax.errors import UserError


def manager(directory: str | pathlib.Path, keep: int | None = 2) -> ocp.CheckpointManager:
    """Checkpoints in folders `directory/<step>/`.

    They are saved in the background, so use the manager as a context manager.

    Args:
      directory: is made if necessary.
      keep: how many of the last checkpoints are kept; None keeps all.
    """
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
    return ocp.CheckpointManager(pathlib.Path(directory).absolute(), options=options)


def save(checkpoints: ocp.CheckpointManager, step: int, state: Any, data: Any = None) -> None:
    """Saves a checkpoint; returns as soon as the arrays are copied.

    Args:
      step: names the checkpoint.
      state: a tree of arrays.
      data: the grain iterator whose place is saved too, or None.
    """
    items = {"state": ocp.args.StandardSave(state)}
    if data is not None:
        items["data"] = grain.checkpoint.CheckpointSave(data)
    checkpoints.save(step, args=ocp.args.Composite(**items))


def restore(
    checkpoints: ocp.CheckpointManager, state: Any, data: Any = None, step: int | None = None
) -> Any:
    """The state that was saved as `step`; moves `data` to its place.

    Args:
      state: a tree of arrays or `jax.ShapeDtypeStruct`s, which give the shapes, dtypes and
        shardings of the result. A `ShapeDtypeStruct` without a sharding means the first device.
      data: the grain iterator that was saved with it, or None.
      step: None means the newest checkpoint.

    Raises:
      UserError: there is no checkpoint, or its tree or shapes are not those of `state`.
    """
    step = checkpoints.latest_step() if step is None else step
    if step not in checkpoints.all_steps():
        raise UserError(
            "{folder}: expected a finished checkpoint{step}, found none; the run was interrupted, "
            "start it again",
            folder=checkpoints.directory,
            step="" if step is None else f" {step}",
        )

    # without a sharding, orbax would ask for the devices of the machine that saved
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])

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
        raise UserError(
            "{folder}/{step}: this checkpoint belongs to another network, or it is damaged "
            "({reason}); give the folder of another run",
            folder=checkpoints.directory,
            step=step,
            reason=str(error).splitlines()[0],
        ) from error

"""Orbax checkpoints of the training state. The place in the data is the number of steps.

Orbax keeps no checksums of weights, and would restore a flipped bit as a weight. So each checkpoint
holds `checksums.json`, the SHA-256 of all its files, which is there before the checkpoint gets its
name. It is checked whenever the checkpoint is read. Checkpoints of earlier versions have none, and
are read unchecked.

Where several processes make one run, orbax wants to save and restore with all of them, on one disk
that all see at once. Here each process is alone to it: one of them saves, and each reads by itself.
"""

import contextlib
import gc
import logging
import os
import pathlib
import re
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp

from ma2mi_jax import files
from ma2mi_jax.errors import UserError

FOLDER = "checkpoints"  # in a run's folder
CHECKSUMS = "checksums.json"
LATE = ("_CHECKPOINT_METADATA", "commit_success.txt")  # what orbax writes at the very end: times


def _alone() -> ocp.options.MultiprocessingOptions:
    """This process as the only one."""
    index = jax.process_index()
    return ocp.options.MultiprocessingOptions(index, {index}, f"process-{index}")


def _handler() -> ocp.StandardCheckpointHandler:
    """What writes and reads the item `state`."""
    return ocp.StandardCheckpointHandler(multiprocessing_options=_alone())


@contextlib.contextmanager
def manager(directory: str | pathlib.Path, keep: int | None = 2) -> Iterator[ocp.CheckpointManager]:
    """Checkpoints in folders `directory/<step>/`, for one process at a time.

    They are saved in the background; the end of the block waits for them.

    Args:
      directory: is made if necessary.
      keep: how many of the last checkpoints are kept; None keeps all.

    Raises:
      UserError: orbax cannot list what is there, or a checkpoint cannot be written; those before it
        are whole.
    """
    directory = pathlib.Path(directory).absolute()
    directory.mkdir(parents=True, exist_ok=True)
    # called when all files of a checkpoint are written, before it gets its name
    sealing = ocp.AsyncOptions(post_finalization_callback=lambda: _seal(directory))
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep, create=False, async_options=sealing, multiprocessing_options=_alone()
    )
    with _told_once():
        try:
            with _in_one_line(directory):
                checkpoints = ocp.CheckpointManager(
                    directory, options=options, item_handlers={"state": _handler()}
                )
        except ValueError as error:  # orbax reads the times of all checkpoints at once
            raise UserError(
                "{directory}: a {file} in there is damaged ({reason}); delete it, for it holds "
                "only times",
                directory=directory,
                file=LATE[0],
                reason=error,
            ) from None
        try:
            yield checkpoints
        finally:
            with _in_one_line(directory):
                checkpoints.close()


def _seal(directory: pathlib.Path) -> None:
    """Writes the checksums of the checkpoint that is being saved, the one without its name yet."""
    for folder in directory.glob("*.orbax-checkpoint-tmp*"):
        found = {
            str(path.relative_to(folder)): files.sha256(path)
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name not in LATE
        }
        files.write_json(folder / CHECKSUMS, found)


def damage(folder: pathlib.Path) -> str:
    """What of a checkpoint is not as it was saved; empty if nothing is, or if nobody can say.

    Raises:
      UserError: a file is there and cannot be read.
    """
    if not (folder / CHECKSUMS).exists():
        return ""
    try:
        expected = files.read_json(folder / CHECKSUMS)
        for name, checksum in expected.items():
            if not (folder / name).is_file():
                return f"{name} is missing"
            if files.sha256(folder / name) != checksum:
                return f"the content of {name} is not what was saved"
    except (UserError, AttributeError, TypeError):
        return f"{CHECKSUMS} is no list of checksums"
    except OSError as error:
        raise UserError(
            "{path}: cannot be read ({reason}); mend the disk and start again",
            path=error.filename,
            reason=error.strerror,
        ) from None
    return ""


def save(checkpoints: ocp.CheckpointManager, step: int, state: Any) -> None:
    """Saves a checkpoint; returns as soon as the arrays are copied.

    Args:
      step: names the checkpoint.
      state: a tree of arrays.

    Raises:
      UserError: this checkpoint, or one before it, cannot be written.
    """
    if jax.process_count() > 1:  # orbax wants what lies on others' devices saved by them
        state = jax.device_get(state)
    items = {"state": ocp.args.StandardSave(state)}
    with _in_one_line(checkpoints.directory):
        checkpoints.save(step, args=ocp.args.Composite(**items))


def wait(checkpoints: ocp.CheckpointManager) -> None:
    """Returns when all that was saved is on the disk.

    Raises:
      UserError: it cannot be written.
    """
    with _in_one_line(checkpoints.directory):
        checkpoints.wait_until_finished()


def write(directory: pathlib.Path, step: int, state: Any) -> None:
    """Saves a checkpoint, whole or not at all, and returns when it is on the disk.

    Other processes may write other steps there. Raises as `save`.
    """
    making = directory / f"making-{step}"
    shutil.rmtree(making, ignore_errors=True)  # of a process that was killed
    with manager(making) as checkpoints:
        save(checkpoints, step, state)
    (making / str(step)).rename(directory / str(step))
    shutil.rmtree(making)


def newest(checkpoints: ocp.CheckpointManager, log: Callable[[str], None]) -> int:
    """The step of the newest whole checkpoint, 0 if there is none.

    A damaged one is told and renamed, and the one before it is taken.

    Args:
      log: is told.

    Raises:
      UserError: a file is there and cannot be read.
    """
    for step in sorted(checkpoints.all_steps(), reverse=True):
        folder = pathlib.Path(checkpoints.directory) / str(step)
        if not (what := damage(folder)):
            return step
        set_aside(folder, what, log)
        checkpoints.reload()
    return 0


def resume(
    checkpoints: ocp.CheckpointManager, state: Any, log: Callable[[str], None]
) -> tuple[int, Any]:
    """Step and state of the newest whole checkpoint; (0, `state`) if there is none.

    Args:
      state: see `restore`.
      log: is told of damaged ones, see `newest`.

    Raises:
      UserError: as `restore`.
    """
    step = newest(checkpoints, log)
    return step, restore(pathlib.Path(checkpoints.directory), step, state) if step else state


def set_aside(folder: pathlib.Path, what: str, log: Callable[[str], None]) -> None:
    """Renames a damaged checkpoint, so that it counts no more and its step can be saved again.

    Args:
      what: is wrong with it.
      log: is told.
    """
    aside, number = folder.with_name(f"{folder.name}.damaged"), 1
    while aside.exists():
        aside, number = folder.with_name(f"{folder.name}.damaged-{number}"), number + 1
    folder.rename(aside)
    log(f"{folder}: damaged ({what}); kept as {aside.name}, and not used")


def restore(directory: pathlib.Path, step: int, state: Any) -> Any:
    """The state that was saved as `step`.

    Args:
      directory: of the checkpoints.
      state: a tree of arrays or `jax.ShapeDtypeStruct`s, which give the shapes, dtypes and
        shardings of the result. A `ShapeDtypeStruct` without a sharding means the first device of
        this process.

    Raises:
      UserError: there is no such checkpoint, it is damaged, or its tree or shapes are not those of
        `state`.
    """
    folder = directory.absolute() / str(step)
    if not folder.is_dir():
        raise UserError(
            "{folder}: expected a finished checkpoint there, found none; copy the run again, or "
            "make it again",
            folder=folder,
        )
    if what := damage(folder):
        raise UserError(
            "{folder}: this checkpoint is damaged ({what}); copy it again, or make the run again",
            folder=folder,
            what=what,
        )

    # without a sharding, orbax would ask for the devices of the machine that saved
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def shape(leaf):
        if isinstance(leaf, jax.ShapeDtypeStruct) and leaf.sharding is None:
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here)
        return ocp.utils.to_shape_dtype_struct(leaf)

    abstract = jax.tree.map(shape, state)
    items = {"state": ocp.args.StandardRestore(abstract)}
    options = ocp.CompositeOptions(multiprocessing_options=_alone())
    handler = ocp.CompositeCheckpointHandler(composite_options=options, state=_handler())
    try:
        # Before anything is read: where one of its reads fails, orbax closes its loop under the
        # others, and each of them prints a traceback of that.
        if misfit := _misfit(_handler().metadata(folder / "state").tree, abstract):
            raise ValueError(misfit)
        with ocp.Checkpointer(handler, multiprocessing_options=_alone()) as reader:
            return reader.restore(folder, args=ocp.args.Composite(**items))["state"]
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise UserError(
            "{folder}: this checkpoint belongs to another network, or it is damaged ({reason}); "
            "give the folder of another run",
            folder=folder,
            reason=(str(error).splitlines() or [repr(error)])[0],
        ) from error


def _misfit(stored: Any, wanted: Any) -> str:
    """The first array that is in both trees and has two shapes, in words; empty if none has."""
    shapes = [
        {
            jax.tree_util.keystr(path, simple=True, separator="."): tuple(leaf.shape)
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        }
        for tree in (stored, wanted)
    ]
    there, here = shapes
    for name, shape in there.items():
        if here.get(name, shape) != shape:
            return f"{name} has shape {shape}, expected {here[name]}"
    return ""


# ----- a full disk -------------------------------------------------------------------------------


@contextlib.contextmanager
def _in_one_line(folder: os.PathLike) -> Iterator[None]:
    """What the system refuses becomes a UserError; what was half written is removed."""
    try:
        yield
    except Exception as error:
        reason = _refused(error)
        if not reason:
            raise
        for left in pathlib.Path(folder).glob("*.orbax-checkpoint-tmp"):
            shutil.rmtree(left, ignore_errors=True)
        raise UserError(
            "{folder}: a checkpoint cannot be written ({reason}); the last whole one is kept: mend "
            "that, and the same command goes on from there",
            folder=folder,
            reason=reason,
        ) from error


def _refused(error: BaseException | None) -> str:
    """Why the system refused to read or write, in its words; empty if that is not the matter."""
    if error is None:
        return ""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if number := re.search(r"os_error_code='([0-9]+)'", str(error)):  # tensorstore's
        return os.strerror(int(number[1]))
    return _refused(error.__cause__ or error.__context__)


@contextlib.contextmanager
def _told_once() -> Iterator[None]:
    """Keeps tracebacks of what is told in one line out of the log: each thread of orbax has one."""

    def is_other(record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not (_refused(error) or "os_error_code" in record.getMessage())

    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    for logger in loggers:
        logger.addFilter(is_other)
    try:
        yield
    finally:
        gc.collect()  # asyncio tells of its tasks when they are thrown away
        for logger in loggers:
            logger.removeFilter(is_other)

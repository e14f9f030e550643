"""Members: many fine-tunes trained at once.

A *member* is one fine-tune: one fold under one seed. Members share the clips and differ in index
arrays, keys and weights, so that one vmapped step trains them all. What a member computes does not
depend on the members beside it (`unroll`).
"""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, Key

from ma2mi_jax.clips.clip import Clip
from ma2mi_jax.clips.pairs import (
    PairsOnDisk,
    check_pairs_on_disk,
    load_pairs,
    pairs_nbytes,
    steps_per_epoch,
)
from ma2mi_jax.runs.compiling import ONCE
from ma2mi_jax.training import finetuning
from ma2mi_jax.training.finetuning import Config, Data, MemberState
from ma2mi_jax.training.folds import Fold
from ma2mi_jax.training.unroll import unrolled_under_vmap

ON_DEVICE = 0.3  # share of a device's memory that the clips may take
ON_HOST = 0.5  # share of the host's memory that they may take
QUIETLY = contextlib.nullcontext()  # says nothing of a compilation


@dataclasses.dataclass(frozen=True)
class Member:
    """One fine-tune: `fold` under `seed`."""

    seed: int
    fold: Fold

    def key(self, purpose: Literal["init", "augment"]) -> Key[Array, ""]:
        """A key that depends on seed, fold and purpose alone."""
        key = jax.random.fold_in(jax.random.key(self.seed), self.fold.number)
        return jax.random.fold_in(key, {"init": 0, "augment": 1}[purpose])

    def batches(self, epoch: int, batch_size: int) -> Int[np.ndarray, "steps batch_size"]:
        """The epoch's order of the training clips, in whole batches.

        A set of clips that is smaller than a batch repeats.
        """
        clips = self.fold.train
        order = np.random.default_rng([self.seed, self.fold.number, epoch]).permutation(clips)
        steps = steps_per_epoch(len(clips), batch_size)
        return np.resize(order, (steps, batch_size))


def start(
    config: Config, members: Sequence[Member], pretrained: tuple[Any, Any] | None
) -> MemberState:
    """Stacked initial states: each member's own random one, or the pre-trained one for all.

    Args:
      pretrained: see `finetuning.init`.
    """
    return _START(config, jnp.stack([m.key("init") for m in members]), pretrained)


def _start(config: Config, keys: Key[Array, " M"], pretrained: Any) -> MemberState:
    return jax.vmap(partial(finetuning.init, config), in_axes=(0, None))(keys, pretrained)


_START = jax.jit(_start, static_argnums=0, **ONCE)


def shapes(config: Config, members: Sequence[Member]) -> MemberState:
    """Of what `start` gives without anything learned before."""
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), len(members)))
    return jax.eval_shape(partial(_start, config), keys, None)


# ----- where clips and members lie ----------------------------------------------------------------


def device_mesh() -> Mesh | None:
    """All devices, among which members are shared out; None where there is but one."""
    return Mesh(np.array(jax.devices()), ("members",)) if jax.device_count() > 1 else None


def placed(tree: Any, mesh: Mesh | None, *axes: str) -> Any:
    """Arrays on the device, or on those of `mesh`.

    Args:
      axes: `members` shares them out along their first axis; without it each device has them whole.
    """
    if mesh is None:
        return jax.device_put(tree, jax.devices()[0])
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(*axes)))


def load_data(
    clips: Sequence[Clip],
    image_size: int,
    *,
    mesh: Mesh | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[Data, list[int], str]:
    """Onset/apex pairs and labels of clips, kept in the fastest place that has room for them.

    On the device, up to `ON_DEVICE` of its memory; else on the host, up to `ON_HOST` of its memory;
    else on the disk, from where batches are read ahead of their use. The place changes no number.

    Args:
      clips: each with `onset`, `apex` and `label`.
      mesh: devices that each get all pairs, or None.
      progress: called after each clip with the number of clips read so far.

    Returns:
      `data` for `train_members` and `predict_clips`; the indices of the clips in which a frame was
      replaced; and a note on the place, empty where it is the device.

    Raises:
      UserError: not a single frame of a clip can be read.
      ValueError: `onset` or `apex` lies outside its clip.
    """
    label = np.array([clip.label for clip in clips], np.int32)
    needed = pairs_nbytes(len(clips), image_size)
    gigabytes = f"{needed / 1e9:.1f} GB of pairs"
    if needed > ON_HOST * _host_memory():
        pairs, replaced = check_pairs_on_disk(clips, image_size, progress)
        note = f"{gigabytes} stay on the disk; each step's are read ahead of it"
        return {"frames": pairs, "label": label}, replaced, note

    frames, replaced = load_pairs(clips, image_size, progress)
    data = {"frames": frames, "label": label}
    if needed < ON_DEVICE * _device_memory():
        return placed(data, mesh), replaced, ""
    return data, replaced, f"{gigabytes} stay on the host; each step takes what it needs along"


def _host_memory() -> float:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _device_memory() -> float:
    """Bytes of the first device; infinite for a CPU, where arrays lie on the host anyway."""
    return (jax.devices()[0].memory_stats() or {}).get("bytes_limit", np.inf)


def batches_at_hand(
    data: Data, batches: Sequence[Int[np.ndarray, "M B"]]
) -> Iterator[tuple[Data, Int[np.ndarray, "M B"]]]:
    """For each batch what its step reads, and the places of the batch's clips in that.

    Where the pairs do not lie on the device, a step gets those of its batch alone.
    """
    frames = data["frames"]
    if not isinstance(frames, (np.ndarray, PairsOnDisk)):
        yield from ((data, batch) for batch in batches)
        return

    rows = [batch.ravel() for batch in batches]
    on_disk = isinstance(frames, PairsOnDisk)
    shown = frames.batches(rows) if on_disk else (frames[row] for row in rows)
    for batch, row, pairs in zip(batches, rows, shown, strict=True):
        places = np.arange(row.size, dtype=np.int32).reshape(batch.shape)
        yield data | {"frames": pairs, "label": np.asarray(data["label"])[row]}, places


# ----- steps of many members ----------------------------------------------------------------------


def _over_members(fn: Callable, in_axes: tuple[int | None, ...], mesh: Mesh | None) -> Callable:
    """`jax.vmap` of `fn`, laid out once for each member.

    Over `mesh` each device has its share of the members, and none speaks to another.
    """
    mapped = jax.vmap(unrolled_under_vmap(fn), in_axes=in_axes)
    if mesh is None:
        return mapped
    specs = tuple(PartitionSpec() if axis is None else PartitionSpec("members") for axis in in_axes)
    return jax.shard_map(
        mapped, mesh=mesh, in_specs=specs, out_specs=PartitionSpec("members"), check_vma=False
    )


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=2)
def step_members(
    config: Config,
    mesh: Mesh | None,
    states: MemberState,
    data: Data,
    indices: Int[Array, "M B"],
    keys: Key[Array, " M"],
    total_steps: Int[Array, " M"],
    active: Bool[Array, " M"],
) -> tuple[MemberState, dict[str, Float[Array, " M"]]]:
    """`finetuning.fold_step` of M members. The states given are used up.

    With a mesh, M is a multiple of its size.
    """
    step = _over_members(partial(finetuning.fold_step, config), (0, None, 0, 0, 0, 0), mesh)
    return step(states, data, indices, keys, total_steps, active)


@partial(jax.jit, static_argnums=(0, 1))
def predict_members(
    config: Config,
    mesh: Mesh | None,
    states: MemberState,
    data: Data,
    indices: Int[Array, "M B"],
) -> Float[Array, "M B classes"]:
    """`finetuning.predict` of M members."""
    predict = _over_members(partial(finetuning.predict, config), (0, None, 0), mesh)
    return predict(states, data, indices)


# ----- epochs of many members ---------------------------------------------------------------------


def train_members(
    config: Config,
    members: Sequence[Member],
    states: MemberState,
    data: Data,
    on_epoch: Callable[[int, MemberState, dict[str, np.ndarray]], None],
    *,
    first_epoch: int = 0,
    copies: int = 0,
    mesh: Mesh | None = None,
    compiles: AbstractContextManager = QUIETLY,
) -> MemberState:
    """The epochs of `members` from `first_epoch` on, all at once; returns their last states.

    Args:
      copies: so many of the last members only fill up the batch; they take no step.
      states: of the members, stacked. They are used up.
      data: as for `finetuning.fold_step`; `frames` may also lie on the host, as a NumPy array, or
        on the disk, as `PairsOnDisk`. See `load_data`.
      on_epoch: called after each epoch with the epoch, the states, and `loss` and `accuracy`, each
        (members,): means over the epoch. If a loss is not finite, `bad_step` is there too: each
        member's first step of the epoch whose loss is not, 0 if all are.
      mesh: devices that share the members, whose number then is a multiple of theirs.
      compiles: is around the first step, which may have to be compiled.
    """
    steps = np.array([steps_per_epoch(len(m.fold.train), config.batch_size) for m in members])
    keys = jnp.stack([m.key("augment") for m in members])
    total = jnp.asarray(steps * config.epochs)
    taken = np.where(np.arange(len(members)) < len(members) - copies, steps, 0)
    states, keys, total = placed((states, keys, total), mesh, "members")

    for epoch in range(first_epoch, config.epochs):
        # A member with fewer steps than others waits, and is given its last batch again.
        own = [m.batches(epoch, config.batch_size) for m in members]
        batches = [np.stack([b[min(step, len(b) - 1)] for b in own]) for step in range(taken.max())]
        sums, losses = {"loss": 0.0, "accuracy": 0.0}, []
        for step, (at_hand, indices) in enumerate(batches_at_hand(data, batches)):
            active = step < taken
            with compiles if (epoch, step) == (first_epoch, 0) else QUIETLY:
                states, metrics = step_members(
                    config, mesh, states, at_hand, indices, keys, total, active
                )
            sums = {k: sums[k] + jnp.where(active, metrics[k], 0) for k in sums}
            losses.append(metrics["loss"])
        means = {k: np.asarray(v) / steps for k, v in sums.items()}
        if not np.isfinite(means["loss"]).all():
            means["bad_step"] = np.argmax(~np.isfinite(jax.device_get(losses)), axis=0)
        on_epoch(epoch, states, means)
    return states


def predict_clips(
    config: Config,
    states: MemberState,
    data: Data,
    clips: Sequence[np.ndarray],
    *,
    mesh: Mesh | None = None,
) -> list[Float[np.ndarray, "_ classes"]]:
    """Class probabilities by each member of its own list of clips.

    Args:
      states: of the members, stacked.
      data: as for `train_members`.
      clips: for each member the indices of its clips.
    """
    # Rows are filled up by repeats; predictions use no batch statistics, so these change nothing.
    size = config.batch_size
    length = -(-max(map(len, clips)) // size) * size
    if not length:
        return [np.zeros((0, config.classes), np.float32) for _ in clips]
    rows = np.stack([np.resize(c, length) if len(c) else np.zeros(length, int) for c in clips])
    batches = [rows[:, i : i + size] for i in range(0, length, size)]

    states = placed(states, mesh, "members")
    parts = [
        predict_members(config, mesh, states, at_hand, indices)
        for at_hand, indices in batches_at_hand(data, batches)
    ]
    probabilities = np.concatenate([np.asarray(p) for p in parts], axis=1)
    return [p[: len(c)] for p, c in zip(probabilities, clips, strict=True)]

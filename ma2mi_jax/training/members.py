"""Members: many fine-tunes trained at once.

A *member* is one fine-tune: one fold under one seed. Members share the clips and differ in index
arrays, keys and weights, so that one vmapped step trains them all. What a member computes does not
depend on the members beside it (`unroll`).
"""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ma2mi_jax.clips.pairs import steps_per_epoch
from ma2mi_jax.training import finetuning
from ma2mi_jax.training.finetuning import Config, MemberState
from ma2mi_jax.training.folds import Fold
from ma2mi_jax.training.unroll import unrolled_under_vmap


@dataclasses.dataclass(frozen=True)
class Member:
    """One fine-tune: `fold` under `seed`."""

    seed: int
    fold: Fold

    def key(self, purpose: str) -> jax.Array:
        """A key that depends on seed, fold and purpose (`init` or `augment`) alone."""
        key = jax.random.fold_in(jax.random.key(self.seed), self.fold.number)
        return jax.random.fold_in(key, {"init": 0, "augment": 1}[purpose])

    def batches(self, epoch: int, batch_size: int) -> np.ndarray:
        """(steps, batch_size) int32: the epoch's order of the training clips, whole batches only; a set smaller than a batch repeats."""
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
    keys = jnp.stack([m.key("init") for m in members])
    return jax.jit(jax.vmap(partial(finetuning.init, config), in_axes=(0, None)))(keys, pretrained)


def device_mesh() -> Mesh | None:
    """All devices, among which members are shared out; None where there is but one."""
    return Mesh(np.array(jax.devices()), ("members",)) if jax.device_count() > 1 else None


def _over_members(fn, in_axes: tuple[int | None, ...], mesh: Mesh | None):
    """`jax.vmap` of `fn`, laid out once a member; over `mesh` each device has its share of them, and none speaks to another."""
    mapped = jax.vmap(unrolled_under_vmap(fn), in_axes=in_axes)
    if mesh is None:
        return mapped
    specs = tuple(PartitionSpec() if axis is None else PartitionSpec("members") for axis in in_axes)
    return jax.shard_map(
        mapped, mesh=mesh, in_specs=specs, out_specs=PartitionSpec("members"), check_vma=False
    )


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=2)
def step_members(
    config: Config, mesh: Mesh | None, states: MemberState, data, indices, keys, total_steps, active
):
    """`finetuning.fold_step` of M members: stacked states, indices (M, B), keys, total_steps, active (M,). The states given are used up.

    With a mesh, M is a multiple of its size.
    """
    step = _over_members(partial(finetuning.fold_step, config), (0, None, 0, 0, 0, 0), mesh)
    return step(states, data, indices, keys, total_steps, active)


@partial(jax.jit, static_argnums=(0, 1))
def predict_members(config: Config, mesh: Mesh | None, states: MemberState, data, indices):
    """`finetuning.predict` of M members: indices (M, B) -> (M, B, classes)."""
    return _over_members(partial(finetuning.predict, config), (0, None, 0), mesh)(
        states, data, indices
    )


def placed(tree, mesh: Mesh | None, *axes: str):
    """Arrays on the device, or on those of `mesh`: shared out along their first axis where `axes` is `members`, else whole on each."""
    return jax.device_put(
        tree, jax.devices()[0] if mesh is None else NamedSharding(mesh, PartitionSpec(*axes))
    )


def _at_hand(data, indices: np.ndarray):
    """What a step reads: all clips where they lie on the device; where `frames` are NumPy's, those of `indices` alone, and their places."""
    if not isinstance(data["frames"], np.ndarray):
        return data, indices
    rows = indices.ravel()
    return data | {k: data[k][rows] for k in ("frames", "label")}, np.arange(
        rows.size, dtype=np.int32
    ).reshape(indices.shape)


def train_members(
    config: Config,
    members: Sequence[Member],
    states: MemberState,
    data,
    on_epoch,
    *,
    first_epoch: int = 0,
    mesh: Mesh | None = None,
) -> MemberState:
    """The epochs of `members` from `first_epoch` on, all members at once. `states` is used up; returns their last.

    Args:
      data: as for `finetuning.fold_step`, on the device; or with `frames` and `label` as NumPy arrays, of which each step takes what it needs along.
      on_epoch: called after each epoch with (epoch, states, history), history being `loss` and `accuracy`, (members,) means over the epoch.
      mesh: devices that share the members, whose number then is a multiple of theirs.
    """
    steps = np.array([steps_per_epoch(len(m.fold.train), config.batch_size) for m in members])
    keys = jnp.stack([m.key("augment") for m in members])
    total = jnp.asarray(steps * config.epochs)
    states, keys, total = placed((states, keys, total), mesh, "members")
    for epoch in range(first_epoch, config.epochs):
        batches = [m.batches(epoch, config.batch_size) for m in members]
        sums = {"loss": 0.0, "accuracy": 0.0}
        for step in range(steps.max()):
            active = step < steps
            few, indices = _at_hand(data, np.stack([b[min(step, len(b) - 1)] for b in batches]))
            states, metrics = step_members(config, mesh, states, few, indices, keys, total, active)
            sums = {k: sums[k] + jnp.where(active, metrics[k], 0) for k in sums}
        on_epoch(epoch, states, {k: np.asarray(v) / steps for k, v in sums.items()})
    return states


def predict_clips(
    config: Config,
    states: MemberState,
    data,
    clips: Sequence[np.ndarray],
    *,
    mesh: Mesh | None = None,
) -> list[np.ndarray]:
    """Class probabilities (len(clips[k]), classes) by each member k of its own list of clips."""
    size = config.batch_size
    length = -(-max(map(len, clips)) // size) * size
    rows = np.stack([np.resize(c, length) if len(c) else np.zeros(length, int) for c in clips])
    states = placed(
        states, mesh, "members"
    )  # rows are filled up by repeats: without batch statistics these are harmless
    parts = [
        predict_members(config, mesh, states, *_at_hand(data, rows[:, i : i + size]))
        for i in range(0, rows.shape[1], size)
    ]
    probabilities = np.concatenate([np.asarray(p) for p in parts], axis=1)
    return [p[: len(c)] for p, c in zip(probabilities, clips, strict=True)]

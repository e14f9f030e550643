"""Leaving one subject out on CASME II's size: ways to train several folds, and what all would take.

separate: each fold's step on its own, one after the other. unrolled: the vmapped step of
finetune.py, laid out once for each member. grouped: plain `jax.vmap`, whose convolutions become
grouped ones. im2col: the same, with convolutions as products of patches.

A slice is measured, a step of several folds; the whole protocol follows by the number of steps.
Reading, predicting and compiling are not in it.
"""

import functools
import itertools
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.measure import Built, Row
from benchmarks.steps import filled, peak_bytes, with_attribute
from ma2mi_jax.clips.pairs import steps_per_epoch
from ma2mi_jax.models.architecture import PRESETS
from ma2mi_jax.training import finetuning, folds, protocol
from ma2mi_jax.training.members import Member, start, step_members

Form = Literal["separate", "unrolled", "grouped", "im2col"]
FORMS = get_args(Form)

SUBJECTS, PAIRS, CLASSES = 26, 249, 5  # of CASME II; here each subject has 9 or 10 pairs


def config_of(preset: str, precision: str, batch_size: int) -> finetuning.Config:
    return finetuning.Config(PRESETS[preset], CLASSES, batch_size=batch_size, dtype=precision)


def at_once(config: finetuning.Config) -> int:
    """As many folds as one of these devices trains at once where nothing else is asked for."""
    return -(-protocol.chunk_size(config, SUBJECTS)[0] // jax.device_count())


def members() -> list[Member]:
    """All folds under one seed."""
    subjects = [f"s{i % SUBJECTS:02}" for i in range(PAIRS)]
    return [Member(0, fold) for fold in folds.loso(subjects)]


def frames_of(config: finetuning.Config) -> np.ndarray:
    """Noise in place of the pairs; a few batches of them, since more change no time."""
    side = config.architecture.image_size
    count = min(PAIRS, 4 * config.batch_size)
    return np.random.default_rng(0).integers(0, 256, (count, 2, side, side, 3), np.uint8)


def build(config: finetuning.Config, count: int, form: Form) -> Built:
    """One step of each of the first `count` folds; it gives their losses."""
    frames, chosen = frames_of(config), members()[:count]
    label = np.arange(len(frames), dtype=np.int32) % CLASSES
    data = jax.device_put({"frames": frames, "label": label})
    indices = np.stack([m.batches(0, config.batch_size)[0] % len(frames) for m in chosen])
    keys = jnp.stack([m.key("augment") for m in chosen])
    total, active = jnp.full(count, 1000), jnp.ones(count, bool)
    fresh = jax.eval_shape(functools.partial(finetuning.init, config), jax.random.key(0))
    learned = filled((fresh.params, fresh.batch_stats))
    state = start(config, chosen, learned)

    if form == "separate":
        step = jax.jit(functools.partial(finetuning.fold_step, config), donate_argnums=0)
        each = list(zip(indices, keys, total, active, strict=True))
        state = [jax.tree.map(lambda x, k=k: jnp.copy(x[k]), state) for k in range(count)]

        def advance(states):
            found = [step(s, data, *rest) for s, rest in zip(states, each, strict=True)]
            return [s for s, _ in found], {"loss": [metrics["loss"] for _, metrics in found]}

    elif form == "unrolled":

        def advance(states):
            return step_members(config, None, states, data, indices, keys, total, active)

    else:
        fold_step = functools.partial(finetuning.fold_step, config)
        if form == "im2col":
            fold_step = with_im2col(fold_step)
        mapped = jax.jit(jax.vmap(fold_step, in_axes=(0, None, 0, 0, 0, 0)), donate_argnums=0)

        def advance(states):
            return mapped(states, data, indices, keys, total, active)

    def run():
        nonlocal state
        state, metrics = jax.block_until_ready(advance(state))
        return metrics["loss"]

    return Built(run, peak_bytes)


# ----- convolutions as matrix products ------------------------------------------------------------


def im2col(x, kernel, strides, padding, **_):
    """`lax.conv_general_dilated` of (B, H, W, C) and (h, w, C, D), without dilation or groups."""
    rows, columns, channels, features = kernel.shape
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    high, wide = ((x.shape[k + 1] - kernel.shape[k]) // strides[k] + 1 for k in range(2))
    patches = [
        x[:, i : i + strides[0] * high : strides[0], j : j + strides[1] * wide : strides[1]]
        for i, j in itertools.product(range(rows), range(columns))
    ]
    patches = [patch[:, :high, :wide] for patch in patches]
    product = jnp.concatenate(patches, -1) @ kernel.reshape(rows * columns * channels, features)
    return product.astype(x.dtype)


def with_im2col(fn):
    """`fn`, in which every convolution of Flax is `im2col`."""
    return with_attribute(fn, "conv_general_dilated", im2col)


# ----- the whole protocol -------------------------------------------------------------------------


def whole_protocol(row: Row, config: finetuning.Config, count: int, together: bool) -> Row:
    """`row` with `protocol_seconds`: what all folds and epochs would take at this rate.

    Args:
      row: with `seconds`, of a step of `count` folds.
      together: folds are trained in chunks of at most `count`, which wait for the longest. All
        devices but a CPU fill shorter chunks up.
    """
    if "seconds" not in row:
        return row
    chunks = protocol.chunks(members(), count if together else 1)
    least = 0 if jax.default_backend() == "cpu" else max(map(len, chunks))
    steps = [
        max(steps_per_epoch(len(m.fold.train), config.batch_size) for m in chunk)
        * max(least, len(chunk))
        for chunk in chunks
    ]
    return row | {"protocol_seconds": config.epochs * sum(steps) * row["seconds"] / count}

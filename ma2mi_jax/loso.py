"""A whole protocol: members (seeds x folds) trained in chunks, each chunk one vmapped batch, saved as one stacked tree."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ma2mi_jax import checkpoint, finetune, runs
from ma2mi_jax.finetune import Config, Member, State


@dataclasses.dataclass(frozen=True)
class History:
    """What a chunk's members did at each epoch: `loss`, `accuracy` (epochs, members), and `probabilities` of their own test clips, for each
    member (epochs, test clips, classes)."""

    loss: np.ndarray
    accuracy: np.ndarray
    probabilities: tuple[np.ndarray, ...]


def chunks(members: Sequence[Member], size: int) -> list[list[Member]]:
    """Members in chunks of at most `size`, as even as can be: a chunk of another size is another compilation."""
    count = -(-len(members) // size)
    return [list(part) for part in np.array_split(np.array(members, dtype=object), count)]


def chunk_size(config: Config, members: int) -> tuple[int, str]:
    """How many members to train at once on this device, and why.

    More at once keep a GPU busier; memory and compile time, which grow with the chunk, bound it.
    """
    device = jax.devices()[0]
    if device.platform == "cpu":
        return min(members, 4), "a CPU gains nothing from more, and compile time grows with the chunk"
    a = config.architecture
    weights = 2 * 11_200_000 * (a.width / 64) ** 2 * 4 * 4  # two encoders; parameters, gradients and two moments, float32
    activations = 2 * config.batch_size * 45e6 * (a.image_size / 256) ** 2 * (a.width / 64) * np.dtype(jnp.dtype(config.dtype)).itemsize / 2
    limit = (device.memory_stats() or {}).get("bytes_limit", 8e9)
    size = int(np.clip(0.6 * limit / (weights + activations), 1, 8))
    return min(members, size), f"about {(weights + activations) / 1e9:.1f} GB each of {limit / 1e9:.0f} GB; at most 8 bound compile time"


def start(config: Config, members: Sequence[Member], pretrained: tuple[Any, Any] | None) -> State:
    """Stacked initial states: every member's own random one, or the pre-trained one for all."""
    keys = jnp.stack([m.key("init") for m in members])
    return jax.jit(jax.vmap(lambda key: finetune.init(config, key, pretrained)))(keys)


def train(
    config: Config, parts: Sequence[Sequence[Member]], pretrained: tuple[Any, Any] | None, data, run: pathlib.Path, on_epoch: Callable
) -> list[History]:
    """Trains every chunk that `run` does not hold yet; saves each as it is done, so that a killed run goes on with the next.

    Args:
      data: see `finetune.fold_step`, on the device.
      on_epoch: called as on_epoch(chunk number, epoch, loss, accuracy) with (members,) vectors.
    """
    histories = []
    with checkpoint.manager(run / "checkpoints", keep=None) as checkpoints:
        for number, members in enumerate(parts):
            file = run / "checkpoints" / f"history-{number}.npz"
            if number in checkpoints.all_steps() and file.exists():
                histories.append(_read(file, len(members)))
                continue
            epochs = []

            def record(epoch, states, metrics, members=members, epochs=epochs, number=number):
                tests = finetune.predict_tests(config, members, states, data)
                epochs.append((metrics["loss"], metrics["accuracy"], tests))
                on_epoch(number, epoch, metrics["loss"], metrics["accuracy"])

            states = finetune.train_members(config, members, start(config, members, pretrained), data, record)
            loss, accuracy, tests = zip(*epochs, strict=True)
            history = History(np.stack(loss), np.stack(accuracy), tuple(np.stack(m) for m in zip(*tests, strict=True)))
            checkpoint.save(checkpoints, number, {"params": states.params, "batch_stats": states.batch_stats})
            checkpoints.wait_until_finished()
            _write(file, history)
            histories.append(history)
    return histories


def _write(file: pathlib.Path, history: History) -> None:
    arrays = {f"member{i}": p for i, p in enumerate(history.probabilities)}
    with runs.whole(file) as temporary, temporary.open("wb") as out:
        np.savez(out, loss=history.loss, accuracy=history.accuracy, **arrays)


def _read(file: pathlib.Path, members: int) -> History:
    with np.load(file, allow_pickle=False) as arrays:
        return History(arrays["loss"], arrays["accuracy"], tuple(arrays[f"member{i}"] for i in range(members)))


def reload(config: Config, parts: Sequence[Sequence[Member]], data, run: pathlib.Path, on_chunk: Callable) -> list[list[np.ndarray]]:
    """Predictions of the saved members, again: for each chunk what `finetune.predict_tests` returns.

    Raises:
      UserError: a chunk's checkpoint is missing or of another shape.
    """
    found = []
    with checkpoint.manager(run / "checkpoints", keep=None) as checkpoints:
        for number, members in enumerate(parts):
            fresh = jax.eval_shape(partial(start, config, members, None))
            saved = checkpoint.restore(checkpoints, {"params": fresh.params, "batch_stats": fresh.batch_stats}, step=number)
            state = fresh.replace(**saved, step=jnp.zeros(len(members)), opt_state=None)
            found.append(finetune.predict_tests(config, members, state, data))
            on_chunk(number)
    return found


def pool(parts: Sequence[Sequence[Member]], tests: Sequence[Sequence[np.ndarray]], seeds: Sequence[int], clips: int) -> np.ndarray:
    """Members' test outputs (..., test clips, K) put at their clips and seeds: (..., S, clips, K)."""
    first = tests[0][0]
    pooled = np.full((*first.shape[:-2], len(seeds), clips, first.shape[-1]), np.nan, np.float32)
    for members, outputs in zip(parts, tests, strict=True):
        for member, output in zip(members, outputs, strict=True):
            pooled[..., seeds.index(member.seed), member.fold.test, :] = output
    return pooled

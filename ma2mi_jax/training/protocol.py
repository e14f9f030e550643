"""A whole protocol: members (seeds x folds) trained in chunks, each chunk one vmapped batch, saved as one stacked tree.

In the run's `checkpoints/`: `<chunk>/` holds the weights of a finished chunk's members at the reported epoch, `history-<chunk>.npz` what
they did at each epoch, and `unfinished-<chunk>/` everything from which a killed run goes on.
"""

import dataclasses
import pathlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Literal

import flax
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ma2mi_jax import files
from ma2mi_jax.errors import UserError
from ma2mi_jax.runs import checkpoint
from ma2mi_jax.training.finetuning import Config, MemberState
from ma2mi_jax.training.members import Member, predict_clips, start, train_members

Select = Literal["last", "inner"]


@flax.struct.dataclass
class History:
    """What a chunk's M members did at each of E epochs; NaN for epochs to come.

    Attributes:
      loss, accuracy: (E, M) means over the epoch's training batches.
      inner: (E, M) accuracy on `Fold.inner`, NaN where that is empty.
      tests: (E, M, longest test side, classes) probabilities of the members' own test clips, NaN beyond a member's number of them.
    """

    loss: np.ndarray
    accuracy: np.ndarray
    inner: np.ndarray
    tests: np.ndarray


def chunks(members: Sequence[Member], size: int) -> list[list[Member]]:
    """Members in chunks of at most `size`, as even as can be: a chunk of another size is another compilation."""
    count = -(-len(members) // size)
    return [list(part) for part in np.array_split(np.array(members, dtype=object), count)]


def chunk_size(config: Config, members: int) -> tuple[int, str]:
    """How many members to train at once on these devices, and why.

    More at once keep a GPU busier; memory and compile time, which grow with the chunk, bound it.
    """
    device, devices = jax.devices()[0], jax.device_count()
    shared = f", on each of {devices} devices" if devices > 1 else ""
    if device.platform == "cpu":
        return min(
            members, 4 * devices
        ), "4: a CPU gains nothing from more, and compile time grows with the chunk" + shared
    a, number = config.architecture, np.dtype(jnp.dtype(config.dtype)).itemsize
    weights = 2 * 11_200_000 * (a.width / 64) ** 2  # two encoders
    activations = (
        2 * config.batch_size * 22.5e6 * (a.image_size / 256) ** 2 * (a.width / 64) * number
    )
    if config.reconstruction:  # and DiT: in each block 18 matrices, and about 20 values a token beside the attention, twice
        tokens = (a.latent_shape[0] // a.patch) ** 2
        weights += 18 * a.depth * a.dit_width**2
        activations += (
            config.batch_size
            * a.depth
            * tokens
            * (20 * a.dit_width + 2 * a.heads * tokens)
            * number
        )
    weights *= 4 * 4  # parameters, gradients and two moments, float32
    limit = (device.memory_stats() or {}).get("bytes_limit", 8e9)
    size = int(np.clip(0.6 * limit / (weights + activations), 1, 8))
    why = (
        f"{size}: about {(weights + activations) / 1e9:.1f} GB each of {limit / 1e9:.0f} GB; at most 8 bound compile time"
        + shared
    )
    return min(members, size * devices), why


def train(
    config: Config,
    parts: Sequence[Sequence[Member]],
    pretrained: tuple[Any, Any] | None,
    data,
    run: pathlib.Path,
    on_epoch: Callable,
    *,
    select: Select = "last",
    checkpoint_every: int = 10,
    mesh: Mesh | None = None,
) -> list[History]:
    """Trains every chunk that `run` does not hold yet; a killed run goes on from the last saved epoch, to the same numbers.

    Args:
      data, mesh: see `members.train_members`.
      on_epoch: called as on_epoch(chunk number, epoch, history) after each epoch; of a chunk that `run` holds already, once, with the last.
      select: which epoch's weights are kept: the last, or the best on `Fold.inner` (see `reported`).
      checkpoint_every: epochs.

    Raises:
      UserError: a member diverged; nothing of that epoch is saved.
    """
    histories = []
    with checkpoint.manager(run / "checkpoints", keep=None) as finished:
        for number, members in enumerate(parts):
            file, unfinished = (
                run / "checkpoints" / f"history-{number}.npz",
                run / "checkpoints" / f"unfinished-{number}",
            )
            there = number in finished.all_steps() and file.exists()
            if not there:
                with checkpoint.manager(unfinished, keep=1) as saved:
                    announce = partial(on_epoch, number)
                    kept, history = _train_chunk(
                        config,
                        members,
                        pretrained,
                        data,
                        saved,
                        announce,
                        select,
                        checkpoint_every,
                        mesh,
                    )
                _write(file, history)
                checkpoint.save(finished, number, kept)
                finished.wait_until_finished()
            shutil.rmtree(unfinished, ignore_errors=True)
            histories.append(_read(file))
            if there:
                on_epoch(number, config.epochs - 1, histories[-1])
    return histories


def _train_chunk(
    config, members, pretrained, data, saved, on_epoch, select, checkpoint_every, mesh
):
    """The weights to keep, stacked, and the History of one chunk."""
    count, epochs = len(members), config.epochs
    padded = (
        [*members, *[members[-1]] * (-count % mesh.size)] if mesh else members
    )  # devices want even shares: the last one goes along
    rows = [np.concatenate([m.fold.test, m.fold.inner]) for m in padded]
    states = start(config, padded, pretrained)
    blank = partial(np.full, fill_value=np.nan, dtype=np.float32)
    tests = (epochs, count, max(len(m.fold.test) for m in members), config.classes)
    history = History(
        blank((epochs, count)), blank((epochs, count)), blank((epochs, count)), blank(tests)
    )
    labels = np.asarray(data["label"])
    progress = {
        "states": states,
        "kept": jax.tree.map(jnp.copy, _weights(states)),
        "history": history,
    }
    first = 0
    if saved.latest_step() is not None:
        first = saved.latest_step()
        shapes = progress | {"states": _cut(states, count), "kept": _cut(progress["kept"], count)}
        progress = checkpoint.restore(saved, shapes)
        progress["history"] = jax.tree.map(np.array, progress["history"])
        for part in ("states", "kept"):
            progress[part] = jax.tree.map(
                lambda x: jnp.concatenate([x, *[x[-1:]] * (len(padded) - count)]), progress[part]
            )

    def record(epoch, states, metrics):
        history = progress["history"]
        history.loss[epoch], history.accuracy[epoch] = (
            metrics["loss"][:count],
            metrics["accuracy"][:count],
        )
        found = predict_clips(config, states, data, rows, mesh=mesh)
        for k, (member, p) in enumerate(zip(members, found, strict=False)):
            if not np.isfinite(history.loss[epoch, k] + p.sum()):
                raise UserError(
                    f"fold {member.fold.name} of seed {member.seed}: loss or predictions are not finite after epoch {epoch + 1}; "
                    "try a lower --learning-rate or --precision=float32, in another --run"
                )
            test = len(member.fold.test)
            history.tests[epoch, k, :test] = p[:test]
            if len(member.fold.inner):
                history.inner[epoch, k] = np.mean(p[test:].argmax(-1) == labels[member.fold.inner])
        better = reported(history, select, until=epoch + 1) == epoch
        better = np.concatenate([better, np.repeat(better[-1:], len(padded) - count)])
        progress["states"], progress["kept"] = (
            states,
            _where(better, _weights(states), progress["kept"]),
        )
        if (epoch + 1) % checkpoint_every == 0 and epoch + 1 < epochs:
            checkpoint.save(
                saved,
                epoch + 1,
                {k: v if k == "history" else _cut(v, count) for k, v in progress.items()},
            )
        on_epoch(epoch, history)

    train_members(config, padded, progress["states"], data, record, first_epoch=first, mesh=mesh)
    return _cut(progress["kept"], count), progress["history"]


def _weights(states: MemberState) -> dict[str, Any]:
    """What predicts: no optimiser, and no DiT where L_rec was kept."""
    params = {k: v for k, v in states.params.items() if k != "dit"}
    return {"params": params, "batch_stats": states.batch_stats}


def _cut(tree, count: int):
    return jax.tree.map(lambda x: x[:count], tree)


@partial(jax.jit, donate_argnums=2)
def _where(chosen: jax.Array, new, old):
    """For each member `new` where `chosen` (M,), else `old`, which is used up."""
    return jax.tree.map(
        lambda a, b: jnp.where(chosen.reshape(-1, *[1] * (a.ndim - 1)), a, b), new, old
    )


def reported(history: History, select: Select, until: int | None = None) -> np.ndarray:
    """(M,) the epoch (from 0) whose weights count, among the first `until`: the last; or with `inner` the one with the highest accuracy on
    the held-out training subjects, of equals the latest."""
    inner = history.inner[:until]
    last = len(inner) - 1
    if select == "last":
        return np.full(inner.shape[1], last)
    return last - np.argmax(inner[::-1], axis=0)


def _write(file: pathlib.Path, history: History) -> None:
    with files.whole(file) as temporary, temporary.open("wb") as out:
        np.savez(out, **dataclasses.asdict(history))


def _read(file: pathlib.Path) -> History:
    with np.load(file, allow_pickle=False) as arrays:
        return History(**{field.name: arrays[field.name] for field in dataclasses.fields(History)})


def saved(
    config: Config, parts: Sequence[Sequence[Member]], run: pathlib.Path
) -> Iterator[MemberState]:
    """The kept weights of each chunk, as stacked states without optimiser.

    Raises:
      UserError: a chunk's checkpoint is missing or of another shape.
    """
    with checkpoint.manager(run / "checkpoints", keep=None) as checkpoints:
        for number, members in enumerate(parts):
            shapes = jax.eval_shape(
                partial(start, dataclasses.replace(config, reconstruction=None), members, None)
            )
            yield MemberState(
                jnp.zeros(len(members)),
                opt_state=None,
                **checkpoint.restore(checkpoints, _weights(shapes), step=number),
            )


def of_members(
    parts: Sequence[Sequence[Member]], histories: Sequence[History]
) -> list[list[np.ndarray]]:
    """The histories' `tests` cut to each member's own: for each chunk and member (E, test clips, classes)."""
    return [
        [h.tests[:, k, : len(m.fold.test)] for k, m in enumerate(part)]
        for part, h in zip(parts, histories, strict=True)
    ]


def pool(
    parts: Sequence[Sequence[Member]],
    tests: Sequence[Sequence[np.ndarray]],
    seeds: Sequence[int],
    clips: int,
) -> np.ndarray:
    """Members' test outputs (..., test clips, K) put at their clips and seeds: (..., S, clips, K)."""
    first = tests[0][0]
    pooled = np.full((*first.shape[:-2], len(seeds), clips, first.shape[-1]), np.nan, np.float32)
    for members, outputs in zip(parts, tests, strict=True):
        for member, output in zip(members, outputs, strict=True):
            pooled[..., seeds.index(member.seed), member.fold.test, :] = output
    return pooled

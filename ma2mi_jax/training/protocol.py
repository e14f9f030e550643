"""A whole protocol: members (seeds x folds) trained in chunks, each chunk one vmapped batch.

Of n processes each trains every n-th chunk, by itself. They meet in the run's folder.

In the run's `checkpoints/`:

  <chunk>/              weights of a finished chunk's members, at the epoch that is reported
  history-<chunk>.npz   what they did at each epoch
  unfinished-<chunk>/   everything from which a killed run goes on
"""

import dataclasses
import pathlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Literal

import flax
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int

from ma2mi_jax import files
from ma2mi_jax.datasets.common import disk
from ma2mi_jax.errors import UserError
from ma2mi_jax.runs import checkpoint, compiling, processes
from ma2mi_jax.runs.listener import SILENT, Listener
from ma2mi_jax.training.finetuning import Config, Data, MemberState
from ma2mi_jax.training.members import (
    QUIETLY,
    Member,
    placed,
    predict_clips,
    shapes,
    start,
    train_members,
)

Select = Literal["last", "inner"]


@flax.struct.dataclass
class History:
    """What a chunk's M members did at each of E epochs; NaN for epochs to come.

    Attributes:
      loss, accuracy: means over the epoch's training batches.
      inner: accuracy on `Fold.inner`, NaN where that is empty.
      tests: probabilities of the members' own test clips, up to the longest test side; NaN beyond
        a member's number of them.
    """

    loss: Float[np.ndarray, "E M"]
    accuracy: Float[np.ndarray, "E M"]
    inner: Float[np.ndarray, "E M"]
    tests: Float[np.ndarray, "E M clips classes"]

    @classmethod
    def blank(cls, config: Config, members: Sequence[Member]) -> "History":
        """Before the first epoch."""
        each = (config.epochs, len(members))
        # At least 1, also where all clips are trained on: no checkpoint holds an empty array.
        longest = max(1, *(len(m.fold.test) for m in members))
        sizes = (each, each, each, (*each, longest, config.classes))
        return cls(*(np.full(size, np.nan, np.float32) for size in sizes))


def chunks(members: Sequence[Member], size: int) -> list[list[Member]]:
    """Members in chunks of at most `size`, as even as can be."""
    count = -(-len(members) // size)
    return [list(part) for part in np.array_split(np.array(members, dtype=object), count)]


def chunk_size(config: Config, members: int) -> tuple[int, str]:
    """How many members to train at once on these devices, and why.

    More at once keep a GPU busier. Memory bounds them, and compile time, which grows with them.
    """
    members = -(-members // processes.count())
    device, devices = jax.devices()[0], jax.device_count()
    shared = f", on each of {devices} devices" if devices > 1 else ""
    if device.platform == "cpu":
        size, longest = 4, 5
        why = "a CPU gains nothing from more than about 4, and compile time grows with the chunk"
    else:
        needed = _bytes_of_a_member(config)
        limit = (device.memory_stats() or {}).get("bytes_limit", 8e9)
        size = longest = int(np.clip(0.6 * limit / needed, 1, 8))
        why = (
            f"about {needed / 1e9:.1f} GB each of {limit / 1e9:.0f} GB; "
            "at most 8 bound compile time"
        )
    near = (size, *range(longest, -(-size * 3 // 4) - 1, -1))
    # One that divides them needs no second compilation, for a shorter chunk.
    best = min(near, key=lambda each: -members % min(each * devices, members))
    return min(members, best * devices), f"{best}: {why}{shared}"


def _bytes_of_a_member(config: Config) -> float:
    """About how much memory the training of one member takes."""
    a, batch = config.architecture, config.batch_size
    bytes_each = jnp.dtype(config.dtype).itemsize
    weights = 2 * 11_200_000 * (a.width / 64) ** 2  # two encoders
    size = (a.image_size / 256) ** 2 * (a.width / 64)
    activations = 2 * batch * 22.5e6 * size * bytes_each
    if config.reconstruction:
        # DiT: each block has 18 matrices, and about 20 values a token beside the attention, twice.
        tokens = (a.latent_shape[0] // a.patch) ** 2
        weights += 18 * a.depth * a.dit_width**2
        of_token = 20 * a.dit_width + 2 * a.heads * tokens
        activations += batch * a.depth * tokens * of_token * bytes_each
    return 4 * 4 * weights + activations  # parameters, gradients and two moments, float32


def train(
    config: Config,
    parts: Sequence[Sequence[Member]],
    pretrained: tuple[Any, Any] | None,
    data: Data,
    run: pathlib.Path,
    on_epoch: Callable[[int, int, History], None],
    *,
    select: Select = "last",
    checkpoint_every: int = 10,
    mesh: Mesh | None = None,
    fill: bool | None = None,
    listener: Listener = SILENT,
    clips: Sequence[str] = (),
) -> list[History]:
    """Trains every chunk that `run` does not hold yet, or this process's share of them.

    A killed run goes on from the last saved epoch, to the same numbers.

    Args:
      parts: the members, chunk by chunk.
      pretrained: what every member starts from, see `finetuning.init`.
      data, mesh: see `members.train_members`.
      run: the run's folder.
      on_epoch: called after each epoch with the chunk's number, the epoch and the history; of a
        chunk that `run` holds already, or that another process trains, once, with the last epoch.
      select: which epoch's weights are kept: the last, or the best on `Fold.inner` (`reported`).
      checkpoint_every: epochs.
      fill: shorter chunks up to the longest, so that all are compiled once. By default not on a
        CPU, where a few seconds' compilation costs less than steps for nothing.
      listener: is told of what is damaged in `run`, and therefore made again; may ask to stop.
      clips: ids, by which errors name them.

    Returns:
      The histories of all chunks.

    Raises:
      KeyboardInterrupt: the listener asked to stop; the last epoch is saved.
      UserError: a member diverged; nothing of that epoch is saved.
    """
    if fill is None:
        fill = jax.default_backend() != "cpu"
    size = max(map(len, parts))
    folder = run / checkpoint.FOLDER
    files_of = [folder / f"history-{number}.npz" for number in range(len(parts))]
    told, last, compiled = set(), config.epochs - 1, set()
    with listener.stoppable() as asked:
        for number in range(processes.index(), len(parts), processes.count()):
            members, unfinished = parts[number], folder / f"unfinished-{number}"
            if not _is_whole(folder / str(number), files_of[number], listener.log):
                least = size if fill else len(members)
                chunk = Chunk.begin(config, members, pretrained, select, mesh, least, clips)
                at_once = len(members) + chunk.copies
                compiles = QUIETLY  # most are of one size, and compiled once
                if at_once not in compiled:
                    compiles = compiling.told("the fine-tuning step", (config, at_once), listener)
                with checkpoint.manager(unfinished) as saved:
                    chunk.resume(saved, listener.log)
                    then = partial(on_epoch, number)
                    chunk.train(data, saved, checkpoint_every, then, asked, compiles)
                compiled.add(at_once)
                _write(files_of[number], chunk.history)
                checkpoint.write(folder, number, chunk.cut(chunk.kept))
                told.add(number)
                if asked():
                    raise KeyboardInterrupt
            shutil.rmtree(unfinished, ignore_errors=True)
            if number not in told:
                on_epoch(number, last, _read(files_of[number]))
                told.add(number)
        processes.wait_for_all("chunks", asked)
    histories = [_read(file) for file in files_of]
    processes.wait_for_all("histories")  # before one of them may remove the files
    for number in sorted(set(range(len(parts))) - told):
        on_epoch(number, last, histories[number])
    return histories


def _is_whole(finished: pathlib.Path, file: pathlib.Path, log: Callable[[str], None]) -> bool:
    """Whether a chunk is finished. If it was, and is damaged, it is set aside, and `log` told."""
    if not finished.is_dir():
        return False
    what = checkpoint.damage(finished)
    if not what:
        try:
            _read(file)
        except UserError as error:
            what = str(error)
    if what:
        checkpoint.set_aside(finished, what, log)
    return not what


@dataclasses.dataclass
class Chunk:
    """Members that are trained at once, on their way through the epochs.

    Chunks of one size are compiled once, and several devices want even shares. So the last member
    may go along a few times more, in all stacked trees; these copies stay as they began, and are
    never saved and never counted.

    Attributes:
      members: those that count.
      copies: how often the last of them goes along.
      select: which epoch's weights are kept.
      states: of members and copies, stacked, after the epochs that are done.
      kept: the weights of the epoch that is reported so far, stacked.
      history: what the members did so far.
      clips: ids, by which errors name them.
      done: number of epochs.
    """

    config: Config
    members: Sequence[Member]
    copies: int
    select: Select
    mesh: Mesh | None
    states: MemberState
    kept: dict[str, Any]
    history: History
    clips: Sequence[str] = ()
    done: int = 0

    @classmethod
    def begin(
        cls,
        config: Config,
        members: Sequence[Member],
        pretrained: tuple[Any, Any] | None,
        select: Select,
        mesh: Mesh | None,
        least: int,
        clips: Sequence[str] = (),
    ) -> "Chunk":
        """A chunk before its first epoch, filled up to `least` members or a few more."""
        devices = mesh.size if mesh else 1
        copies = -(-least // devices) * devices - len(members)
        states = start(config, [*members, *[members[-1]] * copies], pretrained)
        kept = _copied(_weights(states))  # a step uses up the states
        history = History.blank(config, members)
        return cls(config, members, copies, select, mesh, states, kept, history, clips)

    def cut(self, tree: Any) -> Any:
        """A stacked tree without the copies."""
        return _cut(tree, len(self.members)) if self.copies else tree

    def fill(self, tree: Any) -> Any:
        """A stacked tree of the members, with the copies."""
        return _filled(tree, self.copies) if self.copies else tree

    def resume(self, saved: ocp.CheckpointManager, log: Callable[[str], None]) -> None:
        """Takes over what an interrupted training saved last, if anything."""
        self.done, found = checkpoint.resume(saved, self._content(), log)
        self.states, self.kept = self.fill(found["states"]), self.fill(found["kept"])
        self.history = jax.tree.map(np.array, found["history"])

    def save(self, saved: ocp.CheckpointManager) -> None:
        """Saves everything from which a killed training goes on."""
        checkpoint.save(saved, self.done, self._content())

    def _content(self) -> dict[str, Any]:
        states, kept = self.cut(self.states), self.cut(self.kept)
        return {"states": states, "kept": kept, "history": self.history}

    def train(
        self,
        data: Data,
        saved: ocp.CheckpointManager,
        checkpoint_every: int,
        on_epoch: Callable[[int, History], None],
        asked: Callable[[], bool],
        compiles: AbstractContextManager,
    ) -> None:
        """The epochs that are not done yet; see `train` and `train_members`."""

        def after(epoch: int, states: MemberState, metrics: dict[str, np.ndarray]) -> None:
            self.record(epoch, states, metrics, data)
            unfinished = self.done < self.config.epochs
            stopping = unfinished and asked()
            if unfinished and (self.done % checkpoint_every == 0 or stopping):
                self.save(saved)
            on_epoch(epoch, self.history)
            if stopping:
                raise KeyboardInterrupt

        # What was restored, or learned before, may lie on one device, and is to be on all of them.
        self.states, self.kept = placed((self.states, self.kept), self.mesh, "members")
        members = [*self.members, *[self.members[-1]] * self.copies]
        train_members(
            self.config,
            members,
            self.states,
            data,
            after,
            first_epoch=self.done,
            copies=self.copies,
            mesh=self.mesh,
            compiles=compiles,
        )

    def record(
        self, epoch: int, states: MemberState, metrics: dict[str, np.ndarray], data: Data
    ) -> None:
        """Writes down an epoch, and keeps its weights where they are the ones to report.

        Raises:
          UserError: a member diverged.
        """
        history, count = self.history, len(self.members)
        history.loss[epoch] = metrics["loss"][:count]
        history.accuracy[epoch] = metrics["accuracy"][:count]
        labels = np.asarray(data["label"])
        asked = [np.concatenate([m.fold.test, m.fold.inner]) for m in self.members]
        rows = [*asked, *[asked[-1]] * self.copies]
        found = predict_clips(self.config, states, data, rows, mesh=self.mesh)[:count]
        for k, (member, p) in enumerate(zip(self.members, found, strict=True)):
            fold = member.fold
            if not np.isfinite(history.loss[epoch, k] + p.sum()):
                raise UserError(
                    "fold {fold} of seed {seed}: {what} not finite after epoch {epoch}; try a "
                    "lower [learning_rate] or [precision=float32], in another [run]",
                    fold=fold.name,
                    seed=member.seed,
                    what=self._not_finite(k, epoch, metrics, p),
                    epoch=epoch + 1,
                )
            history.tests[epoch, k, : len(fold.test)] = p[: len(fold.test)]
            if len(fold.inner):
                guessed = p[len(fold.test) :].argmax(-1)
                history.inner[epoch, k] = np.mean(guessed == labels[fold.inner])
        better = reported(history, self.select, until=epoch + 1) == epoch
        self.states, self.done = states, epoch + 1
        self.kept = _where(self.fill(jnp.asarray(better)), _weights(states), self.kept)

    def _not_finite(
        self, k: int, epoch: int, metrics: dict[str, np.ndarray], predicted: np.ndarray
    ) -> str:
        """What of member `k` is not finite, with the clips in question."""
        member = self.members[k]
        if np.isfinite(metrics["loss"][k]):
            bad = np.unique(np.nonzero(~np.isfinite(predicted))[0])
            asked = np.concatenate([member.fold.test, member.fold.inner])[bad]
            return f"its loss is finite, but predictions of {self._named(asked)} are"
        step = metrics["bad_step"][k]
        batch = member.batches(epoch, self.config.batch_size)[step]
        return f"the loss of step {step + 1}, with {self._named(batch)} in its batch, is"

    def _named(self, clips: np.ndarray) -> str:
        known = [self.clips[i] if len(self.clips) else f"clip {i}" for i in clips]
        return disk.some(dict.fromkeys(known), disk.OF_A_BATCH)


def _weights(states: MemberState) -> dict[str, Any]:
    """What predicts: no optimiser, and no DiT where L_rec was kept."""
    params = {k: v for k, v in states.params.items() if k != "dit"}
    return {"params": params, "batch_stats": states.batch_stats}


# One program for a whole tree: to compile one for each shape of an array takes longer.
_copied = jax.jit(partial(jax.tree.map, jnp.copy))


@partial(jax.jit, static_argnums=1)
def _cut(tree: Any, count: int) -> Any:
    """The first `count` of what is stacked."""
    return jax.tree.map(lambda x: x[:count], tree)


@partial(jax.jit, static_argnums=1)
def _filled(tree: Any, copies: int) -> Any:
    """What is stacked, with its last one `copies` times more."""
    return jax.tree.map(lambda x: jnp.concatenate([x, *[x[-1:]] * copies]), tree)


@partial(jax.jit, donate_argnums=2)
def _where(chosen: Bool[jax.Array, " M"], new: Any, old: Any) -> Any:
    """For each member `new` where it is `chosen`, else `old`, which is used up."""
    return jax.tree.map(
        lambda a, b: jnp.where(chosen.reshape(-1, *[1] * (a.ndim - 1)), a, b), new, old
    )


def reported(
    history: History, select: Select, until: int | None = None
) -> Int[np.ndarray, " members"]:
    """The epoch (from 0) whose weights count, among the first `until`, of each member.

    It is the last; or, with `inner`, the one with the highest accuracy on the held-out training
    subjects, where ties go to the later epoch.
    """
    inner = history.inner[:until]
    last = len(inner) - 1
    if select == "last":
        return np.full(inner.shape[1], last)
    return last - np.argmax(inner[::-1], axis=0)


def _write(file: pathlib.Path, history: History) -> None:
    with files.whole(file) as temporary, temporary.open("wb") as out:
        np.savez(out, **dataclasses.asdict(history))


def _read(file: pathlib.Path) -> History:
    return History(**files.read_npz(file, [field.name for field in dataclasses.fields(History)]))


def saved(
    config: Config, parts: Sequence[Sequence[Member]], run: pathlib.Path
) -> Iterator[MemberState]:
    """The kept weights of each chunk, as stacked states without optimiser.

    Raises:
      UserError: a chunk's checkpoint is missing or of another shape.
    """
    without_dit = dataclasses.replace(config, reconstruction=None)
    for number, members in enumerate(parts):
        expected = _weights(shapes(without_dit, members))
        found = checkpoint.restore(run / checkpoint.FOLDER, number, expected)
        yield MemberState(jnp.zeros(len(members), jnp.int32), opt_state=None, **found)


def of_members(
    parts: Sequence[Sequence[Member]], histories: Sequence[History]
) -> list[list[Float[np.ndarray, "E _ classes"]]]:
    """For each chunk and member the history's `tests`, cut to the member's own clips."""
    return [
        [h.tests[:, k, : len(m.fold.test)] for k, m in enumerate(part)]
        for part, h in zip(parts, histories, strict=True)
    ]


def pool(
    parts: Sequence[Sequence[Member]],
    tests: Sequence[Sequence[Float[np.ndarray, "*any _ classes"]]],
    seeds: Sequence[int],
    clips: int,
) -> Float[np.ndarray, "*any seeds clips classes"]:
    """Members' test outputs put at their seeds and clips; NaN where nobody tested a clip."""
    first = tests[0][0]
    pooled = np.full((*first.shape[:-2], len(seeds), clips, first.shape[-1]), np.nan, np.float32)
    for members, outputs in zip(parts, tests, strict=True):
        for member, output in zip(members, outputs, strict=True):
            pooled[..., seeds.index(member.seed), member.fold.test, :] = output
    return pooled

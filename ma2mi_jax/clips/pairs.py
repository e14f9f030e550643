"""Pairs of frames on their way to the device: (t, t+δ) of macro clips as an endless stream, onset and apex of micro clips at once.

Everything up to the device is uint8. The stream is a function of clips, batch size and seed alone: neither the number of workers nor an
interruption changes it.
"""

import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import grain
import numpy as np
from absl import flags

from ma2mi_jax.clips import opencv
from ma2mi_jax.clips.clip import Clip
from ma2mi_jax.clips.frames import FrameError, crop, read_frame, read_latents
from ma2mi_jax.errors import UserError

Choose = Callable[[int, np.random.Generator], tuple[int, int]]
"""From the number of frames (at least 2) to the positions of the earlier and the later frame of a pair."""

DEFAULT_DELTA = (3, 8)  # the paper's range of δ, both ends included

STAND_INS = (
    10  # so many clips in a row without two readable frames are no accident: the disk is gone
)


def future_pair(
    frames: int, rng: np.random.Generator, *, delta: tuple[int, int]
) -> tuple[int, int]:
    """(t, t+δ): δ uniform in {low, ..., high}, clamped to the clip; t uniform over what is left."""
    low, high = delta
    step = min(int(rng.integers(low, high, endpoint=True)), frames - 1)
    t = int(rng.integers(frames - step))
    return t, t + step


def middle_pair(frames: int, rng: np.random.Generator) -> tuple[int, int]:
    """The first and the middle frame, the input of the MAER baseline (Table 1)."""
    return 0, frames // 2


def pairs(
    clips: Sequence[Clip],
    *,
    delta: tuple[int, int] = DEFAULT_DELTA,
    image_size: int,
    batch_size: int,
    seed: int,
    workers: int = 0,
    latents: bool = False,
) -> grain.IterDataset:
    """An endless stream of batches of (I_t, I_{t+δ}), one pair of every clip in every epoch, in an order drawn anew each time.

    An epoch is `steps_per_epoch` whole batches, and which clips it leaves over differs from epoch to epoch. Hence no batch holds a
    clip twice, unless there are fewer clips than `batch_size`; and even then neighbours 2k and 2k+1, which the position loss compares,
    are different clips as long as there are two.

    A frame that cannot be read is replaced by the nearest readable one of its clip; a clip without two readable frames by the next
    clip. So no single bad file ends a run; `replaced` tells.

    The state of its iterator is the number of batches taken. It may be restored with another number of workers.

    Args:
      clips: each of two frames or more.
      delta: (low, high), the range of δ, both ends included.
      seed: not negative.
      workers: processes that read; 0 reads in threads of this process. Workers are spawned, so the main module needs its
        `if __name__ == "__main__"`. Close the iterator when done with it.
      latents: whether to read the cached latents too, which all clips must have (`store.cached_latents`).

    Returns:
      Batches of
        `frames` (B, 2, image_size, image_size, 3) uint8, RGB;
        `clip` (B,) int32, index into `clips` of the clip that is shown;
        `drawn` (B,) int32, the clip whose turn it was: differs from `clip` only where another clip stands in;
        `position` (B, 2) int32, the two positions in the clip, ascending;
        `label` (B,) int32, of the clip that is shown;
        `replaced` (B,) bool, whether anything else than what was drawn is shown;
        `latents` (B, 2, h, w, 4) float16, if asked for: those of `frames`.

    Raises:
      UserError: `batch_size` or `delta` makes no sense; while iterating, if `STAND_INS` clips in a row cannot be read.
      ValueError: there is no clip, or one has fewer than two frames.
    """
    low, high = delta
    if not 1 <= low <= high:
        raise UserError(
            f"--delta={low}:{high}: expected LOW:HIGH with 1 <= LOW <= HIGH, such as --delta=3:8"
        )
    choose = functools.partial(future_pair, delta=delta)
    return _stream(clips, range(len(clips)), choose, image_size, batch_size, seed, workers, latents)


def middle_pairs(
    clips: Sequence[Clip], *, image_size: int, batch_size: int, seed: int, workers: int = 0
) -> grain.IterDataset:
    """As `pairs`, with the first and the middle frame of every clip that has a label; an epoch counts those clips alone."""
    labelled = [i for i, clip in enumerate(clips) if clip.label >= 0]
    return _stream(clips, labelled, middle_pair, image_size, batch_size, seed, workers)


def steps_per_epoch(clips: int, batch_size: int) -> int:
    """Number of batches in an epoch of `clips` clips, of which fewer than `batch_size` are left over; at least 1."""
    return max(1, clips // batch_size)


def to_device(batches: grain.IterDataset, device) -> grain.IterDataset:
    """The same batches as jax arrays, sent ahead of their use. Its iterator saves and restores exactly what the one of `batches` does.

    Args:
      device: a `jax.Device` or a `jax.sharding.Sharding` of the leading axis.
    """
    return grain.experimental.device_put(batches, device)


def load_pairs(
    clips: Sequence[Clip], image_size: int, progress: Callable[[int], None] | None = None
) -> tuple[np.ndarray, list[int]]:
    """Onset and apex of every clip.

    A frame that cannot be read is replaced by the nearest readable one of its clip.

    Args:
      clips: each with `onset` and `apex`.
      progress: called after each clip with the number of clips read so far.

    Returns:
      Frames (N, 2, image_size, image_size, 3) uint8, RGB; and the indices of the clips in which a frame was replaced.

    Raises:
      UserError: not a single frame of a clip can be read.
      ValueError: `onset` or `apex` lies outside its clip.
    """
    if outside := [
        c.id for c in clips if not (0 <= c.onset < len(c.frames) and 0 <= c.apex < len(c.frames))
    ]:
        raise ValueError(
            f"onset or apex outside the clip, which readers mend: {', '.join(outside[:5])}"
        )
    opencv.set_up()
    frames = np.empty((len(clips), 2, image_size, image_size, 3), np.uint8)

    def read(index: int) -> bool:
        clip, replaced = clips[index], False
        for slot, position in enumerate((clip.onset, clip.apex)):
            found, frames[index, slot] = read_nearest(clip, position, image_size)
            replaced |= found != position
        return replaced

    replaced = []
    with ThreadPoolExecutor(_threads()) as pool:
        try:
            for index, was_replaced in enumerate(pool.map(read, range(len(clips)))):
                if was_replaced:
                    replaced.append(index)
                if progress:
                    progress(index + 1)
        except FrameError as error:
            raise UserError(
                f"{error}; restore its files, or take the clip out of the annotation"
            ) from error
    return frames, replaced


def _stream(
    clips: Sequence[Clip],
    usable: Sequence[int],
    choose: Choose,
    image_size: int,
    batch_size: int,
    seed: int,
    workers: int,
    latents: bool = False,
) -> grain.IterDataset:
    if batch_size < 2 or batch_size % 2:
        raise UserError(
            f"--batch-size={batch_size}: expected an even number, for the position loss compares neighbours in the batch"
        )
    if not usable:
        raise ValueError("no clip to draw pairs from")
    if short := [clips[i].id for i in usable if len(clips[i].frames) < 2]:
        raise ValueError(
            f"clips of fewer than two frames, which readers set aside: {', '.join(short[:5])}"
        )
    n = len(usable)
    epoch = (
        n // batch_size * batch_size or n // 2 * 2 or 1
    )  # even where it can be, so that no two neighbours straddle epochs
    batches = (
        grain.MapDataset.source(range(n))
        .seed(seed)
        .shuffle()[:epoch]
        .random_map(functools.partial(_sample, clips, usable, choose, image_size, latents))
        .repeat()
        .batch(batch_size, drop_remainder=True)
    )
    return _Batches(batches, workers)


def _sample(
    clips,
    usable,
    choose: Choose,
    image_size: int,
    latents: bool,
    turn: int,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """One pair of the clip `usable[turn]`, or of the first after it that can be read."""
    attempts = min(STAND_INS, len(usable))
    for attempt in range(attempts):
        index = usable[(turn + attempt) % len(usable)]
        clip = clips[index]
        wanted = choose(len(clip.frames), rng)
        try:
            first = read_nearest(clip, wanted[0], image_size)
            second = read_nearest(clip, wanted[1], image_size, taken=first[0])
            positions, images = zip(*sorted((first, second), key=lambda read: read[0]), strict=True)
            cached = (
                {"latents": np.stack([read_latents(clip.frames, p) for p in positions])}
                if latents
                else {}
            )
        except FrameError as error:
            problem = error
            continue
        return {
            "frames": np.stack(images),
            "clip": np.int32(index),
            "drawn": np.int32(usable[turn]),
            "position": np.array(positions, np.int32),
            "label": np.int32(clip.label),
            "replaced": np.bool_(attempt > 0 or positions != wanted),
            **cached,
        }
    raise UserError(
        f"{attempts} clips in a row cannot be read, so the run stops; the last: {problem}; check that the disk is there"
    )


def read_nearest(
    clip: Clip, position: int, image_size: int, taken: int | None = None
) -> tuple[int, np.ndarray]:
    """The readable frame nearest to `position`, other than `taken`: its position and the crop, uint8 (image_size, image_size, 3)."""
    problem, count = None, len(clip.frames)
    nearest_first = (
        there
        for distance in range(count)
        for there in sorted({position - distance, position + distance})
    )
    for candidate in nearest_first:
        if candidate == taken or not 0 <= candidate < count:
            continue
        try:
            return candidate, crop(read_frame(clip.frames, candidate), clip.box, image_size)
        except FrameError as error:
            problem = problem or error
    raise FrameError(
        f"{clip.id}: {'no' if taken is None else 'only one'} frame can be read ({' '.join(str(problem).split())})"
    )


class _Batches(grain.IterDataset):
    """`batches`, read by `workers` processes; the state of its iterator, unlike grain's own, does not depend on their number."""

    def __init__(self, batches: grain.MapDataset, workers: int):
        super().__init__()
        self._batches, self._workers = batches, workers

    def __iter__(self) -> grain.DatasetIterator:
        return _BatchIterator(functools.partial(_read_from, self._batches, self._workers))


class _BatchIterator(grain.DatasetIterator):
    def __init__(self, read_from: Callable[[int], grain.DatasetIterator]):
        super().__init__()
        self._read_from, self._taken, self._source = read_from, 0, None

    def __next__(self) -> dict[str, np.ndarray]:
        self._assert_not_closed()
        if self._source is None:
            self._source = self._read_from(self._taken)
        batch = next(self._source)
        self._taken += 1
        return batch

    def get_state(self) -> dict[str, int]:
        return {"taken": self._taken}

    def set_state(self, state: dict[str, int]):
        self._stop()
        self._taken = state["taken"]

    def close(self):
        self._stop()
        super().close()

    def _stop(self):
        if self._source is not None:
            self._source.close()
            self._source = None


def _read_from(batches: grain.MapDataset, workers: int, first: int) -> grain.DatasetIterator:
    """An iterator over `batches` from the given one on."""
    if (
        not flags.FLAGS.is_parsed()
    ):  # grain sends its flags to the workers; without absl.app nobody has parsed them
        flags.FLAGS.mark_as_parsed()
    opencv.set_up()
    threads = max(1, _threads() // max(1, workers))
    # An element is a whole batch here: grain's default buffer of 500 of them would take gigabytes.
    ahead = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    processes = grain.MultiprocessingOptions(num_workers=workers)
    return iter(
        batches[first:].to_iter_dataset(ahead).mp_prefetch(processes, worker_init_fn=opencv.set_up)
    )


def _threads() -> int:
    return min(
        16, os.cpu_count() or 1
    )  # decoding releases the interpreter's lock; beyond 16 threads the Python around it is the limit

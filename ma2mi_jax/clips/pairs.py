"""Pairs of frames on their way to the device.

(t, t+δ) of macro clips come as an endless stream; onset and apex of micro clips are loaded once, or
streamed batch by batch where they do not fit into memory. One pipeline (grain) reads both.

Everything up to the device is uint8. The stream of macro clips is a function of clips, batch size
and seed alone: neither the number of workers nor an interruption changes it.
"""

import dataclasses
import functools
import math
import os
from collections.abc import Callable, Iterator, Sequence

import grain
import numpy as np
from absl import flags

from ma2mi_jax import signals
from ma2mi_jax.clips import opencv
from ma2mi_jax.clips.clip import Clip
from ma2mi_jax.clips.frames import FrameError, crop, read_frame, read_latents
from ma2mi_jax.errors import UserError

Choose = Callable[[Clip, np.random.Generator], tuple[int, int]]
"""From a clip of at least 2 frames to the positions of the earlier and the later one."""

DEFAULT_DELTA = (3, 8)  # the paper's range of δ in frames, both ends included

# So many clips in a row without two readable frames are no accident: the disk is gone.
STAND_INS = 10


def future_pair(
    frames: int, rng: np.random.Generator, *, delta: tuple[int, int]
) -> tuple[int, int]:
    """(t, t+δ): δ uniform in {low, ..., high}, clamped to the clip; t uniform over what is left."""
    low, high = delta
    step = min(int(rng.integers(low, high, endpoint=True)), frames - 1)
    t = int(rng.integers(frames - step))
    return t, t + step


def frames_within(milliseconds: tuple[int, int], fps: float) -> tuple[int, int] | None:
    """δ in frames, both ends included, of clips of that rate; None if no whole number of frames
    lasts so long, or the rate is 0, which is unknown."""
    # to a millionth, because 120 ms at 25 frames a second are 3 frames, not 3.0000000000000004
    first, last = (round(time * fps / 1000, 6) for time in milliseconds)
    low, high = max(1, math.ceil(first)), math.floor(last)
    return (low, high) if low <= high else None


def _by_frames(clip: Clip, rng: np.random.Generator, *, delta: tuple[int, int]) -> tuple[int, int]:
    return future_pair(len(clip.frames), rng, delta=delta)


def _by_time(clip: Clip, rng: np.random.Generator, *, delta_ms: tuple[int, int]) -> tuple[int, int]:
    return future_pair(len(clip.frames), rng, delta=frames_within(delta_ms, clip.fps))


def _first_and_middle(clip: Clip, rng: np.random.Generator) -> tuple[int, int]:
    return middle_pair(len(clip.frames), rng)


def middle_pair(frames: int, rng: np.random.Generator) -> tuple[int, int]:
    """The first and the middle frame, the input of the MAER baseline (Table 1)."""
    return 0, frames // 2


# ----- macro clips: an endless stream -------------------------------------------------------------


def pairs(
    clips: Sequence[Clip],
    *,
    delta: tuple[int, int] = DEFAULT_DELTA,
    delta_ms: tuple[int, int] | None = None,
    image_size: int,
    batch_size: int,
    seed: int,
    workers: int = 0,
    latents: bool = False,
    share: tuple[int, int] = (0, 1),
) -> grain.IterDataset:
    """An endless stream of batches of (I_t, I_{t+δ}): in every epoch one pair of every clip.

    The order is drawn anew for each epoch. An epoch is `steps_per_epoch` whole batches, and which
    clips it leaves over differs from epoch to epoch. Hence no batch holds a clip twice, unless
    there are fewer clips than `batch_size`. Even then the neighbours 2k and 2k+1, which the
    position loss compares, are different clips as long as there are two.

    No single bad file ends a run: the nearest readable frame of its clip replaces a frame that
    cannot be read, and the next clip replaces a clip without two readable frames. `replaced` tells.

    The state of the stream's iterator is the number of batches taken, `{"taken": 3}`. It may be
    restored with another number of workers or of shares.

    Args:
      clips: each of two frames or more.
      delta: (low, high), the range of δ in frames, both ends included.
      delta_ms: the range of δ in milliseconds, in place of `delta`: δ is uniform over the whole
        numbers of frames that last so long at the clip's rate (`frames_within`).
      seed: not negative.
      workers: processes that read; 0 reads in threads of this process. Workers are spawned, so the
        main module needs its `if __name__ == "__main__"`. Close the iterator when done with it.
      latents: whether to read the cached latents too, which all clips must have
        (`prepared.cached_latents`).
      share: (i, n) reads the i-th of n equal parts of each batch alone, B = batch_size / n, for one
        of n processes. The parts one after the other are the batch.

    Returns:
      Batches of
        `frames` (B, 2, image_size, image_size, 3) uint8, RGB;
        `clip` (B,) int32, index into `clips` of the clip that is shown;
        `drawn` (B,) int32, the clip whose turn it was: it differs from `clip` only where another
          clip stands in;
        `position` (B, 2) int32, the two positions in the clip, ascending;
        `label` (B,) int32, of the clip that is shown;
        `replaced` (B,) bool, whether anything else than what was drawn is shown;
        `latents` (B, 2, h, w, 4) float16, if asked for: those of `frames`.

    Raises:
      UserError: `batch_size` or `delta` makes no sense; while iterating, if `STAND_INS` clips in a
        row cannot be read.
      ValueError: there is no clip, one has fewer than two frames, or with `delta_ms` no δ.
    """
    if delta_ms is not None:
        if without := [c.id for c in clips if frames_within(delta_ms, c.fps) is None]:
            raise ValueError(f"clips without a δ of {delta_ms} ms: {', '.join(without[:5])}")
        choose = functools.partial(_by_time, delta_ms=delta_ms)
        return _stream(
            clips, range(len(clips)), choose, image_size, batch_size, seed, workers, share, latents
        )
    low, high = delta
    if not 1 <= low <= high:
        raise UserError(
            "[delta={low}:{high}]: expected LOW:HIGH with 1 <= LOW <= HIGH, such as [delta=3:8]",
            low=low,
            high=high,
        )
    choose = functools.partial(_by_frames, delta=delta)
    return _stream(
        clips, range(len(clips)), choose, image_size, batch_size, seed, workers, share, latents
    )


def middle_pairs(
    clips: Sequence[Clip],
    *,
    image_size: int,
    batch_size: int,
    seed: int,
    workers: int = 0,
    share: tuple[int, int] = (0, 1),
) -> grain.IterDataset:
    """As `pairs`, with the first and the middle frame of every clip that has a label.

    An epoch counts those clips alone.
    """
    labelled = [i for i, clip in enumerate(clips) if clip.label >= 0]
    return _stream(clips, labelled, _first_and_middle, image_size, batch_size, seed, workers, share)


def steps_per_epoch(clips: int, batch_size: int) -> int:
    """Number of whole batches in an epoch of so many clips, at least 1; the rest is left over."""
    return max(1, clips // batch_size)


def to_device(batches: grain.IterDataset, device) -> grain.IterDataset:
    """The same batches as jax arrays, sent ahead of their use.

    Its iterator saves and restores exactly what the one of `batches` does.

    Args:
      device: a `jax.Device`, or a `jax.sharding.Sharding` of the leading axis.
    """
    return grain.experimental.device_put(batches, device)


def _stream(
    clips: Sequence[Clip],
    usable: Sequence[int],
    choose: Choose,
    image_size: int,
    batch_size: int,
    seed: int,
    workers: int,
    share: tuple[int, int],
    latents: bool = False,
) -> grain.IterDataset:
    if batch_size < 2 or batch_size % 2:
        raise UserError(
            "[batch_size={batch_size}]: expected an even number; "
            "the position loss compares neighbours in the batch",
            batch_size=batch_size,
        )
    if not usable:
        raise ValueError("no clip to draw pairs from")
    if short := [clips[i].id for i in usable if len(clips[i].frames) < 2]:
        raise ValueError(
            f"clips of fewer than two frames, which readers set aside: {', '.join(short[:5])}"
        )
    sample = functools.partial(_sample, clips, usable, choose, image_size, latents)
    process, processes = share
    batches = (
        grain.MapDataset.source(range(len(usable)))
        .seed(seed)
        .shuffle()[: _shown_in_an_epoch(len(usable), batch_size)]
        .random_map(sample)
        .repeat()
        .batch(batch_size // processes, drop_remainder=True)[process::processes]
    )
    return _Batches(batches, workers)


def _shown_in_an_epoch(clips: int, batch_size: int) -> int:
    """How many of the clips an epoch shows: whole batches of them."""
    if clips >= batch_size:
        return clips - clips % batch_size
    if clips >= 2:  # an even number, so that no two neighbours are of different epochs
        return clips - clips % 2
    return clips


def _sample(
    clips: Sequence[Clip],
    usable: Sequence[int],
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
        wanted = choose(clip, rng)
        cached = {}
        try:
            positions, images = read_pair(clip, wanted, image_size, distinct=True)
            if positions[0] > positions[1]:
                positions, images = positions[::-1], images[::-1]
            if latents:
                cached["latents"] = np.stack([read_latents(clip.frames, p) for p in positions])
        except FrameError as error:
            problem = error
            continue
        return {
            "frames": images,
            "clip": np.int32(index),
            "drawn": np.int32(usable[turn]),
            "position": np.array(positions, np.int32),
            "label": np.int32(clip.label),
            "replaced": np.bool_(attempt > 0 or positions != wanted),
            **cached,
        }
    raise UserError(
        "{attempts} clips in a row cannot be read, so the run stops; "
        "the last: {problem}; check that the disk is there",
        attempts=attempts,
        problem=str(problem),
    )


# ----- micro clips: onset and apex ----------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class PairsOnDisk:
    """Onset and apex of clips that are too many for the memory: read whenever they are needed."""

    clips: tuple[Clip, ...]
    image_size: int

    def batches(self, rows: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
        """For each array of B clips their pairs, (B, 2, image_size, image_size, 3) uint8.

        Batches are read ahead of their use.

        Raises:
          UserError: not a single frame of a clip can be read.
        """
        read = functools.partial(_read_rows, self.clips, self.image_size)
        return _onset_pairs(grain.MapDataset.source(rows).map(read))


def load_pairs(
    clips: Sequence[Clip], image_size: int, progress: Callable[[int], None] | None = None
) -> tuple[np.ndarray, list[int]]:
    """Onset and apex of every clip, all in memory.

    The nearest readable frame of its clip replaces a frame that cannot be read. The two are the
    same frame only if no other can be read, or if onset and apex are the same.

    Args:
      clips: each with `onset` and `apex`.
      progress: called after each clip with the number of clips read so far.

    Returns:
      Frames (N, 2, image_size, image_size, 3) uint8, RGB; and the indices of the clips in which a
      frame was replaced.

    Raises:
      UserError: not a single frame of a clip can be read.
      ValueError: `onset` or `apex` lies outside its clip.
    """
    frames = np.empty((len(clips), 2, image_size, image_size, 3), np.uint8)
    return frames, _read_all(clips, image_size, progress, into=frames)


def check_pairs_on_disk(
    clips: Sequence[Clip], image_size: int, progress: Callable[[int], None] | None = None
) -> tuple[PairsOnDisk, list[int]]:
    """As `load_pairs`, but keeps nothing in memory.

    All pairs are read once, so that one that cannot be read is known before a training begins.
    """
    replaced = _read_all(clips, image_size, progress, into=None)
    return PairsOnDisk(tuple(clips), image_size), replaced


def pairs_nbytes(clips: int, image_size: int) -> int:
    """How much memory the pairs of so many clips take."""
    return clips * 2 * image_size * image_size * 3


def _read_all(clips, image_size, progress, into: np.ndarray | None) -> list[int]:
    """Reads every pair, into an array if there is one; the clips in which a frame was replaced."""
    if outside := [
        c.id for c in clips if not (0 <= c.onset < len(c.frames) and 0 <= c.apex < len(c.frames))
    ]:
        raise ValueError(
            f"onset or apex outside the clip, which readers mend: {', '.join(outside[:5])}"
        )
    if not clips:
        return []
    read = functools.partial(_read_onset_pair, clips, image_size)
    replaced = []
    for index, (images, was_replaced) in enumerate(
        _onset_pairs(grain.MapDataset.source(range(len(clips))).map(read))
    ):
        if into is not None:
            into[index] = images
        if was_replaced:
            replaced.append(index)
        if progress:
            progress(index + 1)
    return replaced


def _onset_pairs(elements: grain.MapDataset) -> Iterator:
    reading = _read_from(elements, workers=0)
    try:
        yield from reading
    except FrameError as error:
        raise UserError(
            "{problem}; restore its files, or take the clip out of the annotation",
            problem=str(error),
        ) from error
    finally:
        reading.close()


def _read_rows(clips: Sequence[Clip], image_size: int, rows: np.ndarray) -> np.ndarray:
    return np.stack([_read_onset_pair(clips, image_size, row)[0] for row in rows])


def _read_onset_pair(clips: Sequence[Clip], image_size: int, index: int) -> tuple[np.ndarray, bool]:
    """Onset and apex of a clip, (2, image_size, image_size, 3) uint8; was a frame replaced?"""
    clip = clips[index]
    wanted = (clip.onset, clip.apex)
    try:
        # an apex that is replaced by the onset would show nothing
        positions, images = read_pair(clip, wanted, image_size, distinct=clip.onset != clip.apex)
    except FrameError:  # there may be one readable frame, and N is part of the result
        positions, images = read_pair(clip, wanted, image_size, distinct=False)
    return images, positions != wanted


# ----- reading ------------------------------------------------------------------------------------


def read_pair(
    clip: Clip, wanted: tuple[int, int], image_size: int, *, distinct: bool
) -> tuple[tuple[int, int], np.ndarray]:
    """The readable frames nearest to two positions.

    Args:
      wanted: the positions.
      distinct: whether the second frame must be another than the first.

    Returns:
      Their positions; and the crops, (2, image_size, image_size, 3) uint8.

    Raises:
      FrameError: there are not as many readable frames.
    """
    first, image = read_nearest(clip, wanted[0], image_size)
    second, other = read_nearest(clip, wanted[1], image_size, taken=first if distinct else None)
    return (first, second), np.stack([image, other])


def read_nearest(
    clip: Clip, position: int, image_size: int, taken: int | None = None
) -> tuple[int, np.ndarray]:
    """The readable frame nearest to `position`, other than `taken`.

    Returns:
      Its position; and the crop, (image_size, image_size, 3) uint8.

    Raises:
      FrameError: there is none.
    """
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
    found = "no" if taken is None else "only one"
    raise FrameError(f"{clip.id}: {found} frame can be read ({' '.join(str(problem).split())})")


class _Batches(grain.IterDataset):
    """`batches`, read by `workers` processes.

    Unlike that of grain's own iterator, the state of this one does not depend on their number.
    """

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


def _read_from(elements: grain.MapDataset, workers: int, first: int = 0) -> grain.DatasetIterator:
    """An iterator over `elements` from the given one on, read in threads or processes."""
    # grain sends absl's flags to the workers; without absl.app nobody has parsed them.
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    opencv.set_up()
    threads = max(1, _threads() // max(1, workers))

    # An element may be a whole batch: grain's default buffer of 500 of them would take gigabytes.
    ahead = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    processes = grain.MultiprocessingOptions(num_workers=workers)
    reading = elements[first:].to_iter_dataset(ahead)
    return iter(reading.mp_prefetch(processes, worker_init_fn=_begin_worker))


def _begin_worker(*_) -> None:
    signals.be_worker()
    opencv.set_up()


def _threads() -> int:
    # Decoding releases the interpreter's lock; beyond 16 threads the Python around it is the limit.
    return min(16, os.cpu_count() or 1)

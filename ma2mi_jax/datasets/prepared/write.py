"""Writing the frames of a dataset into a prepared folder."""

import dataclasses
import json
import os
import pathlib
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import as_completed
from typing import Any

from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from ma2mi_jax import versions
from ma2mi_jax.clips.clip import Clip, Dataset, Repair, SetAside
from ma2mi_jax.clips.frames import (
    JPEG_QUALITY,
    FrameError,
    Frames,
    ImageFolder,
    StoreFrames,
    crop,
    frame_numbers,
    jpeg,
    read_file,
    read_frame,
    read_record,
)
from ma2mi_jax.clips.opencv import threads
from ma2mi_jax.clips.pairs import read_nearest
from ma2mi_jax.datasets.common import disk
from ma2mi_jax.datasets.common.reader import Kind
from ma2mi_jax.datasets.prepared import format
from ma2mi_jax.errors import UserError
from ma2mi_jax.files import fingerprint, whole

SHARD = 8192  # frames in a shard at most, unless one clip has more: about 200 MB
SHARDS = 64  # shards at least, because shards are what is made in parallel ...
LEAST = 256  # ... but none of fewer frames than this
OURS = re.compile(r"(frames-[0-9]+\.array_record|latents-[0-9]+\.(npy|json)|.*\.part)", re.DOTALL)
"""Names of what killed work may leave in a prepared folder in which nothing is finished."""
STAND_IN = (
    "a frame that could not be read was replaced by the nearest readable one when the data were "
    "prepared"
)


def write(
    dataset: Dataset,
    kind: Kind,
    out: str | os.PathLike,
    *,
    size: int = 256,
    workers: int | None = None,
    overwrite: bool = False,
    progress: format.Progress | None = None,
) -> None:
    """Prepares a dataset into the folder `out`.

    If an earlier call for the same frames was stopped, this one goes on where that one ended.

    A frame becomes its crop `Clip.box`, resized to size × size. If its file is such a JPEG, it is
    copied byte by byte. If a frame cannot be read, the nearest readable frame of its clip
    takes its place, and a repair says so. A clip without a readable frame is set aside.

    Args:
      dataset: what to prepare.
      kind: as what it was read.
      out: the folder; it is made if it is not there.
      size: side of the frames, in pixels.
      workers: threads; None is one for each core.
      overwrite: whether prepared data in `out` may be deleted, whatever dataset they are of.
      progress: called as progress(frames done, frames in all), from any thread.

    Raises:
      UserError: `out` holds something else, or cannot be written.
    """
    out = pathlib.Path(out).absolute()
    identity = {"format": format.FORMAT, "kind": kind, "name": dataset.name, "size": size}
    stored = format.stored(dataset.clips)
    _claim(out, identity, overwrite)
    plan = list(_plan(dataset.clips))
    for path in format.files(out, "frames-*", "latents-*"):
        if int(path.name.split("-")[1].split(".")[0]) >= len(plan):
            path.unlink()  # a shard of an earlier plan, which had more of them

    # ----- shards -----
    total = sum(len(clip.frames) for clip in dataset.clips)
    done, lock, stop = 0, threading.Lock(), threading.Event()

    def advance(count: int) -> None:
        nonlocal done
        with lock:
            done += count
            if progress:
                progress(done, total)

    def make(number: int) -> dict[str, Any]:
        clips = [dataset.clips[i] for i in plan[number]]
        try:
            made_of = identity | {"of": _made_of(clips, stored)}
            return _shard(out, number, clips, made_of, advance, stop)
        except (OSError, RuntimeError) as error:  # the container's own errors are RuntimeErrors
            raise UserError(
                "{out}: shard {number} cannot be written ({reason}); free the disk, or give "
                "another [out]",
                out=out,
                number=number,
                reason=getattr(error, "strerror", None) or str(error).split(";")[0],
            ) from error

    with threads(workers, stop) as pool:
        futures = [pool.submit(make, number) for number in range(len(plan))]
        for future in as_completed(futures):
            future.result()
    shards = [future.result() for future in futures]

    # ----- records -----
    latents = format.read_latents_record(out)
    if latents is not None:
        made_of = [each["of"] for each in latents["shards"]]
        if made_of != [shard["sha256"] for shard in shards]:
            (out / format.LATENTS).unlink()  # they are of other frames
    manifest = _manifest(dataset, identity, plan, shards, stored)
    format.write_record_file(out / format.MANIFEST, manifest)


def _claim(out: pathlib.Path, identity: dict, overwrite: bool) -> None:
    """Makes the folder, or makes sure that what lies there can be gone on with.

    Raises:
      UserError: something else lies there, or the folder cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        manifest, finished = out / format.MANIFEST, format.files(out, "frames-*.json")
        if manifest.is_file():
            _claim_prepared(out, manifest, identity, overwrite)
        elif finished:
            _claim_prepared(out, finished[0], identity, overwrite)
        else:
            # a shard whose record was not yet written when the work was killed is no stranger
            strangers = [path.name for path in out.iterdir() if not OURS.fullmatch(path.name)]
            if strangers:
                raise UserError(
                    "[out={out}]: holds {stranger} and no prepared data; give a new or empty "
                    "folder",
                    out=out,
                    stranger=strangers[0],
                )
    except OSError as error:
        raise UserError(
            "[out={out}]: cannot be written ({reason}); give another folder",
            out=out,
            reason=error.strerror,
        ) from error


def _claim_prepared(
    out: pathlib.Path, record: pathlib.Path, identity: dict, overwrite: bool
) -> None:
    """`_claim` for a folder in which prepared data lie, one of whose records is `record`."""
    if overwrite:
        stale = format.files(out, "frames-*", "latents-*")
        for path in [out / format.MANIFEST, out / format.LATENTS, *stale]:
            path.unlink(missing_ok=True)
        return
    found = format.read_record_file(record)
    different = [
        f"{key} {found.get(key)} there, {value} asked"
        for key, value in identity.items()
        if found.get(key) != value
    ]
    if different:
        raise UserError(
            "[out={out}]: other prepared data are there ({different}); give another folder or "
            "[overwrite]",
            out=out,
            different=", ".join(different),
        )


def _plan(clips: Sequence[Clip]) -> Iterator[range]:
    """Consecutive clips for each shard.

    It depends on the clips alone, so that a run that was killed finds its shards again.
    """
    total = sum(len(clip.frames) for clip in clips)
    of_equal_shards = -(-total // SHARDS)  # rounded up
    most = min(SHARD, max(LEAST, of_equal_shards))
    first, held = 0, 0
    for i, clip in enumerate(clips):
        if held and held + len(clip.frames) > most:
            yield range(first, i)
            first, held = i, 0
        held += len(clip.frames)
    if clips:
        yield range(first, len(clips))


# ----- one shard ----------------------------------------------------------------------------------


def _shard(
    out: pathlib.Path,
    number: int,
    clips: Sequence[Clip],
    identity: dict,
    advance: Callable[[int], None],
    stop: threading.Event,
) -> dict[str, Any]:
    """Makes a shard if it is not there yet.

    Args:
      out: the prepared folder.
      number: of the shard.
      clips: what it holds.
      identity: of the whole dataset, and `_made_of` of the clips.
      advance: called with the number of frames done.
      stop: set when another shard has failed.

    Returns:
      Its record. `counts` has the number of frames of each clip, 0 if none could be read.
    """
    path = out / f"frames-{number:05d}.array_record"
    if (kept := format.finished(path, identity, format.FramesShard)) is not None:
        advance(sum(len(clip.frames) for clip in clips))
        return kept

    # the manifest is no longer true: nobody may read what is half old and half new
    (out / format.MANIFEST).unlink(missing_ok=True)
    with whole(path) as part:
        told = _write_shard(part, clips, identity["size"], advance, stop)
        content = format.content(part)
    return format.finish(path, {**content, **identity, **told})


def _made_of(clips: Sequence[Clip], stored: format.Stored) -> str:
    """A hash of what decides the content of a shard."""

    def frames_of(clip: Clip) -> Any:
        frames = clip.frames
        if isinstance(frames, ImageFolder):
            return [frames.names, disk.states(frames)]
        if isinstance(frames, StoreFrames):
            return [stored.sha256[frames.path], frames.first, frames.count]
        # the name of a film is a hash of all that decides what is drawn
        return [os.path.basename(frames.path), frames.first, frames.count]

    known = [[c.id, c.box and dataclasses.astuple(c.box), frames_of(c)] for c in clips]
    return fingerprint([json.dumps([JPEG_QUALITY, known])], 64)


def _write_shard(
    part: pathlib.Path,
    clips: Sequence[Clip],
    size: int,
    advance: Callable[[int], None],
    stop: threading.Event,
) -> dict[str, Any]:
    """Writes the frames of `clips`; returns what the record of the shard tells about them.

    Raises:
      OSError, RuntimeError: the file cannot be written.
    """
    counts, replaced, unreadable = [], [], []
    # one record in a group, so that it can be read alone; JPEG is compressed already
    writer = ArrayRecordWriter(str(part), "group_size:1,uncompressed")
    try:
        for clip in clips:
            if stop.is_set():  # nobody reads this: the other shard's error, or Ctrl-C, comes first
                raise UserError("stopped")
            try:
                found = [_jpeg(clip, position, size) for position in range(len(clip.frames))]
            except FrameError as error:
                found = []
                unreadable.append([clip.id, str(error).removeprefix(f"{clip.id}: ")])
            for position, (taken, file) in enumerate(found):
                writer.write(file)
                if taken != position:
                    replaced.append([clip.id, position, taken])
            counts.append(len(found))
            advance(len(clip.frames))
    finally:
        writer.close()

    there = ArrayRecordReader(str(part)).num_records()
    if there != sum(counts):
        raise OSError(None, f"{there} of {sum(counts)} records arrived")
    return {
        "records": sum(counts),
        "counts": counts,
        "replaced": replaced,
        "unreadable": unreadable,
    }


def _jpeg(clip: Clip, position: int, size: int) -> tuple[int, bytes]:
    """The readable frame nearest to `position`: its position, and its crop as a JPEG file.

    Raises:
      FrameError: no frame of the clip can be read.
    """
    try:
        image = read_frame(clip.frames, position)
        if clip.box is None and image.shape[:2] == (size, size):
            file = _file(clip.frames, position)
            if file.startswith(b"\xff\xd8"):  # it is a JPEG file
                return position, file
        image = crop(image, clip.box, size)
    except FrameError:
        found, _ = read_nearest(clip, position, size)
        return found, _jpeg(clip, found, size)[1]  # the very file of that frame
    return position, jpeg(image)


def _file(frames: Frames, position: int) -> bytes:
    """The file of a frame as it is stored; empty if there is none."""
    if isinstance(frames, StoreFrames):
        return read_record(frames, position)
    if isinstance(frames, ImageFolder):
        return read_file(os.path.join(frames.folder, frames.names[position]))
    return b""


# ----- the manifest -------------------------------------------------------------------------------


def _manifest(
    dataset: Dataset,
    identity: dict,
    plan: Sequence[range],
    shards: Sequence[dict],
    stored: format.Stored,
) -> dict[str, Any]:
    """The content of `prepared.json`.

    Raises:
      UserError: not one clip has a readable frame.
    """
    clips, set_aside, repairs = [], list(dataset.set_aside), list(dataset.repairs)
    for number, (indices, shard) in enumerate(zip(plan, shards, strict=True)):
        first, reasons = 0, dict(shard["unreadable"])
        for i, count in zip(indices, shard["counts"], strict=True):
            clip = dataset.clips[i]
            if count:
                clips.append(_record(clip, number, first, count, stored))
            else:
                set_aside.append(SetAside(clip.id, reasons[clip.id]))
            first += count
        repairs += [
            Repair(id, STAND_IN, f"frame {position} shows frame {by}")
            for id, position, by in shard["replaced"]
        ]
    if not clips:
        raise UserError(
            "{name}: not one of its {count} clips has a readable frame; check that the disk is "
            "there",
            name=dataset.name,
            count=len(dataset.clips),
        )

    replaced = sum(len(shard["replaced"]) for shard in shards)
    set_aside.sort(key=lambda each: each.id)
    return {
        **identity,
        "versions": versions.of((versions.OPENCV, "array_record", "numpy")),
        "quality": JPEG_QUALITY,
        "classes": dataset.classes,
        "annotations": dataset.annotations,
        "detector": dataset.detector,
        "counts": {
            "clips": len(clips),
            "frames": sum(clip["count"] for clip in clips),
            "set_aside": len(set_aside),
            "frames_replaced": replaced,
        },
        "notes": [*dataset.notes, *([f"{STAND_IN}: {replaced}"] if replaced else [])],
        "set_aside": [dataclasses.asdict(each) for each in set_aside],
        "repairs": [dataclasses.asdict(each) for each in repairs],
        "shards": [format.facts(shard) for shard in shards],
        "clips": clips,
    }


def _record(
    clip: Clip, shard: int, first: int, count: int, stored: format.Stored
) -> dict[str, Any]:
    """What the manifest says about a clip.

    Args:
      clip: the clip.
      shard: the number of the shard that holds it.
      first: the record of its first frame in the shard.
      count: the number of its frames.
      stored: what is recorded of clips that were prepared before.
    """
    told = {
        field.name: getattr(clip, field.name)
        for field in dataclasses.fields(Clip)
        if field.name in format.CLIP_FIELDS and getattr(clip, field.name) != field.default
    }
    return {
        "id": clip.id,
        "shard": shard,
        "first": first,
        "count": count,
        "numbers": _runs(_numbers(clip, stored)),
        **told,
    }


def _numbers(clip: Clip, stored: format.Stored) -> list[int]:
    """The number in the name of each frame's file, or its position where there is none.

    What was prepared before keeps the numbers that it has there.
    """
    if isinstance(clip.frames, StoreFrames):
        return stored.numbers[clip.frames.path, clip.frames.first]
    names = clip.frames.names if isinstance(clip.frames, ImageFolder) else [""] * len(clip.frames)
    return [
        position if number is None else number
        for position, number in enumerate(frame_numbers(names))
    ]


def _runs(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Runs of consecutive numbers as (first, how many): [46, 47, 48, 60] → [(46, 3), (60, 1)]."""
    runs = []
    for number in numbers:
        if runs and number == sum(runs[-1]):
            first, count = runs[-1]
            runs[-1] = (first, count + 1)
        else:
            runs.append((number, 1))
    return runs

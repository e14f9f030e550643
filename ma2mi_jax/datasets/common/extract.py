"""From videos and folders of frames to clips with one face each: shots, face boxes, and the cache
that keeps what was found out.

A video is decoded to find its shots and faces, and again to crop them; and once more in between if
a short shot must be searched more closely. The crops are kept as JPEG files. Folders of frames stay
where they are, and only their face boxes are kept. The cache also keeps that a video shows no face,
so that the next run decodes nothing.
"""

import contextlib
import dataclasses
import functools
import itertools
import json
import math
import os
import pathlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import as_completed
from typing import NamedTuple

import cv2
import numpy as np

from ma2mi_jax.clips import faces, frames, opencv, shots, video
from ma2mi_jax.clips.clip import Clip, Repair, SetAside
from ma2mi_jax.clips.frames import Box, FrameError, ImageFolder, Unreachable
from ma2mi_jax.datasets.common import disk
from ma2mi_jax.errors import UserError
from ma2mi_jax.files import discard, not_ours, printable, unwritable, whole_folder

RULES = 5
"""Version of the rules below, of faces.py and of shots.py. Raise it when they change: then no older
cache entry is used."""

VERDICT = "verdict.json"  # file of a cache entry
LOOK_EVERY = 4  # frames between two searches for faces; a short shot is searched more closely
LONGEST = 128  # frames of a clip, 5 s of video: a head that wanders is followed from clip to clip
SHORTEST = 4  # frames of a shot between cuts; less is a flash or a dissolve


@dataclasses.dataclass(frozen=True)
class Shot:
    """A part of a video without a cut.

    Attributes:
      first: its first frame.
      end: the frame after its last one.
      box: where the face is; None if the face fills the frames.
      reason: why the shot is of no use; empty if it is of use.
      part: if only a part of the shot shows its face, and is therefore what is used: "20 of 48
        frames"; else empty.
    """

    first: int
    end: int
    box: Box | None = None
    reason: str = ""
    part: str = ""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What was found out about one video or folder of frames.

    Attributes:
      shots: in their order.
      fps: frames per second, 0 where unknown.
      reason: why the whole of it is of no use; empty if it is of use.
      lacks: how much of a damaged video is used, as "59 of 100 frames"; empty if it is whole.
      bits: what the values of its images fill, see `frames.bits_of`.
    """

    shots: tuple[Shot, ...] = ()
    fps: float = 0.0
    reason: str = ""
    lacks: str = ""
    bits: int = 8

    @property
    def usable(self) -> tuple[Shot, ...]:
        """The shots that are clips."""
        return () if self.reason else tuple(shot for shot in self.shots if not shot.reason)


@dataclasses.dataclass(frozen=True)
class Item:
    """A video or a folder of frames.

    Attributes:
      id: of its clip.
      path: of the video file or of the folder.
      images: what the folder holds; None for a video.
      seconds: a shot is not divided before it has lasted so long.
    """

    id: str
    path: str
    images: ImageFolder | None = None
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class Extracted:
    """The clips of one item, what of it is set aside, and what was found out about it."""

    item: Item
    verdict: Verdict
    clips: tuple[Clip, ...]
    set_aside: tuple[SetAside, ...]


def extract(
    items: Sequence[Item],
    *,
    cache: str,
    size: int = 256,
    detector: faces.Detector | None = None,
    cropped: bool | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Extracted]:
    """The clips of each item, in the order of the items. The arguments are those of `folder.read`.

    Raises:
      UserError: the cache cannot be written.
    """
    if not items:
        return []
    cache = os.path.abspath(cache)
    try:
        os.makedirs(cache, exist_ok=True)
    except OSError as error:
        raise UserError(
            "{cache}: the cache cannot be made ({reason}); choose another folder",
            cache=cache,
            reason=error.strerror,
        ) from error

    prepare = functools.partial(
        _prepare, cache=cache, size=size, detector=detector or faces.haar(), cropped=cropped
    )
    with opencv.threads(workers) as pool:
        results = [pool.submit(prepare, item) for item in items]
        for done, result in enumerate(as_completed(results), 1):
            result.result()
            if progress:
                progress(done, len(items))
    return [_extracted(item, *result.result()) for item, result in zip(items, results, strict=True)]


def told(found: Sequence[Extracted]) -> tuple[list[str], list[Repair]]:
    """What is to be told of videos and shots that are used in part: a note on each kind, and a
    repair for each."""
    kinds = {
        "cut off or damaged videos that are used as far as they are whole": {
            each.item.id: each.verdict.lacks for each in found if each.clips
        },
        "clips that are used where they show their face": {
            clip.id: shot.part
            for each in found
            for clip, shot in zip(each.clips, each.verdict.usable, strict=True)
        },
    }
    notes, repairs = [], []
    for kind, parts in kinds.items():
        parts = {id: part for id, part in parts.items() if part}
        if parts:
            examples = disk.some(f"{id}: {part}" for id, part in parts.items())
            notes.append(f"{kind}: {len(parts)} ({examples})")
            repairs += [Repair(id, kind, f"{part} are used") for id, part in parts.items()]
    return notes, repairs


class Origin(NamedTuple):
    """From where in a video a frame in the cache comes.

    Attributes:
      path: of the video.
      box: what was cropped; None took the whole frame.
      first: position in the video of the clip's first frame.
    """

    path: str
    box: Box | None
    first: int


def origin(clip: Clip) -> Origin | None:
    """Where a clip of cached frames comes from; None if it is no such clip."""
    if not isinstance(clip.frames, ImageFolder):
        return None
    try:
        with open(os.path.join(clip.frames.folder, VERDICT)) as file:
            kept = json.load(file)
    except (OSError, json.JSONDecodeError):
        return None
    first = int(os.path.splitext(clip.frames.names[0])[0])
    box = next(shot["box"] for shot in kept["shots"] if shot["first"] == first)
    return Origin(kept["path"], box and Box(**box), first)


def _extracted(item: Item, entry: str, verdict: Verdict) -> Extracted:
    clips, set_aside = _clips(item, entry, verdict)
    return Extracted(item, verdict, tuple(clips), tuple(set_aside))


# ----- one video or folder of frames --------------------------------------------------------------


def _prepare(
    item: Item, *, cache: str, size: int, detector: faces.Detector, cropped: bool | None
) -> tuple[str, Verdict]:
    """The cache entry and the verdict of an item. They are made if they are not there yet."""
    try:
        name = None if cropped else detector.name
        entry = os.path.join(cache, _key(item, size, name, cropped))
    except OSError as error:  # a link to nowhere
        return "", Verdict(reason=f"cannot be opened: {error.strerror}")
    verdict = _load(entry)
    if verdict is not None:
        return entry, verdict

    try:
        verdict = _judge(item, detector, cropped)
        with _new_entry(entry) as unfinished:
            if item.images is None:
                _keep_frames(item.path, verdict, size, unfinished)
            with (unfinished / VERDICT).open("w") as file:
                json.dump({"path": item.path, **dataclasses.asdict(verdict)}, file)
    except Unreachable as error:  # not kept: the next run may reach it
        return "", Verdict(reason=str(error).removeprefix(f"{printable(item.path)}: "))
    except FrameError as error:
        return "", Verdict(reason=f"changed while it was read: {error}")
    return entry, verdict


def _judge(item: Item, detector: faces.Detector, cropped: bool | None) -> Verdict:
    try:
        if item.images is not None and len(item.images) == 1:
            return Verdict(reason="a single image: a pair of frames needs two")
        reports: list[video.Report] = []
        seen = _seen(_pictures(item, reports.append), detector, cropped)
        fps, lacks = 0.0, ""
        if item.images is None:
            (report,) = reports
            fps, bits = report.fps, report.bits
            if report.announced > report.frames:
                lacks = f"{report.frames} of {report.announced} frames"
        else:
            bits = frames.bits_of(item.images)
        spans = _spans(seen, item.seconds, fps)
        if not cropped and (further := _further(spans, seen.looks)):
            seen.looks.update(_looks(_pictures(item), further, detector, cropped))
        shots = tuple(
            _shot(first, end, seen.looks, seen.shape, cropped, alone=len(spans) == 1)
            for first, end in spans
        )
        return Verdict(shots, fps, lacks=lacks, bits=bits)
    except Unreachable:
        raise
    except FrameError as error:
        return Verdict(reason=str(error).removeprefix(f"{printable(item.path)}: "))


def _pictures(
    item: Item, tell: Callable[[video.Report], None] | None = None
) -> Iterator[np.ndarray]:
    """The frames of an item, uint8 RGB; `tell` gets the report on a video."""
    if item.images is not None:
        return _images(item.images)
    return (frame.image for frame in video.decode(item.path, tell))


def _images(images: ImageFolder) -> Iterator[np.ndarray]:
    first = None
    for i, name in enumerate(images.names):
        try:
            image = frames.read_frame(images, i)
        except Unreachable as error:
            raise Unreachable(f"an image that cannot be read now: {error}") from None
        except FrameError:
            raise FrameError(f"an unreadable image: {name}") from None
        first = first or image.shape
        if image.shape != first:
            (h, w, _), (height, width, _) = first, image.shape
            raise FrameError(
                f"images of different sizes: {images.names[0]} is {w}x{h}, "
                f"{name} is {width}x{height}"
            )
        yield image


class _Seen(NamedTuple):
    """What is left of frames that have been gone through.

    Attributes:
      changes: from each frame to the next, for `shots.spans`.
      looks: the faces in each frame that was searched, by its position.
      shape: height and width of the frames.
    """

    changes: list[float]
    looks: dict[int, list[faces.Face]]
    shape: tuple[int, int]


def _seen(images: Iterable[np.ndarray], detector: faces.Detector, cropped: bool | None) -> _Seen:
    """Goes through the frames once, and keeps none."""
    changes, looks, before = [], {}, None
    for i, image in enumerate(images):
        thumbnail = shots.thumbnail(image)
        changes.append(0.0 if before is None else shots.change(before, thumbnail))
        before = thumbnail
        if not cropped and i % LOOK_EVERY == 0:
            looks[i] = _look(image, detector, cropped)
    return _Seen(changes, looks, image.shape[:2])


def _spans(seen: _Seen, seconds: float, fps: float) -> list[tuple[int, int]]:
    """The shots as pairs of frame positions: the first frame, and the one after the last.

    Args:
      seen: the frames.
      seconds: as for `Item`.
      fps: frames per second, 0 where unknown.
    """
    count = len(seen.changes)
    longest = count if math.isinf(seconds) else max(LONGEST, round(seconds * fps))
    return shots.spans(seen.changes, min(longest, count))


def _further(spans: Sequence[tuple[int, int]], searched: Collection[int]) -> set[int]:
    """The frames to search too, so that a short shot is searched as often as its length allows."""
    alone = len(spans) == 1
    wanted = {
        first + i
        for first, end in spans
        if end - first < LOOK_EVERY * faces.LOOKS and (alone or end - first >= SHORTEST)
        for i in faces.spread(end - first)
    }
    return wanted - set(searched)


def _looks(
    images: Iterable[np.ndarray],
    wanted: Collection[int],
    detector: faces.Detector,
    cropped: bool | None,
) -> dict[int, list[faces.Face]]:
    """The faces in the frames at these positions."""
    until_last = enumerate(itertools.islice(images, max(wanted) + 1))
    return {i: _look(image, detector, cropped) for i, image in until_last if i in wanted}


def _shot(
    first: int,
    end: int,
    looks: dict[int, list[faces.Face]],
    shape: tuple[int, int],
    cropped: bool | None,
    alone: bool,
) -> Shot:
    """A shot and its face, or why it is of no use.

    Args:
      first, end: of the shot.
      looks: the faces in each frame that was searched, by its position in the video.
      shape: height and width of the frames.
      cropped: as for `folder.read`.
      alone: whether the video has no other shot.
    """
    if alone and end - first == 1:
        return Shot(first, end, reason="only one frame: a pair of frames needs two")
    if end - first < SHORTEST and not alone:
        length = f"{end - first} frames between two cuts, at least {SHORTEST} wanted"
        return Shot(first, end, reason=f"too short a shot: {length}")
    if cropped:
        return Shot(first, end)

    at = sorted(i for i in looks if first <= i < end)
    inside = [looks[i] for i in at]
    box, part = faces.steady_box(inside), ""
    if box is None and (there := faces.stretch(inside)):
        come, gone = there
        box = faces.steady_box(inside[come : gone + 1])
        start = at[come] if come else first
        stop = at[gone] + 1 if gone + 1 < len(at) else end
        if box is not None:
            part = f"{stop - start} of {end - first} frames"
            first, end = start, stop
    if box is None:
        seen = f"one in {sum(map(bool, inside))} of {len(inside)} frames searched"
        return Shot(first, end, reason=f"no usable face: {seen}, the same in half of them wanted")
    taken = cropped is None and _fills(box, shape)
    return Shot(first, end, None if taken else box, part=part)


def _look(image: np.ndarray, detector: faces.Detector, cropped: bool | None) -> list[faces.Face]:
    """The faces in a frame.

    Detectors need a rim around a face. So a frame that may be a tight crop, and in which no face is
    found, is searched again with its border repeated around it.
    """
    found = detector(image)
    if found or cropped is False or not squarish(image.shape):
        return found
    rim = max(image.shape) // 4
    wide = cv2.copyMakeBorder(image, rim, rim, rim, rim, cv2.BORDER_REPLICATE)
    return [dataclasses.replace(f, x=f.x - rim, y=f.y - rim) for f in detector(wide)]


def squarish(shape: tuple[int, ...]) -> bool:
    """Whether frames of this shape, (h, w, ...), may be face crops.

    CASME II's own crops are 280 × 340. Cameras give 5:4 or wider.
    """
    return max(shape[:2]) < 1.25 * min(shape[:2])


def _fills(box: Box, shape: tuple[int, int]) -> bool:
    """Whether frames of this shape are face crops already."""
    return squarish(shape) and box.size >= 0.7 * max(shape)


def _clips(item: Item, entry: str, verdict: Verdict) -> tuple[list[Clip], list[SetAside]]:
    if verdict.reason:
        return [], [SetAside(item.id, verdict.reason)]
    clips, set_aside, count = [], [], len(verdict.shots)
    for number, shot in enumerate(verdict.shots, 1):
        # with zeros in front, so that sorting keeps the order of the shots
        name = item.id if count == 1 else f"{item.id}#{number:0{len(str(count))}d}"
        if shot.reason:
            lacks = f"; cut off or damaged after {verdict.lacks}" if verdict.lacks else ""
            set_aside.append(SetAside(name, shot.reason + lacks))
        elif item.images is None:  # the cached frames are crops already
            names = tuple(_frame_name(i) for i in range(shot.first, shot.end))
            clips.append(Clip(name, ImageFolder(entry, names), fps=verdict.fps))
        else:
            names = item.images.names[shot.first : shot.end]
            clips.append(Clip(name, ImageFolder(item.path, names), shot.box))
    return clips, set_aside


# ----- the cache ----------------------------------------------------------------------------------


def _key(item: Item, size: int, detector: str | None, cropped: bool | None) -> str:
    """The name of an item's cache entry.

    It changes with the video file, or with any image of a folder, with the decoder and the rules.

    Raises:
      OSError: the video is not there.
    """
    rules = [detector, cropped, item.seconds, RULES]
    if item.images is not None:
        return disk.stamp(item.images, *rules)
    stat = os.stat(item.path)
    parts = [item.path, stat.st_size, stat.st_mtime_ns, video.DECODER]
    return disk.key_of([*parts, size, frames.JPEG_QUALITY, *rules])


def _load(entry: str) -> Verdict | None:
    """The verdict in a cache entry; None if there is no entry, or a damaged one.

    Raises:
      UserError: the entry is another account's, and closed to this one.
    """
    try:
        with open(os.path.join(entry, VERDICT)) as file:
            kept = json.load(file)
        found = tuple(
            Shot(s["first"], s["end"], s["box"] and Box(**s["box"]), s["reason"], s["part"])
            for s in kept["shots"]
        )
        return Verdict(found, *(kept[name] for name in ("fps", "reason", "lacks", "bits")))
    except FileNotFoundError:
        return None
    except PermissionError as error:  # it may be whole, so it is not thrown away
        raise not_ours(entry, error) from error
    # a machine lost power while it was written, or a disk is bad
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        discard(entry, f"its verdict cannot be read: {error!r}")
        return None


@contextlib.contextmanager
def _new_entry(entry: str) -> Iterator[pathlib.Path]:
    """Yields a folder to fill, which becomes `entry` at the end, all at once.

    Raises:
      UserError: the cache cannot be written.
    """
    try:
        with whole_folder(entry) as unfinished:
            yield unfinished
    except OSError as error:
        raise unwritable(os.path.dirname(entry), error) from error


def _keep_frames(path: str, verdict: Verdict, size: int, folder: pathlib.Path) -> None:
    """Writes the frames of all shots that are of use, cropped, as JPEG files."""
    boxes = {
        i: shot.box
        for shot in verdict.shots
        if not shot.reason
        for i in range(shot.first, shot.end)
    }
    for i, frame in enumerate(video.decode(path) if boxes else ()):
        if i in boxes:
            picture = frames.crop(frame.image, boxes[i], size)
            # not by cv2.imwrite, which does not tell when the disk is full
            (folder / _frame_name(i)).write_bytes(frames.jpeg(picture))


def _frame_name(index: int) -> str:
    return f"{index:06d}.jpg"

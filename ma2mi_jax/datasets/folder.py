"""Any folder of videos, or of folders of frames: `--source=folder`.

Everything under the root that is a video, and every folder that holds images, becomes a clip, or several where it has hard cuts or goes
on for long (`name#1`, `name#2`, ...). A video is decoded twice, once to find its shots and faces, once to crop them, and kept as
JPEG files under `cache`; folders of frames stay where they are and only their face boxes are kept. What was found out, `no face`
included, is kept with them, so that the next run decodes nothing.
"""

import collections
import contextlib
import dataclasses
import functools
import glob
import hashlib
import json
import operator
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed

import cv2
import numpy as np

from ma2mi_jax import faces, frames, shots
from ma2mi_jax.clips import Clip, SetAside, Source
from ma2mi_jax.errors import UserError
from ma2mi_jax.frames import Box, FrameError, ImageFolder

RULES = 1  # version of the rules below, of faces.py and of shots.py: raise it when they change, and no old cache entry is used
LOOK_EVERY = 4  # frames between two searches for faces
LONGEST = 128  # frames of a clip, 5 s of video: a head that wanders is followed from clip to clip
SHORTEST = 4  # frames of a shot between cuts; less is a flash or a dissolve
QUALITY = 95  # of the JPEG files
ABANDONED = 600  # seconds without a write after which an unfinished cache entry belongs to a run that died


@dataclasses.dataclass(frozen=True)
class Shot:
    """Frames `first` to `end` (exclusive) of a video: with a face in `box`, or filled by a face (None), or of no use for `reason`."""

    first: int
    end: int
    box: Box | None = None
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What was found out about one video or folder of frames: its shots, or the reason why it is of no use as a whole."""

    shots: tuple[Shot, ...] = ()
    fps: float = 0.0
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Item:
    """A video file (`images` None) or a folder of frames, under the id of its clip."""

    id: str
    path: str
    images: ImageFolder | None = None


def read(
    root: str,
    *,
    cache: str,
    size: int = 256,
    detector: faces.Detector | None = None,
    cropped: bool | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Source:
    """All usable clips under `root`, at any depth; junk (hidden files, `Thumbs.db`, `__MACOSX`, whatever is no picture) is passed over.

    Clip ids are paths relative to `root` without suffix (with it where files differ in nothing else). The frames of a folder are
    ordered by the last integer in their names. Videos become frames of size × size, cropped; frames of a folder stay as they are, and
    `Clip.box` says what to crop.

    Args:
      root: the folder.
      cache: a folder for what is decoded and found out; entries are keyed by path, size and time of the file, `size` and detector.
      size: height and width of the frames kept of a video.
      detector: finds faces; None is `faces.haar()`.
      cropped: True takes frames as they are, without a search; False always crops; None takes a video or folder as cropped already if
        its frames are about square and the face fills them.
      workers: threads; None is one for each core.
      progress: called as progress(done, total) after each video or folder.

    Raises:
      UserError: the folder is missing, or holds no video and no images, or nothing in it can be used, or the cache cannot be written.
    """
    cache = os.path.abspath(cache)
    items = _items(root, cache)
    try:
        os.makedirs(cache, exist_ok=True)
    except OSError as error:
        raise UserError(f"{cache}: the cache cannot be made ({error.strerror}); choose another folder") from error
    prepare = functools.partial(_prepare, cache=cache, size=size, detector=detector or faces.haar(), cropped=cropped)
    with _threads(workers or os.cpu_count()) as pool:
        results = [pool.submit(prepare, item) for item in items]
        for done, result in enumerate(as_completed(results), 1):
            result.result()
            if progress:
                progress(done, len(items))
    clips, set_aside, divided, whole = [], [], 0, 0
    for item, (folder, verdict) in zip(items, (result.result() for result in results), strict=True):
        good, bad = _clips(item, folder, verdict)
        clips, set_aside = clips + good, set_aside + bad
        divided += len(verdict.shots) > 1
        whole += any(not shot.reason and shot.box is None for shot in verdict.shots)
    if not clips:
        raise UserError(_nothing_usable(root, set_aside))
    counts = {f"divided into clips, at hard cuts or after at most {LONGEST} frames": divided, "taken as cropped already": whole}
    notes = tuple(f"{count} of {len(items)} videos or folders {what}" for what, count in counts.items() if count)
    by_id = operator.attrgetter("id")
    return Source("folder", tuple(sorted(clips, key=by_id)), (), tuple(sorted(set_aside, key=by_id)), notes)


# ---------------------------------------------------------------------------------------------------- what lies on the disk


def _items(root: str, cache: str) -> list[Item]:
    if not os.path.isdir(root):
        found = "is a file" if os.path.exists(root) else "does not exist"
        raise UserError(f"--data-root={root}: {found}; give a folder of videos or of folders of frames")
    root = os.path.abspath(root)
    videos, image_folders, seen = [], [], {os.path.realpath(cache)}
    for folder, inner, names in os.walk(root, followlinks=True):
        if os.path.realpath(folder) in seen:  # the cache, or a link to where we have been
            inner[:] = []
            continue
        seen.add(os.path.realpath(folder))
        inner[:] = sorted(name for name in inner if not name.startswith((".", "__MACOSX")))
        names = sorted(name for name in names if not name.startswith("."))
        videos += [os.path.join(folder, name) for name in names if name.lower().endswith(frames.VIDEO_SUFFIXES)]
        images = [name for name in names if name.lower().endswith(frames.IMAGE_SUFFIXES)]
        if images:
            image_folders.append(ImageFolder(folder, tuple(sorted(images, key=frames.frame_order))))
    if not videos and not image_folders:
        kinds = f"videos ({' '.join(frames.VIDEO_SUFFIXES[:4])} ...) or folders of images ({' '.join(frames.IMAGE_SUFFIXES[:3])} ...)"
        raise UserError(f"--data-root={root}: holds neither videos nor images at any depth; expected {kinds}")

    ids = collections.Counter([_id(root, os.path.splitext(path)[0]) for path in videos] + [_id(root, f.folder) for f in image_folders])
    short = {path: _id(root, os.path.splitext(path)[0]) for path in videos}
    items = [Item(name if ids[name] == 1 else _id(root, path), path) for path, name in short.items()]
    items += [Item(_id(root, images.folder), images.folder, images) for images in image_folders]
    return sorted(items, key=lambda item: item.id)


def _id(root: str, path: str) -> str:
    inside = os.path.relpath(path, root)
    return os.path.basename(root) if inside == "." else inside.replace(os.sep, "/")


# ----------------------------------------------------------------------------------------------- one video or folder of frames


def _prepare(item: Item, *, cache: str, size: int, detector: faces.Detector, cropped: bool | None) -> tuple[str, Verdict]:
    """The item's cache entry and verdict, from the cache if they are there."""
    try:
        entry = os.path.join(cache, _key(item, size, detector.name, cropped))
    except OSError as error:  # a link to nowhere
        return "", Verdict(reason=f"cannot be opened: {error.strerror}")
    verdict = _load(entry)
    if verdict is None:
        verdict = _judge(item, detector, cropped)
        try:
            with _new_entry(entry) as unfinished:
                if item.images is None:
                    _keep_frames(item.path, verdict, size, unfinished)
                with open(os.path.join(unfinished, "verdict.json"), "w") as file:
                    json.dump({"path": item.path, **dataclasses.asdict(verdict)}, file)
        except FrameError as error:
            return "", Verdict(reason=f"changed while it was read: {error}")
    return entry, verdict


def _judge(item: Item, detector: faces.Detector, cropped: bool | None) -> Verdict:
    try:
        if item.images is None:
            found = _shots(frames.decode(item.path), detector, cropped)
            return Verdict(found, frames.video_fps(item.path))
        if len(item.images) == 1:
            return Verdict(reason="a single image: a pair of frames needs two")
        return Verdict(_shots(_images(item.images), detector, cropped))
    except FrameError as error:
        return Verdict(reason=str(error).removeprefix(f"{item.path}: "))


def _images(images: ImageFolder) -> Iterator[np.ndarray]:
    first = None
    for i, name in enumerate(images.names):
        try:
            image = frames.read_frame(images, i)
        except FrameError:
            raise FrameError(f"an unreadable image: {name}") from None
        first = first or image.shape
        if image.shape != first:
            (h, w, _), (height, width, _) = first, image.shape
            raise FrameError(f"images of different sizes: {images.names[0]} is {w}x{h}, {name} is {width}x{height}")
        yield image


def _shots(images: Iterable[np.ndarray], detector: faces.Detector, cropped: bool | None) -> tuple[Shot, ...]:
    """One pass over the frames, of which none is kept: the shots, each with its face."""
    changes, looks, before = [], {}, None
    for i, image in enumerate(images):
        thumbnail = shots.thumbnail(image)
        changes.append(0.0 if before is None else shots.change(before, thumbnail))
        before = thumbnail
        if not cropped and i % LOOK_EVERY == 0:
            looks[i] = _look(image, detector, cropped)
    if len(changes) == 1:
        return (Shot(0, 1, reason="only one frame: a pair of frames needs two"),)
    height, width = image.shape[:2]
    parts = shots.spans(changes, LONGEST)
    return tuple(_shot(first, end, looks, (height, width), cropped, alone=len(parts) == 1) for first, end in parts)


def _shot(first: int, end: int, looks: dict[int, list[faces.Face]], shape: tuple[int, int], cropped: bool | None, alone: bool) -> Shot:
    if end - first < SHORTEST and not alone:
        return Shot(first, end, reason=f"too short a shot: {end - first} frames between two cuts, at least {SHORTEST} wanted")
    if cropped:
        return Shot(first, end)
    inside = [found for i, found in looks.items() if first <= i < end]
    box = faces.steady_box(inside)
    if box is None:
        count = sum(map(bool, inside))
        return Shot(first, end, reason=f"no usable face: one in {count} of {len(inside)} frames searched, the same in half of them wanted")
    return Shot(first, end, None if cropped is None and _fills(box, shape) else box)


def _look(image: np.ndarray, detector: faces.Detector, cropped: bool | None) -> list[faces.Face]:
    """The faces in a frame. A frame that may be a tight crop is searched once more with a rim around it, which detectors need."""
    found = detector(image)
    if found or cropped is False or not _squarish(image.shape):
        return found
    rim = max(image.shape) // 4
    wide = cv2.copyMakeBorder(image, rim, rim, rim, rim, cv2.BORDER_REPLICATE)
    return [faces.Face(face.x - rim, face.y - rim, face.size) for face in detector(wide)]


def _squarish(shape: tuple[int, ...]) -> bool:
    return max(shape[:2]) < 1.25 * min(shape[:2])  # CASME II's own crops are 280×340; cameras give 5:4 or wider


def _fills(box: Box, shape: tuple[int, int]) -> bool:
    """Whether frames of this shape are face crops already."""
    return _squarish(shape) and box.size >= 0.7 * max(shape)


def _clips(item: Item, entry: str, verdict: Verdict) -> tuple[list[Clip], list[SetAside]]:
    if verdict.reason:
        return [], [SetAside(item.id, verdict.reason)]
    clips, set_aside, count = [], [], len(verdict.shots)
    for number, shot in enumerate(verdict.shots, 1):
        name = item.id if count == 1 else f"{item.id}#{number:0{len(str(count))}d}"  # padded, so that sorting keeps the order
        if shot.reason:
            set_aside.append(SetAside(name, shot.reason))
        elif item.images is None:  # the crop is in the cached frames
            names = tuple(_frame_name(i) for i in range(shot.first, shot.end))
            clips.append(Clip(name, ImageFolder(entry, names), fps=verdict.fps))
        else:
            clips.append(Clip(name, ImageFolder(item.path, item.images.names[shot.first : shot.end]), shot.box))
    return clips, set_aside


def _nothing_usable(root: str, set_aside: list[SetAside]) -> str:
    kind, count = collections.Counter(each.reason.partition(":")[0] for each in set_aside).most_common(1)[0]
    example = next(each for each in set_aside if each.reason.startswith(kind))
    return (
        f"--data-root={root}: none of its {len(set_aside)} clips can be used; most often ({count}): {example.reason} (as in {example.id}); "
        "give a folder of videos, or of folders of frames, that show one face each"
    )


# ------------------------------------------------------------------------------------------------------------------ the cache


def _key(item: Item, size: int, detector: str, cropped: bool | None) -> str:
    """Changes when the file changes, or a folder's names, or its first image, or the rules."""
    stat = os.stat(item.path)
    parts = [item.path, stat.st_mtime_ns, detector, cropped, RULES]
    if item.images is None:
        parts += [stat.st_size, size, QUALITY]
    else:
        first = os.stat(os.path.join(item.path, item.images.names[0]))
        parts += [item.images.names, first.st_size, first.st_mtime_ns]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


def _load(entry: str) -> Verdict | None:
    try:
        with open(os.path.join(entry, "verdict.json")) as file:
            kept = json.load(file)
        found = tuple(Shot(s["first"], s["end"], s["box"] and Box(**s["box"]), s["reason"]) for s in kept["shots"])
        return Verdict(found, kept["fps"], kept["reason"])
    except FileNotFoundError:
        return None
    except (json.JSONDecodeError, KeyError, TypeError):  # written by a machine that then lost power
        shutil.rmtree(entry)
        return None


@contextlib.contextmanager
def _new_entry(entry: str) -> Iterator[str]:
    """A folder to fill that becomes `entry` at the end, all at once: a run that is killed leaves nothing that looks complete."""
    cache, name = os.path.split(entry)
    try:
        for left in glob.glob(glob.escape(entry) + ".*"):
            with contextlib.suppress(FileNotFoundError):  # another run completes it just now
                if time.time() - os.stat(left).st_mtime > ABANDONED:
                    shutil.rmtree(left)
        unfinished = tempfile.mkdtemp(prefix=f"{name}.", dir=cache)
        try:
            yield unfinished
            _rename(unfinished, entry)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        raise UserError(f"{cache}: the cache cannot be written ({error.strerror}); free the disk or choose another folder") from error


def _rename(unfinished: str, entry: str) -> None:
    try:
        os.rename(unfinished, entry)
    except OSError:
        if not os.path.isdir(entry):  # else another run was quicker, and its entry is as good as ours
            raise


def _keep_frames(path: str, verdict: Verdict, size: int, folder: str) -> None:
    boxes = {i: shot.box for shot in verdict.shots if not shot.reason for i in range(shot.first, shot.end)}
    for i, image in enumerate(frames.decode(path) if boxes else ()):
        if i in boxes:
            picture = cv2.cvtColor(frames.crop(image, boxes[i], size), cv2.COLOR_RGB2BGR)
            _, data = cv2.imencode(".jpg", picture, (cv2.IMWRITE_JPEG_QUALITY, QUALITY))
            with open(os.path.join(folder, _frame_name(i)), "wb") as file:  # cv2.imwrite keeps silent about a full disk
                file.write(data)


def _frame_name(index: int) -> str:
    return f"{index:06d}.jpg"


# ---------------------------------------------------------------------------------------------------------------- the threads


@contextlib.contextmanager
def _threads(workers: int) -> Iterator[ThreadPoolExecutor]:
    """A pool in which opencv, being called from all threads, uses one thread a call; what has not begun is dropped on an error."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    pool = ThreadPoolExecutor(workers)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        cv2.setNumThreads(before)

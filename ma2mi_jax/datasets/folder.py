"""Any folder of videos, or of folders of frames: `--source=folder`.

Everything under the root that is a video, and every folder that holds images, becomes a clip, or several where it has hard cuts or goes
on for long (`name#1`, `name#2`, ...). A video is decoded twice, once to find its shots and faces, once to crop them, and kept as
JPEG files under `cache`; folders of frames stay where they are and only their face boxes are kept. What was found out, `no face`
included, is kept with them, so that the next run decodes nothing.
"""

import collections
import operator
import os
from collections.abc import Callable

from ma2mi_jax.clips import faces, frames
from ma2mi_jax.clips.clip import Dataset, SetAside
from ma2mi_jax.clips.frames import ImageFolder
from ma2mi_jax.clips.video import VIDEO_SUFFIXES
from ma2mi_jax.datasets.common import disk
from ma2mi_jax.datasets.common.extract import LONGEST, Item, extract
from ma2mi_jax.datasets.common.reader import Reader
from ma2mi_jax.errors import UserError


def read(
    root: str,
    *,
    cache: str,
    size: int = 256,
    detector: faces.Detector | None = None,
    cropped: bool | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
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
    found = extract(
        items,
        cache=cache,
        size=size,
        detector=detector,
        cropped=cropped,
        workers=workers,
        progress=progress,
    )
    clips = [clip for each in found for clip in each.clips]
    set_aside = [refused for each in found for refused in each.set_aside]
    if not clips:
        raise UserError(_nothing_usable(root, set_aside))
    counts = {
        f"divided into clips, at hard cuts or after at most {LONGEST} frames": sum(
            len(each.verdict.shots) > 1 for each in found
        ),
        "taken as cropped already": sum(
            any(not s.reason and s.box is None for s in each.verdict.shots) for each in found
        ),
    }
    notes = tuple(
        f"{count} of {len(items)} videos or folders {what}"
        for what, count in counts.items()
        if count
    )
    by_id = operator.attrgetter("id")
    return Dataset(
        "folder", tuple(sorted(clips, key=by_id)), (), tuple(sorted(set_aside, key=by_id)), notes
    )


# ---------------------------------------------------------------------------------------------------- what lies on the disk


def _items(root: str, cache: str) -> list[Item]:
    if not os.path.isdir(root):
        found = "is a file" if os.path.exists(root) else "does not exist"
        raise UserError(
            f"--data-root={root}: {found}; give a folder of videos or of folders of frames"
        )
    root = os.path.abspath(root)
    videos, image_folders, seen = [], [], {os.path.realpath(cache)}
    for folder, inner, names in os.walk(root, followlinks=True, onerror=disk.stop_at):
        if os.path.realpath(folder) in seen:  # the cache, or a link to where we have been
            inner[:] = []
            continue
        seen.add(os.path.realpath(folder))
        inner[:] = sorted(name for name in inner if not name.startswith((".", "__MACOSX")))
        names = sorted(name for name in names if not name.startswith("."))
        videos += [
            os.path.join(folder, name) for name in names if name.lower().endswith(VIDEO_SUFFIXES)
        ]
        images = [name for name in names if name.lower().endswith(frames.IMAGE_SUFFIXES)]
        if images:
            image_folders.append(ImageFolder(folder, tuple(sorted(images, key=frames.frame_order))))
    if not videos and not image_folders:
        kinds = f"videos ({' '.join(VIDEO_SUFFIXES[:4])} ...) or folders of images ({' '.join(frames.IMAGE_SUFFIXES[:3])} ...)"
        raise UserError(
            f"--data-root={root}: holds neither videos nor images at any depth; expected {kinds}"
        )

    ids = collections.Counter(
        [_id(root, os.path.splitext(path)[0]) for path in videos]
        + [_id(root, f.folder) for f in image_folders]
    )
    short = {path: _id(root, os.path.splitext(path)[0]) for path in videos}
    items = [
        Item(name if ids[name] == 1 else _id(root, path), path) for path, name in short.items()
    ]
    items += [Item(_id(root, images.folder), images.folder, images) for images in image_folders]
    return sorted(items, key=lambda item: item.id)


def _id(root: str, path: str) -> str:
    inside = os.path.relpath(path, root)
    return os.path.basename(root) if inside == "." else inside.replace(os.sep, "/")


def _nothing_usable(root: str, set_aside: list[SetAside]) -> str:
    kind, count = collections.Counter(
        each.reason.partition(":")[0] for each in set_aside
    ).most_common(1)[0]
    example = next(each for each in set_aside if each.reason.startswith(kind))
    return (
        f"--data-root={root}: none of its {len(set_aside)} clips can be used; most often ({count}): {example.reason} (as in {example.id}); "
        "give a folder of videos, or of folders of frames, that show one face each"
    )


READER = Reader(
    "folder",
    "any folder of videos or of frames",
    kind="source",
    read=read,
    takes=("detector",),
    labelled=False,
)

"""Any folder of videos, or of folders of frames.

Every video under the root becomes a clip, and so does every folder that holds images. Where it has
hard cuts, or is long, it becomes several clips (`name#1`, `name#2`, …). `common/extract.py` finds
the faces and keeps what was found out.
"""

import collections
import operator
import os
from collections.abc import Callable, Sequence

from ma2mi_jax.clips import faces, frames, video
from ma2mi_jax.clips.clip import Dataset, SetAside
from ma2mi_jax.clips.frames import ImageFolder
from ma2mi_jax.datasets.common import disk
from ma2mi_jax.datasets.common.extract import LONGEST, Item, extract, told
from ma2mi_jax.datasets.common.reader import Reader
from ma2mi_jax.errors import UserError
from ma2mi_jax.files import printable

SHALLOW = "clips of 16-bit images that fill fewer bits, made as bright as if they filled all"


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
    """All usable clips under `root`, at any depth.

    What operating systems leave there (hidden files, `Thumbs.db`, `__MACOSX`) is skipped. Files
    that are neither videos nor images are counted in a note. A TIFF file of several pages is a clip
    by itself. The id of a clip is its path from `root` without the suffix; files that differ in
    nothing else keep the suffix. The frames of a folder are in the natural order of their names.
    Frames of videos are cropped to size × size. Frames of a folder stay as they are, and `Clip.box`
    says what to crop.

    Args:
      root: the folder.
      cache: folder for what is decoded and found out. An entry is used again as long as size and
        time of the file, or of every image in a folder, are the same, `size`, detector and the
        version of the decoder too. That a file could not be opened is not kept.
      size: height and width of the frames kept of a video, in pixels.
      detector: finds faces; None is `faces.haar()`.
      cropped: True takes frames as they are, without a search. False always crops. None takes
        frames as cropped already if they are about square and the face fills them.
      workers: threads; None is one for each core.
      progress: called as progress(done, total) after each video or folder.

    Raises:
      UserError: the folder is missing, it holds neither videos nor images, nothing in it can be
        used, or the cache cannot be written.
    """
    cache = os.path.abspath(cache)
    items, passed_over = _items(root, cache)
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
        raise _nothing_usable(root, set_aside)

    divided = sum(len(each.verdict.shots) > 1 for each in found)
    taken = sum(
        any(not shot.reason and shot.box is None for shot in each.verdict.shots) for each in found
    )
    counts = {
        f"divided into clips, at hard cuts or after at most {LONGEST} frames": divided,
        "taken as cropped already": taken,
    }
    notes = tuple(
        f"{count} of {len(items)} videos or folders {what}"
        for what, count in counts.items()
        if count
    )
    if shallow := [each for each in found if each.clips and each.verdict.bits not in (8, 16)]:
        shown = disk.some(f"{each.item.id}: values of {each.verdict.bits} bits" for each in shallow)
        notes += (f"{SHALLOW}: {len(shallow)} ({shown})",)
    if passed_over:
        notes += (_told(passed_over),)
    lacking, repairs = told(found)
    by_id = operator.attrgetter("id")
    return Dataset(
        "folder",
        tuple(sorted(clips, key=by_id)),
        set_aside=tuple(sorted(set_aside, key=by_id)),
        notes=(*notes, *lacking),
        repairs=tuple(repairs),
    )


# ----- what lies on the disk ----------------------------------------------------------------------


def _items(root: str, cache: str) -> tuple[list[Item], list[str]]:
    """The videos and folders of images, by id, and the names of the files that are neither."""
    if not os.path.isdir(root):
        raise UserError(
            "[root={root}]: {found}; give a folder of videos or of folders of frames",
            root=root,
            found="is a file" if os.path.exists(root) else "does not exist",
        )
    root = os.path.abspath(root)
    videos, image_folders, others = _found_below(root, without=cache)
    if not videos and not image_folders:
        raise UserError(
            "[root={root}]: holds neither videos nor images at any depth{others}; expected videos "
            "({videos} ...) or folders of images ({images} ...)",
            root=root,
            others=f" ({_told(others)})" if others else "",
            videos=" ".join(video.VIDEO_SUFFIXES[:4]),
            images=" ".join(frames.IMAGE_SUFFIXES[:3]),
        )

    short = {path: _id(root, os.path.splitext(path)[0]) for path in videos}
    of_folders = [_id(root, images.folder) for images in image_folders]
    uses = collections.Counter([*short.values(), *of_folders])
    items = [
        Item(name if uses[name] == 1 else _id(root, path), path) for path, name in short.items()
    ]
    items += [
        Item(id, images.folder, images)
        for id, images in zip(of_folders, image_folders, strict=True)
    ]
    return sorted(items, key=lambda item: item.id), others


def _told(others: Sequence[str]) -> str:
    """`3 files passed over: .MTS .pdf`."""
    suffixes = {printable(os.path.splitext(name)[1]) or "without a suffix" for name in others}
    files = "1 file" if len(others) == 1 else f"{len(others)} files"
    return f"{files} passed over: {' '.join(sorted(suffixes))}"


def _found_below(root: str, without: str) -> tuple[list[str], list[ImageFolder], list[str]]:
    """The videos and the folders of images under `root`, and the names of the other files; the
    folder `without` is not entered. A TIFF file of several pages counts as a video."""
    videos, image_folders, others = [], [], []
    seen = {os.path.realpath(without)}
    for folder, inner, names in os.walk(root, followlinks=True, onerror=disk.stop_at):
        if os.path.realpath(folder) in seen:  # the cache, or a link to where we have been
            inner[:] = []
            continue
        seen.add(os.path.realpath(folder))
        inner[:] = sorted(name for name in inner if not name.startswith((".", "__MACOSX")))
        images = []
        for name in sorted(name for name in names if not disk.junk(name)):
            path = os.path.join(folder, name)
            if disk.ends_with(name, video.VIDEO_SUFFIXES) or video.has_pages(path):
                videos.append(path)
            elif disk.ends_with(name, frames.IMAGE_SUFFIXES):
                images.append(name)
            else:
                others.append(name)
        if images:
            image_folders.append(ImageFolder(folder, tuple(sorted(images, key=frames.frame_order))))
    return videos, image_folders, others


def _id(root: str, path: str) -> str:
    inside = os.path.relpath(path, root)
    return printable(os.path.basename(root) if inside == "." else inside.replace(os.sep, "/"))


def _nothing_usable(root: str, set_aside: list[SetAside]) -> UserError:
    """The error for a folder of which no clip can be used: the most frequent reason, and a clip."""
    kinds = collections.Counter(each.reason.partition(":")[0] for each in set_aside)
    kind, count = kinds.most_common(1)[0]
    example = next(each for each in set_aside if each.reason.startswith(kind))
    return UserError(
        "[root={root}]: none of its {total} clips can be used; most often ({count}): {reason} (as "
        "in {id}); give a folder of videos, or of folders of frames, that show one face each",
        root=root,
        total=len(set_aside),
        count=count,
        reason=example.reason,
        id=example.id,
    )


READER = Reader(
    "folder",
    "any folder of videos or of frames",
    kind="source",
    read=read,
    takes=("detector",),
    labelled=False,
    own=True,
)

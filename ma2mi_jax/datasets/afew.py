"""AFEW (Dhall et al., "Collecting Large, Richly Annotated Facial-Expression Databases from Movies",
IEEE MultiMedia 2012): 1,809 clips of films, of which two forms are shipped.

  Train_AFEW/Angry/*.avi                                             videos, in folders of emotions
  Train_AFEW/AlignedFaces_LBPTOP_Points/Faces/<clip>/*.jpg           aligned faces
  Val_AFEW/…                                                         the same
  Test_AFEW/…                                                        the same, without labels
"""

import collections
import dataclasses
import os
from collections.abc import Callable

from ma2mi_jax.clips import faces
from ma2mi_jax.clips.clip import Clip, Dataset, SetAside
from ma2mi_jax.clips.frames import ImageFolder
from ma2mi_jax.clips.video import VIDEO_SUFFIXES
from ma2mi_jax.datasets.common import disk, listing, macro
from ma2mi_jax.datasets.common.extract import LONGEST, Item, extract, told
from ma2mi_jax.datasets.common.reader import Reader
from ma2mi_jax.errors import UserError
from ma2mi_jax.files import printable

SHOWN = "Train_AFEW/<emotion>/*.avi or Train_AFEW/AlignedFaces_LBPTOP_Points/Faces/<id>/*.jpg"
SPLITS = {"train": ("Train_AFEW", 773), "val": ("Val_AFEW", 383), "test": ("Test_AFEW", 653)}
"""The folder of each split, and the number of clips published."""
TWICE = "videos that are called as another one before them, which counts alone,"


def read(
    root: str,
    *,
    cache: str,
    split: str | None = None,
    size: int = 256,
    detector: faces.Detector | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """All clips on the disk, or those of one split: `train`, `val` or `test`.

    Where a clip has two or more aligned faces, these are its frames. Otherwise its video is read as
    `folder.read` reads one: it is cut into shots, cropped by one face box for each shot, and kept
    as frames. The label is the folder in which the video lies. The test part was published without
    labels: its videos may lie in any folder, and serve pre-training alone.

    Args:
      root: the folder that holds Train_AFEW, Val_AFEW and Test_AFEW, or one of them.
      cache: folder for listings and for the frames of videos.
      split: the part to use; None is all that is there.
      size: height and width of the frames kept of a video, in pixels.
      detector: finds the faces in videos; None is `faces.haar()`.
      progress: called as progress(done, total) with the videos that are decoded.

    Raises:
      UserError: the clips or the split are not there, no clip can be used, or the cache cannot be
        written.
    """
    there = {
        name: found for name, (folder, _) in SPLITS.items() if (found := disk.find(root, folder))
    }
    if not there:
        raise disk.not_found("source", "afew", root, SHOWN)
    macro.check_split("afew", split, list(there))

    # ----- what lies on the disk -----
    aligned: dict[str, ImageFolder] = {}
    videos: dict[str, str] = {}
    labels: dict[str, int] = {}
    notes = []
    for name in there if split is None else [split]:
        in_faces = _aligned(there[name], name, cache)
        in_videos, twice = _videos(there[name], name)
        aligned |= in_faces
        videos |= {id: path for id, (path, _) in in_videos.items()}
        labels |= {id: label for id, (_, label) in in_videos.items()}
        count, (folder, published) = len(in_faces.keys() | in_videos.keys()), SPLITS[name]
        if count != published:
            notes.append(f"{count} clips in {folder}, published {published}")
        if twice:
            notes.append(f"{TWICE} in {folder}: {len(twice)} ({disk.some(twice)})")
    if not videos and not any(map(len, aligned.values())):
        raise disk.not_found("source", "afew", root, SHOWN)

    # ----- clips -----
    usable = {id: frames for id, frames in aligned.items() if len(frames) >= 2}
    items = [Item(id, path) for id, path in sorted(videos.items()) if id not in usable]
    extracted = extract(
        items, cache=os.path.join(cache, "videos"), size=size, detector=detector, progress=progress
    )
    clips = [Clip(id, frames, label=labels.get(id, -1)) for id, frames in usable.items()]
    clips += [
        dataclasses.replace(clip, label=labels[each.item.id])
        for each in extracted
        for clip in each.clips
    ]
    set_aside = [refused for each in extracted for refused in each.set_aside]
    set_aside += [
        SetAside(
            id,
            f"a pair needs two frames, its folder of faces holds {len(frames)}, "
            "and its video is not there",
        )
        for id, frames in aligned.items()
        if id not in usable and id not in videos
    ]
    if not clips:
        raise UserError(
            "[source=afew]: none of {count} clips under {root} can be used (for example {id}: "
            "{reason}); give another [root]",
            count=len(aligned | videos),
            root=root,
            id=set_aside[0].id,
            reason=set_aside[0].reason,
        )

    # ----- what is told -----
    divided = sum(len(each.verdict.shots) > 1 for each in extracted)
    unlabelled = collections.Counter(c.id.startswith("test/") for c in clips if c.label < 0)
    counts = {
        "clips taken as aligned faces": len(usable),
        "clips decoded from their videos and cropped": sum(bool(each.clips) for each in extracted),
        f"videos divided, at hard cuts or after at most {LONGEST} frames": divided,
        "clips without a label, for their videos are not there": unlabelled[False],
        "clips of the test part, which has no labels": unlabelled[True],
    }
    notes += [f"{what}: {count}" for what, count in counts.items() if count]
    lacking, repairs = told(extracted)
    notes += lacking
    clips.sort(key=lambda clip: clip.id)
    set_aside.sort(key=lambda refused: refused.id)
    return Dataset(
        "afew",
        tuple(clips),
        macro.EMOTIONS,
        tuple(set_aside),
        tuple(notes),
        repairs=tuple(repairs),
    )


def _aligned(place: str, split: str, cache: str) -> dict[str, ImageFolder]:
    """The folders of aligned faces in a split's folder, by clip id.

    If there are several of a clip, it is the first that holds two frames.
    """
    homes = [
        disk.find(os.path.join(place, name), "Faces")
        for name in disk.folders(place)
        if name.strip().startswith("AlignedFaces")
    ]
    found: dict[str, ImageFolder] = {}
    for home in filter(None, homes):
        for name, frames in listing.clip_folders(home, 1, cache=cache).items():
            id = f"{split}/{name}"
            if id not in found or len(found[id]) < 2 <= len(frames):
                found[id] = frames
    return found


def _videos(place: str, split: str) -> tuple[dict[str, tuple[str, int]], list[str]]:
    """Path and label of the videos in a split's folder, by clip id; and those of the others that
    have the same id."""
    found, twice = {}, []
    labelled: dict[str, tuple[str, int]] = {}
    for path in disk.files_below(place, VIDEO_SUFFIXES) if split == "test" else ():
        name = os.path.splitext(os.path.basename(path))[0]
        found[f"{split}/{printable(name)}"] = path, -1
    for emotion in disk.folders(place):
        label = macro.emotion(emotion)
        if label < 0:  # a folder of another kind
            continue
        folder = disk.innermost(os.path.join(place, emotion))
        for name in disk.files(folder, VIDEO_SUFFIXES):
            id = f"{split}/{printable(disk.stem(name))}"
            if id in labelled:
                twice.append(f"{emotion}/{name}")
            else:
                labelled[id] = os.path.join(folder, name), label
    return found | labelled, [printable(path) for path in twice]


READER = Reader(
    "afew",
    "AFEW",
    kind="source",
    read=read,
    takes=("split", "detector"),
    published=sum(published for _, published in SPLITS.values()),
)

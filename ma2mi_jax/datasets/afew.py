"""AFEW: clips of films, as `Train_AFEW/Angry/*.avi` and as aligned faces, `Train_AFEW/AlignedFaces_LBPTOP_Points/Faces/<clip>/*.jpg`."""

import dataclasses
import os
from collections.abc import Callable

from ma2mi_jax.clips import faces
from ma2mi_jax.clips.clip import Clip, Dataset, SetAside
from ma2mi_jax.clips.frames import ImageFolder
from ma2mi_jax.clips.video import VIDEO_SUFFIXES
from ma2mi_jax.datasets.common import disk, macro
from ma2mi_jax.datasets.common.extract import LONGEST, Item, extract
from ma2mi_jax.datasets.common.reader import Reader
from ma2mi_jax.errors import UserError

SHOWN = "Train_AFEW/<emotion>/*.avi or Train_AFEW/AlignedFaces_LBPTOP_Points/Faces/<id>/*.jpg"
SPLITS = {
    "train": ("Train_AFEW", 773),
    "val": ("Val_AFEW", 383),
}  # with the number of clips published


def read(
    root: str,
    *,
    cache: str,
    split: str | None = None,
    size: int = 256,
    detector: faces.Detector | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """All clips on disk, or those of `split`, `train` or `val`. The folder of a clip's video is its label.

    The aligned faces of a clip are used where there are two or more, else its video: cut into shots, cropped by one face box each and
    kept as frames, as those of `--source=folder` are.

    Args:
      root: the folder that holds Train_AFEW and Val_AFEW, or one of them.
      cache: folder for listings and the frames of videos.
      size: height and width of the frames kept of a video.
      detector: finds the faces in videos; None is `faces.haar()`.
      progress: called as progress(done, total) with the videos decoded.

    Raises:
      UserError: the clips or the split are not there, no clip can be used, or the cache cannot be written.
    """
    places = {
        name: place for name, (folder, _) in SPLITS.items() if (place := disk.find(root, folder))
    }
    if not places:
        raise disk.not_found("--source=afew", root, SHOWN)
    macro.check_split("afew", split, list(places))
    aligned: dict[str, ImageFolder] = {}
    videos: dict[str, str] = {}
    labels: dict[str, int] = {}
    notes = []
    for name in places if split is None else [split]:
        in_faces, in_videos = _aligned(places[name], name, cache), _videos(places[name], name)
        aligned |= in_faces
        videos |= {id: path for id, (path, _) in in_videos.items()}
        labels |= {id: label for id, (_, label) in in_videos.items()}
        count, (folder, published) = len(in_faces.keys() | in_videos.keys()), SPLITS[name]
        if count != published:
            notes.append(f"{count} clips in {folder}, published {published}")
    if not videos and not any(map(len, aligned.values())):
        raise disk.not_found("--source=afew", root, SHOWN)

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
            f"a pair needs two frames, its folder of faces holds {len(frames)}, and its video is not there",
        )
        for id, frames in aligned.items()
        if id not in usable and id not in videos
    ]
    if not clips:
        why = f"{set_aside[0].id}: {set_aside[0].reason}"
        raise UserError(
            f"--source=afew: none of {len(aligned | videos)} clips can be used (as {why}); give --data-root=FOLDER"
        )
    divided = sum(len(each.verdict.shots) > 1 for each in extracted)
    counts = {
        "clips taken as aligned faces": len(usable),
        "clips decoded from their videos and cropped": sum(bool(each.clips) for each in extracted),
        f"videos divided, at hard cuts or after at most {LONGEST} frames": divided,
        "clips without a label, for their videos are not there": sum(
            clip.label < 0 for clip in clips
        ),
    }
    notes += [f"{what}: {count}" for what, count in counts.items() if count]
    in_order = [
        tuple(sorted(records, key=lambda record: record.id)) for records in (clips, set_aside)
    ]
    return Dataset("afew", in_order[0], macro.EMOTIONS, in_order[1], tuple(notes))


def _aligned(place: str, split: str, cache: str) -> dict[str, ImageFolder]:
    """The folders of aligned faces by clip id."""
    homes = [
        disk.find(os.path.join(place, name), "Faces")
        for name in disk.folders(place)
        if name.startswith("AlignedFaces")
    ]
    found = [disk.clip_folders(home, 1, cache=cache) for home in homes if home]
    return {f"{split}/{name}": frames for each in found for name, frames in each.items()}


def _videos(place: str, split: str) -> dict[str, tuple[str, int]]:
    """Path and label of the videos by clip id."""
    emotions = {name: label for name in disk.folders(place) if (label := macro.emotion(name)) >= 0}
    return {
        f"{split}/{os.path.splitext(name)[0]}": (os.path.join(folder, name), label)
        for folder, label in (
            (disk.innermost(os.path.join(place, name)), label) for name, label in emotions.items()
        )
        for name in disk.files(folder, VIDEO_SUFFIXES)
    }


READER = Reader(
    "afew",
    "AFEW",
    kind="source",
    read=read,
    takes=("split", "detector"),
    published=sum(published for _, published in SPLITS.values()),
)

"""FERV39k (Wang et al., "FERV39k: A Large-Scale Multi-Scene Dataset for Facial Expression
Recognition in Videos", CVPR 2022): 38,935 clips in 22 scenes, cropped to the face.

  2_ClipsforFaceCrop/Action/Happy/0267/*.jpg    scene, emotion, clip; the outermost folder may be
                                                absent or called otherwise
  0_7_LabelClips/Action/Happy/0267.mp4          videos, where a clip has no folder; likewise
  4_setups/All_scenes/train_All.csv             lists that are called splits
"""

import os
import re
from collections.abc import Callable, Collection

from ma2mi_jax.clips import faces
from ma2mi_jax.clips.clip import Dataset
from ma2mi_jax.clips.frames import ImageFolder
from ma2mi_jax.clips.video import VIDEO_SUFFIXES
from ma2mi_jax.datasets.common import disk, listing, macro
from ma2mi_jax.datasets.common.reader import Reader
from ma2mi_jax.files import printable

SHOWN = (
    "2_ClipsforFaceCrop/<scene>/<emotion>/<clip>/*.jpg or "
    "0_7_LabelClips/<scene>/<emotion>/<clip>.mp4"
)
PUBLISHED = 38935


def read(
    root: str,
    *,
    cache: str,
    split: str | None = None,
    detector: faces.Detector | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """All clips on the disk, or those of one split.

    A split is `train` or `test` of all scenes, or the name of one scene's list without `.csv`. The
    lists give the labels. A clip that is in no list has the label of its folder.

    The other arguments and the errors are those of `dfew.read`.
    """
    frames, films = disk.find(root, "2_ClipsforFaceCrop"), disk.find(root, "0_7_LabelClips")
    folders, videos = _clips(frames, films, cache, progress)
    if not videos and not any(map(len, folders.values())):
        frames = films = _scenes(root)
        folders, videos = _clips(frames, films, cache, progress)
    if not videos and not any(map(len, folders.values())):
        raise disk.not_found("source", "ferv39k", root, SHOWN)

    ids = [*folders, *videos]
    labels = {id: label for id in ids if (label := macro.emotion(id.split("/")[1])) >= 0}
    found, unread = _splits(disk.find(root, "4_setups") or disk.find(root, "All_scenes"))
    lists, several = macro.by_name(found)
    notes = macro.places(frames if folders else None, films if videos else None)
    notes += [f"lines of the lists that name no clip or no emotion: {unread}"] if unread else []
    notes += several
    return macro.dataset(
        "ferv39k",
        folders,
        labels=labels,
        splits=lists,
        split=split,
        published=PUBLISHED,
        notes=notes,
        videos=videos,
        cache=cache,
        detector=detector,
        progress=progress,
    )


def _clips(
    frames: str | None, films: str | None, cache: str, progress: Callable[[int, int], None] | None
) -> tuple[dict[str, ImageFolder], dict[str, str]]:
    """The folders of frames below `frames` by id, and the videos below `films` of other clips."""
    folders = listing.clip_folders(frames, 3, cache=cache, progress=progress) if frames else {}
    usable = {id for id, images in folders.items() if len(images) >= 2}
    return folders, _videos(films, without=usable) if films else {}


def _videos(place: str, without: Collection[str]) -> dict[str, str]:
    """The videos `<scene>/<emotion>/0267.mp4` by id; `without` are clips that need no video."""
    found = {}
    for path in disk.files_below(place, VIDEO_SUFFIXES):
        inside = os.path.splitext(os.path.relpath(path, place))[0]
        id = printable(inside.replace(os.sep, "/"))
        if id.count("/") == 2 and id not in without:
            found[id] = path
    return found


def _scenes(root: str) -> str | None:
    """The folder of the scenes, `root` or one in it: a scene holds folders of emotions."""
    for place in (root, *(os.path.join(root, name) for name in disk.folders(root))):
        for scene in disk.folders(place):
            if any(macro.emotion(name) >= 0 for name in disk.folders(os.path.join(place, scene))):
                return place
    return None


def _splits(folder: str | None) -> tuple[list[tuple[str, str, dict[str, int]]], int]:
    """The lists as `macro.by_name` takes them, and how many of their lines could not be
    understood.

    The lists have no header. A line is `Action/Happy/0267 Happy`, with or without folders before.
    """
    lists, unread = [], 0
    line_of_a_clip = (
        r"(?:.*(?:2_ClipsforFaceCrop|0_7_LabelClips)/)?([^/]+/[^/]+/[^/\s,]+?)(?:\.\w+)?[\s,]+(\w+)"
    )
    for path in disk.files_below(folder, (".csv",)) if folder else ():
        name = re.sub("_all$", "", os.path.splitext(os.path.basename(path))[0], flags=re.IGNORECASE)
        said = {}
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            for line in filter(None, map(str.strip, file)):
                parts = re.fullmatch(line_of_a_clip, line.replace("\\", "/"))
                if parts:
                    said[parts[1]] = macro.emotion(parts[2])
                unread += not parts or said[parts[1]] < 0
        lists.append((name, printable(os.path.relpath(path, folder)), said))
    return lists, unread


READER = Reader(
    "ferv39k",
    "FERV39k",
    kind="source",
    read=read,
    takes=("split", "detector"),
    aliases=("fervk39",),
    published=PUBLISHED,
)

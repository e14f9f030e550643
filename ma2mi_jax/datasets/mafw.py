"""MAFW (Liu et al., "MAFW: A Large-scale, Multi-modal, Compound Affective Database for Dynamic
Facial Expression Recognition in the Wild", ACM Multimedia 2022): 10,045 clips from films and TV.

  data/frames/00001/*.jpg, or data/frames/<folder>/00001/*.jpg    frames
  data/clips/00001.mp4                                            videos, where there are no frames
  Labels/single-set.xlsx                                          labels 1 … 11
  Train & Test Set/single/no_caption/set_1/train.txt              lists that are called splits
"""

import os
import re
from collections.abc import Callable

from ma2mi_jax.clips import faces
from ma2mi_jax.clips.clip import Dataset
from ma2mi_jax.clips.frames import ImageFolder
from ma2mi_jax.clips.video import VIDEO_SUFFIXES
from ma2mi_jax.datasets.common import disk, listing, macro, sheets
from ma2mi_jax.datasets.common.reader import Reader
from ma2mi_jax.files import printable

SHOWN = "data/clips/00001.mp4 or data/frames/00001/*.jpg"
PUBLISHED = 10045
LABELS = (
    *("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise"),
    *("contempt", "anxiety", "helplessness", "disappointment"),
)
"""The emotions 1 … 11. The last four are none of the seven of `macro.EMOTIONS`."""


def read(
    root: str,
    *,
    cache: str,
    split: str | None = None,
    detector: faces.Detector | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """All clips on the disk, or those of one split: `train_1` … `test_5`.

    Frames are taken as they are. A clip without frames is read from its video. A clip of one of the
    four emotions beyond the seven has no label, but serves as any other.

    Args:
      root: the folder that holds `data`, and `Labels` and `Train & Test Set` if there are any.
      cache: folder for listings and for the frames of videos.
      split: the list to use; None is all clips.
      detector: finds the faces in videos; None is `faces.haar()`.
      progress: called as progress(done, total) with the videos that are decoded.

    Raises:
      UserError: the clips or the split are not there, no clip can be used, or the cache cannot be
        written.
    """
    folders, videos = _frames(root, cache), _videos(root)
    if not videos and not any(map(len, folders.values())):
        raise disk.not_found("source", "mafw", root, SHOWN)
    named = _labels(root)
    labels = {id: macro.emotion(name) for id, name in named.items()}
    beyond = sum(id in folders or id in videos for id, label in labels.items() if label < 0)
    lists, several = macro.by_name(_splits(root))
    notes = macro.places("frames" if folders else None, "clips" if videos else None)
    notes += several
    if beyond:
        notes.append(f"clips of {', '.join(LABELS[7:])}, taken without a label: {beyond}")
    return macro.dataset(
        "mafw",
        folders,
        labels={id: label for id, label in labels.items() if label >= 0},
        splits=lists,
        split=split,
        published=PUBLISHED,
        notes=notes,
        videos=videos,
        cache=cache,
        detector=detector,
        progress=progress,
    )


def _frames(root: str, cache: str) -> dict[str, ImageFolder]:
    """The folders of frames by id.

    If there are several of a clip, it is the one nearest to the root that holds two frames.
    """
    place, found = disk.find(root, "data", "frames"), {}
    for depth in (1, 2) if place else ():
        for path, images in listing.clip_folders(place, depth, cache=cache).items():
            id = _id(path)
            if id and (id not in found or len(found[id]) < 2 <= len(images)):
                found[id] = images
    return found


def _videos(root: str) -> dict[str, str]:
    place = disk.find(root, "data", "clips")
    paths = disk.files_below(place, VIDEO_SUFFIXES) if place else []
    return {id: path for path in paths if (id := _id(path))}


def _id(text: str) -> str | None:
    """The id in `data/clips/00001.mp4`, `00001.mp4` or `1`; None if there is none."""
    found = re.search(r"(?:^|[/\\])\s*([0-9]+)\s*(?:\.\w+\s*)?$", text)
    return found and found[1].zfill(5)


# ----- labels and lists ---------------------------------------------------------------------------


def _labels(root: str) -> dict[str, str]:
    """Names of emotions by clip, from `single-set.xlsx`: a clip stands in a row's first cell, its
    label in the last one."""
    place = disk.find(root, "Labels") or root
    path = os.path.join(place, "single-set.xlsx")
    pages = sheets.pages(path).values() if os.path.isfile(path) else ()
    found = {}
    for row in (row for page in pages for row in page):
        cells = [cell for cell in row if cell]
        if len(cells) > 1 and (id := _id(cells[0])) and (name := _emotion(cells[-1])):
            found[id] = name
    return found


def _splits(root: str) -> list[tuple[str, str, dict[str, int]]]:
    """The lists of single labels (`train_1`) as `macro.by_name` takes them. A line is
    `00001.mp4 anger`."""
    lists = []
    place = disk.find(root, "Train & Test Set") or disk.find(root, "train_test_set")
    for path in disk.files_below(place, (".txt", ".csv")) if place else ():
        inside = "/".join(map(str.strip, os.path.relpath(path, place).lower().split(os.sep)))
        name = re.search(r"set_?([0-9]+)/(train|test)\.", inside)
        if name is None or "compound" in inside or "with_caption" in inside:
            continue
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            lines = [re.split(r"[\s,]+", line.strip()) for line in file]
        said = {
            id: macro.emotion(_emotion(words[1]) or "")
            for words in lines
            if len(words) > 1 and (id := _id(words[0]))
        }
        shown = printable(os.path.relpath(path, place))
        lists.append((f"{name[2]}_{name[1]}", shown, said))
    return lists


def _emotion(text: str) -> str | None:
    """The name of an emotion that is given as a name or as a number; None if it is neither."""
    number = sheets.whole(text)
    if number is not None:
        return LABELS[number - 1] if 1 <= number <= len(LABELS) else None
    return text.lower() if text.lower() in LABELS else None


READER = Reader(
    "mafw",
    "MAFW",
    kind="source",
    read=read,
    takes=("split", "detector"),
    published=PUBLISHED,
)

"""DFEW (Jiang et al., "DFEW: A Large-Scale Database for Recognizing Dynamic Facial Expressions in
the Wild", ACM Multimedia 2020): 16,372 clips of films, cropped to the face. The images are
256 x 256 although their folder is called 224 x 224.

  Clip/clip_224x224/00001/*.jpg                       one folder for each clip; also called jpg_224
                                                      or jpg_256
  Clip/original/1.mp4                                 videos, where a clip has no folder
  EmoLabel_DataSplit/train(single-labeled)/set_1.csv  labels 1 … 7, in lists called splits
"""

import csv
import os
import re
from collections.abc import Callable, Collection, Mapping

from ma2mi_jax.clips import faces
from ma2mi_jax.clips.clip import Dataset
from ma2mi_jax.clips.video import VIDEO_SUFFIXES
from ma2mi_jax.datasets.common import disk, listing, macro, sheets
from ma2mi_jax.datasets.common.reader import Reader
from ma2mi_jax.errors import UserError
from ma2mi_jax.files import printable

SHOWN = "Clip/clip_224x224/<clip>/*.jpg"
FRAMES = ("clip_224x224", "jpg_224", "jpg_256")
PUBLISHED = 16372


def read(
    root: str,
    *,
    cache: str,
    split: str | None = None,
    detector: faces.Detector | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """All clips on the disk, or those of one split: `train_1` … `test_5`.

    `clip_224x224_16f` is never read. Its frames are interpolated in time, so that the distance
    between two of them means nothing.

    Args:
      root: the folder that holds the clips, and the lists if there are any. Without lists no clip
        has a label.
      cache: folder for the listing and for the frames of videos.
      split: the list to use; None is all clips.
      detector: finds the faces in videos; None is `faces.haar()`.
      progress: called as progress(done, total) with the folders that are listed, then with the
        videos that are decoded.

    Raises:
      UserError: the clips or the split are not there, or no clip can be used.
    """
    frames, folders = None, {}
    for frames in filter(None, (disk.find(root, "Clip", name) for name in FRAMES)):
        folders = listing.clip_folders(frames, 1, cache=cache, progress=progress)
        if any(map(len, folders.values())):
            break
    ids = {int(id): id for id in folders if id.isdecimal()}
    videos = _videos(root, ids, without={id for id in folders if len(folders[id]) >= 2})
    if not videos and not any(map(len, folders.values())):
        if frames is None and disk.find(root, "Clip", "clip_224x224_16f"):
            raise UserError(
                "[source=dfew]: found only clip_224x224_16f under {root}, whose frames are "
                "interpolated in time; unpack {shown} there",
                root=root,
                shown=SHOWN,
            )
        raise disk.not_found("source", "dfew", root, SHOWN)

    found, unread = _splits(disk.find(root, "EmoLabel_DataSplit"), ids)
    lists, several = macro.by_name(found)
    notes = macro.places(frames if folders else None, "original" if videos else None)
    if unread:
        notes.append(f"lines of the lists that name no clip or no label of 1 ... 7: {unread}")
    notes += several
    return macro.dataset(
        "dfew",
        folders,
        labels={},
        splits=lists,
        split=split,
        published=PUBLISHED,
        notes=notes,
        videos=videos,
        cache=cache,
        detector=detector,
        progress=progress,
    )


def _videos(root: str, ids: Mapping[int, str], without: Collection[str]) -> dict[str, str]:
    """The videos `1.mp4` by id (`00001`).

    Args:
      ids: the clips that have a folder, by number.
      without: ids of clips that need no video.
    """
    place = disk.find(root, "Clip", "original")
    names = disk.files(place, VIDEO_SUFFIXES) if place else []
    numbers = {int(disk.stem(name)): name for name in names if disk.stem(name).isdecimal()}
    paths = {
        ids.get(number, f"{number:05d}"): os.path.join(place, name)
        for number, name in numbers.items()
    }
    return {id: path for id, path in paths.items() if id not in without}


def _splits(
    folder: str | None, ids: dict[int, str]
) -> tuple[list[tuple[str, str, dict[str, int]]], int]:
    """The lists as `macro.by_name` takes them, and how many of their lines could not be
    understood.

    Args:
      folder: where the lists lie; None is nowhere.
      ids: the clips on the disk by number. The lists write the numbers without zeros in front.
    """
    lists, unread = [], 0
    for path in disk.files_below(folder, (".csv",)) if folder else ():
        inside = os.path.relpath(path, folder)
        name = _split_name(inside)
        if name is None:
            continue
        with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file) if row]
        if rows and sheets.whole(rows[0][0]) is None:  # the header
            rows = rows[1:]

        said = {}
        for row in rows:
            clip, label = (sheets.whole(cell) for cell in (*row, "")[:2])
            known = label in range(1, 8)
            if clip is not None:
                said[ids.get(clip, f"{clip:05d}")] = label - 1 if known else -1
            unread += clip is None or not known
        lists.append((name, printable(inside), said))
    return lists, unread


def _split_name(path: str) -> str | None:
    """The name of the split in a list's path; None for other lists.

    `train(single-labeled)/set_1.csv`, `train/set_1.csv` and `train_set_1.csv` are all `train_1`.
    """
    path = path.lower().replace(os.sep, "/")
    found = re.search(r"(train|test)(?!.*(train|test)).*?([0-9]+)\.csv$", path)
    return f"{found[1]}_{found[3]}" if found and "multi" not in path else None


READER = Reader(
    "dfew",
    "DFEW",
    kind="source",
    read=read,
    takes=("split", "detector"),
    published=PUBLISHED,
)

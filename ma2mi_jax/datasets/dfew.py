"""DFEW: 16,372 clips of films: `Clip/clip_224x224/00001/*.jpg`, `EmoLabel_DataSplit/train(single-labeled)/set_1.csv`."""

import csv
import os
import re
from collections.abc import Callable

from ma2mi_jax.clips.clip import Dataset
from ma2mi_jax.datasets.common import disk, macro, sheets
from ma2mi_jax.datasets.common.reader import Reader
from ma2mi_jax.errors import UserError

SHOWN = "Clip/clip_224x224/<clip>/*.jpg"
PUBLISHED = 16372


def read(
    root: str,
    *,
    cache: str,
    split: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """All clips on disk, or those of `split`: `train_1` ... `test_5`.

    `clip_224x224_16f` is never read: its frames are interpolated in time, so that the distance of two frames means nothing there.

    Args:
      root: the folder that holds clips and lists; labels are known where lists are.
      cache: folder for the listing.
      progress: called as progress(done, total) with the folders listed.

    Raises:
      UserError: the clips or the split are not there, or no clip can be used.
    """
    frames = disk.find(root, "Clip", "clip_224x224")
    folders = disk.clip_folders(frames, 1, cache=cache, progress=progress) if frames else {}
    if not any(map(len, folders.values())):
        if frames is None and disk.find(root, "Clip", "clip_224x224_16f"):
            raise UserError(
                f"--source=dfew: found only clip_224x224_16f under {root}, whose frames are interpolated in time; unpack {SHOWN} there"
            )
        raise disk.not_found("--source=dfew", root, SHOWN)
    lists, unread = _splits(
        disk.find(root, "EmoLabel_DataSplit"), {int(id): id for id in folders if id.isdecimal()}
    )
    notes = (
        [f"lines of the lists that name no clip or no label of 1 ... 7: {unread}"] if unread else []
    )
    return macro.source(
        "dfew", folders, labels={}, splits=lists, split=split, published=PUBLISHED, notes=notes
    )


def _splits(folder: str | None, ids: dict[int, str]) -> tuple[dict[str, dict[str, int]], int]:
    """The lists by name, and how many of their lines could not be understood."""
    lists, unread = {}, 0
    for path in disk.files_below(folder, (".csv",)) if folder else ():
        name = _name(os.path.relpath(path, folder))
        if name is None:
            continue
        with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file) if row]
        if rows and sheets.whole(rows[0][0]) is None:  # the header
            rows = rows[1:]
        found = lists.setdefault(name, {})
        for row in rows:
            clip, label = (sheets.whole(cell) for cell in (*row, "")[:2])
            if clip is not None:
                found[ids.get(clip, f"{clip:05d}")] = label - 1 if label in range(1, 8) else -1
            unread += clip is None or label not in range(1, 8)
    return lists, unread


def _name(path: str) -> str | None:
    """`train(single-labeled)/set_1.csv`, `train/set_1.csv` and `train_set_1.csv` → `train_1`; None for other lists."""
    found = re.search(
        r"(train|test)(?!.*(train|test)).*?([0-9]+)\.csv$", path.lower().replace(os.sep, "/")
    )
    return f"{found[1]}_{found[3]}" if found and "multi" not in path.lower() else None


READER = Reader("dfew", "DFEW", kind="source", read=read, takes=("split",), published=PUBLISHED)

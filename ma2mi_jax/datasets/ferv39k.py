"""FERV39k: 38,935 clips in 22 scenes: `2_ClipsforFaceCrop/Action/Happy/0267/*.jpg`, `4_setups/All_scenes/train_All.csv`."""

import os
import re
from collections.abc import Callable

from ma2mi_jax.clips.clip import Dataset
from ma2mi_jax.datasets.common import disk, macro
from ma2mi_jax.datasets.common.reader import Reader

SHOWN = "2_ClipsforFaceCrop/<scene>/<emotion>/<clip>/*.jpg"
PUBLISHED = 38935


def read(
    root: str,
    *,
    cache: str,
    split: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """All clips on disk, or those of `split`: `train` or `test` of all scenes, else the name of a scene's list without `.csv`.

    Labels are the lists', where a clip is in none its folder's. Arguments and errors as of `dfew.read`.
    """
    frames = disk.find(root, "2_ClipsforFaceCrop")
    folders = disk.clip_folders(frames, 3, cache=cache, progress=progress) if frames else {}
    if not any(map(len, folders.values())):
        raise disk.not_found("--source=ferv39k", root, SHOWN)
    labels = {id: label for id in folders if (label := macro.emotion(id.split("/")[1])) >= 0}
    lists, unread = _splits(disk.find(root, "4_setups"))
    notes = [f"lines of the lists that name no clip or no emotion: {unread}"] if unread else []
    return macro.source(
        "ferv39k",
        folders,
        labels=labels,
        splits=lists,
        split=split,
        published=PUBLISHED,
        notes=notes,
    )


def _splits(folder: str | None) -> tuple[dict[str, dict[str, int]], int]:
    """The lists by name, and how many of their lines could not be understood. They have no header: `Action/Happy/0267 Happy`."""
    lists, unread = {}, 0
    for path in disk.files_below(folder, (".csv",)) if folder else ():
        name = re.sub("_all$", "", os.path.splitext(os.path.basename(path))[0], flags=re.IGNORECASE)
        found = lists.setdefault(name, {})
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            for line in filter(None, map(str.strip, file)):
                parts = re.fullmatch(
                    r"(?:.*2_ClipsforFaceCrop/)?([^/]+/[^/]+/[^/\s,]+)[\s,]+(\w+)",
                    line.replace("\\", "/"),
                )
                if parts:
                    found[parts[1]] = macro.emotion(parts[2])
                unread += not parts or found[parts[1]] < 0
    return lists, unread


READER = Reader(
    "ferv39k",
    "FERV39k",
    kind="source",
    read=read,
    takes=("split",),
    aliases=("fervk39",),
    published=PUBLISHED,
)

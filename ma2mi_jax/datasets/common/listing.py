"""Listing the clips of a dataset that are folders of images, and keeping the listing.

A large dataset has tens of thousands of folders and millions of files. Listing them takes minutes
on a slow disk, so an index of the names is kept. When it is read again, one look at each folder's
time of change says whether what the index has is still true.
"""

import functools
import itertools
import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, NamedTuple

import numpy as np

from ma2mi_jax.clips.frames import IMAGE_SUFFIXES, ImageFolder, frame_order
from ma2mi_jax.datasets.common import disk
from ma2mi_jax.files import UNZIPPING, discard, not_ours, printable

INDEX = 2  # version of the index files: raise it when what they mean changes
SETTLED = 2_000_000_000  # ns; a time of change is reliable later: some file systems tick in 2 s
THREADS = 8  # that list folders at once; a disk in the network answers slowly, but to many
REPORT_EVERY = 500  # folders between two calls of `progress`

Way = tuple[str, ...]
"""The names of the folders on the way from the root."""


class Listing(NamedTuple):
    """What a folder holds.

    Attributes:
      time: the folder's time of change (ns) if that can be relied on, else 0.
      folders: names of the folders in it, sorted.
      images: names of the images in it, in temporal order.
    """

    time: int
    folders: tuple[str, ...]
    images: tuple[str, ...]


Index = dict[Way, Listing]


class _Folder(NamedTuple):
    """A folder on the way to the clips.

    Attributes:
      path: its path from the root, in which a folder inside one of the same name counts once, and
        names have no blanks around them.
      way: its real way from the root.
    """

    path: str
    way: Way


def clip_folders(
    root: str, depth: int, *, cache: str, progress: Callable[[int, int], None] | None = None
) -> dict[str, ImageFolder]:
    """The folders `depth` levels below `root` with their images, by path (`Action/Happy/0267`).

    A path has no blanks around its names (`disk.trimmed`). Empty folders are listed too. The images
    are in temporal order. If the only thing in a folder is a folder of the same name, the two count
    as one.

    The listing is kept in `cache`. A folder is listed again if its time of change is another one
    than before. Adding, removing or renaming a file in it changes that time. Writing over a file
    does not, and need not: only names are kept.

    Args:
      root: the folder around all clips.
      depth: how many levels below it the clips lie; 0 is `root` itself.
      cache: folder for the index.
      progress: called as progress(done, total) with the folders of a level that are listed.

    Raises:
      UserError: a folder cannot be listed, or the cache cannot be written.
    """
    root = os.path.abspath(root)
    file = os.path.join(cache, f"index-{disk.key_of([INDEX, root, depth])}.npz")
    known = _load_index(file)
    index: Index = {}

    level = [_Folder("", ())]
    with ThreadPoolExecutor(THREADS) as pool:
        for remaining in range(depth, -1, -1):
            listed = []
            results = pool.map(lambda folder: _innermost(root, known, folder.way), level)
            for folder, (way, seen) in zip(level, results, strict=True):
                index.update(seen)
                listed.append((_Folder(folder.path, way), seen[way]))
                if progress and (len(listed) % REPORT_EVERY == 0 or len(listed) == len(level)):
                    progress(len(listed), len(level))
            if remaining:
                level = [
                    _Folder(f"{folder.path}/{shown}".lstrip("/"), (*folder.way, name))
                    for folder, listing in listed
                    for name, shown in disk.trimmed(listing.folders).items()
                ]

    if index != known:
        with disk.replacing(file) as part, part.open("wb") as opened:
            _save_index(opened, index)
    return {
        printable(folder.path): ImageFolder(os.path.join(root, *folder.way), listing.images)
        for folder, listing in listed
    }


def _innermost(root: str, known: Index, way: Way) -> tuple[Way, Index]:
    """The innermost of folders of the same name, from `way` on, and the listings met there."""
    seen = {way: _list(root, known, way)}
    while way and _holds_only(seen[way], folder=way[-1]):
        way = (*way, *seen[way].folders)
        seen[way] = _list(root, known, way)
    return way, seen


def _holds_only(listing: Listing, folder: str) -> bool:
    """Whether the one thing that matters in a folder is the folder of this name."""
    alone = len(listing.folders) == 1 and not listing.images
    return alone and disk.alike(listing.folders, folder) is not None


def _list(root: str, known: Index, way: Way) -> Listing:
    """The listing of one folder, from the index if the folder has not changed since."""
    path = os.path.join(root, *way)
    inner, images = [], []
    try:
        # before the folder is listed, so that a change in between is seen the next time
        changed = os.stat(path).st_mtime_ns
        if (old := known.get(way)) and old.time == changed:
            return old
        with os.scandir(path) as entries:
            for entry in entries:
                order = _order(entry.name)
                if order:
                    images.append((order, entry.name))
                elif not disk.junk(entry.name) and entry.is_dir():
                    inner.append(entry.name)
    except OSError as error:
        raise disk.unlistable(path, error) from error

    settled = time.time_ns() - changed > SETTLED
    names = tuple(name for _, name in sorted(images))
    return Listing(changed if settled else 0, tuple(sorted(inner)), names)


@functools.lru_cache(maxsize=1 << 16)  # clips share their file names
def _order(name: str) -> tuple | None:
    """The key that puts images in temporal order; None if the file is no image."""
    is_image = disk.ends_with(name, IMAGE_SUFFIXES) and not disk.junk(name)
    return frame_order(name) if is_image else None


# ----- the index file -----------------------------------------------------------------------------


def _save_index(file: BinaryIO, index: Index) -> None:
    """Writes the index as arrays.

    Every name is stored once and has a number. A folder is three groups of numbers: its way, its
    folders, its images. `numbers` holds all groups one after the other, `lengths` says how long
    each of them is. Millions of names load in about a second this way.
    """
    number: dict[str, int] = {}
    groups = [
        [number.setdefault(name, len(number)) for name in names]
        for way, listing in index.items()
        for names in (way, listing.folders, listing.images)
    ]
    np.savez(
        file,
        names=np.frombuffer(json.dumps(list(number)).encode(), np.uint8),
        times=np.array([listing.time for listing in index.values()], np.int64),
        lengths=np.array([len(group) for group in groups], np.int64),
        numbers=np.array([n for group in groups for n in group], np.int32),
    )


def _load_index(file: str) -> Index:
    """The index kept there; empty if there is none, or if it is damaged.

    Raises:
      UserError: it is another account's, and closed to this one.
    """
    try:
        with open(file, "rb") as opened, np.load(opened, allow_pickle=False) as kept:
            arrays = {name: kept[name] for name in ("names", "times", "lengths", "numbers")}
        names = json.loads(arrays["names"].tobytes())
        numbers, ends = arrays["numbers"].tolist(), np.cumsum(arrays["lengths"]).tolist()
        groups = [
            tuple(map(names.__getitem__, numbers[first:end]))
            for first, end in itertools.pairwise([0, *ends])
        ]
        ways, folders, images = groups[0::3], groups[1::3], groups[2::3]
        rows = zip(ways, arrays["times"].tolist(), folders, images, strict=True)
        return {way: Listing(*listing) for way, *listing in rows}
    except FileNotFoundError:
        return {}
    except PermissionError as error:
        raise not_ours(file, error) from error
    # a machine lost power while it was written, or a disk is bad
    except (OSError, ValueError, LookupError, TypeError, EOFError, *UNZIPPING) as error:
        discard(file, f"cannot be read: {error!r}")
        return {}

"""What lies under `--data-root`: a dataset's folders however they were unpacked, its clips without the junk, and small caches.

Unpacking tools put a folder into one of the same name, and systems scatter `Thumbs.db`, `.DS_Store`, `._img1.jpg` and `__MACOSX` about.
None of that is seen by those who ask here.
"""

import contextlib
import functools
import itertools
import json
import os
import pathlib
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, NamedTuple

import numpy as np

from ma2mi_jax.clips.clip import Repair
from ma2mi_jax.clips.frames import IMAGE_SUFFIXES, ImageFolder, frame_order
from ma2mi_jax.errors import UserError
from ma2mi_jax.files import fingerprint, whole

INDEX = 1  # version of the index files: raise it when what they mean changes
SETTLED = 2_000_000_000  # ns after which a folder's time of change can be relied on: file systems tick in up to 2 s
THREADS = 8  # that list folders; a disk in the network answers more slowly than it could


def junk(name: str) -> bool:
    """Whether a file or folder of this name was made by a system, not by the dataset's authors."""
    return (
        name.startswith((".", "~$", "__MACOSX"))
        or name.lower() in ("thumbs.db", "desktop.ini")
        or name.lower().endswith(".lnk")
    )


def folders(path: str) -> list[str]:
    """Names of the folders in `path`, sorted; none if it is not there."""
    return _names(path, os.DirEntry.is_dir)


def files(path: str, suffixes: tuple[str, ...]) -> list[str]:
    """Names of the files in `path` that end so, sorted; none if it is not there."""
    return [name for name in _names(path, os.DirEntry.is_file) if name.lower().endswith(suffixes)]


def files_below(path: str, suffixes: tuple[str, ...]) -> list[str]:
    """Paths of the files that end so in `path` and the folders in it, at any depth; links to folders are not followed."""
    found = []
    for folder, inner, _ in os.walk(path, onerror=stop_at):
        inner[:] = sorted(name for name in inner if not junk(name))
        found += [os.path.join(folder, name) for name in files(folder, suffixes)]
    return found


def _names(path: str, wanted: Callable[[os.DirEntry], bool]) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return sorted(entry.name for entry in entries if not junk(entry.name) and wanted(entry))
    except OSError as error:
        stop_at(error)
        return []


def stop_at(error: OSError) -> None:
    """Ends a walk at a folder that cannot be listed, for its clips would go missing unseen; one that is not there holds none."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise _unlistable(error.filename, error) from error


def _unlistable(path: str, error: OSError) -> UserError:
    return UserError(
        f"{path}: the folder cannot be listed ({error.strerror}); make it readable or take it away"
    )


# --------------------------------------------------------------------------------------------------------- finding the dataset


def find(root: str, *path: str) -> str | None:
    """The folder `path` (its parts from the outermost) of a dataset: under `root`, one level deeper, or `root` itself may be part of it.

    Letter case does not matter. Of a folder inside one of the same name the inner one is meant.
    """
    root = os.path.abspath(root)
    if os.path.basename(root).lower() == path[-1].lower() and os.path.isdir(root):
        return innermost(root)
    for start in (root, *(os.path.join(root, name) for name in folders(root))):
        for first in range(len(path)):
            if found := _descend(start, path[first:]):
                return found
    return None


def _descend(folder: str, path: Sequence[str]) -> str | None:
    for part in path:
        name = next((name for name in folders(folder) if name.lower() == part.lower()), None)
        if name is None:
            return None
        folder = innermost(os.path.join(folder, name))
    return folder


def innermost(folder: str) -> str:
    """`folder`, or the folder of the same name inside it."""
    while (inner := os.path.basename(folder)) in folders(folder):
        folder = os.path.join(folder, inner)
    return folder


def not_found(flag: str, root: str, shown: str) -> UserError:
    """The one line for a dataset that is not there: what was looked for (`shown`), what was found, what to do."""
    return UserError(
        f"{flag}: looked for {shown} under {root}, found nothing there ({_there(root)}); "
        "unpack the dataset there or give --data-root=FOLDER"
    )


def _there(root: str) -> str:
    if not os.path.isdir(root):
        return "it is a file" if os.path.exists(root) else "the folder does not exist"
    names = sorted(os.listdir(root))
    return (
        f"the folder holds {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
        if names
        else "the folder is empty"
    )


# ------------------------------------------------------------------------------------------------------------------ the clips


class Listing(NamedTuple):
    """What a folder holds, and its time of change (ns) if that can be relied on, else 0."""

    time: int
    folders: tuple[str, ...]
    images: tuple[str, ...]  # in temporal order


Index = dict[tuple[str, ...], Listing]
"""Listings by the names on the way from the root."""


def clip_folders(
    root: str, depth: int, *, cache: str, progress: Callable[[int, int], None] | None = None
) -> dict[str, ImageFolder]:
    """The folders `depth` levels below `root`, empty ones too, with their images in temporal order, by path (`Action/Happy/0267`).

    The listing is kept in `cache`. A folder is listed anew if its time of change is not the one it had then: adding, removing or renaming
    a file or folder in it changes that; writing over a file does not, and need not, since names are all that is kept.

    Args:
      progress: called as progress(done, total) with the folders of a level that are listed.

    Raises:
      UserError: a folder cannot be listed, or the cache cannot be written.
    """
    root = os.path.abspath(root)
    file = os.path.join(cache, f"index-{_hash([INDEX, root, depth])}.npz")
    known = _load_index(file)
    index: Index = {}
    level: list[tuple[str, tuple[str, ...]]] = [
        ("", ())
    ]  # path without repetitions, and names on the real way
    with ThreadPoolExecutor(THREADS) as pool:
        for below in range(depth, -1, -1):
            found = []
            for (path, _), chain in zip(
                level, pool.map(lambda node: _chain(root, known, node[1]), level), strict=True
            ):
                index.update(chain)
                found.append((path, *chain[-1]))
                if progress and (len(found) % 500 == 0 or len(found) == len(level)):
                    progress(len(found), len(level))
            if below:
                level = [
                    (f"{path}/{name}".lstrip("/"), (*at, name))
                    for path, at, listing in found
                    for name in listing.folders
                ]
    if index != known:
        with replacing(file) as part, part.open("wb") as opened:
            _save_index(opened, index)
    return {
        path: ImageFolder(os.path.join(root, *at), listing.images) for path, at, listing in found
    }


def _chain(root: str, known: Index, at: tuple[str, ...]) -> list[tuple[tuple[str, ...], Listing]]:
    """The listing of a folder, then that of the only folder in it if it has the same name."""
    chain = [(at, _listing(root, known, at))]
    while at and chain[-1][1][1:] == (at[-1:], ()):
        at = (*at, at[-1])
        chain.append((at, _listing(root, known, at)))
    return chain


def _listing(root: str, known: Index, at: tuple[str, ...]) -> Listing:
    path = os.path.join(root, *at)
    inner, images = [], []
    try:
        changed = os.stat(
            path
        ).st_mtime_ns  # before the listing, so that a change in between is seen the next time
        if (old := known.get(at)) and old.time == changed:
            return old
        with os.scandir(path) as entries:
            for entry in entries:
                order = _order(entry.name)
                if order:
                    images.append((order, entry.name))
                elif not junk(entry.name) and entry.is_dir():
                    inner.append(entry.name)
    except OSError as error:
        raise _unlistable(path, error) from error
    settled = time.time_ns() - changed > SETTLED
    return Listing(
        changed if settled else 0, tuple(sorted(inner)), tuple(name for _, name in sorted(images))
    )


@functools.lru_cache(maxsize=1 << 16)  # clips share their file names
def _order(name: str) -> tuple[int, str] | None:
    """The key that puts images in temporal order, None for what is no image."""
    return frame_order(name) if name.lower().endswith(IMAGE_SUFFIXES) and not junk(name) else None


def _save_index(file: BinaryIO, index: Index) -> None:
    """Every name once, and the rest as arrays: millions of names load in about a second."""
    number: dict[str, int] = {}
    numbers = [
        [number.setdefault(name, len(number)) for name in names]
        for at, row in index.items()
        for names in (at, *row[1:])
    ]
    np.savez(
        file,
        names=np.frombuffer(json.dumps(list(number)).encode(), np.uint8),
        times=np.array([row.time for row in index.values()], np.int64),
        lengths=np.array([len(each) for each in numbers], np.int64),
        numbers=np.array([n for each in numbers for n in each], np.int32),
    )


def _load_index(file: str) -> Index:
    """The index kept there; empty if there is none, or none that can be read."""
    try:
        with open(file, "rb") as opened, np.load(opened, allow_pickle=False) as kept:
            arrays = {name: kept[name] for name in ("names", "times", "lengths", "numbers")}
        names = json.loads(arrays["names"].tobytes())
        numbers, ends = arrays["numbers"].tolist(), np.cumsum(arrays["lengths"]).tolist()
        groups = [
            tuple(map(names.__getitem__, numbers[a:b])) for a, b in itertools.pairwise([0, *ends])
        ]
        rows = zip(groups[::3], arrays["times"].tolist(), groups[1::3], groups[2::3], strict=True)
        return {at: Listing(*row) for at, *row in rows}
    except (
        OSError,
        ValueError,
        KeyError,
        IndexError,
        EOFError,
        zipfile.BadZipFile,
    ):  # none, or cut short when a machine lost power
        return {}


# ------------------------------------------------------------------------------------------------------------------ small caches


@contextlib.contextmanager
def remembered(file: str) -> Iterator[dict]:
    """A dictionary, JSON values by text keys, that is read from `file` and written back if it has changed.

    Raises:
      UserError: the file cannot be written.
    """
    try:
        with open(file) as opened:
            before = json.load(opened)
    except (OSError, ValueError):  # none, or cut short when a machine lost power
        before = {}
    now = dict(before)
    try:
        yield now
    finally:
        if now != before:
            with replacing(file) as part, part.open("w") as opened:
                json.dump(now, opened)


@contextlib.contextmanager
def replacing(file: str) -> Iterator[pathlib.Path]:
    """A path to write to that becomes `file` at the end, all at once. Makes the folder of `file`.

    Raises:
      UserError: the folder of `file` cannot be written to.
    """
    try:
        os.makedirs(os.path.dirname(file), exist_ok=True)
        with whole(file, shared=True) as part:
            yield part
    except OSError as error:
        raise UserError(
            "{file}: the cache cannot be written ({reason}); free the disk or choose another folder",
            file=file,
            reason=error.strerror,
        ) from error


def stamp(frames: ImageFolder, *rest) -> str:
    """A key for what is found out about these frames by rules named in `rest`: another one if the folder or its first file changes."""
    try:
        first = os.stat(os.path.join(frames.folder, frames.names[0]))
        known = [first.st_size, first.st_mtime_ns]
    except OSError:  # a link to nowhere, which those who read it replace by another frame
        known = [0, 0]
    return _hash([frames.folder, frames.names, os.stat(frames.folder).st_mtime_ns, *known, rest])


def _hash(parts: Sequence) -> str:
    return fingerprint([json.dumps(parts)], 24)


# --------------------------------------------------------------------------------------------------------------- what is told


def some(ids: Iterable[str], most: int = 5) -> str:
    """The first few of them, and how many more there are."""
    ids = list(ids)
    return ", ".join(ids[:most]) + (f" and {len(ids) - most} more" if len(ids) > most else "")


def notes_of(repairs: Sequence[Repair]) -> tuple[str, ...]:
    """One line for each kind of repair: how many, what was done, in which clips."""
    kinds = dict.fromkeys(repair.kind for repair in repairs)
    ids = {
        kind: list(dict.fromkeys(repair.id for repair in repairs if repair.kind == kind))
        for kind in kinds
    }
    return tuple(f"{kind}: {len(of_kind)} ({some(of_kind)})" for kind, of_kind in ids.items())

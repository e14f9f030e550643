"""Finding a dataset's folders and files, and keeping small caches.

Unpacking tools put a folder into one of the same name. Operating systems add files of their own:
`Thumbs.db`, `.DS_Store`, `._img1.jpg`, `__MACOSX`. The functions here see through the first and
skip the second.
"""

import collections
import contextlib
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence

from ma2mi_jax.clips import frames
from ma2mi_jax.clips.clip import Repair
from ma2mi_jax.clips.frames import ImageFolder
from ma2mi_jax.datasets.common.reader import Kind
from ma2mi_jax.errors import UserError
from ma2mi_jax.files import discard, fingerprint, not_ours, unwritable, whole


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
    """Names of the files in `path` with one of these endings, sorted; none if it is not there."""
    return [name for name in _names(path, os.DirEntry.is_file) if ends_with(name, suffixes)]


def ends_with(name: str, suffixes: tuple[str, ...]) -> bool:
    """Whether a file's name has one of these endings; letter case and a blank after it do not
    matter."""
    return name.rstrip().lower().endswith(suffixes)


def stem(name: str) -> str:
    """The name of a file without its suffix, and without blanks around it."""
    return os.path.splitext(name)[0].strip()


def trimmed(names: Sequence[str]) -> dict[str, str]:
    """The names of files or folders without blanks around them, by the names on the disk.

    A sheet and a person do not see these blanks. A name keeps them where two would become one.
    """
    uses = collections.Counter(name.strip() for name in names)
    return {name: name.strip() if uses[name.strip()] == 1 else name for name in names}


def alike(names: Sequence[str], name: str) -> str | None:
    """`name` if it is one of `names`, else the only one that differs in blanks around it alone."""
    found = [each for each in names if each.strip() == name.strip()]
    if name in found:
        return name
    return found[0] if len(found) == 1 else None


def files_below(path: str, suffixes: tuple[str, ...]) -> list[str]:
    """Paths of the files with one of these endings, in `path` and in the folders in it, at any
    depth. Links to folders are not followed."""
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
    """Ends a walk at a folder that cannot be listed: its clips would be missing without a word.

    A folder that is not there holds no clips, so the walk goes on.
    """
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise unlistable(error.filename, error) from error


def unlistable(path: str, error: OSError) -> UserError:
    """The error for a folder that cannot be listed."""
    return UserError(
        "{path}: the folder cannot be listed ({reason}); make it readable or take it away",
        path=path,
        reason=error.strerror,
    )


# ----- finding the dataset ------------------------------------------------------------------------


def find(root: str, *path: str) -> str | None:
    """A folder of a dataset, or None if it is not there.

    It may lie under `root` or one level deeper, or `root` itself may be part of it. Letter case
    does not matter, nor do blanks around a name. If a folder holds one of the same name, the inner
    one is meant.

    Args:
      root: where to look.
      path: the names on the way to the folder, the outermost first.
    """
    root = os.path.abspath(root)
    itself = os.path.basename(root).strip().lower()
    if itself == path[-1].lower() and os.path.isdir(root):
        return innermost(root)
    for start in (root, *(os.path.join(root, name) for name in folders(root))):
        for first in range(len(path)):
            if found := _descend(start, path[first:]):
                return found
    return None


def _descend(folder: str, path: Sequence[str]) -> str | None:
    for part in path:
        there = folders(folder)
        name = next((name for name in there if name.strip().lower() == part.lower()), None)
        if name is None:
            return None
        folder = innermost(os.path.join(folder, name))
    return folder


def innermost(folder: str) -> str:
    """The innermost of folders of the same name that lie in each other, from `folder` on."""
    while inner := alike(folders(folder), os.path.basename(folder)):
        folder = os.path.join(folder, inner)
    return folder


def inside(root: str, path: str) -> str:
    """The file or folder that a sheet calls `path`, by its path from `root` with `/`; on the disk
    there may be blanks around its names. If it is not there: where it would be."""
    place = root
    for part in path.split("/"):
        there = os.path.join(place, part)
        if not os.path.lexists(there):
            there = os.path.join(place, alike(_names(place, os.path.lexists), part) or part)
        place = there
    return place


def not_found(kind: Kind, name: str, root: str, shown: str) -> UserError:
    """The error for a dataset that is not there.

    Args:
      kind, name: of the dataset.
      root: where it was looked for.
      shown: what was looked for, as a person would see it there.
    """
    return UserError(
        "[{kind}={name}]: looked for {shown} under {root}, found nothing there ({there}); "
        "unpack the dataset there or give another [root]",
        kind=kind,
        name=name,
        shown=shown,
        root=root,
        there=_what_is_there(root),
    )


def _what_is_there(root: str) -> str:
    if not os.path.isdir(root):
        return "it is a file" if os.path.exists(root) else "the folder does not exist"
    names = sorted(os.listdir(root))
    if not names:
        return "the folder is empty"
    return f"the folder holds {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"


# ----- small caches -------------------------------------------------------------------------------


@contextlib.contextmanager
def remembered(file: str) -> Iterator[dict]:
    """Yields a dictionary that is read from `file`, and written back if the block changes it.

    Keys are text, values are what JSON can hold. It is written back after an error in the block
    too: what was found out until then is kept.

    Raises:
      UserError: the file cannot be written, or it is closed to this account.
    """
    before = {}
    try:
        with open(file) as opened:
            before = json.load(opened)
    except FileNotFoundError:
        pass
    except PermissionError as error:
        raise not_ours(file, error) from error
    # a machine lost power while it was written, or a disk is bad
    except (OSError, ValueError, RecursionError):
        discard(file, "cannot be read")
    if not isinstance(before, dict):
        discard(file, "not what was written")
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
    """Yields a path to write to, which becomes `file` at the end. Makes the folder of `file`.

    Raises:
      UserError: the folder of `file` cannot be written to.
    """
    try:
        os.makedirs(os.path.dirname(file), exist_ok=True)
        with whole(file, shared=True) as part:
            yield part
    except OSError as error:
        raise unwritable(file, error) from error


def stamp(images: ImageFolder, *rules) -> str:
    """A key for what is found out about these frames. It changes if one of their files changes, the
    decoder, or the `rules` by which it is found out."""
    return key_of([images.folder, images.names, states(images), frames.DECODER, rules])


def states(images: ImageFolder) -> list[tuple[int, int]]:
    """Size and time of change (ns) of each file; zeros for a link to nowhere."""
    found = []
    for name in images.names:
        try:
            stat = os.stat(os.path.join(images.folder, name))
            found.append((stat.st_size, stat.st_mtime_ns))
        except OSError:
            found.append((0, 0))
    return found


def key_of(parts: Sequence) -> str:
    """A short hash of anything that JSON can hold."""
    return fingerprint([json.dumps(parts)], 24)


# ----- what is told -------------------------------------------------------------------------------


OF_A_BATCH = 32  # clips of a batch in which a number was not finite, in an error


def some(ids: Iterable[str], most: int = 5) -> str:
    """The first few of them, and how many more there are."""
    ids = list(ids)
    return ", ".join(ids[:most]) + (f" and {len(ids) - most} more" if len(ids) > most else "")


def notes_of(repairs: Sequence[Repair]) -> tuple[str, ...]:
    """One line for each kind of repair: what was done, how often, and in which clips."""
    clips_of: dict[str, dict[str, None]] = {}  # dictionaries as ordered sets
    for repair in repairs:
        clips_of.setdefault(repair.kind, {})[repair.id] = None
    return tuple(f"{kind}: {len(clips)} ({some(clips)})" for kind, clips in clips_of.items())
